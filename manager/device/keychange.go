package device

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/mib"
)

// Objects of SNMP-USER-BASED-SM-MIB (RFC 3414 section 5).
var (
	usmUserSpinLock         = mib.MustParseOID("1.3.6.1.6.3.15.1.2.1.0")
	usmUserEntry            = mib.MustParseOID("1.3.6.1.6.3.15.1.2.2.1")
	usmUserAuthProtocol     = usmUserEntry.Append(5)
	usmUserAuthKeyChange    = usmUserEntry.Append(6)
	usmUserOwnAuthKeyChange = usmUserEntry.Append(7)
	usmUserPrivKeyChange    = usmUserEntry.Append(9)
	usmUserOwnPrivKeyChange = usmUserEntry.Append(10)
)

// KeyChange returns the value of the textual convention KeyChange (RFC 3414 section 5)
// that changes a localized key: random, then the difference. auth is the user's
// authentication protocol; the keys and random have the same length.
func KeyChange(auth string, oldKey, newKey, random []byte) ([]byte, error) {
	protocol, ok := authProtocols[PlainName(auth)]
	if !ok || protocol == gosnmp.NoAuth {
		return nil, fmt.Errorf("unknown authentication protocol %q (want %s)", auth, names(authProtocols))
	}
	if len(oldKey) == 0 || len(oldKey) != len(newKey) || len(random) != len(newKey) {
		return nil, fmt.Errorf("a key change needs keys and random bytes of one length, not of %d, %d and %d bytes", len(oldKey), len(newKey), len(random))
	}
	h := protocol.HashType().New()
	temp, delta := oldKey, make([]byte, 0, len(newKey))
	for len(delta) < len(newKey) {
		h.Reset()
		h.Write(temp)
		h.Write(random)
		temp = h.Sum(nil)
		for _, b := range temp[:min(len(temp), len(newKey)-len(delta))] {
			delta = append(delta, b^newKey[len(delta)])
		}
	}
	return append(append([]byte{}, random...), delta...), nil
}

// CheckKeyChange reports why a key change cannot turn u into next: it changes passphrases
// and nothing else.
func (u *User) CheckKeyChange(next *User) error {
	if err := next.Check(); err != nil {
		return err
	}
	auth, priv := PlainName(u.Auth), PlainName(u.Priv)
	switch {
	case u.Name != next.Name:
		return fmt.Errorf("a key change keeps the user: the device has %s, the new credentials are for %s", Quoted(u.Name), Quoted(next.Name))
	case auth == "":
		return fmt.Errorf("SNMPv3 user %s: it has no authentication protocol, so it has no keys to change", Quoted(u.Name))
	case auth != PlainName(next.Auth):
		return fmt.Errorf("SNMPv3 user %s: a key change cannot replace the authentication protocol %s with %s; "+
			"keep the protocol, or create a new user on the device's console", Quoted(u.Name), auth, orNone(PlainName(next.Auth)))
	case priv != PlainName(next.Priv):
		return fmt.Errorf("SNMPv3 user %s: a key change cannot replace the privacy protocol %s with %s; "+
			"keep the protocol, or create a new user on the device's console", Quoted(u.Name), orNone(priv), orNone(PlainName(next.Priv)))
	case u.Context != next.Context:
		return fmt.Errorf("SNMPv3 user %s: a key change keeps the context: it is %s, and %s in the new credentials", Quoted(u.Name), Quoted(u.Context), Quoted(next.Context))
	}
	return nil
}

func orNone(protocol string) string {
	if protocol == "" {
		return "none"
	}
	return protocol
}

// localizedKeys returns the keys of a user on one engine; the second is nil without
// privacy.
func (u *User) localizedKeys(engineID string) (auth, priv []byte, err error) {
	params := u.USM()
	params.AuthoritativeEngineID = engineID
	if err := params.InitSecurityKeys(); err != nil {
		return nil, nil, err
	}
	auth, priv = params.SecretKey, params.PrivacyKey
	if PlainName(u.Priv) == "des" {
		priv = priv[:16] // the key and the pre-IV (RFC 3414 section 8.1.1.1)
	}
	return auth, priv, nil
}

// ChangeKeys gives the client's own user on the device the passphrases of next, in one SET
// (RFC 3414 section 5, KeyChange). Once the device has answered, this client's credentials
// are not valid any more: Dial again with next. If the error is not a *SetError, the device
// may have changed the keys although its answer was lost: try next, then the old ones. So it may after a
// SetError that is Uncertain, also at its next restart.
//
// usmUserSpinLock is read first; owned is called then, and with an error from it nothing is
// sent: whoever is not in charge of the device any more comes too late with that lock.
func (c *Client) ChangeKeys(ctx context.Context, next User, owned func() error) error {
	user := c.creds.User
	if user == nil {
		return fmt.Errorf("%s: the credentials are SNMPv2c communities, which cannot be changed through SNMP; change them on the device", c.address)
	}
	if err := user.CheckKeyChange(&next); err != nil {
		return fmt.Errorf("%s: %w", c.address, err)
	}
	// The first answer tells the engine ID, which keys and rows depend on.
	if _, err := c.get(ctx, []mib.OID{usmUserSpinLock}); err != nil {
		return err
	}
	engine := c.engineID()
	row := usmUserRow(engine, user.Name)
	changes, err := keyChanges(user, &next, engine)
	if err != nil {
		return fmt.Errorf("%s: %w", c.address, err)
	}
	columns := [][]mib.OID{{usmUserOwnAuthKeyChange, usmUserOwnPrivKeyChange}, {usmUserAuthKeyChange, usmUserPrivKeyChange}}
	for tried := 1; ; tried++ {
		lock, err := c.userLock(ctx, user.Name, row)
		if err == nil {
			err = owned()
		}
		if err != nil {
			return err
		}
		request := []mib.Varbind{lock}
		for i, change := range changes {
			request = append(request, mib.Varbind{OID: columns[0][i].Append(row...), Value: mib.Octets(change)})
		}
		err = c.set(ctx, request)
		var refused *SetError
		if !errors.As(err, &refused) {
			return err
		}
		switch refused.Status {
		case mib.InconsistentValue:
			if tried < maxLocks { // somebody else was faster, or the agent has restarted
				continue
			}
		case mib.NoAccess, mib.NotWritable, mib.NoCreation, mib.AuthorizationError:
			if len(columns) > 1 { // those for other users may be permitted
				columns = columns[1:]
				continue
			}
		}
		if refused.Index > 1 && refused.Index-2 < len(changes) {
			refused.Object = []string{"the authentication key", "the privacy key"}[refused.Index-2] + " of the user " + Quoted(user.Name)
		} else if refused.Index == 1 {
			refused.Object = "usmUserSpinLock"
		}
		return fmt.Errorf("%w%s", refused, keyRemedy(refused.Status))
	}
}

// maxLocks is how often a lock is read that is not valid any more when it is used.
const maxLocks = 5

// userLock reads usmUserSpinLock, and finds out whether the user's row is there.
func (c *Client) userLock(ctx context.Context, user string, row []uint32) (mib.Varbind, error) {
	vbs, err := c.get(ctx, []mib.OID{usmUserSpinLock, usmUserAuthProtocol.Append(row...)})
	if err != nil {
		return mib.Varbind{}, err
	}
	if vbs[0].Value.Type != mib.Integer || vbs[1].Value.IsException() {
		return mib.Varbind{}, fmt.Errorf("%s: usmUserTable has no row for the user %s: %w: the agent's software is too old, or the user's view does not include 1.3.6.1.6.3.15",
			c.address, Quoted(user), ErrNotSupported)
	}
	return vbs[0], nil
}

// keyRemedy is the usual reason of a refusal.
func keyRemedy(s mib.Status) string {
	switch s {
	case mib.NoAccess, mib.NotWritable, mib.NoCreation, mib.AuthorizationError:
		return "; the user needs write access to 1.3.6.1.6.3.15 on the device"
	case mib.InconsistentName:
		return "; net-snmp's snmpd changes the keys only of users that it keeps itself: move the line createUser to /var/lib/snmp/snmpd.conf and restart snmpd twice, or clone the user (snmpusm create)"
	case mib.CommitFailed, mib.UndoFailed:
		return "; the device could not store the keys, and after a restart it may have the old ones or the new ones: keep both passphrases, and look for a full or damaged state partition"
	case mib.InconsistentValue:
		return "; somebody else changes users of the device at the same time"
	}
	return ""
}

// engineID returns the engine of the last authentic answer.
func (c *Client) engineID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.engine
}

// keyChanges returns the key changes from one user to the other: for authentication, and
// for privacy if there is any.
func keyChanges(from, to *User, engine string) (changes [][]byte, err error) {
	oldAuth, oldPriv, err := from.localizedKeys(engine)
	if err != nil {
		return nil, err
	}
	newAuth, newPriv, err := to.localizedKeys(engine)
	if err != nil {
		return nil, err
	}
	for _, pair := range [][2][]byte{{oldAuth, newAuth}, {oldPriv, newPriv}} {
		if len(pair[0]) == 0 {
			continue
		}
		random := make([]byte, len(pair[1]))
		if _, err := rand.Read(random); err != nil {
			return nil, err
		}
		change, err := KeyChange(from.Auth, pair[0], pair[1], random)
		if err != nil {
			return nil, err
		}
		changes = append(changes, change)
	}
	return changes, nil
}

// usmUserRow is the index of a user in usmUserTable.
func usmUserRow(engine, user string) []uint32 {
	row := make([]uint32, 0, 2+len(engine)+len(user))
	for _, part := range []string{engine, user} {
		row = append(row, uint32(len(part)))
		for i := range len(part) {
			row = append(row, uint32(part[i]))
		}
	}
	return row
}

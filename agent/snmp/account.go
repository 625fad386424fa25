package snmp

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync/atomic"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// account is a user at one engine, a row of usmUserTable (RFC 3414 section 5).
type account struct {
	user     *user
	engineID []byte
	index    mib.OID
	settings *snmp.Keys                // those that the configuration gives
	keys     atomic.Pointer[snmp.Keys] // those in force; they differ after a manager has changed them
	public   []byte                    // usmUserPublic, for the goroutine that answers
}

func newAccount(u *user, engineID []byte) *account {
	a := &account{user: u, engineID: engineID, settings: u.localize(engineID)}
	a.keys.Store(a.settings)
	a.index = append(indexOf(engineID), indexOf([]byte(u.Name))...)
	return a
}

// indexOf is a text of variable length as a part of an index (RFC 2578 section 7.7).
func indexOf(text []byte) mib.OID {
	index := mib.OID{uint32(len(text))}
	for _, b := range text {
		index = append(index, uint32(b))
	}
	return index
}

// changeTo is what differs from the configuration with other keys and usmUserPublic.
func (a *account) changeTo(keys *snmp.Keys, public []byte) keyChange {
	k := keyChange{Engine: a.engineID, User: a.user.Name, Settings: a.settingsDigest(), Public: public}
	if !bytes.Equal(keys.AuthKey(), a.settings.AuthKey()) {
		k.Auth = keys.AuthKey()
	}
	if !bytes.Equal(keys.PrivKey(), a.settings.PrivKey()) {
		k.Priv = keys.PrivKey()
	}
	return k
}

// settingsDigest stands for the protocols and passphrases of the configuration.
func (a *account) settingsDigest() []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%v %x %v %x", a.user.Auth, a.settings.AuthKey(), a.user.Priv, a.settings.PrivKey()))
	return sum[:]
}

// accounts are the rows of usmUserTable in their order.
func (e *Engine) accounts() []*account {
	var list []*account
	for _, u := range e.users {
		list = append(list, u.own)
	}
	e.mu.Lock()
	list = append(list, e.remotes...)
	e.mu.Unlock()
	slices.SortFunc(list, func(a, b *account) int { return a.index.Compare(b.index) })
	return list
}

// informs reports whether informs are sent as the user, for which the keys at the receiver's engine count.
func (e *Engine) informs(u *user) bool {
	return slices.ContainsFunc(e.cfg.Sinks, func(s Sink) bool { return s.Inform && s.User == u.Name })
}

// remote returns the account of a user at the engine of a receiver of informs.
func (e *Engine) remote(u *user, engineID []byte) *account {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.remotes {
		if a.user == u && bytes.Equal(a.engineID, engineID) {
			return a
		}
	}
	return newAccount(u, bytes.Clone(engineID))
}

// register makes an account a row of the table: its engine has proved that it has the keys. It
// returns the account that has this row, which may be another one.
func (e *Engine) register(a *account) *account {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.remotes {
		if r.index.Compare(a.index) == 0 {
			return r
		}
	}
	if bytes.Equal(a.engineID, e.cfg.EngineID) {
		return a
	}
	if len(e.remotes) >= maxRemotes {
		oldest := slices.IndexFunc(e.remotes, func(r *account) bool { return !r.changed() })
		if oldest < 0 {
			return a
		}
		e.remotes = slices.Delete(e.remotes, oldest, oldest+1)
	}
	e.remotes = append(e.remotes, a)
	return a
}

// maxRemotes is how many accounts at receivers the table has at most. Then those whose keys were
// not changed make room: they come back when their receivers are heard again.
const maxRemotes = 64

// changed reports whether the account has other keys than the configuration gives it.
func (a *account) changed() bool {
	k := a.changeTo(a.keys.Load(), nil)
	return k.Auth != nil || k.Priv != nil
}

// maxPublic is the size of usmUserPublic.
const maxPublic = 32

// Columns of usmUserTable.
const (
	userSecurityName     = 3
	userCloneFrom        = 4
	userAuthProtocol     = 5
	userAuthKeyChange    = 6
	userOwnAuthKeyChange = 7
	userPrivProtocol     = 8
	userPrivKeyChange    = 9
	userOwnPrivKeyChange = 10
	userPublic           = 11
	userStorageType      = 12
	userStatus           = 13
)

var (
	oidUsmUser         = mib.MustParseOID("1.3.6.1.6.3.15.1.2")
	oidUsmUserSpinLock = oidUsmUser.Append(1, 0)
	oidUsmUserEntry    = oidUsmUser.Append(2, 1)
)

// OwnKeys are the objects with which users change their own keys.
func OwnKeys() []mib.OID {
	return []mib.OID{
		oidUsmUserEntry.Append(userOwnAuthKeyChange), oidUsmUserEntry.Append(userOwnPrivKeyChange), oidUsmUserEntry.Append(userPublic),
		oidUsmUserSpinLock,
	}
}

// OtherKeys are the objects for the keys of any user.
func OtherKeys() []mib.OID {
	return []mib.OID{oidUsmUserEntry.Append(userAuthKeyChange), oidUsmUserEntry.Append(userPrivKeyChange)}
}

// Values of the textual conventions StorageType and RowStatus (RFC 2579).
const (
	storagePermanent = 4 // a row that can be changed and not removed

	rowActive        = 1
	rowNotInService  = 2
	rowCreateAndGo   = 4
	rowCreateAndWait = 5
	rowDestroy       = 6
)

var authOIDs = [...]string{
	NoAuth: "1.3.6.1.6.3.10.1.1.1", MD5: "1.3.6.1.6.3.10.1.1.2", SHA1: "1.3.6.1.6.3.10.1.1.3", SHA224: "1.3.6.1.6.3.10.1.1.4",
	SHA256: "1.3.6.1.6.3.10.1.1.5", SHA384: "1.3.6.1.6.3.10.1.1.6", SHA512: "1.3.6.1.6.3.10.1.1.7",
}

// Those of AES with longer keys are net-snmp's and Cisco's; no RFC has any.
var privOIDs = [...]string{
	NoPriv: "1.3.6.1.6.3.10.1.2.1", DES: "1.3.6.1.6.3.10.1.2.2", AES128: "1.3.6.1.6.3.10.1.2.4",
	AES192: "1.3.6.1.4.1.14832.1.3", AES256: "1.3.6.1.4.1.14832.1.4",
	AES192C: "1.3.6.1.4.1.9.12.6.1.1", AES256C: "1.3.6.1.4.1.9.12.6.1.2",
}

var userTable = table{
	entry: oidUsmUserEntry, first: userSecurityName, last: userStatus,
	rows: func(e *Engine) (rows []row) {
		for _, a := range e.accounts() {
			rows = append(rows, a)
		}
		return rows
	},
}

func (a *account) rowIndex() mib.OID { return a.index }

func (a *account) column(n uint32) mib.Value {
	switch n {
	case userSecurityName:
		return mib.Str(a.user.Name)
	case userCloneFrom:
		return mib.ID(mib.OID{0, 0})
	case userAuthProtocol:
		return mib.ID(mib.MustParseOID(authOIDs[a.user.Auth]))
	case userPrivProtocol:
		return mib.ID(mib.MustParseOID(privOIDs[a.user.Priv]))
	case userPublic:
		return mib.Octets(a.public)
	case userStorageType:
		return mib.Int32(storagePermanent)
	case userStatus:
		return mib.Int32(rowActive)
	}
	return mib.Octets(nil) // keys are not shown
}

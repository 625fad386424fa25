package trap

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"example.com/iad/internal/snmp"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// usmReceiver is the User-based Security Model (RFC 3414) of a notification receiver. For
// informs it is the authoritative engine: it answers discovery and keeps the time. For
// traps the sender is authoritative: keys are localized to the sender's engine, and its
// clock is followed so that old messages cannot be replayed.
type usmReceiver struct {
	engine   engine
	started  time.Time
	now      func() time.Time
	users    map[string][]*knownUser // by name: devices may have one each, under the same name
	keys     map[keyName]*snmp.Keys  // of authentic senders
	clocks   map[string]engineClock  // by engine
	counters map[string]uint32       // by the OID in reports
	salt     uint64                  // of the next encrypted message
}

// knownUser is a user with the keys derived from its passphrases. Each key is derived
// once, when it is first needed.
type knownUser struct {
	priv             snmp.PrivProtocol
	level            snmp.Level
	authKey, privKey func() snmp.MasterKey
}

// keyName identifies localized keys.
type keyName struct {
	user   *knownUser
	engine string
}

// errNoCredentials: the message was not sent by a configured user.
var errNoCredentials = errors.New("authentication failed")

// engineClock is the last known snmpEngineBoots and snmpEngineTime of a sender.
type engineClock struct {
	boots, time int32
	at          time.Time
}

const (
	maxKeys    = 20000 // localized keys and clocks that are kept
	maxMessage = 65507 // the size of a datagram, in bytes
)

func newUSMReceiver(users []device.User, now func() time.Time, self engine) (*usmReceiver, error) {
	u := &usmReceiver{
		engine: self, started: now(), now: now, users: make(map[string][]*knownUser, len(users)),
		keys: make(map[keyName]*snmp.Keys), clocks: make(map[string]engineClock), counters: make(map[string]uint32),
	}
	var salt [8]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return nil, err
	}
	u.salt = binary.BigEndian.Uint64(salt[:])
	for _, user := range users {
		if err := user.Check(); err != nil {
			return nil, err
		}
		auth, priv, err := protocols(&user)
		if err != nil {
			return nil, err
		}
		u.users[user.Name] = append(u.users[user.Name], &knownUser{
			priv: priv, level: snmp.LevelOf(auth, priv),
			authKey: sync.OnceValue(func() snmp.MasterKey { return snmp.NewMasterKey(auth, user.AuthPassphrase) }),
			privKey: sync.OnceValue(func() snmp.MasterKey { return snmp.NewMasterKey(auth, user.PrivPassphrase) }),
		})
	}
	return u, nil
}

// protocols returns a user's protocols, whose names Check has validated.
func protocols(u *device.User) (auth snmp.AuthProtocol, priv snmp.PrivProtocol, err error) {
	if name := device.PlainName(u.Auth); name != "" {
		err = auth.UnmarshalText([]byte(name))
	}
	if name := device.PlainName(u.Priv); name != "" {
		err = errors.Join(err, priv.UnmarshalText([]byte(name)))
	}
	return auth, priv, err
}

// prepare derives the authentication keys, which takes a millisecond or more for each
// user, so that no datagram has to wait for them.
func (u *usmReceiver) prepare(stop <-chan struct{}) {
	for _, users := range u.users {
		for _, user := range users {
			select {
			case <-stop:
				return
			default:
				user.authKey()
			}
		}
	}
}

// time returns snmpEngineTime of this engine.
func (u *usmReceiver) time() int32 { return int32(u.now().Sub(u.started) / time.Second) }

// open returns the message, authenticated and decrypted. If it does not accept the
// message it returns nil, and a report if the sender wants one.
func (u *usmReceiver) open(datagram []byte) (m *message, report []byte, err error) {
	sent, err := snmp.ReadV3(datagram)
	if err != nil {
		return nil, nil, err
	}
	reject := func(counter mib.OID, k *snmp.Keys, why error) (*message, []byte, error) {
		report, err := u.report(sent, counter, k)
		return nil, report, errors.Join(why, err)
	}
	// A sender that wants reports treats this side as authoritative.
	name, confirmed := string(sent.EngineID), sent.Flags&snmp.FlagReportable != 0
	switch {
	case confirmed && name != u.engine.id:
		return reject(snmp.UnknownEngineIDs, nil, errors.New("engine discovery"))
	case !confirmed && (len(name) < snmp.MinEngineID || name == u.engine.id):
		return nil, nil, errors.New("invalid engine ID of the sender")
	case len(u.users[sent.User]) == 0:
		return reject(snmp.UnknownUserNames, nil, fmt.Errorf("%w: user %.40q is unknown", errNoCredentials, sent.User))
	}
	k, scoped, err := u.unlock(sent)
	switch {
	case errors.Is(err, errLevel):
		return reject(snmp.UnsupportedSecLevels, nil, fmt.Errorf("%w: user %s: %w", errNoCredentials, sent.User, err))
	case errors.Is(err, errWrongPassword):
		return reject(snmp.WrongDigests, nil, fmt.Errorf("%w: user %s: %w", errNoCredentials, sent.User, err))
	case errors.Is(err, snmp.ErrDecrypt):
		return reject(snmp.DecryptionErrors, nil, fmt.Errorf("%w: user %s: %w", errNoCredentials, sent.User, err))
	case err != nil:
		return nil, nil, err
	case sent.Level() == snmp.NoAuthNoPriv:
	case confirmed && !u.timely(sent):
		return reject(snmp.NotInTimeWindows, k, errors.New("not in time window"))
	case !confirmed && !u.follow(sent):
		return nil, nil, errors.New("older than what came before: late or replayed")
	}
	if !confirmed && scoped.PDU.Kind == snmp.PDUInform {
		return nil, nil, errors.New("the sender of an inform uses its own engine ID")
	}
	acknowledge := func(response snmp.PDU) ([]byte, error) {
		scoped.PDU = response
		return u.seal(sent, sent.Level(), k, scoped)
	}
	return &message{PDU: scoped.PDU, user: sent.User, vouched: sent.Level() != snmp.NoAuthNoPriv, acknowledge: acknowledge}, nil, nil
}

// errWrongPassword: the digest matches no user's passphrase.
var errWrongPassword = errors.New("wrong password")

// errLevel: no user of this name has the message's security level.
var errLevel = errors.New("security level is not the configured one")

// unlock authenticates and decrypts a message with the keys of each user of its name and
// level, first those that its engine has used. It keeps keys that fit.
func (u *usmReceiver) unlock(sent *snmp.Message) (k *snmp.Keys, scoped snmp.ScopedPDU, failed error) {
	failed = errLevel
	for _, known := range []bool{true, false} {
		for _, user := range u.users[sent.User] {
			name := keyName{user, string(sent.EngineID)}
			k, kept := u.keys[name]
			if user.level != sent.Level() || kept != known {
				continue
			}
			if user.level > snmp.NoAuthNoPriv {
				if !kept {
					k = snmp.NewKeys(user.authKey(), sent.EngineID)
				}
				if !sent.Authentic(k) {
					failed = errWrongPassword
					continue
				}
				// Only now: anybody can cause the above, which costs microseconds. What
				// follows costs milliseconds, and memory for each engine.
				if user.level == snmp.AuthPriv && !kept {
					k.AddPrivacy(user.priv, user.privKey(), sent.EngineID)
				}
			}
			if scoped, failed = sent.Open(k); failed == nil {
				if !kept && k != nil {
					makeRoom(u.keys)
					u.keys[name] = k
				}
				return k, scoped, nil
			}
		}
	}
	return nil, scoped, failed
}

// makeRoom deletes an arbitrary entry if there are too many.
func makeRoom[K comparable, V any](m map[K]V) {
	for key := range m {
		if len(m) < maxKeys {
			return
		}
		delete(m, key)
	}
}

// timely reports whether a message for which this engine is authoritative is in the time
// window (RFC 3414 section 3.2 (7a)).
func (u *usmReceiver) timely(sent *snmp.Message) bool {
	apart := int64(sent.Time) - int64(u.time())
	return uint32(sent.Boots) == u.engine.boots && apart >= -snmp.TimeWindow && apart <= snmp.TimeWindow
}

// follow reports whether a message fits the clock of an authoritative sender, and updates
// that clock (RFC 3414 section 3.2 (7b)).
func (u *usmReceiver) follow(sent *snmp.Message) bool {
	name := string(sent.EngineID)
	known, ok := u.clocks[name]
	now := u.now()
	if ok {
		estimate := int64(known.time) + int64(now.Sub(known.at)/time.Second)
		if sent.Boots < known.boots || sent.Boots == known.boots && int64(sent.Time) < estimate-snmp.TimeWindow {
			return false
		}
	}
	if !ok || sent.Boots > known.boots || sent.Time > known.time {
		makeRoom(u.clocks)
		u.clocks[name] = engineClock{boots: sent.Boots, time: sent.Time, at: now}
	}
	return true
}

// report returns a report on why a confirmed message was not accepted. With keys it is
// authenticated, as a report on the time window must be.
func (u *usmReceiver) report(sent *snmp.Message, counter mib.OID, k *snmp.Keys) ([]byte, error) {
	count := u.counters[counter.String()] + 1
	u.counters[counter.String()] = count
	if sent.Flags&snmp.FlagReportable == 0 {
		return nil, nil
	}
	p := snmp.PDU{Kind: snmp.PDUReport, Vars: []mib.Varbind{{OID: counter, Value: mib.Value{Type: mib.Counter32, Int: int64(count)}}}}
	if !sent.Encrypted() {
		if scoped, err := sent.Open(nil); err == nil {
			if !snmp.Confirmed(scoped.PDU.Kind) {
				return nil, nil
			}
			p.RequestID = scoped.PDU.RequestID
		}
	}
	level := snmp.NoAuthNoPriv
	if k != nil {
		level = snmp.AuthNoPriv
	}
	return u.seal(sent, level, k, snmp.ScopedPDU{ContextEngineID: []byte(u.engine.id), PDU: p})
}

// seal returns an answer to a message for which this engine is authoritative.
func (u *usmReceiver) seal(sent *snmp.Message, level snmp.Level, k *snmp.Keys, s snmp.ScopedPDU) ([]byte, error) {
	u.salt++
	h := snmp.Header{
		MsgID: sent.MsgID, MaxSize: maxMessage, Flags: level.Flags(),
		EngineID: []byte(u.engine.id), Boots: int32(u.engine.boots), Time: u.time(), User: sent.User,
	}
	return snmp.SealV3(h, k, u.salt, snmp.AppendScoped(nil, s.ContextEngineID, s.ContextName, s.PDU, snmp.EncodeVars(s.PDU.Vars)))
}

package trap

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/manager/device"
)

// usmReceiver is the User-based Security Model (RFC 3414) of a notification
// receiver. For informs it is the authoritative engine: it answers discovery
// and keeps the time. For traps the sender is: keys are localized to the
// sender's engine, and its clock is followed so that old messages cannot be
// replayed.
type usmReceiver struct {
	engineID string
	boots    uint32
	started  time.Time
	now      func() time.Time
	users    map[string][]*knownUser // by name: devices may have one each, under the same name
	keys     map[keyName]*gosnmp.UsmSecurityParameters
	clocks   map[string]engineClock
	counters map[string]uint32
}

// keyName tells apart what a user's keys were found to fit.
type keyName struct {
	user, engine string
	level        gosnmp.SnmpV3MsgFlags
}

// errNoCredentials: nobody who is known here can have sent the message.
var errNoCredentials = errors.New("authentication failed")

// engineClock is what is known of a sender's snmpEngineBoots and
// snmpEngineTime.
type engineClock struct {
	boots, time uint32
	at          time.Time
}

// Counters of RFC 3414 section 5 that reports name.
const (
	usmUnsupportedSecLevels = ".1.3.6.1.6.3.15.1.1.1.0"
	usmNotInTimeWindows     = ".1.3.6.1.6.3.15.1.1.2.0"
	usmUnknownUserNames     = ".1.3.6.1.6.3.15.1.1.3.0"
	usmUnknownEngineIDs     = ".1.3.6.1.6.3.15.1.1.4.0"
	usmWrongDigests         = ".1.3.6.1.6.3.15.1.1.5.0"
	usmDecryptionErrors     = ".1.3.6.1.6.3.15.1.1.6.0"
)

const (
	timeWindow = 150   // seconds, RFC 3414 section 3.2 (7)
	maxKeys    = 20000 // localized keys and clocks that are kept
)

func newUSMReceiver(users []device.User, now func() time.Time, self engine) (*usmReceiver, error) {
	u := &usmReceiver{
		engineID: self.id, boots: self.boots, started: now(), now: now, users: make(map[string][]*knownUser, len(users)),
		keys: make(map[keyName]*gosnmp.UsmSecurityParameters), clocks: make(map[string]engineClock),
		counters: make(map[string]uint32),
	}
	for _, user := range users {
		if err := user.Check(); err != nil {
			return nil, err
		}
		u.users[user.Name] = append(u.users[user.Name], &knownUser{User: user})
	}
	return u, nil
}

// time returns snmpEngineTime of this engine.
func (u *usmReceiver) time() uint32 { return uint32(u.now().Sub(u.started) / time.Second) }

// decode returns the authenticated and decrypted message, or no packet and,
// if the sender wants to know, a report for it.
func (u *usmReceiver) decode(message []byte) (packet *gosnmp.SnmpPacket, report []byte, err error) {
	head, err := readHeader(message)
	if err != nil {
		return nil, nil, err
	}
	sent, ok := head.SecurityParameters.(*gosnmp.UsmSecurityParameters)
	if !ok || head.SecurityModel != gosnmp.UserSecurityModel {
		return nil, nil, errors.New("security model is not USM")
	}
	reject := func(counter, why string) (*gosnmp.SnmpPacket, []byte, error) {
		report, err := u.report(head, counter, nil)
		return nil, report, errors.Join(fmt.Errorf("%w: %s", errNoCredentials, why), err)
	}
	// A sender that wants reports takes this side for authoritative.
	confirmed := head.MsgFlags&gosnmp.Reportable != 0
	if confirmed && sent.AuthoritativeEngineID != u.engineID {
		report, err := u.report(head, usmUnknownEngineIDs, nil)
		return nil, report, errors.Join(errors.New("engine discovery"), err)
	}
	if !confirmed && (len(sent.AuthoritativeEngineID) < 5 || len(sent.AuthoritativeEngineID) > 32 || sent.AuthoritativeEngineID == u.engineID) {
		return nil, nil, errors.New("engine identity of the sender is invalid")
	}
	if len(u.users[sent.UserName]) == 0 {
		return reject(usmUnknownUserNames, fmt.Sprintf("user %.40q is unknown", sent.UserName))
	}
	level := head.MsgFlags & gosnmp.AuthPriv
	packet, params, err := u.unlock(message, keyName{sent.UserName, sent.AuthoritativeEngineID, level})
	switch {
	case err == nil:
	case errors.Is(err, errLevel):
		return reject(usmUnsupportedSecLevels, fmt.Sprintf("user %s: %v", sent.UserName, err))
	case errors.Is(err, errNotAuthentic), strings.Contains(err.Error(), "not authentic"):
		return reject(usmWrongDigests, fmt.Sprintf("user %s: wrong password", sent.UserName))
	default:
		return reject(usmDecryptionErrors, fmt.Sprintf("user %s: %v", sent.UserName, err))
	}
	if level == gosnmp.NoAuthNoPriv {
		return packet, nil, nil
	}
	if confirmed && !u.timely(sent) {
		report, err := u.report(head, usmNotInTimeWindows, params)
		return nil, report, errors.Join(errors.New("not in time window"), err)
	}
	if !confirmed && !u.follow(sent) {
		return nil, nil, errors.New("older than what came before: late or replayed")
	}
	return packet, nil, nil
}

// readHeader decodes what is in clear: message flags, engine and user. The
// decoder reports an error for messages that need keys; the fields are there
// all the same.
func readHeader(message []byte) (*gosnmp.SnmpPacket, error) {
	codec := &gosnmp.GoSNMP{
		Version: gosnmp.Version3, SecurityModel: gosnmp.UserSecurityModel,
		SecurityParameters: &gosnmp.UsmSecurityParameters{UserName: "-"},
	}
	head, err := decodeSafely(func() (*gosnmp.SnmpPacket, error) {
		return codec.SnmpDecodePacket(append([]byte(nil), message...))
	})
	if head == nil {
		return nil, err
	}
	if sp, ok := head.SecurityParameters.(*gosnmp.UsmSecurityParameters); !ok || sp == nil || (err != nil && sp.UserName == "-") {
		return nil, fmt.Errorf("SNMPv3 header: %w", err)
	}
	return head, nil
}

// decodeSafely turns a panic of gosnmp's decoder, which slices its input
// without looking at its length in places, into an error.
func decodeSafely(decode func() (*gosnmp.SnmpPacket, error)) (p *gosnmp.SnmpPacket, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("malformed message: %v", r)
		}
	}()
	return decode()
}

// errNotAuthentic: a message whose digest fits no user's password.
var errNotAuthentic = errors.New("message is not authentic")

// errLevel: a message at another security level than any user of its name has.
var errLevel = errors.New("security level is not the configured one")

// unlock decodes a message with the keys that fitted it before, or else with those of
// each user of the name and level. Keys that fit are kept.
func (u *usmReceiver) unlock(message []byte, name keyName) (*gosnmp.SnmpPacket, *gosnmp.UsmSecurityParameters, error) {
	try := func(params *gosnmp.UsmSecurityParameters) (*gosnmp.SnmpPacket, error) {
		codec := &gosnmp.GoSNMP{
			Version: gosnmp.Version3, SecurityModel: gosnmp.UserSecurityModel, MsgFlags: name.level, SecurityParameters: params,
		}
		return decodeSafely(func() (*gosnmp.SnmpPacket, error) { return codec.UnmarshalTrap(slices.Clone(message), true) })
	}
	if params, ok := u.keys[name]; ok {
		if packet, err := try(params); err == nil {
			return packet, params, nil
		}
	}
	signed, err := readSigned(message)
	if err != nil {
		return nil, nil, err
	}
	failed := errLevel
	for _, user := range u.users[name.user] {
		if user.Level() != name.level {
			continue
		}
		// Authentication first: it costs microseconds, and every stranger can ask for it.
		// What follows costs milliseconds, and memory for each engine.
		if name.level != gosnmp.NoAuthNoPriv && !user.signs(signed, name.engine) {
			failed = errNotAuthentic
			continue
		}
		params := user.USM()
		params.AuthoritativeEngineID = name.engine
		if err := params.InitSecurityKeys(); err != nil {
			return nil, nil, err
		}
		packet, err := try(params)
		if err == nil {
			if name.level != gosnmp.NoAuthNoPriv {
				if len(u.keys) >= maxKeys {
					clear(u.keys)
				}
				u.keys[name] = params
			}
			return packet, params, nil
		}
		failed = err
	}
	return nil, nil, failed
}

// timely judges a message for which this engine is authoritative (RFC 3414
// section 3.2 (7a)).
func (u *usmReceiver) timely(sent *gosnmp.UsmSecurityParameters) bool {
	apart := int64(sent.AuthoritativeEngineTime) - int64(u.time())
	return sent.AuthoritativeEngineBoots == u.boots && apart >= -timeWindow && apart <= timeWindow
}

// follow judges and follows the clock of an authoritative sender (RFC 3414
// section 3.2 (7b)).
func (u *usmReceiver) follow(sent *gosnmp.UsmSecurityParameters) bool {
	known, ok := u.clocks[sent.AuthoritativeEngineID]
	now := u.now()
	boots, engineTime := sent.AuthoritativeEngineBoots, sent.AuthoritativeEngineTime
	if ok {
		estimate := int64(known.time) + int64(now.Sub(known.at)/time.Second)
		if boots < known.boots || boots == known.boots && int64(engineTime) < estimate-timeWindow {
			return false
		}
	}
	if !ok || boots > known.boots || engineTime > known.time {
		if len(u.clocks) >= maxKeys {
			clear(u.clocks)
		}
		u.clocks[sent.AuthoritativeEngineID] = engineClock{boots: boots, time: engineTime, at: now}
	}
	return true
}

// report tells the sender of a confirmed message why it was not taken. With
// params it is authenticated, as a report on the time window must be.
func (u *usmReceiver) report(head *gosnmp.SnmpPacket, counter string, params *gosnmp.UsmSecurityParameters) ([]byte, error) {
	u.counters[counter]++
	if head.MsgFlags&gosnmp.Reportable == 0 {
		return nil, nil
	}
	sp := new(gosnmp.UsmSecurityParameters)
	flags := gosnmp.NoAuthNoPriv
	if params != nil {
		sp, flags = params.Copy().(*gosnmp.UsmSecurityParameters), gosnmp.AuthNoPriv
	} else if sent, ok := head.SecurityParameters.(*gosnmp.UsmSecurityParameters); ok {
		sp.UserName = sent.UserName
	}
	sp.AuthoritativeEngineID, sp.AuthoritativeEngineBoots, sp.AuthoritativeEngineTime = u.engineID, u.boots, u.time()
	p := &gosnmp.SnmpPacket{
		Version: gosnmp.Version3, MsgFlags: flags, SecurityModel: gosnmp.UserSecurityModel, SecurityParameters: sp,
		ContextEngineID: u.engineID, PDUType: gosnmp.Report, MsgID: head.MsgID, RequestID: head.RequestID,
		Variables: []gosnmp.SnmpPDU{{Name: counter, Type: gosnmp.Counter32, Value: u.counters[counter]}},
	}
	return p.MarshalMsg()
}

// encode secures a response to a message for which this engine is
// authoritative.
func (u *usmReceiver) encode(p *gosnmp.SnmpPacket) ([]byte, error) {
	sp, ok := p.SecurityParameters.(*gosnmp.UsmSecurityParameters)
	if !ok {
		return nil, errors.New("security model is not USM")
	}
	p.MsgFlags &^= gosnmp.Reportable
	p.MsgMaxSize = 65507
	sp.AuthoritativeEngineBoots, sp.AuthoritativeEngineTime = u.boots, u.time()
	if p.MsgFlags&gosnmp.AuthPriv == gosnmp.AuthPriv {
		sp.PrivacyParameters = make([]byte, 8)
		if _, err := rand.Read(sp.PrivacyParameters); err != nil {
			return nil, err
		}
	}
	return p.MarshalMsg()
}

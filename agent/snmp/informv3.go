package snmp

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"time"

	"example.com/iad/mib"
)

// remote is what is known of the receiver of informs, which is the
// authoritative engine for them (RFC 3411 section 3.4.3).
type remote struct {
	engineID []byte
	keys     *keys
	boots    int32
	time     int32
	at       time.Time // when time was learned
	latest   int32     // the latest time received, against replays
}

func (r *remote) timeNow() int32 {
	return clampInt32(int64(r.time) + int64(time.Since(r.at)/time.Second))
}

// setTime synchronizes with an authentic message, unless it is older than
// what is known (RFC 3414 section 3.2 step 7b); it tells whether the message
// is timely.
func (r *remote) setTime(boots, now int32) bool {
	if boots > r.boots || boots == r.boots && now > r.latest {
		r.boots, r.time, r.latest, r.at = boots, now, now, time.Now()
	}
	return boots != math.MaxInt32 && boots == r.boots && now >= r.timeNow()-timeWindow
}

// informV3 sends an InformRequest of SNMPv3 once, after discovering the
// receiver's engine if need be (RFC 3414 section 4).
func (s *sink) informV3(ctx context.Context, deadline time.Time, p pdu, vars []byte) error {
	// An engine that is not the one expected, then its time: that makes two
	// Reports before the acknowledgement. More are somebody's mischief.
	for range 3 {
		if s.remote == nil {
			if err := s.discover(ctx, deadline); err != nil {
				return err
			}
		}
		told, err := s.informOnce(ctx, deadline, p, vars)
		if !told {
			return err
		}
	}
	return s.pause(ctx, deadline, ErrNoAnswer)
}

// informOnce sends the inform and waits. told is true if the receiver told
// instead that it has another engine ID or another time, which is now known.
func (s *sink) informOnce(ctx context.Context, deadline time.Time, p pdu, vars []byte) (told bool, err error) {
	e, r := s.engine, s.remote
	h := header{
		msgID: e.nextID(), maxSize: int32(e.cfg.MaxSize), flags: s.user.level().flags() | flagReportable,
		engineID: r.engineID, boots: r.boots, time: r.timeNow(), user: s.user.Name,
	}
	// The context is this device's, whatever engine is authoritative.
	msg, err := appendV3(h, r.keys, e.salt.Add(1), appendScoped(nil, e.cfg.EngineID, p, vars))
	if err != nil {
		return false, err
	}
	if err := s.write(msg); err != nil {
		return false, s.pause(ctx, deadline, err)
	}
	complaint := ErrNoAnswer
	for {
		msg, err := s.read(ctx, deadline)
		if err != nil {
			if complaint != ErrNoAnswer && ctx.Err() == nil {
				err = complaint
			}
			return false, err
		}
		answer, level, ok := s.open(msg, h.msgID)
		switch {
		case !ok:
		case answer.kind == pduReport:
			switch oid := varbindOf(answer); {
			case oid.Compare(oidNotInTimeWindows) == 0 && level >= AuthNoPriv:
				return true, nil
			case oid.Compare(oidUnknownEngineIDs) == 0:
				// Another engine answers there now. The Report may be forged,
				// which costs one discovery.
				s.remote = nil
				return true, nil
			default:
				// Anybody can say that: it is worth a line, not the inform.
				complaint = fmt.Errorf("%w: the receiver reports %s", ErrNoAnswer, reportName(oid))
			}
		case level == s.user.level() && answer.acknowledges(p):
			return false, nil
		}
	}
}

// open reads an answer to the message msgID, and gives the level at which it
// is authentic and timely.
func (s *sink) open(msg []byte, msgID int32) (p pdu, level Level, ok bool) {
	h, data, ok := openHeader(msg)
	if !ok || h.msgID != msgID {
		return p, 0, false
	}
	r := s.remote
	level = h.level()
	if level > NoAuthNoPriv {
		if !bytes.Equal(h.engineID, r.engineID) || h.user != s.user.Name || level > s.user.level() ||
			!r.keys.authentic(msg, &h) || !r.setTime(h.boots, h.time) {
			return p, 0, false
		}
	}
	if level == AuthPriv {
		content, err := data.expect(tagOctets, "encrypted PDU")
		if err != nil {
			return p, 0, false
		}
		plain, err := r.keys.decrypt(h.boots, h.time, h.salt, content.bytes())
		if err != nil {
			return p, 0, false
		}
		data = newReader(plain)
	}
	scoped, err := readScoped(&data)
	return scoped.pdu, level, err == nil
}

// openHeader reads a message of v3 as far as nothing is encrypted.
func openHeader(msg []byte) (h header, data reader, ok bool) {
	version, body, err := readVersion(msg)
	if err != nil || version != version3 {
		return h, data, false
	}
	if h, err = readGlobalData(&body); err != nil || h.model != securityModelUSM {
		return h, data, false
	}
	if err = h.readSecurity(&body); err != nil {
		return h, data, false
	}
	return h, body, true
}

// discover asks for the receiver's engine ID. Anybody could answer, so its
// boots and time are not taken from there: the first inform gets them in an
// authenticated Report (RFC 3414 section 4).
func (s *sink) discover(ctx context.Context, deadline time.Time) error {
	e := s.engine
	probe := header{msgID: e.nextID(), maxSize: int32(e.cfg.MaxSize), flags: flagReportable}
	msg, err := appendV3(probe, nil, 0, appendScoped(nil, nil, pdu{kind: pduGet, requestID: e.nextID()}, nil))
	if err != nil {
		return err
	}
	if err := s.write(msg); err != nil {
		return s.pause(ctx, deadline, err)
	}
	for {
		msg, err := s.read(ctx, deadline)
		if err != nil {
			return err
		}
		h, data, ok := openHeader(msg)
		if !ok || h.msgID != probe.msgID || len(h.engineID) < minEngineID {
			continue
		}
		if scoped, err := readScoped(&data); err != nil || scoped.pdu.kind != pduReport {
			continue
		}
		r := &remote{engineID: bytes.Clone(h.engineID), at: time.Now(), latest: -1}
		if r.keys, err = localize(s.user.User, r.engineID); err != nil {
			return err
		}
		s.remote = r
		return nil
	}
}

func reportName(oid mib.OID) string {
	for _, known := range []struct {
		oid  mib.OID
		name string
	}{
		{oidUnsupportedSecLevels, "unsupportedSecLevels"}, {oidNotInTimeWindows, "notInTimeWindows"},
		{oidUnknownUserNames, "unknownUserNames"}, {oidWrongDigests, "wrongDigests"},
		{oidDecryptionErrors, "decryptionErrors"}, {oidUnknownPDUHandlers, "unknownPDUHandlers"},
		{oidUnknownContexts, "unknownContexts"},
	} {
		if oid.Compare(known.oid) == 0 {
			return known.name
		}
	}
	return oid.String()
}

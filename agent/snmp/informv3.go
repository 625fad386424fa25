package snmp

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"time"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// remote describes the receiver of informs, which is the authoritative
// engine for them (RFC 3411 section 3.4.3).
type remote struct {
	engineID []byte
	account  *account
	boots    int32
	time     int32
	at       time.Time // when time was learned
	latest   int32     // the latest time received, against replays
}

func (r *remote) timeNow() int32 {
	return clampInt32(int64(r.time) + int64(time.Since(r.at)/time.Second))
}

// setTime synchronizes with an authentic message, unless it is older than
// what is known (RFC 3414 section 3.2 step 7b); it reports whether the message
// is timely.
func (r *remote) setTime(boots, now int32) bool {
	if boots > r.boots || boots == r.boots && now > r.latest {
		r.boots, r.time, r.latest, r.at = boots, now, now, time.Now()
	}
	return boots != math.MaxInt32 && boots == r.boots && now >= r.timeNow()-snmp.TimeWindow
}

// informV3 sends an InformRequest of SNMPv3 once, after discovering the
// receiver's engine if need be (RFC 3414 section 4).
func (s *sink) informV3(ctx context.Context, deadline time.Time, p snmp.PDU, vars []byte) error {
	// An engine that is not the one expected, then its time: that makes two
	// Reports before the acknowledgement. A receiver that sends more is not answered.
	for range 3 {
		if s.remote == nil {
			if err := s.discover(ctx, deadline); err != nil {
				return err
			}
		}
		corrected, err := s.informOnce(ctx, deadline, p, vars)
		if !corrected {
			return err
		}
	}
	return s.pause(ctx, deadline, ErrNoAnswer)
}

// informOnce sends the inform and waits. corrected is true if the receiver reported
// another engine ID or another time, which the next attempt uses.
func (s *sink) informOnce(ctx context.Context, deadline time.Time, p snmp.PDU, vars []byte) (corrected bool, err error) {
	e, r := s.engine, s.remote
	h := snmp.Header{
		MsgID: e.nextID(), MaxSize: int32(e.cfg.MaxSize), Flags: s.user.level().Flags() | snmp.FlagReportable,
		EngineID: r.engineID, Boots: r.boots, Time: r.timeNow(), User: s.user.Name,
	}
	// The context is this device's, whatever engine is authoritative.
	msg, err := snmp.SealV3(h, r.account.keys.Load(), e.salt.Add(1), snmp.AppendScoped(nil, e.cfg.EngineID, nil, p, vars))
	if err != nil {
		return false, err
	}
	if err := s.write(msg); err != nil {
		return false, s.pause(ctx, deadline, err)
	}
	reported := ErrNoAnswer
	for {
		msg, err := s.read(ctx, deadline)
		if err != nil {
			if reported != ErrNoAnswer && ctx.Err() == nil {
				err = reported
			}
			return false, err
		}
		answer, level, ok := s.open(msg, h.MsgID)
		switch {
		case !ok:
		case answer.Kind == snmp.PDUReport:
			switch oid := varbindOf(answer); {
			case oid.Compare(snmp.NotInTimeWindows) == 0 && level >= AuthNoPriv:
				return true, nil
			case oid.Compare(snmp.UnknownEngineIDs) == 0:
				// Another engine answers there now. The Report may be forged,
				// which costs one discovery.
				s.remote = nil
				return true, nil
			default:
				// Anybody can say that: it is worth a line, not the inform.
				reported = fmt.Errorf("%w: the receiver reports %s", ErrNoAnswer, reportName(oid))
			}
		case level == s.user.level() && acknowledges(answer, p):
			return false, nil
		}
	}
}

// open reads an answer to the message msgID, and gives the level at which it
// is authentic and timely.
func (s *sink) open(msg []byte, msgID int32) (p snmp.PDU, level Level, ok bool) {
	m, err := snmp.ReadV3(msg)
	if err != nil || m.MsgID != msgID {
		return p, 0, false
	}
	r := s.remote
	keys := r.account.keys.Load()
	level = m.Level()
	if level > NoAuthNoPriv {
		if !bytes.Equal(m.EngineID, r.engineID) || m.User != s.user.Name || level > s.user.level() ||
			!m.Authentic(keys) || !r.setTime(m.Boots, m.Time) {
			return p, 0, false
		}
		r.account = s.engine.register(r.account)
	}
	scoped, err := m.Open(keys)
	return scoped.PDU, level, err == nil
}

// discover asks for the receiver's engine ID. Anybody could answer, so its
// boots and time are not taken from there: the first inform gets them in an
// authenticated Report (RFC 3414 section 4).
func (s *sink) discover(ctx context.Context, deadline time.Time) error {
	e := s.engine
	probe := snmp.Header{MsgID: e.nextID(), MaxSize: int32(e.cfg.MaxSize), Flags: snmp.FlagReportable}
	msg, err := snmp.SealV3(probe, nil, 0, snmp.AppendScoped(nil, nil, nil, snmp.PDU{Kind: snmp.PDUGet, RequestID: e.nextID()}, nil))
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
		m, err := snmp.ReadV3(msg)
		if err != nil || m.MsgID != probe.MsgID || m.Encrypted() || len(m.EngineID) < snmp.MinEngineID {
			continue
		}
		if scoped, err := m.Open(nil); err != nil || scoped.PDU.Kind != snmp.PDUReport {
			continue
		}
		r := &remote{engineID: bytes.Clone(m.EngineID), at: time.Now(), latest: -1}
		r.account = s.engine.remote(s.user, r.engineID)
		s.remote = r
		return nil
	}
}

func reportName(oid mib.OID) string {
	for _, known := range []struct {
		oid  mib.OID
		name string
	}{
		{snmp.UnsupportedSecLevels, "unsupportedSecLevels"}, {snmp.NotInTimeWindows, "notInTimeWindows"},
		{snmp.UnknownUserNames, "unknownUserNames"}, {snmp.WrongDigests, "wrongDigests"},
		{snmp.DecryptionErrors, "decryptionErrors"}, {oidUnknownPDUHandlers, "unknownPDUHandlers"},
		{oidUnknownContexts, "unknownContexts"},
	} {
		if oid.Compare(known.oid) == 0 {
			return known.name
		}
	}
	return oid.String()
}

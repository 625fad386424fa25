package snmp

import (
	"bytes"
	"errors"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// message is a message of v3 on its way through the checks.
type message struct {
	*snmp.Message
	src  netip.AddrPort
	now  time.Time
	keys *snmp.Keys // of the user, also for the answer
}

// handleV3 answers a message of SNMPv3: RFC 3412 section 7.2, then RFC 3414
// section 3.2 in its order.
func (e *Engine) handleV3(src netip.AddrPort, msg []byte) ([]byte, func()) {
	h, err := snmp.ReadV3(msg)
	if err != nil {
		switch {
		case errors.Is(err, snmp.ErrSecurityModel):
			e.stats.unknownSecurityModels.Add(1)
		case errors.Is(err, snmp.ErrFlags):
			e.stats.invalidMsgs.Add(1)
		default:
			e.stats.inASNParseErrs.Add(1)
		}
		return nil, nil
	}
	m := &message{Message: h, src: src, now: e.now()}
	if !bytes.Equal(h.EngineID, e.cfg.EngineID) {
		return e.report(m, nil, &e.stats.unknownEngineIDs, snmp.UnknownEngineIDs), nil
	}
	u := e.users[h.User]
	if u == nil {
		return e.report(m, nil, &e.stats.unknownUserNames, snmp.UnknownUserNames), nil
	}
	m.keys = u.own.keys.Load()
	if h.Level() > u.level() {
		return e.report(m, nil, &e.stats.unsupportedSecLevels, snmp.UnsupportedSecLevels), nil
	}
	if h.Flags&snmp.FlagAuth != 0 {
		if !e.mayTry(src, m.now) {
			return nil, nil
		}
		if !m.Authentic(m.keys) {
			e.failed(src, m.now, "wrong digest of user "+u.Name)
			return e.report(m, nil, &e.stats.wrongDigests, snmp.WrongDigests), nil
		}
		if !e.inTimeWindow(&m.Header) {
			return e.report(m, u, &e.stats.notInTimeWindows, snmp.NotInTimeWindows), nil
		}
		e.guard.succeeded(src, m.now)
	}
	s, err := m.Open(m.keys)
	switch {
	case errors.Is(err, snmp.ErrDecrypt):
		return e.report(m, nil, &e.stats.decryptionErrors, snmp.DecryptionErrors), nil
	case err != nil:
		e.stats.inASNParseErrs.Add(1)
		return nil, nil
	}
	return e.handleScoped(m, u, s)
}

// inTimeWindow is RFC 3414 section 3.2 step 7a.
func (e *Engine) inTimeWindow(h *snmp.Header) bool {
	boots := int32(e.cfg.Boots)
	off := int64(h.Time) - int64(e.engineTime())
	return boots != math.MaxInt32 && h.Boots == boots && off <= snmp.TimeWindow && off >= -snmp.TimeWindow
}

// handleScoped answers a message that is what it says it is, at its level.
func (e *Engine) handleScoped(m *message, u *user, s snmp.ScopedPDU) ([]byte, func()) {
	switch s.PDU.Kind {
	case snmp.PDUGet, snmp.PDUGetNext, snmp.PDUGetBulk, snmp.PDUSet:
	case snmp.PDUInform:
		return e.reportScoped(m, u, s.PDU, &e.stats.unknownPDUHandlers, oidUnknownPDUHandlers), nil
	default:
		e.stats.unknownPDUHandlers.Add(1)
		return nil, nil
	}
	if !bytes.Equal(s.ContextEngineID, e.cfg.EngineID) {
		return e.reportScoped(m, u, s.PDU, &e.stats.unknownPDUHandlers, oidUnknownPDUHandlers), nil
	}
	if len(s.ContextName) > 0 {
		return e.reportScoped(m, u, s.PDU, &e.stats.unknownContexts, oidUnknownContexts), nil
	}
	level := m.Level()
	if s.PDU.Kind == snmp.PDUSet && level >= AuthNoPriv {
		if e.seen.tooOld(m.Time) {
			return e.report(m, u, &e.stats.notInTimeWindows, snmp.NotInTimeWindows), nil
		}
		if !e.seen.add(m.MAC, m.Time, e.engineTime()) {
			if e.guard.warnings.AllowN(m.now, 1) {
				e.log.Warn("a SET was sent again word for word, and is ignored", "from", m.src, "user", u.Name)
			}
			return nil, nil
		}
	}
	access := accessFor(u.Access, level, m.src.Addr())
	if access == nil && level == NoAuthNoPriv && !e.guard.mayReport(m.src, m.now) {
		// Like a Report, anybody can have this refusal sent anywhere.
		return nil, nil
	}
	h := e.replyHeader(m, level)
	room := int(min(int64(m.MaxSize), int64(e.cfg.MaxSize))) - snmp.V3Overhead(&h, m.keys)
	resp, ok := e.respond(&request{
		pdu:    s.PDU,
		access: access, user: u, level: level,
		caller: mib.Caller{Private: level == AuthPriv, Name: u.Name, Zone: e.zone},
		room:   room, bulkRoom: room,
	})
	if !ok {
		return nil, nil
	}
	reply, err := snmp.SealV3(h, m.keys, e.salt.Add(1), snmp.AppendScoped(nil, e.cfg.EngineID, nil, resp.pdu, resp.vars))
	if err != nil {
		e.log.Error("answer not encrypted", "user", u.Name, "err", err)
	}
	return reply, resp.done
}

// replyHeader is the header of an answer to m. This engine is authoritative
// for both.
func (e *Engine) replyHeader(m *message, level Level) snmp.Header {
	return snmp.Header{
		MsgID: m.MsgID, MaxSize: int32(e.cfg.MaxSize), Flags: level.Flags(),
		EngineID: e.cfg.EngineID, Boots: int32(e.cfg.Boots), Time: e.engineTime(), User: m.User,
	}
}

// report counts an error and returns the Report for the sender, if it may have one. A Report is
// authenticated as u, or nobody's if u is nil.
func (e *Engine) report(m *message, u *user, count *atomic.Uint32, oid mib.OID) []byte {
	var p snmp.PDU
	if !m.Encrypted() {
		// Only the request-id is of use, so an error does not matter.
		if s, err := m.Open(nil); err == nil {
			if p = s.PDU; !snmp.Confirmed(p.Kind) {
				count.Add(1)
				return nil
			}
		}
	}
	level := NoAuthNoPriv
	if u != nil {
		level = AuthNoPriv
	}
	return e.reportAt(m, u, level, p, count, oid)
}

// reportScoped is report once the PDU is known, at the level of the message.
func (e *Engine) reportScoped(m *message, u *user, p snmp.PDU, count *atomic.Uint32, oid mib.OID) []byte {
	return e.reportAt(m, u, m.Level(), p, count, oid)
}

func (e *Engine) reportAt(m *message, u *user, level Level, p snmp.PDU, count *atomic.Uint32, oid mib.OID) []byte {
	value := mib.Value{Type: mib.Counter32, Int: int64(count.Add(1))}
	if m.Flags&snmp.FlagReportable == 0 || !e.guard.mayReport(m.src, m.now) {
		return nil
	}
	var k *snmp.Keys
	if u != nil {
		k = m.keys
	}
	vars := snmp.EncodeVars([]mib.Varbind{{OID: oid, Value: value}})
	scoped := snmp.AppendScoped(nil, e.cfg.EngineID, nil, snmp.PDU{Kind: snmp.PDUReport, RequestID: p.RequestID}, vars)
	reply, err := snmp.SealV3(e.replyHeader(m, level), k, e.salt.Add(1), scoped)
	if err != nil {
		e.log.Error("report not encrypted", "err", err)
	}
	return reply
}

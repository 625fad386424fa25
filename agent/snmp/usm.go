package snmp

import (
	"bytes"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"example.com/iad/mib"
)

// message is a message of v3 on its way through the checks.
type message struct {
	header
	src netip.AddrPort
	now time.Time
	// plain is the scoped PDU if it came unencrypted, for the request-id of a
	// Report.
	plain reader
}

// handleV3 answers a message of SNMPv3: RFC 3412 section 7.2, then RFC 3414
// section 3.2 in its order.
func (e *Engine) handleV3(src netip.AddrPort, msg []byte, body *reader) ([]byte, func()) {
	h, err := readGlobalData(body)
	if err != nil {
		e.stats.inASNParseErrs.Add(1)
		return nil, nil
	}
	if h.model != securityModelUSM {
		e.stats.unknownSecurityModels.Add(1)
		return nil, nil
	}
	if h.flags&(flagAuth|flagPriv) == flagPriv {
		e.stats.invalidMsgs.Add(1)
		return nil, nil
	}
	if err := h.readSecurity(body); err != nil {
		e.stats.inASNParseErrs.Add(1)
		return nil, nil
	}
	m := &message{header: h, src: src, now: e.now()}
	data := *body
	tag, content, err := body.next()
	encrypted := h.flags&flagPriv != 0
	if err != nil || !body.empty() || encrypted != (tag == tagOctets) || !encrypted && tag != tagSequence {
		e.stats.inASNParseErrs.Add(1)
		return nil, nil
	}
	if !encrypted {
		m.plain = data
	}

	if !bytes.Equal(h.engineID, e.cfg.EngineID) {
		return e.report(m, nil, &e.stats.unknownEngineIDs, oidUnknownEngineIDs), nil
	}
	u := e.users[h.user]
	if u == nil {
		return e.report(m, nil, &e.stats.unknownUserNames, oidUnknownUserNames), nil
	}
	if h.level() > u.level() {
		return e.report(m, nil, &e.stats.unsupportedSecLevels, oidUnsupportedSecLevels), nil
	}
	if h.flags&flagAuth != 0 {
		if !e.mayTry(src, m.now) {
			return nil, nil
		}
		if !u.keys.authentic(msg, &m.header) {
			e.failed(src, m.now, "wrong digest of user "+u.Name)
			return e.report(m, nil, &e.stats.wrongDigests, oidWrongDigests), nil
		}
		if !e.inTimeWindow(&m.header) {
			return e.report(m, u, &e.stats.notInTimeWindows, oidNotInTimeWindows), nil
		}
		e.guard.succeeded(src, m.now)
	}
	scoped := data
	if encrypted {
		plain, err := u.keys.decrypt(h.boots, h.time, h.salt, content.bytes())
		if err != nil {
			return e.report(m, nil, &e.stats.decryptionErrors, oidDecryptionErrors), nil
		}
		scoped = newReader(plain)
	}
	s, err := readScoped(&scoped)
	if err != nil {
		if encrypted {
			// A wrong privacy key shows in nothing else.
			return e.report(m, nil, &e.stats.decryptionErrors, oidDecryptionErrors), nil
		}
		e.stats.inASNParseErrs.Add(1)
		return nil, nil
	}
	return e.handleScoped(m, u, s)
}

// inTimeWindow is RFC 3414 section 3.2 step 7a.
func (e *Engine) inTimeWindow(h *header) bool {
	boots := int32(e.cfg.Boots)
	off := int64(h.time) - int64(e.engineTime())
	return boots != math.MaxInt32 && h.boots == boots && off <= timeWindow && off >= -timeWindow
}

// handleScoped answers a message that is what it says it is, at its level.
func (e *Engine) handleScoped(m *message, u *user, s scopedPDU) ([]byte, func()) {
	switch s.pdu.kind {
	case pduGet, pduGetNext, pduGetBulk, pduSet:
	case pduInform:
		return e.reportScoped(m, u, s.pdu, &e.stats.unknownPDUHandlers, oidUnknownPDUHandlers), nil
	default:
		e.stats.unknownPDUHandlers.Add(1)
		return nil, nil
	}
	if !bytes.Equal(s.contextEngineID, e.cfg.EngineID) {
		return e.reportScoped(m, u, s.pdu, &e.stats.unknownPDUHandlers, oidUnknownPDUHandlers), nil
	}
	if len(s.contextName) > 0 {
		return e.reportScoped(m, u, s.pdu, &e.stats.unknownContexts, oidUnknownContexts), nil
	}
	level := m.level()
	if s.pdu.kind == pduSet && level >= AuthNoPriv {
		if e.seen.tooOld(m.time) {
			return e.report(m, u, &e.stats.notInTimeWindows, oidNotInTimeWindows), nil
		}
		if !e.seen.add(m.mac, m.time, e.engineTime()) {
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
	room := int(min(int64(m.maxSize), int64(e.cfg.MaxSize))) - v3Overhead(&h, u.keys)
	resp, ok := e.respond(&request{
		pdu:    s.pdu,
		access: access,
		caller: mib.Caller{Private: level == AuthPriv, Name: u.Name, Zone: e.zone},
		room:   room, bulkRoom: room,
	})
	if !ok {
		return nil, nil
	}
	reply, err := appendV3(h, u.keys, e.salt.Add(1), appendScoped(nil, e.cfg.EngineID, resp.pdu, resp.vars))
	if err != nil {
		e.log.Error("answer not encrypted", "user", u.Name, "err", err)
	}
	return reply, resp.done
}

// replyHeader is the header of an answer to m. This engine is authoritative
// for both.
func (e *Engine) replyHeader(m *message, level Level) header {
	return header{
		msgID: m.msgID, maxSize: int32(e.cfg.MaxSize), flags: level.flags(),
		engineID: e.cfg.EngineID, boots: int32(e.cfg.Boots), time: e.engineTime(), user: m.user,
	}
}

// flags are the bits of msgFlags for a level.
func (l Level) flags() byte {
	return [...]byte{NoAuthNoPriv: 0, AuthNoPriv: flagAuth, AuthPriv: flagAuth | flagPriv}[l]
}

// report counts an error and tells the sender, if it can be told. A Report is
// authenticated as u, or nobody's if u is nil.
func (e *Engine) report(m *message, u *user, count *atomic.Uint32, oid mib.OID) []byte {
	var p pdu
	if m.plain.buf != nil {
		// Only the request-id is of use, so an error does not matter.
		if s, err := readScoped(&m.plain); err == nil {
			if p = s.pdu; !confirmed(p.kind) {
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
func (e *Engine) reportScoped(m *message, u *user, p pdu, count *atomic.Uint32, oid mib.OID) []byte {
	return e.reportAt(m, u, m.level(), p, count, oid)
}

func (e *Engine) reportAt(m *message, u *user, level Level, p pdu, count *atomic.Uint32, oid mib.OID) []byte {
	value := mib.Value{Type: mib.Counter32, Int: int64(count.Add(1))}
	if m.flags&flagReportable == 0 || !e.guard.mayReport(m.src, m.now) {
		return nil
	}
	var k *keys
	if u != nil {
		k = u.keys
	}
	vars := encodeVars([]mib.Varbind{{OID: oid, Value: value}})
	scoped := appendScoped(nil, e.cfg.EngineID, pdu{kind: pduReport, requestID: p.requestID}, vars)
	reply, err := appendV3(e.replyHeader(m, level), k, e.salt.Add(1), scoped)
	if err != nil {
		e.log.Error("report not encrypted", "err", err)
	}
	return reply
}

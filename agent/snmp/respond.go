package snmp

import (
	"math"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// request is a request whose sender is known.
type request struct {
	pdu    snmp.PDU
	v1     bool
	caller mib.Caller
	// access is what the sender may do; nil means nothing.
	access *Access
	// user is the sender with SNMPv3, at a security level.
	user  *user
	level Level
	// room is how many bytes of encoded variable bindings the answer may
	// have, bulkRoom how many those to a GETBULK.
	room, bulkRoom int
}

// response is a Response-PDU with its variable bindings encoded.
type response struct {
	pdu  snmp.PDU
	vars []byte
	// done ends the transaction of a SET once the response has left; nil for
	// other requests.
	done func()
}

// respond carries a request out. ok is false if there is no answer that would
// fit (RFC 3416 section 4.2: the request is silently dropped).
func (e *Engine) respond(req *request) (resp response, ok bool) {
	e.settle()
	switch req.pdu.Kind {
	case snmp.PDUGet:
		resp = e.respondGet(req, func(s *snapshot, vb mib.Varbind) mib.Varbind {
			return mib.Varbind{OID: vb.OID, Value: s.get(vb.OID)}
		})
	case snmp.PDUGetNext:
		resp = e.respondGet(req, func(s *snapshot, vb mib.Varbind) mib.Varbind { return s.next(vb.OID) })
	case snmp.PDUGetBulk:
		resp = e.respondGetBulk(req)
	case snmp.PDUSet:
		resp = e.respondSet(req)
	}
	if len(resp.vars) > req.room {
		resp = req.refuse(mib.TooBig, 0)
	}
	if len(resp.vars) > req.room {
		e.stats.silentDrops.Add(1)
		return response{}, false
	}
	return resp, true
}

func (req *request) answer(vars []byte) response {
	return response{pdu: snmp.PDU{Kind: snmp.PDUResponse, RequestID: req.pdu.RequestID}, vars: vars}
}

// refuse answers with an error. The index counts from 1.
func (req *request) refuse(status mib.Status, index int) response {
	var vars []byte
	if req.v1 {
		status = statusV1(status)
	}
	// A v2 tooBig carries no variables (RFC 3416 section 4.2.1), other errors
	// and all those of v1 carry the request's.
	if status != mib.TooBig || req.v1 {
		vars = snmp.EncodeVars(req.pdu.Vars)
	}
	resp := req.answer(vars)
	resp.pdu.Status, resp.pdu.Index = int32(status), int32(index)
	return resp
}

// Error-status values that only SNMPv1 has (RFC 3416 section 3).
const (
	noSuchName mib.Status = 2
	badValue   mib.Status = 3
)

// statusV1 maps an error-status to SNMPv1 (RFC 3584 section 4.4).
func statusV1(s mib.Status) mib.Status {
	switch s {
	case mib.WrongValue, mib.WrongEncoding, mib.WrongType, mib.WrongLength, mib.InconsistentValue:
		return badValue
	case mib.NoAccess, mib.NotWritable, mib.NoCreation, mib.InconsistentName, mib.AuthorizationError:
		return noSuchName
	case mib.ResourceUnavailable, mib.CommitFailed, mib.UndoFailed:
		return mib.GenErr
	}
	return s
}

// respondGet reads each variable by itself.
func (e *Engine) respondGet(req *request, read func(*snapshot, mib.Varbind) mib.Varbind) response {
	if req.access == nil || len(req.access.Read) == 0 {
		return req.refuse(mib.AuthorizationError, 0)
	}
	s := snapshot{engine: e, view: req.access.Read, authentic: req.level >= AuthNoPriv}
	vars := make([]byte, 0, 512)
	for i, vb := range req.pdu.Vars {
		vb = read(&s, vb)
		if req.v1 && vb.Value.IsException() {
			return req.refuse(noSuchName, i+1)
		}
		vars = snmp.AppendVarbind(vars, vb)
		if len(vars) > req.room {
			break
		}
	}
	return req.answer(vars)
}

// respondGetBulk answers a GetBulkRequest (RFC 3416 section 4.2.3): as many
// variables as there is room for, so the repetitions asked for cost nothing
// by themselves.
func (e *Engine) respondGetBulk(req *request) response {
	if req.access == nil || len(req.access.Read) == 0 {
		return req.refuse(mib.AuthorizationError, 0)
	}
	s := snapshot{engine: e, view: req.access.Read, authentic: req.level >= AuthNoPriv}
	room := min(req.room, req.bulkRoom)
	vars := make([]byte, 0, min(room, defaultMaxSize))
	add := func(vb mib.Varbind) (fits bool) {
		before := len(vars)
		vars = snmp.AppendVarbind(vars, vb)
		if len(vars) > room {
			vars = vars[:before]
			return false
		}
		return true
	}

	once := min(int(max(0, req.pdu.Status)), len(req.pdu.Vars))
	for _, vb := range req.pdu.Vars[:once] {
		if !add(s.next(vb.OID)) {
			return req.answer(vars)
		}
	}
	row := make([]mib.OID, 0, len(req.pdu.Vars)-once)
	for _, vb := range req.pdu.Vars[once:] {
		row = append(row, vb.OID)
	}
	for range max(0, req.pdu.Index) {
		more := false
		for i, oid := range row {
			vb := s.next(oid)
			if !add(vb) {
				return req.answer(vars)
			}
			row[i] = vb.OID
			more = more || vb.Value.Type != mib.EndOfMibView
		}
		if !more {
			break
		}
	}
	return req.answer(vars)
}

// respondSet tests and commits (RFC 3416 section 4.2.5).
func (e *Engine) respondSet(req *request) response {
	if req.access == nil || len(req.access.Write) == 0 {
		return req.refuse(mib.AuthorizationError, 0)
	}
	// The answer repeats the request: what cannot be answered is not begun.
	vars := snmp.EncodeVars(req.pdu.Vars)
	if len(vars) > req.room {
		return req.refuse(mib.TooBig, 0)
	}
	for i, vb := range req.pdu.Vars {
		if !req.mayWrite(vb.OID) {
			return req.refuse(mib.NoAccess, i+1)
		}
	}
	if e.flush != nil {
		e.flush() // it may take long, and others wait for their answers
	}
	done, refused := e.set(req)
	if refused != nil {
		e.log.Info("SET refused", "by", req.caller.Name, "status", refused.Status, "index", refused.Index, "reason", refused.Reason)
		return req.refuse(refused.Status, min(refused.Index, math.MaxInt32))
	}
	resp := req.answer(vars)
	resp.done = done
	return resp
}

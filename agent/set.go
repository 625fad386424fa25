package agent

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// Test implements mib.Instrumentation: it turns assignments into one change of
// the engine, which judges them together.
func (a *Agent) Test(caller mib.Caller, list []mib.Assignment) (mib.Transaction, error) {
	for _, as := range list {
		if err := a.permit(caller, as); err != nil {
			if slices.ContainsFunc(list, func(as mib.Assignment) bool {
				return as.Object == mib.ReqCommand && as.Value.Int != int64(mib.OperationKindNone)
			}) {
				a.engine.Refused(refusedBecause(as.Object, err))
			}
			return nil, err
		}
	}
	c := procedure.Change{Zone: caller.Zone}
	for _, as := range list {
		c.Guarded = c.Guarded || guarded(as.Object)
		switch as.Object {
		case mib.ReqLock:
			n := int32(as.Value.Int)
			c.Lock = &n
		case mib.ReqCommand:
			c.Command = mib.OperationKind(as.Value.Int)
		case mib.ReqId:
			c.HasReqID = true
		case mib.ReqOwner:
			c.HasOwner = true
		}
	}
	c.Edit = func(s *procedure.Settings) error {
		before := s.Servers
		for _, as := range list {
			assign(s, as)
		}
		forgetPasswords(&before, s, list)
		return checkAddresses(s, list)
	}
	r, err := a.engine.Test(c)
	if err != nil {
		return nil, setError(err, list)
	}
	return transaction{r, list}, nil
}

// guarded reports whether a SET of an object moves iadUpgReqLock.
func guarded(o *mib.Object) bool {
	switch o {
	case mib.ConfirmMode, mib.ConfirmWindow, mib.NotifyEnable, mib.NotifyStep, mib.NotifyMinInterval, mib.NotifyMaxInterval:
		return false
	}
	return true
}

// Refused implements mib.Refuser: a request that the module itself forbids was refused
// as well, and iadUpgReqRefusal says why.
func (a *Agent) Refused(vbs []mib.Varbind, e *mib.SetError) {
	module := a.tree.Module()
	for _, vb := range vbs {
		if o, _, ok := module.Lookup(vb.OID); ok && o == mib.ReqCommand && vb.Value.Int != int64(mib.OperationKindNone) {
			guilty, _, _ := module.Lookup(vbs[e.Index-1].OID)
			a.engine.Refused(refusedBecause(guilty, e))
			return
		}
	}
}

// refusedBecause is the cause of a request that failed for the sake of one object.
func refusedBecause(o *mib.Object, e *mib.SetError) procedure.Failure {
	f := procedure.Failure{Code: mib.FailCauseBadRequest, Text: e.Reason}
	switch {
	case e.Status == mib.AuthorizationError:
		f.Code = mib.FailCauseNotPermitted
	case e.Status == mib.WrongValue && o == mib.ReqCommand:
		f.Code = mib.FailCauseUnsupported
	case e.Status == mib.WrongValue && o == mib.ServerProtocol:
		f.Code = mib.FailCauseUnsupportedProtocol
	}
	return f
}

// permit judges what depends on the caller or the device, not on the state.
func (a *Agent) permit(caller mib.Caller, as mib.Assignment) *mib.SetError {
	switch as.Object {
	case mib.ServerPassword:
		if !caller.Private && !a.cfg.PlainPasswords && len(as.Value.Bytes) > 0 {
			return &mib.SetError{Status: mib.AuthorizationError, Index: as.Pos,
				Reason: "a password is accepted only in a message with privacy"}
		}
	case mib.ServerProtocol:
		if p := mib.Protocol(as.Value.Int); !a.fetcher.Supports(p) {
			return &mib.SetError{Status: mib.WrongValue, Index: as.Pos, Reason: p.String() + " is not supported"}
		}
	}
	return nil
}

// assign makes one assignment; the tree has checked type, size and range.
func assign(s *procedure.Settings, as mib.Assignment) {
	n, text := as.Value.Int, string(as.Value.Bytes)
	switch as.Object.Row {
	case mib.ServerEntry:
		assignServer(&s.Servers[as.Index[0]-1], as)
		return
	case mib.FileEntry:
		f := &s.Files[as.Index[0]-1]
		switch as.Object {
		case mib.FileName:
			f.Name = text
		case mib.FileExpectSize:
			f.Size = uint32(n)
		case mib.FileExpectDigest:
			f.Digest = []byte(text)
		}
		return
	}
	p := &s.Params
	switch as.Object {
	case mib.ReqId:
		p.ReqID = uint32(n)
	case mib.ReqOwner:
		p.Owner = text
	case mib.ReqServer:
		p.Server = uint8(n)
	case mib.ReqFiles:
		p.Files = procedure.FileSet(setOf(as.Value.Bytes))
	case mib.ReqBank:
		p.Bank = uint8(n)
	case mib.ReqVersion:
		p.Version = text
	case mib.ReqOptions:
		p.Options = procedure.Options(setOf(as.Value.Bytes))
	case mib.ReqTimeLimit:
		p.TimeLimit = uint32(n)
	case mib.ReqRetries:
		p.Retries = uint8(n)
	case mib.ReqDelay:
		p.Delay = uint32(n)
	case mib.ReqTargetOpId:
		p.TargetOp = uint32(n)
	case mib.ConfirmMode:
		s.ConfirmMode = mib.ConfirmModeEnum(n)
	case mib.ConfirmWindow:
		s.ConfirmWindow = uint32(n)
	case mib.NotifyEnable:
		s.Notify.Enable = uint8(setOf(as.Value.Bytes))
	case mib.NotifyStep:
		s.Notify.Step = uint8(n)
	case mib.NotifyMinInterval:
		s.Notify.MinInterval = uint32(n)
	case mib.NotifyMaxInterval:
		s.Notify.MaxInterval = uint32(n)
	}
}

func assignServer(s *procedure.Server, as mib.Assignment) {
	n, text := as.Value.Int, string(as.Value.Bytes)
	switch as.Object {
	case mib.ServerAddressType:
		s.AddressType = uint8(n)
	case mib.ServerAddress:
		s.Address = []byte(text)
	case mib.ServerPort:
		s.Port = uint16(n)
	case mib.ServerProtocol:
		s.Protocol = mib.Protocol(n)
	case mib.ServerUser:
		s.User = text
	case mib.ServerPassword:
		s.Password = []byte(text)
	case mib.ServerPath:
		s.Path = text
	case mib.ServerTimeout:
		s.Timeout = uint32(n)
	}
}

// forgetPasswords drops the password of a server that is another one now:
// whoever may write where the server is, but does not know its password, must
// not be able to have it sent to another server.
func forgetPasswords(before *[procedure.Servers]procedure.Server, s *procedure.Settings, list []mib.Assignment) {
	for i := range s.Servers {
		is, was := &s.Servers[i], &before[i]
		same := is.AddressType == was.AddressType && bytes.Equal(is.Address, was.Address) &&
			is.Port == was.Port && is.Protocol == was.Protocol
		given := slices.ContainsFunc(list, func(as mib.Assignment) bool {
			return as.Object == mib.ServerPassword && int(as.Index[0]) == i+1
		})
		if !same && !given {
			is.Password = nil
		}
	}
}

// checkAddresses refuses an address that does not fit its type.
func checkAddresses(s *procedure.Settings, list []mib.Assignment) error {
	for _, as := range list {
		if as.Object != mib.ServerAddress && as.Object != mib.ServerAddressType {
			continue
		}
		row := &s.Servers[as.Index[0]-1]
		if _, err := mib.ParseInetAddress(mib.InetAddressType(row.AddressType), row.Address); err != nil {
			return &mib.SetError{Status: mib.InconsistentValue, Index: as.Pos, Reason: err.Error()}
		}
	}
	return nil
}

func setOf(b []byte) (set uint) {
	for n := range 8 * len(b) {
		if mib.HasBit(b, n) {
			set |= 1 << n
		}
	}
	return set
}

// setError finds the status and the varbind for a refusal of the engine.
func setError(err error, list []mib.Assignment) *mib.SetError {
	var set *mib.SetError
	if errors.As(err, &set) {
		return set
	}
	var r *procedure.Refusal
	if !errors.As(err, &r) {
		return &mib.SetError{Status: mib.ResourceUnavailable, Reason: err.Error()}
	}
	e := &mib.SetError{Reason: fmt.Sprintf("cause %d: %s", r.Code, r.Text)}
	switch r.Verdict {
	case procedure.Inconsistent:
		e.Status = mib.InconsistentValue
	case procedure.WrongValue:
		e.Status = mib.WrongValue
	default:
		e.Status = mib.ResourceUnavailable
	}
	for _, as := range list {
		if concerns(r, as) {
			e.Index = as.Pos
			return e
		}
	}
	if len(list) > 0 {
		e.Index = list[0].Pos
	}
	return e
}

// concerns reports whether an assignment is the subject of a refusal.
func concerns(r *procedure.Refusal, as mib.Assignment) bool {
	switch r.Subject {
	case procedure.SubjectLock:
		return as.Object == mib.ReqLock
	case procedure.SubjectCommand:
		return as.Object == mib.ReqCommand
	case procedure.SubjectServer:
		return as.Object.Row == mib.ServerEntry && int(as.Index[0]) == r.Row
	case procedure.SubjectFile:
		return as.Object.Row == mib.FileEntry && int(as.Index[0]) == r.Row
	}
	return false
}

// transaction is a SET that the engine has reserved.
type transaction struct {
	r    *procedure.Reservation
	list []mib.Assignment
}

func (t transaction) Commit() error {
	err := t.r.Commit()
	if err == nil {
		return nil
	}
	e := &mib.SetError{Status: mib.CommitFailed, Reason: err.Error()}
	for _, as := range t.list {
		if as.Object == mib.ReqCommand {
			e.Index = as.Pos
		}
	}
	return e
}

func (t transaction) Undo() error {
	if err := t.r.Undo(); err != nil {
		return &mib.SetError{Status: mib.UndoFailed, Reason: err.Error()}
	}
	return nil
}

func (t transaction) Done() { t.r.Done() }

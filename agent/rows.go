package agent

import (
	"example.com/iad/agent/procedure"
	"example.com/iad/bank"
	"example.com/iad/mib"
)

func bankValue(o *mib.Object, b *bank.Info) (mib.Value, bool) {
	switch o {
	case mib.BankState:
		return enum(b.State), true
	case mib.BankRoles:
		return mib.Octets(roles(b.Running, b.Next, b.Fallback)), true
	case mib.BankVersion:
		return mib.Str(b.Version), true
	case mib.BankConfigFormat:
		return mib.Uint32(b.ConfigFormat), true
	case mib.BankSize:
		return octets(uint64(max(b.Size, 0))), true
	case mib.BankCapacity:
		return octets(uint64(max(b.Capacity, 0))), true
	case mib.BankDigest:
		return mib.Octets(b.Digest), true
	case mib.BankWritten:
		return mib.DateAndTime(b.Written), true
	case mib.BankTriesLeft:
		return mib.Uint32(uint32(b.TriesLeft)), true
	case mib.BankError:
		return enum(b.Cause), true
	case mib.BankErrorText:
		return mib.Str(b.Text), true
	}
	return mib.Value{}, false
}

func roles(running, next, fallback bool) []byte {
	var list []int
	for n, set := range []bool{running, next, fallback} {
		if set {
			list = append(list, n)
		}
	}
	return mib.Bits(list...)
}

func serverValue(o *mib.Object, s *procedure.Server) (mib.Value, bool) {
	switch o {
	case mib.ServerAddressType:
		return enum(s.AddressType), true
	case mib.ServerAddress:
		return mib.Octets(s.Address), true
	case mib.ServerPort:
		return mib.Uint32(uint32(s.Port)), true
	case mib.ServerProtocol:
		return enum(s.Protocol), true
	case mib.ServerUser:
		return mib.Str(s.User), true
	case mib.ServerPassword:
		return mib.Octets(nil), true
	case mib.ServerPasswordSet:
		return mib.Bool(len(s.Password) > 0), true
	case mib.ServerPath:
		return mib.Str(s.Path), true
	case mib.ServerTimeout:
		return mib.Uint32(s.Timeout), true
	}
	return mib.Value{}, false
}

func fileValue(o *mib.Object, f *procedure.File, r *procedure.FileResult) (mib.Value, bool) {
	switch o {
	case mib.FileName:
		return mib.Str(f.Name), true
	case mib.FileExpectSize:
		return mib.Uint32(f.Size), true
	case mib.FileExpectDigest:
		return mib.Octets(f.Digest), true
	case mib.FileLastOpId:
		return mib.Uint32(r.OpID), true
	case mib.FileLastResult:
		return enum(r.Result), true
	case mib.FileLastSize:
		return octets(r.Size), true
	case mib.FileLastDigest:
		return mib.Octets(r.Digest), true
	case mib.FileLastFormat:
		return mib.Uint32(r.Format), true
	}
	return mib.Value{}, false
}

func histValue(o *mib.Object, op *procedure.Operation) (mib.Value, bool) {
	switch o {
	case mib.HistReqId:
		return mib.Uint32(op.Params.ReqID), true
	case mib.HistOwner:
		return mib.Str(op.Params.Owner), true
	case mib.HistKind:
		return enum(op.Kind), true
	case mib.HistState:
		return enum(op.State), true
	case mib.HistPhase:
		return enum(op.Phase), true
	case mib.HistFailCause:
		return enum(op.Cause), true
	case mib.HistFailText:
		return mib.Str(op.Text), true
	case mib.HistAttempts:
		return mib.Uint32(op.Attempt), true
	case mib.HistStarted:
		return mib.DateAndTime(op.Started), true
	case mib.HistEnded:
		return mib.DateAndTime(op.Ended), true
	case mib.HistElapsed:
		return mib.Uint32(op.Elapsed), true
	case mib.HistBytes:
		return octets(op.Done), true
	case mib.HistBank:
		return mib.Uint32(uint32(op.Bank)), true
	case mib.HistOldVersion:
		return mib.Str(op.OldVersion), true
	case mib.HistNewVersion:
		return mib.Str(op.NewVersion), true
	}
	return mib.Value{}, false
}

func eventValue(o *mib.Object, ev *procedure.Event) (mib.Value, bool) {
	switch o {
	case mib.EventType:
		return enum(ev.Type), true
	case mib.EventTime:
		return mib.DateAndTime(ev.Time), true
	case mib.EventOpId:
		return mib.Uint32(ev.Op.ID), true
	case mib.EventCause:
		return enum(ev.Cause), true
	case mib.EventText:
		return mib.Str(ev.Text), true
	}
	return mib.Value{}, false
}

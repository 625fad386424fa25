package agent

import (
	"math/bits"

	"example.com/iad/agent/procedure"
	"example.com/iad/bank"
	"example.com/iad/bank/image"
	"example.com/iad/mib"
)

// view is the state of the device for one request.
type view struct {
	a *Agent
	s *procedure.Snapshot
	// banks is read when the first value of it is asked for, which most requests never do;
	// looked says that it has what only the system knows, which costs system calls.
	banks  *bank.Status
	looked bool
}

var _ mib.View = (*view)(nil)

// View implements mib.Instrumentation.
func (a *Agent) View() mib.View {
	return &view{a: a, s: a.engine.Snapshot()}
}

// known is the state of the banks from memory.
func (v *view) known() *bank.Status {
	if v.banks == nil {
		s := v.a.device.banks.Known()
		v.banks = &s
	}
	return v.banks
}

// seen is the state of the banks with what the system says of them. It agrees with what known returned.
func (v *view) seen() *bank.Status {
	if s := v.known(); !v.looked {
		v.a.device.banks.Look(s)
		v.looked = true
	}
	return v.banks
}

// Rows returns the indexes of a table.
func (v *view) Rows(o *mib.Object) []mib.OID {
	switch o {
	case mib.BankEntry:
		return numbered(2)
	case mib.ServerEntry:
		return numbered(procedure.Servers)
	case mib.FileEntry:
		return numbered(procedure.FileKinds)
	case mib.HistEntry:
		rows := make([]mib.OID, len(v.s.History))
		for i, op := range v.s.History {
			rows[i] = mib.OID{op.ID}
		}
		return ordered(rows)
	case mib.EventEntry:
		rows := make([]mib.OID, len(v.s.Events))
		for i, ev := range v.s.Events {
			rows[i] = mib.OID{ev.Seq}
		}
		return ordered(rows)
	}
	return nil
}

func numbered(n uint32) []mib.OID {
	rows := make([]mib.OID, n)
	for i := range rows {
		rows[i] = mib.OID{uint32(i) + 1}
	}
	return rows
}

// ordered turns rows in the order of time into lexicographic order: they differ
// only when the numbers have wrapped.
func ordered(rows []mib.OID) []mib.OID {
	for i := 1; i < len(rows); i++ {
		if rows[i][0] < rows[i-1][0] {
			return append(append([]mib.OID{}, rows[i:]...), rows[:i]...)
		}
	}
	return rows
}

// Value returns the value of an instance.
func (v *view) Value(o *mib.Object, index mib.OID) (mib.Value, bool) {
	if len(index) != 1 {
		return mib.Value{}, false
	}
	n := int(index[0])
	if o.Kind == mib.Scalar {
		if n != 0 {
			return mib.Value{}, false
		}
		return v.scalar(o)
	}
	switch o.Row {
	case mib.BankEntry:
		if n >= 1 && n <= 2 {
			return bankValue(o, v.seen().Bank(n))
		}
	case mib.ServerEntry:
		if n >= 1 && n <= procedure.Servers {
			return serverValue(o, &v.s.Settings.Servers[n-1])
		}
	case mib.FileEntry:
		if n >= 1 && n <= procedure.FileKinds {
			return fileValue(o, &v.s.Settings.Files[n-1], &v.s.Files[n-1])
		}
	case mib.HistEntry:
		for i := range v.s.History {
			if v.s.History[i].ID == index[0] {
				return histValue(o, &v.s.History[i])
			}
		}
	case mib.EventEntry:
		for i := range v.s.Events {
			if v.s.Events[i].Seq == index[0] {
				return eventValue(o, &v.s.Events[i])
			}
		}
	}
	return mib.Value{}, false
}

func (v *view) scalar(o *mib.Object) (mib.Value, bool) {
	for _, group := range []func(*mib.Object) (mib.Value, bool){v.deviceValue, v.requestValue, v.operationValue} {
		if val, ok := group(o); ok {
			return val, true
		}
	}
	return mib.Value{}, false
}

func (v *view) deviceValue(o *mib.Object) (mib.Value, bool) {
	c := &v.a.cfg
	switch o {
	case mib.DeviceId:
		return mib.Str(c.DeviceID), true
	case mib.DeviceModel:
		return mib.Str(c.Model), true
	case mib.HardwareRevision:
		return mib.Str(c.Hardware), true
	case mib.SoftwareVersion:
		return mib.Str(v.known().Bank(v.known().Running).Version), true
	case mib.ConfigFormat:
		return mib.Uint32(v.a.device.format()), true
	case mib.OpKindsSupported:
		return mib.Octets(mib.Bits(0, 1, 2, 3, 4, 5, 6, 7, 8)), true
	case mib.ProtocolsSupported:
		return mib.Octets(protocolBits(c.Protocols)), true
	case mib.SignatureRequired:
		return mib.Bool(true), true
	case mib.ResetRequired:
		return mib.Bool(v.s.ResetRequired()), true
	case mib.RestartCount:
		return mib.Uint32(v.s.Restarts), true
	case mib.RestartReason:
		return enum(v.s.Reason), true
	case mib.ConfigGeneration:
		return mib.Uint32(v.s.Config.Generation), true
	case mib.ConfigDigest:
		return mib.Octets(v.s.Config.Digest), true
	case mib.ConfigApplied:
		return mib.DateAndTime(v.s.Config.Applied), true
	case mib.ImageFormat:
		return mib.Uint32(image.ManifestFormat), true
	case mib.BackupRecipient:
		if key := v.a.device.backupKey; key != nil {
			return mib.Str(key.Recipient().String()), true
		}
		return mib.Str(""), true
	case mib.TrustSerial:
		return mib.Uint32(v.known().Trust), true
	case mib.HistMax:
		return mib.Uint32(procedure.HistoryMax), true
	case mib.NotifyEnable:
		return mib.Octets(bitsOf(uint(v.s.Settings.Notify.Enable))), true
	case mib.NotifyStep:
		return mib.Uint32(uint32(v.s.Settings.Notify.Step)), true
	case mib.NotifyMinInterval:
		return mib.Uint32(v.s.Settings.Notify.MinInterval), true
	case mib.NotifyMaxInterval:
		return mib.Uint32(v.s.Settings.Notify.MaxInterval), true
	case mib.EventSeq:
		return mib.Uint32(v.s.Seq), true
	}
	return mib.Value{}, false
}

func (v *view) requestValue(o *mib.Object) (mib.Value, bool) {
	p := &v.s.Settings.Params
	switch o {
	case mib.ReqLock:
		return mib.Int32(int64(v.s.Lock)), true
	case mib.ReqId:
		return mib.Uint32(p.ReqID), true
	case mib.ReqOwner:
		return mib.Str(p.Owner), true
	case mib.ReqServer:
		return mib.Uint32(uint32(p.Server)), true
	case mib.ReqFiles:
		return mib.Octets(bitsOf(uint(p.Files))), true
	case mib.ReqBank:
		return mib.Uint32(uint32(p.Bank)), true
	case mib.ReqVersion:
		return mib.Str(p.Version), true
	case mib.ReqOptions:
		return mib.Octets(bitsOf(uint(p.Options))), true
	case mib.ReqTimeLimit:
		return mib.Uint32(p.TimeLimit), true
	case mib.ReqRetries:
		return mib.Uint32(uint32(p.Retries)), true
	case mib.ReqDelay:
		return mib.Uint32(p.Delay), true
	case mib.ReqTargetOpId:
		return mib.Uint32(p.TargetOp), true
	case mib.ReqCommand:
		return enum(mib.OperationKindNone), true
	case mib.ReqRefusal:
		return enum(v.s.Refusal), true
	case mib.ReqRefusalText:
		return mib.Str(v.s.RefusalText), true
	case mib.ConfirmMode:
		return enum(v.s.Settings.ConfirmMode), true
	case mib.ConfirmWindow:
		return mib.Uint32(v.s.Settings.ConfirmWindow), true
	}
	return mib.Value{}, false
}

func (v *view) operationValue(o *mib.Object) (mib.Value, bool) {
	switch o {
	case mib.OpElapsed:
		return mib.Uint32(v.s.Elapsed()), true
	case mib.OpTimeLeft:
		return mib.Uint32(v.s.TimeLeft()), true
	case mib.OpLastChange:
		return mib.Uint32(v.s.SinceChange()), true
	case mib.ConfirmTimeLeft:
		return mib.Uint32(v.s.ConfirmLeft()), true
	}
	return opValue(o, &v.s.Op)
}

// opValue is a static property of an operation.
func opValue(o *mib.Object, op *procedure.Operation) (mib.Value, bool) {
	switch o {
	case mib.OpId:
		return mib.Uint32(op.ID), true
	case mib.OpReqId:
		return mib.Uint32(op.Params.ReqID), true
	case mib.OpOwner:
		return mib.Str(op.Params.Owner), true
	case mib.OpKind:
		return enum(op.Kind), true
	case mib.OpState:
		return enum(op.State), true
	case mib.OpPhase:
		return enum(op.Phase), true
	case mib.OpPercent:
		return mib.Uint32(uint32(op.Percent)), true
	case mib.OpFile:
		return mib.Str(op.File), true
	case mib.OpBytesDone:
		return octets(op.Done), true
	case mib.OpBytesTotal:
		return octets(op.Total), true
	case mib.OpBank:
		return mib.Uint32(uint32(op.Bank)), true
	case mib.OpStarted:
		return mib.DateAndTime(op.Started), true
	case mib.OpEnded:
		return mib.DateAndTime(op.Ended), true
	case mib.OpAttempt:
		return mib.Uint32(op.Attempt), true
	case mib.OpFailCause:
		return enum(op.Cause), true
	case mib.OpFailText:
		return mib.Str(op.Text), true
	case mib.OpAdvice:
		return enum(op.Advice()), true
	}
	return mib.Value{}, false
}

// enum is the INTEGER of an enumeration numbered as in the module.
func enum[T ~uint8](n T) mib.Value { return mib.Int32(int64(n)) }

// bytes is a count in an Unsigned32, which ends at 4 GiB.
func octets(n uint64) mib.Value { return mib.Uint32(uint32(min(n, 1<<32-1))) }

// bitsOf turns 1<<n into bit n of a BITS value.
func bitsOf(set uint) []byte {
	var list []int
	for ; set != 0; set &= set - 1 {
		list = append(list, bits.TrailingZeros(set))
	}
	return mib.Bits(list...)
}

func protocolBits(protocols []mib.Protocol) []byte {
	var list []int
	for _, p := range protocols {
		list = append(list, int(p)-1)
	}
	return mib.Bits(list...)
}

package manager

import (
	"context"
	"fmt"
	"slices"
	"time"

	"example.com/iad/mib"
)

// scalar is the instance of an object that is in no table.
var scalar = mib.OID{0}

// Device is the iadUpgDevice group.
type Device struct {
	ID, Model, Hardware string
	Version             string // of the software that runs
	ConfigFormat        uint32 // that the software reads and writes
	Operations          []byte // BITS of iadUpgOpKindsSupported
	Protocols           []byte // BITS of IadUpgProtocolSet
	SignatureRequired   bool
	ResetRequired       bool
	RestartCount        uint32
	RestartReason       mib.RestartReasonEnum
	Generation          uint32 // of the configuration data in force; 0: defaults
	ConfigDigest        []byte
	ConfigApplied       time.Time
}

// Supports tells whether the device can carry out a kind of operation.
func (d *Device) Supports(k mib.OperationKind) bool {
	return mib.HasBit(d.Operations, int(k)-int(mib.OperationKindBackupConfig))
}

// Speaks tells whether the device can use a transfer protocol.
func (d *Device) Speaks(p Protocol) bool { return mib.HasBit(d.Protocols, int(p)-1) }

// Device reads identity and capabilities.
func (c *Client) Device(ctx context.Context) (*Device, error) {
	d := new(Device)
	var id []byte
	err := c.read(ctx, scalar, []field{
		octets(mib.DeviceId, &id), text(mib.DeviceId, &d.ID), text(mib.DeviceModel, &d.Model), text(mib.HardwareRevision, &d.Hardware),
		text(mib.SoftwareVersion, &d.Version), number(mib.ConfigFormat, &d.ConfigFormat),
		octets(mib.OpKindsSupported, &d.Operations), octets(mib.ProtocolsSupported, &d.Protocols),
		truth(mib.SignatureRequired, &d.SignatureRequired), truth(mib.ResetRequired, &d.ResetRequired),
		number(mib.RestartCount, &d.RestartCount), number(mib.RestartReason, &d.RestartReason),
		number(mib.ConfigGeneration, &d.Generation), octets(mib.ConfigDigest, &d.ConfigDigest),
		when(mib.ConfigApplied, &d.ConfigApplied),
	})
	if err == nil {
		err = checkDeviceID(c.address, id)
	}
	if err == nil {
		err = c.sameDevice(d.ID)
	}
	return d, err
}

// Bank is one row of iadUpgBankTable.
type Bank struct {
	Number                  int
	State                   mib.BankStateEnum
	Running, Next, Fallback bool
	Version                 string
	ConfigFormat            uint32
	Size, Capacity          uint32 // octets
	Digest                  []byte // of the manifest
	Written                 time.Time
	TriesLeft               uint32
	Error                   mib.FailCause
	ErrorText               string
}

// Banks reads both banks.
func (c *Client) Banks(ctx context.Context) ([2]Bank, error) {
	var banks [2]Bank
	for i := range banks {
		b := &banks[i]
		b.Number = i + 1
		var roles []byte
		err := c.read(ctx, mib.OID{uint32(b.Number)}, []field{
			number(mib.BankState, &b.State), octets(mib.BankRoles, &roles), text(mib.BankVersion, &b.Version),
			number(mib.BankConfigFormat, &b.ConfigFormat), number(mib.BankSize, &b.Size),
			number(mib.BankCapacity, &b.Capacity), octets(mib.BankDigest, &b.Digest),
			when(mib.BankWritten, &b.Written), number(mib.BankTriesLeft, &b.TriesLeft),
			number(mib.BankError, &b.Error), text(mib.BankErrorText, &b.ErrorText),
		})
		if err != nil {
			return banks, err
		}
		b.Running = mib.HasBit(roles, mib.BankRolesRunning)
		b.Next = mib.HasBit(roles, mib.BankRolesNextBoot)
		b.Fallback = mib.HasBit(roles, mib.BankRolesFallback)
	}
	return banks, nil
}

// File is one row of iadUpgFileTable.
type File struct {
	Kind         mib.FileType
	Name         string
	ExpectSize   uint32
	ExpectDigest []byte
	LastOpID     uint32
	LastResult   mib.FailCause
	LastSize     uint32
	LastDigest   []byte
	LastFormat   uint32
}

// File reads the row of a kind of file.
func (c *Client) File(ctx context.Context, kind mib.FileType) (*File, error) {
	f := &File{Kind: kind}
	err := c.read(ctx, mib.OID{uint32(kind)}, []field{
		text(mib.FileName, &f.Name), number(mib.FileExpectSize, &f.ExpectSize),
		octets(mib.FileExpectDigest, &f.ExpectDigest), number(mib.FileLastOpId, &f.LastOpID),
		number(mib.FileLastResult, &f.LastResult), number(mib.FileLastSize, &f.LastSize),
		octets(mib.FileLastDigest, &f.LastDigest), number(mib.FileLastFormat, &f.LastFormat),
	})
	return f, err
}

// Operation is the iadUpgOperation group: the running operation or the last.
type Operation struct {
	ID, ReqID             uint32
	Owner                 string
	Kind                  mib.OperationKind
	State                 mib.OperationState
	Phase                 mib.OperationPhase
	Percent               uint32 // 255: unknown
	File                  string
	BytesDone, BytesTotal uint32 // octets; total 0: unknown
	Bank                  uint32
	Started, Ended        time.Time
	Elapsed, TimeLeft     time.Duration
	Attempt               uint32
	Cause                 mib.FailCause
	Text                  string
	Advice                mib.RetryAdvice
	LastChange            time.Duration
	ConfirmTimeLeft       time.Duration
}

// Final tells whether the operation has its verdict.
func (o *Operation) Final() bool { return finalState(o.State) }

func finalState(s mib.OperationState) bool {
	return s == mib.OperationStateSucceeded || s == mib.OperationStateFailed || s == mib.OperationStateAborted
}

// Is tells whether o came from the request with this number and owner.
func (o *Operation) Is(reqID uint32, owner string) bool {
	return reqID != 0 && o.ReqID == reqID && o.Owner == owner
}

// Operation reads the running operation or the last one.
func (c *Client) Operation(ctx context.Context) (*Operation, error) {
	o := new(Operation)
	err := c.read(ctx, scalar, []field{
		number(mib.OpId, &o.ID), number(mib.OpReqId, &o.ReqID), text(mib.OpOwner, &o.Owner),
		number(mib.OpKind, &o.Kind), number(mib.OpState, &o.State), number(mib.OpPhase, &o.Phase),
		number(mib.OpPercent, &o.Percent), text(mib.OpFile, &o.File), number(mib.OpBytesDone, &o.BytesDone),
		number(mib.OpBytesTotal, &o.BytesTotal), number(mib.OpBank, &o.Bank), when(mib.OpStarted, &o.Started),
		when(mib.OpEnded, &o.Ended), seconds(mib.OpElapsed, &o.Elapsed), seconds(mib.OpTimeLeft, &o.TimeLeft),
		number(mib.OpAttempt, &o.Attempt), number(mib.OpFailCause, &o.Cause), text(mib.OpFailText, &o.Text),
		number(mib.OpAdvice, &o.Advice), seconds(mib.OpLastChange, &o.LastChange),
		seconds(mib.ConfirmTimeLeft, &o.ConfirmTimeLeft),
	})
	return o, err
}

// HistoryEntry is one row of iadUpgHistTable.
type HistoryEntry struct {
	OpID, ReqID            uint32
	Owner                  string
	Kind                   mib.OperationKind
	State                  mib.OperationState
	Phase                  mib.OperationPhase
	Cause                  mib.FailCause
	Text                   string
	Attempts               uint32
	Started, Ended         time.Time
	Elapsed                time.Duration
	Bytes                  uint32
	Bank                   uint32
	OldVersion, NewVersion string
}

// History reads the operations that have ended, oldest first.
func (c *Client) History(ctx context.Context) ([]HistoryEntry, error) {
	return readTable(ctx, c, mib.HistEntry, func(index uint32, h *HistoryEntry) []field {
		h.OpID = index
		return []field{
			number(mib.HistReqId, &h.ReqID), text(mib.HistOwner, &h.Owner), number(mib.HistKind, &h.Kind),
			number(mib.HistState, &h.State), number(mib.HistPhase, &h.Phase), number(mib.HistFailCause, &h.Cause),
			text(mib.HistFailText, &h.Text), number(mib.HistAttempts, &h.Attempts), when(mib.HistStarted, &h.Started),
			when(mib.HistEnded, &h.Ended), seconds(mib.HistElapsed, &h.Elapsed), number(mib.HistBytes, &h.Bytes),
			number(mib.HistBank, &h.Bank), text(mib.HistOldVersion, &h.OldVersion), text(mib.HistNewVersion, &h.NewVersion),
		}
	})
}

// EventEntry is one row of iadUpgEventTable.
type EventEntry struct {
	Seq   uint32
	Type  mib.EventTypeEnum
	Time  time.Time
	OpID  uint32
	Cause mib.FailCause
	Text  string
}

// Events reads the last events, in the order of their numbers.
func (c *Client) Events(ctx context.Context) ([]EventEntry, error) {
	return readTable(ctx, c, mib.EventEntry, func(index uint32, e *EventEntry) []field {
		e.Seq = index
		return []field{
			number(mib.EventType, &e.Type), when(mib.EventTime, &e.Time), number(mib.EventOpId, &e.OpID),
			number(mib.EventCause, &e.Cause), text(mib.EventText, &e.Text),
		}
	})
}

// readTable reads a table whose rows have one number as their index.
func readTable[R any](ctx context.Context, c *Client, row *mib.Object, fields func(index uint32, to *R) []field) ([]R, error) {
	type line struct {
		row    *R
		fields []field
	}
	lines := make(map[uint32]line)
	err := c.walk(ctx, row, func(column *mib.Object, index mib.OID, v mib.Value) {
		if len(index) != 1 {
			return
		}
		l, ok := lines[index[0]]
		if !ok {
			l.row = new(R)
			l.fields = fields(index[0], l.row)
			lines[index[0]] = l
		}
		for _, f := range l.fields {
			if f.object == column && fits(column, v) {
				f.set(v)
			}
		}
	})
	if err == nil && len(lines) > 0 && c.seen.Load() {
		err = c.awaitModule(ctx) // the table may have ended because its agent did
	}
	if err != nil {
		return nil, err
	}
	var indexes []uint32
	for index := range lines {
		indexes = append(indexes, index)
	}
	slices.Sort(indexes)
	rows := make([]R, len(indexes))
	for i, index := range indexes {
		rows[i] = *lines[index].row
	}
	return rows, nil
}

// ConfirmMode reads who accepts software on trial.
func (c *Client) ConfirmMode(ctx context.Context) (mib.ConfirmModeEnum, error) {
	var mode mib.ConfirmModeEnum
	err := c.read(ctx, scalar, []field{number(mib.ConfirmMode, &mode)})
	return mode, err
}

// EventSeq reads the number of the last event.
func (c *Client) EventSeq(ctx context.Context) (uint32, error) {
	var seq uint32
	err := c.read(ctx, scalar, []field{number(mib.EventSeq, &seq)})
	return seq, err
}

// String names the bank and what it holds.
func (b Bank) String() string { return fmt.Sprintf("bank %d (%s, %s)", b.Number, b.Version, b.State) }

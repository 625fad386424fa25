package device

import (
	"bytes"
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
	// ImageFormat is the newest format of image manifests that the device reads, 0 if it
	// does not say, because it reads format 1 only.
	ImageFormat int
	// BackupRecipient is the age recipient of the device for configuration files, empty if it
	// neither sends nor reads encrypted ones.
	BackupRecipient string
	// TrustSerial is the serial of the trust document that the device holds, 0 if public keys
	// in its settings say who signs software.
	TrustSerial uint32
}

// Supports reports whether the device supports a kind of operation.
func (d *Device) Supports(k mib.OperationKind) bool {
	return mib.HasBit(d.Operations, int(k)-int(mib.OperationKindBackupConfig))
}

// Speaks reports whether the device supports a transfer protocol.
func (d *Device) Speaks(p Protocol) bool { return mib.HasBit(d.Protocols, int(p)-1) }

// Device reads identity and capabilities.
func (c *Client) Device(ctx context.Context) (*Device, error) {
	d := new(Device)
	var id []byte
	err := c.read(ctx, scalar, []Field{
		Octets(mib.DeviceId, &id), Text(mib.DeviceId, &d.ID), Text(mib.DeviceModel, &d.Model), Text(mib.HardwareRevision, &d.Hardware),
		Text(mib.SoftwareVersion, &d.Version), Number(mib.ConfigFormat, &d.ConfigFormat),
		Octets(mib.OpKindsSupported, &d.Operations), Octets(mib.ProtocolsSupported, &d.Protocols),
		Truth(mib.SignatureRequired, &d.SignatureRequired), Truth(mib.ResetRequired, &d.ResetRequired),
		Number(mib.RestartCount, &d.RestartCount), Number(mib.RestartReason, &d.RestartReason),
		Number(mib.ConfigGeneration, &d.Generation), Octets(mib.ConfigDigest, &d.ConfigDigest),
		when(mib.ConfigApplied, &d.ConfigApplied), Number(mib.ImageFormat, &d.ImageFormat),
		Text(mib.BackupRecipient, &d.BackupRecipient), Number(mib.TrustSerial, &d.TrustSerial),
	})
	if err == nil {
		err = CheckDeviceID(c.address, id)
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
	Size, Capacity          uint32 // bytes
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
		err := c.read(ctx, mib.OID{uint32(b.Number)}, []Field{
			Number(mib.BankState, &b.State), Octets(mib.BankRoles, &roles), Text(mib.BankVersion, &b.Version),
			Number(mib.BankConfigFormat, &b.ConfigFormat), Number(mib.BankSize, &b.Size),
			Number(mib.BankCapacity, &b.Capacity), Octets(mib.BankDigest, &b.Digest),
			when(mib.BankWritten, &b.Written), Number(mib.BankTriesLeft, &b.TriesLeft),
			Number(mib.BankError, &b.Error), Text(mib.BankErrorText, &b.ErrorText),
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
	err := c.read(ctx, mib.OID{uint32(kind)}, []Field{
		Text(mib.FileName, &f.Name), Number(mib.FileExpectSize, &f.ExpectSize),
		Octets(mib.FileExpectDigest, &f.ExpectDigest), Number(mib.FileLastOpId, &f.LastOpID),
		Number(mib.FileLastResult, &f.LastResult), Number(mib.FileLastSize, &f.LastSize),
		Octets(mib.FileLastDigest, &f.LastDigest), Number(mib.FileLastFormat, &f.LastFormat),
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
	BytesDone, BytesTotal uint32 // bytes; total 0: unknown
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

// Final reports whether the operation has ended.
func (o *Operation) Final() bool { return finalState(o.State) }

func finalState(s mib.OperationState) bool {
	return s == mib.OperationStateSucceeded || s == mib.OperationStateFailed || s == mib.OperationStateAborted
}

// Is reports whether o came from the request with this number and owner.
func (o *Operation) Is(reqID uint32, owner string) bool {
	return reqID != 0 && o.ReqID == reqID && o.Owner == owner
}

// Operation reads the running operation or the last one.
func (c *Client) Operation(ctx context.Context) (*Operation, error) {
	o := new(Operation)
	err := c.read(ctx, scalar, []Field{
		Number(mib.OpId, &o.ID), Number(mib.OpReqId, &o.ReqID), Text(mib.OpOwner, &o.Owner),
		Number(mib.OpKind, &o.Kind), Number(mib.OpState, &o.State), Number(mib.OpPhase, &o.Phase),
		Number(mib.OpPercent, &o.Percent), Text(mib.OpFile, &o.File), Number(mib.OpBytesDone, &o.BytesDone),
		Number(mib.OpBytesTotal, &o.BytesTotal), Number(mib.OpBank, &o.Bank), when(mib.OpStarted, &o.Started),
		when(mib.OpEnded, &o.Ended), Seconds(mib.OpElapsed, &o.Elapsed), Seconds(mib.OpTimeLeft, &o.TimeLeft),
		Number(mib.OpAttempt, &o.Attempt), Number(mib.OpFailCause, &o.Cause), Text(mib.OpFailText, &o.Text),
		Number(mib.OpAdvice, &o.Advice), Seconds(mib.OpLastChange, &o.LastChange),
		Seconds(mib.ConfirmTimeLeft, &o.ConfirmTimeLeft),
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
	return readTable(ctx, c, mib.HistEntry, func(index uint32, h *HistoryEntry) []Field {
		h.OpID = index
		return []Field{
			Number(mib.HistReqId, &h.ReqID), Text(mib.HistOwner, &h.Owner), Number(mib.HistKind, &h.Kind),
			Number(mib.HistState, &h.State), Number(mib.HistPhase, &h.Phase), Number(mib.HistFailCause, &h.Cause),
			Text(mib.HistFailText, &h.Text), Number(mib.HistAttempts, &h.Attempts), when(mib.HistStarted, &h.Started),
			when(mib.HistEnded, &h.Ended), Seconds(mib.HistElapsed, &h.Elapsed), Number(mib.HistBytes, &h.Bytes),
			Number(mib.HistBank, &h.Bank), Text(mib.HistOldVersion, &h.OldVersion), Text(mib.HistNewVersion, &h.NewVersion),
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
	return readTable(ctx, c, mib.EventEntry, func(index uint32, e *EventEntry) []Field {
		e.Seq = index
		return []Field{
			Number(mib.EventType, &e.Type), when(mib.EventTime, &e.Time), Number(mib.EventOpId, &e.OpID),
			Number(mib.EventCause, &e.Cause), Text(mib.EventText, &e.Text),
		}
	})
}

// readTable reads a table whose rows have one number as their index.
func readTable[R any](ctx context.Context, c *Client, row *mib.Object, fields func(index uint32, to *R) []Field) ([]R, error) {
	type line struct {
		row    *R
		fields []Field
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
			if f.Object == column && Fits(column, v) {
				f.Set(v)
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

// ConfirmMode reads who confirms software on trial.
func (c *Client) ConfirmMode(ctx context.Context) (mib.ConfirmModeEnum, error) {
	var mode mib.ConfirmModeEnum
	err := c.read(ctx, scalar, []Field{Number(mib.ConfirmMode, &mode)})
	return mode, err
}

// EventSeq reads the number of the last event.
func (c *Client) EventSeq(ctx context.Context) (uint32, error) {
	var seq uint32
	err := c.read(ctx, scalar, []Field{Number(mib.EventSeq, &seq)})
	return seq, err
}

// String returns the number, version and state of the bank.
func (b Bank) String() string { return fmt.Sprintf("bank %d (%s, %s)", b.Number, b.Version, b.State) }

// Holds reports whether the bank has the software with this version and one of these digests.
// If its digest or one of these is unknown, the version alone decides.
func (b Bank) Holds(version string, digests ...[]byte) bool {
	return b.Version == version && (len(b.Digest) == 0 || slices.ContainsFunc(digests, func(digest []byte) bool {
		return len(digest) == 0 || bytes.Equal(b.Digest, digest)
	}))
}

// String returns number, kind and text of the event.
func (e EventEntry) String() string {
	s := fmt.Sprintf("#%d %s", e.Seq, e.Type)
	if e.Cause != mib.FailCauseNone && e.Cause != 0 {
		s += ", " + e.Cause.Explain().What
	}
	if e.Text != "" {
		s += " (" + e.Text + ")"
	}
	return s
}

// Rescue reports whether the device is in rescue mode: neither bank has software that can
// be started. The device keeps its configuration data and accepts new software.
func (d *Device) Rescue() bool {
	return d.Version == "" && d.RestartReason == mib.RestartReasonFault
}

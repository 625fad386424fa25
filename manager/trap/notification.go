package trap

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// Notification is a notification of IAD-UPGRADE-MIB as received. Fields that its kind
// does not have are zero.
type Notification struct {
	Kind     *mib.Notification
	From     netip.AddrPort
	Received time.Time
	// User is the SNMPv3 user or the community of the sender.
	User string
	// Inform: the sender got an acknowledgement.
	Inform bool

	DeviceID string
	Seq      uint32 // iadUpgEventSeq
	Op       device.Operation
	// Bank and the following fields belong to iadUpgBankSwitched and iadUpgRolledBack.
	Bank          device.Bank
	Version       string // of the software that runs
	ConfigFormat  uint32
	RestartReason mib.RestartReasonEnum
	RestartCount  uint32
	ResetRequired bool

	// Missed is the number of events of this device between the last one received and this
	// one; a manager reads them from iadUpgEventTable.
	Missed uint32
}

// Is reports whether the notification is of a kind.
func (n *Notification) Is(kind *mib.Notification) bool { return n.Kind == kind }

// parseNotification stores the varbinds of a notification in its fields. It ignores
// objects that do not belong to the notification, and returns an error for a text longer
// than the module permits or a missing device ID.
func parseNotification(m *mib.Module, kind *mib.Notification, vbs []mib.Varbind) (*Notification, error) {
	n := &Notification{Kind: kind}
	var roles []byte
	fields := []device.Field{
		device.Text(mib.DeviceId, &n.DeviceID), device.Number(mib.EventSeq, &n.Seq), device.Number(mib.OpId, &n.Op.ID),
		device.Number(mib.OpReqId, &n.Op.ReqID), device.Text(mib.OpOwner, &n.Op.Owner), device.Number(mib.OpKind, &n.Op.Kind),
		device.Number(mib.OpState, &n.Op.State), device.Number(mib.OpPhase, &n.Op.Phase), device.Number(mib.OpPercent, &n.Op.Percent),
		device.Number(mib.OpBytesDone, &n.Op.BytesDone), device.Number(mib.OpBytesTotal, &n.Op.BytesTotal),
		device.Number(mib.OpAttempt, &n.Op.Attempt), device.Seconds(mib.OpTimeLeft, &n.Op.TimeLeft),
		device.Seconds(mib.OpElapsed, &n.Op.Elapsed), device.Number(mib.OpFailCause, &n.Op.Cause),
		device.Text(mib.OpFailText, &n.Op.Text), device.Number(mib.OpAdvice, &n.Op.Advice),
		device.Octets(mib.BankRoles, &roles), device.Number(mib.BankState, &n.Bank.State), device.Text(mib.BankVersion, &n.Bank.Version),
		device.Number(mib.BankError, &n.Bank.Error), device.Text(mib.BankErrorText, &n.Bank.ErrorText),
		device.Text(mib.SoftwareVersion, &n.Version), device.Number(mib.ConfigFormat, &n.ConfigFormat),
		device.Number(mib.RestartReason, &n.RestartReason), device.Number(mib.RestartCount, &n.RestartCount),
		device.Truth(mib.ResetRequired, &n.ResetRequired),
	}
	for _, vb := range vbs {
		object, index, ok := m.Lookup(vb.OID)
		if !ok || !device.Fits(object, vb.Value) {
			continue
		}
		for _, f := range fields {
			if f.Object == object {
				if !device.Sized(object, vb.Value) {
					return nil, fmt.Errorf("%s of %d bytes", object.Name, len(vb.Value.Bytes))
				}
				f.Set(vb.Value)
			}
		}
		if object.Row == mib.BankEntry && len(index) == 1 && (index[0] == 1 || index[0] == 2) {
			n.Bank.Number = int(index[0])
		}
	}
	if n.DeviceID == "" {
		return nil, fmt.Errorf("%s without %s", kind.Name, mib.DeviceId.Name)
	}
	n.Bank.Running = mib.HasBit(roles, mib.BankRolesRunning)
	n.Bank.Next = mib.HasBit(roles, mib.BankRolesNextBoot)
	n.Bank.Fallback = mib.HasBit(roles, mib.BankRolesFallback)
	if n.Is(mib.NotifyOpCompleted) {
		n.Op.State, n.Op.Percent = mib.OperationStateSucceeded, 100
	}
	return n, nil
}

// String returns device, kind and number, for logs.
func (n *Notification) String() string {
	return fmt.Sprintf("%s %s #%d", n.DeviceID, n.Kind.Name, n.Seq)
}

// plain is Notification without its methods.
type plain Notification

// encoded is the JSON form of a Notification, in which its kind is a name.
type encoded struct {
	Kind string
	plain
}

// MarshalJSON implements json.Marshaler, for a program that passes notifications on.
func (n *Notification) MarshalJSON() ([]byte, error) {
	return json.Marshal(encoded{Kind: n.Kind.Name, plain: plain(*n)})
}

// UnmarshalJSON implements json.Unmarshaler. It returns an error for a kind that the module
// does not have.
func (n *Notification) UnmarshalJSON(data []byte) error {
	var e encoded
	if err := json.Unmarshal(data, &e); err != nil {
		return err
	}
	i := slices.IndexFunc(mib.Notifications, func(kind *mib.Notification) bool { return kind.Name == e.Kind })
	if i < 0 {
		return fmt.Errorf("unknown notification %.40q", e.Kind)
	}
	*n = Notification(e.plain)
	n.Kind = mib.Notifications[i]
	return nil
}

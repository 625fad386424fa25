package manager

import (
	"fmt"
	"net/netip"
	"time"

	"example.com/iad/mib"
)

// Notification is one notification of IAD-UPGRADE-MIB as it was received.
// Fields that its kind does not carry are zero.
type Notification struct {
	Kind     *mib.Notification
	From     netip.AddrPort
	Received time.Time
	// User is the SNMPv3 user or the community that vouches for it.
	User string
	// Inform: the sender was told that it arrived.
	Inform bool

	DeviceID string
	Seq      uint32 // iadUpgEventSeq
	Op       Operation
	// Bank and what follows are of iadUpgBankSwitched and iadUpgRolledBack.
	Bank          Bank
	Version       string // of the software that runs
	ConfigFormat  uint32
	RestartReason mib.RestartReasonEnum
	RestartCount  uint32
	ResetRequired bool

	// Missed is how many events of this device between the last one received
	// and this one were not; a manager reads them from iadUpgEventTable.
	Missed uint32
}

// Is tells the kind of the notification.
func (n *Notification) Is(kind *mib.Notification) bool { return n.Kind == kind }

// parseNotification sorts the varbinds of a notification into its fields.
// Objects that do not belong to it are ignored; one whose text is longer than the
// module allows, or that names no device, is an error.
func parseNotification(m *mib.Module, kind *mib.Notification, vbs []mib.Varbind) (*Notification, error) {
	n := &Notification{Kind: kind}
	var roles []byte
	fields := []field{
		text(mib.DeviceId, &n.DeviceID), number(mib.EventSeq, &n.Seq), number(mib.OpId, &n.Op.ID),
		number(mib.OpReqId, &n.Op.ReqID), text(mib.OpOwner, &n.Op.Owner), number(mib.OpKind, &n.Op.Kind),
		number(mib.OpState, &n.Op.State), number(mib.OpPhase, &n.Op.Phase), number(mib.OpPercent, &n.Op.Percent),
		number(mib.OpBytesDone, &n.Op.BytesDone), number(mib.OpBytesTotal, &n.Op.BytesTotal),
		number(mib.OpAttempt, &n.Op.Attempt), seconds(mib.OpTimeLeft, &n.Op.TimeLeft),
		seconds(mib.OpElapsed, &n.Op.Elapsed), number(mib.OpFailCause, &n.Op.Cause),
		text(mib.OpFailText, &n.Op.Text), number(mib.OpAdvice, &n.Op.Advice),
		octets(mib.BankRoles, &roles), number(mib.BankState, &n.Bank.State), text(mib.BankVersion, &n.Bank.Version),
		number(mib.BankError, &n.Bank.Error), text(mib.BankErrorText, &n.Bank.ErrorText),
		text(mib.SoftwareVersion, &n.Version), number(mib.ConfigFormat, &n.ConfigFormat),
		number(mib.RestartReason, &n.RestartReason), number(mib.RestartCount, &n.RestartCount),
		truth(mib.ResetRequired, &n.ResetRequired),
	}
	for _, vb := range vbs {
		object, index, ok := m.Lookup(vb.OID)
		if !ok || !fits(object, vb.Value) {
			continue
		}
		for _, f := range fields {
			if f.object == object {
				if !sized(object, vb.Value) {
					return nil, fmt.Errorf("%s of %d octets", object.Name, len(vb.Value.Bytes))
				}
				f.set(vb.Value)
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

// String shows device, kind and number, for logs.
func (n *Notification) String() string {
	return fmt.Sprintf("%s %s #%d", n.DeviceID, n.Kind.Name, n.Seq)
}

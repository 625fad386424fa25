package conformance

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

// watch checks the rules that always hold, on every operation that is read and on every
// notification.
type watch struct {
	session *session
	module  *mib.Module

	mu        sync.Mutex
	operation *device.Operation       // as last seen, in this test
	progress  map[string]uint32       // percent by operation and attempt, of notifications
	events    map[uint32]notification // by number, since the start of the run
	last      uint32                  // greatest number received
	notes     []notification          // of this test
	lose      func(notification) bool // which informs are not acknowledged
	began     uint32                  // iadUpgEventSeq at the start of the test
	enabled   []byte                  // iadUpgNotifyEnable at the start; nil: changed by the test
	listening bool
}

// notification is a notification as received.
type notification struct {
	trap.Raw
	seq, op uint32
	times   int // how often it was received
}

func (n notification) value(o *mib.Object, m *mib.Module) (mib.Value, bool) {
	for _, vb := range n.Vars {
		if found, _, ok := m.Lookup(vb.OID); ok && found == o {
			return vb.Value, true
		}
	}
	return mib.Value{}, false
}

func (w *watch) init(s *session) {
	w.session, w.module = s, mib.NewModule(s.client.Root())
	w.events, w.listening = map[uint32]notification{}, s.cfg.Listen != ""
}

// begin starts a test.
func (w *watch) begin(t *T) {
	seq, enabled := uint32(t.number(mib.EventSeq)), t.get(mib.NotifyEnable).Bytes
	w.mu.Lock()
	defer w.mu.Unlock()
	w.operation, w.progress, w.notes, w.lose = nil, map[string]uint32{}, nil, nil
	w.began, w.enabled = seq, enabled
	if w.last == 0 {
		w.last = seq
	}
}

// forget forgets the operation as last seen: a power cut takes back progress, which devices
// need not store.
func (w *watch) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.operation = nil
	clear(w.progress)
}

// legal are the states that may follow each other, directly or with states between them
// that were not seen.
var legal = map[mib.OperationState][]mib.OperationState{
	mib.OperationStateWaiting:    {mib.OperationStateRunning, mib.OperationStateRestarting, mib.OperationStateAborting, mib.OperationStateSucceeded, mib.OperationStateFailed, mib.OperationStateAborted},
	mib.OperationStateRunning:    {mib.OperationStateWaiting, mib.OperationStateRestarting, mib.OperationStateAborting, mib.OperationStateSucceeded, mib.OperationStateFailed, mib.OperationStateAborted},
	mib.OperationStateRestarting: {mib.OperationStateRunning, mib.OperationStateSucceeded, mib.OperationStateFailed},
	mib.OperationStateAborting:   {mib.OperationStateAborted, mib.OperationStateFailed},
}

// see checks an operation that was read.
func (w *watch) see(t *T, op *device.Operation) {
	w.mu.Lock()
	before := w.operation
	w.operation = op
	w.mu.Unlock()
	if op.State == mib.OperationStateIdle {
		return
	}
	t.check("OP-PERCENT-100", op.Percent != 100 || op.State == mib.OperationStateSucceeded, "iadUpgOpPercent is 100 in state %s, phase %s", op.State, op.Phase)
	t.check("OP-BYTES", op.BytesTotal == 0 || op.BytesDone <= op.BytesTotal, "iadUpgOpBytesDone %d is more than iadUpgOpBytesTotal %d", op.BytesDone, op.BytesTotal)
	if before == nil || before.ID != op.ID {
		t.record(EntryOperation, "%s", describeOperation(op))
		return
	}
	if before.State != op.State || before.Phase != op.Phase || before.Percent != op.Percent || before.Attempt != op.Attempt {
		t.record(EntryOperation, "%s", describeOperation(op))
	}
	t.check("OP-STATES", before.State == op.State || contains(legal[before.State], op.State), "operation %d went from %s to %s", op.ID, before.State, op.State)
	if before.Attempt == op.Attempt && before.Percent <= 100 && op.Percent <= 100 {
		t.check("OP-PERCENT", op.Percent >= before.Percent, "iadUpgOpPercent fell from %d to %d in attempt %d", before.Percent, op.Percent, op.Attempt)
	}
	t.check("OP-ATTEMPT", op.Attempt >= before.Attempt, "iadUpgOpAttempt fell from %d to %d", before.Attempt, op.Attempt)
	if final(before.State) {
		t.check("OP-FINAL", before.Cause == op.Cause && before.Elapsed == op.Elapsed && before.Percent == op.Percent,
			"operation %d had ended with %s, %v, %d %%, and now has %s, %v, %d %%", op.ID, before.Cause, before.Elapsed, before.Percent, op.Cause, op.Elapsed, op.Percent)
	}
}

func describeOperation(op *device.Operation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "operation %d %s: %s, %s", op.ID, op.Kind, op.State, op.Phase)
	if op.Percent <= 100 {
		fmt.Fprintf(&b, ", %d %%", op.Percent)
	}
	if op.Attempt > 1 {
		fmt.Fprintf(&b, ", attempt %d", op.Attempt)
	}
	if op.Cause > mib.FailCauseNone {
		fmt.Fprintf(&b, ", %s: %s", op.Cause, op.Text)
	}
	return b.String()
}

// observe checks a notification; the listener calls it.
func (w *watch) observe(raw trap.Raw) (lost bool) {
	n := notification{Raw: raw, times: 1}
	if v, ok := n.value(mib.DeviceId, w.module); !ok || string(v.Bytes) != w.session.first.ID {
		return false // of another device
	}
	if v, ok := n.value(mib.EventSeq, w.module); ok {
		n.seq = uint32(v.Int)
	}
	if v, ok := n.value(mib.OpId, w.module); ok {
		n.op = uint32(v.Int)
	}
	w.session.mu.Lock()
	t := w.session.current
	w.session.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lose != nil && w.lose(n) {
		if t != nil {
			t.record(EntryNotification, "%s, number %d: not acknowledged", raw.Kind.Name, n.seq)
		}
		return true
	}
	if t == nil {
		return false
	}
	t.record(EntryNotification, "%s, number %d%s", raw.Kind.Name, n.seq, w.details(n))
	w.varbinds(t, n)
	if raw.Kind == mib.NotifyOpProgress {
		w.progressed(t, n)
	} else {
		w.event(t, n)
	}
	w.notes = append(w.notes, n)
	return false
}

// details shows the varbinds that a reader looks for.
func (w *watch) details(n notification) string {
	var b strings.Builder
	for _, vb := range n.Vars {
		o, index, ok := w.module.Lookup(vb.OID)
		if !ok || o == mib.DeviceId || o == mib.EventSeq || o == mib.OpReqId || o == mib.OpOwner {
			continue
		}
		at := ""
		if o.Kind == mib.Column {
			at = suffix(index)
		}
		fmt.Fprintf(&b, ", %s%s %s", strings.TrimPrefix(o.Name, "iadUpg"), at, show(o, vb.Value))
	}
	return b.String()
}

// varbinds checks that a notification has its objects in their order, with values that the
// module permits.
func (w *watch) varbinds(t *T, n notification) {
	var names []string
	ours := 0
	for _, vb := range n.Vars {
		o, _, ok := w.module.Lookup(vb.OID)
		if !ok {
			continue // such as sysUpTime
		}
		names = append(names, o.Name)
		if ours < len(n.Kind.Objects) && n.Kind.Objects[ours] == o {
			status, why := o.Check(vb.Value)
			t.check("NOTIFY-VALUES", status == mib.NoError, "%s in %s: %s", o.Name, n.Kind.Name, why)
		}
		ours++
	}
	want := make([]string, len(n.Kind.Objects))
	for i, o := range n.Kind.Objects {
		want[i] = o.Name
	}
	ok := len(names) >= len(want) && strings.Join(names[:len(want)], " ") == strings.Join(want, " ")
	t.check("NOTIFY-OBJECTS", ok, "%s carries %v; want %v", n.Kind.Name, names, want)
}

// progressed checks iadUpgOpProgress.
func (w *watch) progressed(t *T, n notification) {
	percent, _ := n.value(mib.OpPercent, w.module)
	attempt, _ := n.value(mib.OpAttempt, w.module)
	state, _ := n.value(mib.OpState, w.module)
	key := fmt.Sprintf("%d/%d", n.op, attempt.Int)
	t.check("OP-PERCENT-100", percent.Int != 100 || mib.OperationState(state.Int) == mib.OperationStateSucceeded, "iadUpgOpProgress of operation %d has 100 percent in state %s", n.op, mib.OperationState(state.Int))
	if percent.Int <= 100 {
		before, seen := w.progress[key]
		t.check("OP-PERCENT", !seen || uint32(percent.Int) >= before, "iadUpgOpProgress of operation %d, attempt %d: %d percent after %d", n.op, attempt.Int, percent.Int, before)
		w.progress[key] = uint32(percent.Int)
	}
	t.check("NOTIFY-PROGRESS-NUMBER", n.seq <= w.last || w.last == 0, "iadUpgOpProgress carries the number %d; the last event was %d", n.seq, w.last)
}

// event checks the number of an event.
func (w *watch) event(t *T, n notification) {
	if earlier, known := w.events[n.seq]; known {
		t.check("NOTIFY-REUSED", earlier.Kind == n.Kind && earlier.op == n.op, "number %d was that of %s of operation %d, and now is that of %s of operation %d",
			n.seq, earlier.Kind.Name, earlier.op, n.Kind.Name, n.op)
		earlier.times++
		w.events[n.seq] = earlier
		return
	}
	t.check("NOTIFY-REUSED", true, "")
	w.events[n.seq] = n
	if n.seq > w.last {
		w.last = n.seq
	}
}

// received returns the notifications of this test, in the order of arrival.
func (w *watch) received(kind *mib.Notification) (list []notification) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.notes {
		if kind == nil || n.Kind == kind {
			list = append(list, n)
		}
	}
	return list
}

// kindOf returns the notification of an event's type.
func kindOf(e mib.EventTypeEnum) *mib.Notification {
	for _, n := range mib.Notifications {
		if n.Rel[len(n.Rel)-1] == uint32(e) {
			return n
		}
	}
	return nil
}

// enabledBit is the position of a notification in iadUpgNotifyEnable.
func enabledBit(n *mib.Notification) int { return int(n.Rel[len(n.Rel)-1]) - 1 }

// eventPatience is how long notifications may take to arrive after the test.
const eventPatience = 15 * time.Second

// end checks the events of a test against iadUpgEventTable: their numbers follow each
// other, and each one that is enabled was received at least once.
func (w *watch) end(t *T) {
	seq, err := t.client.EventSeq(t.ctx)
	t.answered(err)
	rows, err := t.client.Events(t.ctx)
	t.answered(err)
	w.mu.Lock()
	began, enabled := w.began, w.enabled
	w.mu.Unlock()
	t.check("EVENT-SEQ", seq >= began, "iadUpgEventSeq fell from %d to %d", began, seq)
	byNumber := map[uint32]device.EventEntry{}
	for i, e := range rows {
		byNumber[e.Seq] = e
		if i > 0 {
			t.check("EVENT-SEQ", e.Seq == next(rows[i-1].Seq), "iadUpgEventTable: number %d after %d", e.Seq, rows[i-1].Seq)
		}
	}
	if len(rows) > 0 && seq-began > uint32(len(rows)) {
		began = rows[0].Seq - 1 // the oldest ones made room
	}
	until := time.Now().Add(min(eventPatience, t.cfg.Limit)) // for all of them
	for n := began + 1; n <= seq && n > began; n++ {
		row, ok := byNumber[n]
		if !t.check("EVENT-ROW", ok, "iadUpgEventTable has no row %d; iadUpgEventSeq is %d", n, seq) || !w.listening || enabled == nil {
			continue
		}
		kind := kindOf(row.Type)
		if kind == nil || !mib.HasBit(enabled, enabledBit(kind)) {
			continue
		}
		arrived := t.within(time.Until(until), fmt.Sprintf("%s, number %d", kind.Name, n), func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			_, ok := w.events[n]
			return ok
		})
		if !t.check("NOTIFY-SENT", arrived, "event %d (%s) of iadUpgEventTable was not received as a notification", n, kind.Name) {
			continue
		}
		w.mu.Lock()
		got := w.events[n]
		w.mu.Unlock()
		t.check("EVENT-ROW", got.Kind == kind && got.op == row.OpID, "event %d is %s of operation %d in iadUpgEventTable, and was received as %s of operation %d",
			n, kind.Name, row.OpID, got.Kind.Name, got.op)
	}
}

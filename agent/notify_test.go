package agent

import (
	"context"
	"errors"
	"slices"
	"testing"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// receiver takes the numbers of events; it refuses those from fail on.
type receiver struct {
	seqs []uint32
	fail uint32
}

func (r *receiver) Notify(_ context.Context, n mib.Notice) error {
	for i, o := range n.Notification.Objects {
		if o == mib.EventSeq {
			seq := uint32(n.Varbinds[i].Value.Int)
			if r.fail != 0 && seq >= r.fail {
				return errors.New("away")
			}
			r.seqs = append(r.seqs, seq)
		}
	}
	return nil
}

func eventsOf(first uint32, types ...mib.EventTypeEnum) *procedure.Snapshot {
	s := &procedure.Snapshot{Settings: procedure.DefaultSettings()}
	for _, typ := range types {
		s.Events = append(s.Events, procedure.Event{Seq: first, Type: typ})
		if first++; first == 0 {
			first = 1
		}
	}
	s.Seq = s.Events[len(s.Events)-1].Seq
	return s
}

func newNotifier() *Agent {
	return &Agent{cfg: Config{DeviceID: "x"}, tree: mib.NewTree(mib.NewModule(nil), nil)}
}

// Events go out in their order, each with its number; those that a receiver
// did not take go out again, with the same numbers.
func TestEventsAreSentUntilTaken(t *testing.T) {
	a, r := newNotifier(), &receiver{fail: 12}
	s := eventsOf(10, mib.EventTypeRestarted, mib.EventTypeStarted, mib.EventTypeFailed, mib.EventTypeStarted)
	sent := uint32(9)
	if err := a.sendEvents(t.Context(), r, s, &sent); err == nil || sent != 11 {
		t.Errorf("error %v, %d sent", err, sent)
	}
	r.fail = 0
	if err := a.sendEvents(t.Context(), r, s, &sent); err != nil || sent != 13 {
		t.Errorf("error %v, %d sent", err, sent)
	}
	if err := a.sendEvents(t.Context(), r, s, &sent); err != nil {
		t.Error(err)
	}
	if !slices.Equal(r.seqs, []uint32{10, 11, 12, 13}) {
		t.Errorf("events %v", r.seqs)
	}
}

// The order holds where the numbers wrap to 1.
func TestEventsAreSentOverTheWrap(t *testing.T) {
	a, r := newNotifier(), &receiver{}
	sent := uint32(4294967294)
	s := eventsOf(4294967294, mib.EventTypeRestarted, mib.EventTypeStarted, mib.EventTypeFailed, mib.EventTypeStarted)
	if err := a.sendEvents(t.Context(), r, s, &sent); err != nil || sent != 2 {
		t.Errorf("error %v, %d sent", err, sent)
	}
	if !slices.Equal(r.seqs, []uint32{4294967295, 1, 2}) {
		t.Errorf("events %v", r.seqs)
	}
}

// iadUpgNotifyEnable keeps notifications back; they count as sent, for they
// have their numbers and their rows all the same.
func TestNotifyEnable(t *testing.T) {
	a := newNotifier()
	all := []mib.EventTypeEnum{mib.EventTypeStarted, mib.EventTypeCompleted, mib.EventTypeFailed, mib.EventTypeBankSwitched,
		mib.EventTypeRolledBack, mib.EventTypeRestarting, mib.EventTypeRestarted}
	for i, typ := range all {
		bit, ok := mib.NotifyEnable.Number(typ.String())
		if !ok {
			t.Fatalf("no bit for %s", typ)
		}
		r, sent := &receiver{}, uint32(0)
		s := eventsOf(1, all...)
		s.Settings.Notify.Enable = 1 << bit
		if err := a.sendEvents(t.Context(), r, s, &sent); err != nil || sent != 7 {
			t.Errorf("error %v, %d sent", err, sent)
		}
		if !slices.Equal(r.seqs, []uint32{uint32(i) + 1}) {
			t.Errorf("%s alone: events %v", typ, r.seqs)
		}
	}
}

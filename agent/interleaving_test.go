package agent_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

var seed = flag.Uint64("seed", 0, "run only this seed of TestInterleavings")

// Requests of two managers, power cuts, broken servers and sick software in any
// order leave the device in a state that can be: one operation at a time,
// identifiers that grow by one, each operation ended once, events without gaps.
func TestInterleavings(t *testing.T) {
	seeds := uint64(1000)
	if testing.Short() {
		seeds = 100
	}
	if *seed != 0 {
		interleave(t, *seed)
		return
	}
	for n := range seeds {
		interleave(t, n+1)
		if t.Failed() {
			t.Fatalf("again by -run TestInterleavings -seed %d", n+1)
		}
	}
}

func interleave(t *testing.T, seed uint64) {
	onBench(t, nil, func(b *bench) {
		r := rand.New(rand.NewPCG(seed, 1))
		b.server()
		b.image("2.0.0", 1+uint32(seed%2))
		b.must(num(mib.ConfirmMode, 1+int64(r.IntN(2))), num(mib.ConfirmWindow, 30+int64(r.IntN(100))), num(mib.ReqRetries, int64(r.IntN(4))))
		watch := observer{b: b, ended: map[uint32]mib.OperationState{}, events: map[uint32]mib.EventTypeEnum{}}
		for range 8 {
			b.random(r)
			watch.look(fmt.Sprint("seed ", seed))
		}
		b.mu.Lock()
		b.broken = nil
		b.mu.Unlock()
		time.Sleep(2 * time.Hour) // everything ends
		watch.look(fmt.Sprint("at the end of seed ", seed))
		if s := mib.OperationState(b.num(mib.OpState)); !s.Final() {
			t.Errorf("seed %d: operation %d is %s for ever", seed, b.num(mib.OpId), s)
		}
		if v := b.text(mib.SoftwareVersion); v != "1.0.0" && v != "2.0.0" {
			t.Errorf("seed %d: runs %q", seed, v)
		}
	})
}

// random does one thing to the device.
func (b *bench) random(r *rand.Rand) {
	pause := []time.Duration{0, time.Millisecond, time.Second, 5 * time.Second, time.Minute}
	switch r.IntN(12) {
	case 0:
		b.powerCut()
	case 1:
		b.mu.Lock()
		b.broken = []error{nil, &procedure.Failure{Code: mib.FailCauseServerBusy, Text: "busy"}}[r.IntN(2)]
		b.mu.Unlock()
	case 2:
		b.mu.Lock()
		b.selfTest = []error{nil, errors.New("sick")}[r.IntN(2)]
		b.mu.Unlock()
	case 3:
		b.device.SetCalls(r.IntN(2))
	case 4: // a SET that was tested and taken back
		if tx, err := b.tree().Test(mib.Caller{}, []mib.Varbind{b.anyCommand(r)}); err == nil {
			if r.IntN(2) == 0 {
				_ = tx.Commit()
			}
			_ = tx.Undo()
		}
	default:
		owner := []string{"a", "b"}[r.IntN(2)]
		vbs := []mib.Varbind{text(mib.ReqOwner, owner), num(mib.ReqId, int64(r.IntN(3))), b.anyCommand(r)}
		if n := r.IntN(8); n < 6 {
			vbs = append(vbs, options(n), num(mib.ReqDelay, int64(r.IntN(3))))
		} else if n == 6 {
			vbs = append(vbs, options(thenActivate, thenReset))
		}
		if r.IntN(3) == 0 {
			vbs = append(vbs, num(mib.ReqLock, b.num(mib.ReqLock)-int64(r.IntN(2))))
		}
		_ = b.set(vbs...)
	}
	time.Sleep(pause[r.IntN(len(pause))])
}

func (b *bench) anyCommand(r *rand.Rand) mib.Varbind {
	return command(mib.OperationKind(2 + r.IntN(9)))
}

// observer checks what must hold at any time.
type observer struct {
	b      *bench
	op     uint32
	seq    uint32
	ended  map[uint32]mib.OperationState
	events map[uint32]mib.EventTypeEnum
}

func (o *observer) look(when string) {
	t := o.b.t
	t.Helper()
	o.b.get(mib.OpId) // waits
	s := o.b.device.Agent(t.Context(), 1).Engine().Snapshot()
	if s.Op.ID < o.op || s.Seq < o.seq {
		t.Fatalf("%s: operation %d after %d, event %d after %d", when, s.Op.ID, o.op, s.Seq, o.seq)
	}
	starts := map[uint32]int{}
	ends := map[uint32]int{}
	for i, ev := range s.Events {
		if i > 0 && ev.Seq != s.Events[i-1].Seq+1 {
			t.Errorf("%s: event %d behind %d", when, ev.Seq, s.Events[i-1].Seq)
		}
		if before, seen := o.events[ev.Seq]; seen && before != ev.Type {
			t.Errorf("%s: event %d was of type %s, is %s", when, ev.Seq, before, ev.Type)
		}
		o.events[ev.Seq] = ev.Type
		switch ev.Type {
		case mib.EventTypeStarted:
			starts[ev.Op.ID]++
		case mib.EventTypeCompleted, mib.EventTypeFailed:
			ends[ev.Op.ID]++
		}
	}
	for id, n := range starts {
		if n != 1 {
			t.Errorf("%s: operation %d started %d times", when, id, n)
		}
	}
	last := uint32(0)
	for _, op := range s.History {
		if !op.State.Final() || op.ID <= last {
			t.Errorf("%s: operation %d, %s, behind %d in the history", when, op.ID, op.State, last)
		}
		if before, seen := o.ended[op.ID]; seen && before != op.State {
			t.Errorf("%s: operation %d was %s, is %s", when, op.ID, before, op.State)
		}
		if o.ended[op.ID] = op.State; ends[op.ID] != 1 {
			t.Errorf("%s: %d events report the end of operation %d", when, ends[op.ID], op.ID)
		}
		last = op.ID
	}
	for id := uint32(1); id <= s.Op.ID; id++ {
		if _, ended := o.ended[id]; ended == (id == s.Op.ID && !s.Op.State.Final()) {
			t.Errorf("%s: operation %d of %d (%s): in the history %v", when, id, s.Op.ID, s.Op.State, ended)
		}
	}
	if s.Op.Percent == 100 && s.Op.State != mib.OperationStateSucceeded {
		t.Errorf("%s: 100 %% in state %s", when, s.Op.State)
	}
	running := s.Banks.Bank(s.Banks.Running)
	if running.State != mib.BankStateGood && running.State != mib.BankStateTrial && running.State != mib.BankStateFailed {
		t.Errorf("%s: bank %d runs in state %d", when, s.Banks.Running, running.State)
	}
	o.op, o.seq = s.Op.ID, s.Seq
}

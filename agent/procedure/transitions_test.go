package procedure

import (
	"testing"

	"example.com/iad/mib"
)

// The table is the whole truth: what is in it is followed, every other pair of
// state and trigger is refused.
func TestFollow(t *testing.T) {
	type pair struct {
		mib.OperationState
		Trigger
	}
	table := map[pair]mib.OperationState{}
	for _, tr := range Transitions() {
		p := pair{tr.From, tr.On}
		if _, twice := table[p]; twice {
			t.Errorf("%s on %s is in the table twice", tr.From, tr.On)
		}
		if tr.Why == "" || tr.From == tr.To {
			t.Errorf("%s on %s: no reason or no change", tr.From, tr.On)
		}
		if tr.From.Final() != (tr.On == OnAccept || tr.On == OnDelay) {
			t.Errorf("%s on %s: a final state is left by a new operation, and only so", tr.From, tr.On)
		}
		table[p] = tr.To
	}
	for s := mib.OperationState(0); s <= mib.OperationStateAborted+1; s++ {
		for on := Trigger(0); on <= OnInterruption+1; on++ {
			want, in := table[pair{s, on}]
			if !in {
				want = s
			}
			if got, ok := follow(s, on); got != want || ok != in {
				t.Errorf("follow(%s, %s) = %s, %v; want %s, %v", s, on, got, ok, want, in)
			}
		}
	}
}

// A trigger that the table does not have changes nothing.
func TestFireRefuses(t *testing.T) {
	e, _ := Open(Config{Banks: noBanks{}, Store: noStore{}, Device: noDevice{}, Journal: noRecord{}, Settings: noRecord{}})
	if e.fire(OnSuccess) || e.j.Op.State != mib.OperationStateIdle {
		t.Errorf("an idle device succeeded: %s", e.j.Op.State)
	}
}

type noBanks struct{ Banks }

func (noBanks) Status() BankStatus { return BankStatus{} }
func (noBanks) Known() BankStatus  { return BankStatus{} }

type noStore struct{ ConfigStore }

func (noStore) Status() ConfigStatus { return ConfigStatus{} }

type noDevice struct{ Device }

type noRecord struct{}

func (noRecord) Write([]byte) error { return nil }

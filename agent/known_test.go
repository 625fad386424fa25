package agent_test

import (
	"sync/atomic"
	"testing"

	"example.com/iad/agent"
	"example.com/iad/mib"
)

// askedBoard counts how often it is asked how much a bank holds.
type askedBoard struct {
	idleBoard
	asked atomic.Int32
}

func (b *askedBoard) Capacity(int) int64 { b.asked.Add(1); return 4096 }

// A request looks at the banks only for values that the agent does not know itself.
func TestRequestsLeaveBanksAlone(t *testing.T) {
	board := new(askedBoard)
	a := runAgent(t, func(c *agent.Config) { c.Platform = board })
	a.Engine().Sync()
	oid := a.Tree().Module().OID
	board.asked.Store(0)

	a.Tree().Get([]mib.OID{oid(mib.DeviceId, 0), oid(mib.SoftwareVersion, 0), oid(mib.OpState, 0)})
	tx, refused := a.Tree().Set(mib.Caller{}, []mib.Varbind{text(mib.ReqOwner, "operator", 0)})
	if refused != nil {
		t.Fatal(refused)
	}
	tx.Done()
	if n := board.asked.Load(); n != 0 {
		t.Errorf("the system was asked for the size of a bank %d times, by requests that do not show it", n)
	}

	got := a.Tree().Get([]mib.OID{oid(mib.BankCapacity, 1), oid(mib.BankCapacity, 2), oid(mib.BankVersion, 1)})
	for _, vb := range got[:2] {
		if vb.Value.Int != 4096 {
			t.Errorf("capacity %+v, want 4096", vb)
		}
	}
	if n := board.asked.Load(); n != 2 {
		t.Errorf("one request for the size of both banks asked the system %d times, want once for each", n)
	}
}

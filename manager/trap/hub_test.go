package trap_test

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.com/iad/manager/device"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

func TestHubDispatchesByDevice(t *testing.T) {
	var h trap.Hub
	a, again, any := h.Subscribe(trap.Filter{DeviceID: "A"}, 2), h.Subscribe(trap.Filter{DeviceID: "A"}, 2), h.Subscribe(trap.Filter{}, 2)
	if !h.Named("A") || h.Named("B") || h.Named("") {
		t.Error("only A has subscriptions")
	}
	h.Deliver(&trap.Notification{DeviceID: "B", Seq: 1})
	h.Deliver(&trap.Notification{DeviceID: "A", Seq: 2})
	for _, s := range []*trap.Subscription{a, again} {
		if n, err := s.Next(t.Context()); err != nil || n.Seq != 2 {
			t.Errorf("got %v, %v", n, err)
		}
	}
	for _, want := range []uint32{1, 2} {
		if n, err := any.Next(t.Context()); err != nil || n.Seq != want {
			t.Errorf("got %v, %v; want #%d", n, err, want)
		}
	}
	a.Close()
	again.Close()
	again.Close()
	if h.Named("A") {
		t.Error("A has no subscription any more")
	}
	h.Close()
	if _, open := <-any.C(); open {
		t.Error("still open after Close")
	}
	any.Close()
}

func TestNotificationsCanBePassedOn(t *testing.T) {
	n := &trap.Notification{
		Kind: mib.NotifyRolledBack, From: netip.MustParseAddrPort("192.0.2.1:161"), Received: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		User: "iadms", Inform: true, DeviceID: "IAD-1", Seq: 7, Op: device.Operation{ID: 3, ReqID: 5, Owner: "iadms", TimeLeft: time.Minute},
		Bank: device.Bank{Number: 2, Digest: []byte{1}}, Version: "2.0.0", Missed: 1,
	}
	data, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	var got *trap.Notification
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(n, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("%s\n%s", data, diff)
	}
	for _, bad := range []string{`{"Kind":"other"}`, `{}`, `[]`, `{"Kind":"iadUpgOpFailed","Seq":-1}`} {
		if err := json.Unmarshal([]byte(bad), new(trap.Notification)); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

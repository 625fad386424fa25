package sim_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"example.com/iad/bank/image"
	"example.com/iad/manager"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// A power cut happens in its phase however short that is, and whoever waits for a phase is
// called before anything was done in it.
func TestEachPhaseIsSeen(t *testing.T) {
	for _, c := range []struct {
		op     mib.OperationKind
		phases []mib.OperationPhase
	}{
		{mib.OperationKindBackupConfig, []mib.OperationPhase{mib.OperationPhaseCollecting, mib.OperationPhaseConnecting, mib.OperationPhaseTransferring, mib.OperationPhaseVerifying}},
		{mib.OperationKindDownloadSoftware, []mib.OperationPhase{mib.OperationPhaseChecking, mib.OperationPhaseConnecting, mib.OperationPhaseErasing, mib.OperationPhaseTransferring, mib.OperationPhaseVerifying}},
		{mib.OperationKindDownloadSoftware, []mib.OperationPhase{mib.OperationPhaseSwitching, mib.OperationPhaseRestarting, mib.OperationPhaseTrying}},
		{mib.OperationKindRecoverConfig, []mib.OperationPhase{mib.OperationPhaseConnecting, mib.OperationPhaseTransferring, mib.OperationPhaseVerifying, mib.OperationPhaseApplying}},
	} {
		for _, phase := range c.phases {
			t.Run(fmt.Sprint(c.op, " ", phase), func(t *testing.T) {
				t.Parallel()
				var h *heard
				l := newLab(t, func(c *sim.Config) { h = listenTo(c) })
				l.device.Agent(t.Context(), 1)
				fault := sim.Fault{Kind: sim.PowerCut, Operation: c.op, Phase: phase, Delay: 10 * time.Millisecond}
				l.device.Inject(fault)
				var called atomic.Int32
				l.device.WhenPhase(c.op, phase, func() { called.Add(1) })
				plan := l.plan(l.build(image.Manifest{Version: "2.0.0", ConfigFormat: 1}), "fw.iad")
				// How the procedure ends depends on the phase.
				_, err := manager.Upgrade(t.Context(), plan, manager.Automatic{}, func(manager.Update) {})
				events := h.has(fault.String())
				if len(events) != 1 || events[0].Operation != c.op || events[0].Phase != phase {
					t.Errorf("events %+v; the upgrade: %v", events, err)
				}
				if n := called.Load(); n != 1 {
					t.Errorf("called %d times", n)
				}
			})
		}
	}
}

// WhenPhase waits for its own operation and is over after it.
func TestWhenPhase(t *testing.T) {
	l := newLab(t, nil)
	called := make(chan string, 10)
	note := func(kind mib.OperationKind, phase mib.OperationPhase, what string) {
		l.device.WhenPhase(kind, phase, func() { called <- what })
	}
	note(mib.OperationKindDownloadSoftware, mib.OperationPhaseTransferring, "download")
	note(0, mib.OperationPhaseTransferring, "any transfer")
	note(mib.OperationKindActivate, mib.OperationPhaseConverting, "never")
	note(mib.OperationKindRecoverConfig, mib.OperationPhaseApplying, "apply")
	if _, err := manager.Upgrade(t.Context(), l.plan(l.build(image.Manifest{Version: "2.0.0", ConfigFormat: 1}), "fw.iad"), manager.Automatic{}, func(manager.Update) {}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"any transfer", "download", "apply"} {
		if got := <-called; got != want {
			t.Errorf("called %q, want %q", got, want)
		}
	}
	if len(called) > 0 {
		t.Errorf("called %q", <-called)
	}
}

package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/mib"
)

// Fault is a misfortune that comes to some devices.
type Fault struct {
	Kind FaultKind
	// Phase is when the power fails, for PowerCut.
	Phase mib.OperationPhase
	// Percent of the devices that it comes to, 0 to 100.
	Percent int
}

// FaultKind is a kind of misfortune.
type FaultKind string

// Kinds of faults. Stall, Corrupt and PowerCut come once to a device, the others
// stay.
const (
	Stall     FaultKind = "stall"     // the first download of software hangs half way
	Corrupt   FaultKind = "corrupt"   // one bit in a payload of the first download of software is flipped
	LostTraps FaultKind = "losttraps" // no notification leaves the device
	SelfTest  FaultKind = "selftest"  // new software does not pass its self-test
	PowerCut  FaultKind = "powercut"  // the power fails when a phase begins, for a second
)

var faultKinds = []FaultKind{Stall, Corrupt, LostTraps, SelfTest, PowerCut}

// ParseFault reads KIND:PERCENT, or powercut@PHASE:PERCENT with a phase of
// IadUpgOperationPhase.
func ParseFault(s string) (Fault, error) {
	head, percent, ok := strings.Cut(s, ":")
	f := Fault{Percent: 100}
	if ok {
		n, err := strconv.Atoi(percent)
		if err != nil || n < 0 || n > 100 {
			return f, fmt.Errorf("fault %q: %q is not a percentage", s, percent)
		}
		f.Percent = n
	}
	kind, phase, at := strings.Cut(head, "@")
	f.Kind = FaultKind(kind)
	if !slices.Contains(faultKinds, f.Kind) {
		return f, fmt.Errorf("fault %q: unknown kind %q (want one of %v)", s, kind, faultKinds)
	}
	if at != (f.Kind == PowerCut) {
		return f, fmt.Errorf("fault %q: a phase goes with powercut, as in powercut@transferring:5", s)
	}
	for p := mib.OperationPhaseChecking; at && p <= mib.OperationPhaseCleaning; p++ {
		if p.String() == phase {
			f.Phase = p
			return f, nil
		}
	}
	if at {
		return f, fmt.Errorf("fault %q: unknown phase %q", s, phase)
	}
	return f, nil
}

// Draw decides which of the faults come to a device; the same numbers give the
// same faults.
func Draw(faults []Fault, seed uint64, device int) (drawn []Fault) {
	r := rand.New(rand.NewPCG(seed, uint64(device)))
	for _, f := range faults {
		if r.IntN(100) < f.Percent {
			drawn = append(drawn, f)
		}
	}
	return drawn
}

// Afflict prepares a configuration for the faults that come to the device.
func (c *Config) Afflict(faults []Fault) {
	for _, f := range faults {
		switch f.Kind {
		case LostTraps:
			if c.SNMP != nil {
				c.SNMP.Sinks = nil
			}
		case SelfTest:
			c.Hooks.SelfTest = func(context.Context, agent.SelfTest, afero.Fs) error {
				return errors.New("no dial tone on port 1 (injected fault)")
			}
		case Stall, Corrupt:
			if c.Fetcher == nil {
				protocols := c.Protocols
				if len(protocols) == 0 {
					protocols = []mib.Protocol{mib.ProtocolTftp, mib.ProtocolFtp}
				}
				c.Fetcher = agent.NewFetcher(protocols, c.Transfer)
			}
			c.Fetcher = &faultyFetcher{Fetcher: c.Fetcher, kind: f.Kind, log: cmp.Or(c.Log, slog.New(slog.DiscardHandler))}
		case PowerCut:
			c.cutAt = f.Phase
		}
	}
}

// watchPhase cuts the power once, when the phase begins.
func (d *Device) watchPhase(ctx context.Context, a *agent.Agent) {
	changed, stop := a.Engine().Watch()
	defer stop()
	for {
		if op := a.Engine().Snapshot().Op; !op.State.Final() && op.Phase == d.cfg.cutAt {
			d.cfg.cutAt = 0
			d.cfg.Log.Warn("power cut", "phase", op.Phase)
			d.CutPower()
			timer := d.cfg.Clock.NewTimer(time.Second)
			defer timer.Stop()
			<-timer.C()
			d.PowerOn()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

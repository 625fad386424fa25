package sim

import (
	"errors"
	"strings"
	"testing"

	"example.com/iad/agent"
	"example.com/iad/agent/procedure"
	"example.com/iad/internal/crashfs"
	"example.com/iad/mib"
)

// kicked is a platform that signals its first kick.
type kicked struct {
	agent.Platform
	kick chan struct{}
}

func (k kicked) Kick() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// damagedDisk is a device's disk with one byte changed in both banks.
func damagedDisk(t *testing.T) *crashfs.Disk {
	return settledDisk(t).Flip("bank1", "app", 99).Flip("bank2", "app", 99)
}

// patient is a device that is started again after each of its restarts.
type patient struct {
	*live
	t      *testing.T
	change func(*agent.Config)
}

func (p *patient) start(m *crashfs.Machine) {
	p.t.Helper()
	world := world{}
	step := command{}
	if p.live != nil {
		world, step = p.world, p.step
	}
	var err error
	if p.live, err = powerOn(m, p.change); err != nil {
		p.t.Fatal(err)
	}
	p.world, p.step = world, step
}

// do carries an operation out to its end, over restarts.
func (p *patient) do(c command) procedure.Operation {
	p.t.Helper()
	op, err := p.carryOut(c)
	var restart *procedure.RestartError
	for range 3 {
		if !errors.As(err, &restart) {
			break
		}
		p.start(p.m)
		err = p.wait(func(s *procedure.Snapshot) bool { return s.Op.ID == p.world.opID && s.Op.State.Final() })
		op = p.Engine().Snapshot().Op
	}
	if err != nil {
		p.t.Fatalf("%s: %v", c.kind, err)
	}
	return op
}

func (p *patient) value(o *mib.Object, index uint32) mib.Value {
	v, _ := p.View().Value(o, mib.OID{index})
	return v
}

// inRescue checks what a manager sees of a device in rescue mode.
func (p *patient) inRescue() {
	p.t.Helper()
	if v := p.version(); v != "" {
		p.t.Fatalf("%q runs", v)
	}
	if r := mib.RestartReasonEnum(p.value(mib.RestartReason, 0).Int); r != mib.RestartReasonFault {
		p.t.Errorf("restart reason %s", r)
	}
	for n := uint32(1); n <= 2; n++ {
		if roles := p.value(mib.BankRoles, n).Bytes; mib.HasBit(roles, mib.BankRolesRunning) || mib.HasBit(roles, mib.BankRolesNextBoot) {
			p.t.Errorf("bank %d has the roles %x", n, roles)
		}
	}
	if p.value(mib.ResetRequired, 0).Int == int64(mib.TruthValueTrue) {
		p.t.Error("a reset is required")
	}
	if f, g := p.value(mib.ConfigFormat, 0).Int, p.value(mib.ConfigGeneration, 0).Int; f != 2 || g != 3 {
		p.t.Errorf("generation %d of format %d", g, f)
	}
	if who, err := p.owner(); err != nil || who != "third" {
		p.t.Errorf("data of %q are in force: %v", who, err)
	}
	if text := p.findings(); !strings.HasPrefix(text, "no usable software, rescue mode") {
		p.t.Errorf("event: %q", text)
	}
}

// A device whose banks are both damaged comes up, is given software that fails and then
// software that works, and has its configuration data again.
func TestRescue(t *testing.T) {
	for name, takesOver := range map[string]bool{"restart": false, "without a restart": true} {
		t.Run(name, func(t *testing.T) {
			kick := make(chan struct{}, 1)
			p := &patient{t: t, change: func(c *agent.Config) {
				c.Platform.(*platform).noReset = takesOver
				c.Platform = kicked{c.Platform, kick}
			}}
			p.start(damagedDisk(t).Start())
			defer func() { p.powerOff() }()
			<-kick
			p.inRescue()
			for kind, why := range map[mib.OperationKind]mib.FailCause{
				mib.OperationKindRestoreOldSoftware: mib.FailCauseNoFallback, mib.OperationKindActivate: mib.FailCausePreconditionMissing,
				mib.OperationKindRecoverConfig: mib.FailCausePreconditionMissing, mib.OperationKindConvertConfig: mib.FailCausePreconditionMissing,
			} {
				err := start(p.Agent, p.m, &command{kind: kind}, &p.world)
				s := p.Engine().Snapshot()
				if err == nil || s.Refusal != why || kind != mib.OperationKindActivate && !strings.Contains(s.RefusalText, "rescue mode") {
					t.Errorf("%s: %v, refused because of %d, %q", kind, err, s.Refusal, s.RefusalText)
				}
			}
			if op := p.do(command{kind: mib.OperationKindBackupConfig}); op.State != mib.OperationStateSucceeded || p.world.backup == "" {
				t.Errorf("backup: %+v", op)
			}
			if op := p.do(command{kind: mib.OperationKindReset}); op.State != mib.OperationStateSucceeded {
				t.Errorf("reset: %+v", op)
			}
			p.inRescue()

			options := procedure.ThenActivate | procedure.ThenReset
			if takesOver {
				options = procedure.ThenActivate
			}
			op := p.do(command{kind: mib.OperationKindDownloadSoftware, options: options, file: "3.0.0"})
			if op.State != mib.OperationStateFailed || op.Cause != mib.FailCauseSelfTestFailed {
				t.Errorf("sick software: %+v", op)
			}
			failed := op.Bank
			for range 2 {
				p.inRescue()
				p.powerOff()
				p.start(p.m)
			}
			p.inRescue()
			op = p.do(command{kind: mib.OperationKindDownloadSoftware, options: options, file: "2.0.0"})
			if op.State != mib.OperationStateSucceeded || p.version() != "2.0.0" || op.Bank == failed {
				t.Errorf("%q runs: %+v", p.version(), op)
			}
			if who, err := p.owner(); err != nil || who != "third" {
				t.Errorf("data of %q are in force: %v", who, err)
			}
			if err := p.usable(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Software that is in a bank and not activated starts at the next restart: there is
// nothing better. It is what activate means without a bank.
func TestRescueInSteps(t *testing.T) {
	for _, kind := range []mib.OperationKind{mib.OperationKindReset, mib.OperationKindActivate} {
		p := &patient{t: t}
		p.start(damagedDisk(t).Start())
		if op := p.do(command{kind: mib.OperationKindDownloadSoftware, file: "2.0.0"}); op.State != mib.OperationStateSucceeded {
			t.Errorf("%+v", op)
		}
		if p.value(mib.ResetRequired, 0).Int != int64(mib.TruthValueTrue) {
			t.Error("no reset is required")
		}
		c := command{kind: kind}
		if kind == mib.OperationKindActivate {
			c.options = procedure.ThenReset
		}
		if op := p.do(c); op.State != mib.OperationStateSucceeded || p.version() != "2.0.0" {
			t.Errorf("%q runs: %+v", p.version(), op)
		}
		if err := p.usable(); err != nil {
			t.Error(err)
		}
		p.powerOff()
	}
}

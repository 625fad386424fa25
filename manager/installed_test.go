package manager_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/gosnmp/gosnmp"
	"github.com/spf13/afero"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// done counts the operations of a device.
func (l *lab) done() map[mib.OperationKind]int {
	l.t.Helper()
	history, err := l.client.History(l.ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	done := make(map[mib.OperationKind]int)
	for _, h := range history {
		done[h.Kind]++
	}
	return done
}

// running is the bank that runs.
func (l *lab) running() device.Bank {
	l.t.Helper()
	banks, err := l.client.Banks(l.ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, b := range banks {
		if b.Running {
			return b
		}
	}
	l.t.Fatal("nothing runs")
	return device.Bank{}
}

// leaveConfirmationToManager keeps software on trial until a manager confirms it.
func (l *lab) leaveConfirmationToManager() {
	l.t.Helper()
	snmp := &gosnmp.GoSNMP{Target: host(l.client.Address()), Port: port(l.client.Address()), Community: "private", Version: gosnmp.Version2c, Timeout: l.target.Timeout, Retries: 20}
	if err := snmp.Connect(); err != nil {
		l.t.Fatal(err)
	}
	defer snmp.Conn.Close()
	if _, err := snmp.Set([]gosnmp.SnmpPDU{{Name: mib.NewModule(nil).OID(mib.ConfirmMode, 0).String(), Type: gosnmp.Integer, Value: int(mib.ConfirmModeManager)}}); err != nil {
		l.t.Fatal(err)
	}
}

// A device that has what it is to get is left alone, and that counts as success.
func TestUnchanged(t *testing.T) {
	l := newLab(t, labOptions{})
	journals := afero.NewMemMapFs()
	plan := l.plan(l.image("2.0.0", 2))
	fileJournal := manager.NewJournal(journals, "TEST-0001")
	plan.Journal = fileJournal
	if result, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe); err != nil || result.Unchanged {
		t.Fatalf("%+v, %v", result, err)
	}
	journal, err := afero.ReadFile(journals, fileJournal.Name())
	if err != nil {
		t.Fatal(err)
	}
	before := l.done()
	for name, change := range map[string]func(*manager.Plan){
		"once more":       func(*manager.Plan) {},
		"another journal": func(p *manager.Plan) { p.Journal = nil },
		"resumed":         func(p *manager.Plan) { p.Resume = true },
		"only checked":    func(p *manager.Plan) { p.CheckOnly = true },
		"another file of the same software": func(p *manager.Plan) {
			p.Image = l.open("copy.iad", append(l.build("2.0.0", 2, false), make([]byte, 512)...))
		},
	} {
		again := plan
		again.Pace = &device.Pace{Step: 5}
		change(&again)
		result, err := manager.Upgrade(l.ctx, again, &scripted{t: t}, l.observe)
		if err != nil || !result.Unchanged || result.OldVersion != "2.0.0" || result.NewVersion != "2.0.0" || len(result.Operations) != 0 || result.Directory != "" {
			t.Errorf("%s: %+v, %v", name, result, err)
		}
	}
	if after := l.done(); len(after) != 3 || after[mib.OperationKindBackupConfig] != before[mib.OperationKindBackupConfig] {
		t.Errorf("operations %v, before %v", after, before)
	}
	if now, err := afero.ReadFile(journals, fileJournal.Name()); err != nil || !bytes.Equal(now, journal) {
		t.Errorf("the journal was written: %v\n%s", err, now)
	}
	plan.Force = true
	if result, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe); err != nil || result.Unchanged || l.done()[mib.OperationKindDownloadSoftware] != 2 {
		t.Errorf("forced: %+v, %v", result, err)
	}
}

// A version alone is not taken for this software; but an equal version in the other bank
// does not matter to a device that runs this one.
func TestUnchangedOtherContents(t *testing.T) {
	l := newLab(t, labOptions{})
	first, second := l.image("2.0.0", 2), l.open("again.iad", l.build("2.0.0", 2, true))
	for _, img := range []*files.Image{first, second} {
		plan := l.plan(img)
		plan.Force = true
		if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe); err != nil {
			t.Fatal(err)
		}
		if _, err := manager.Reset(l.ctx, l.plan(nil), &scripted{t: t}, l.observe); err != nil {
			t.Fatal(err)
		}
	}
	for _, check := range []bool{true, false} {
		plan := l.plan(first)
		plan.CheckOnly = check
		result, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe)
		var refusal *device.RefusalError
		if !errors.As(err, &refusal) || result.Unchanged {
			t.Errorf("check %v: %+v, %v", check, result, err)
		}
	}
	if result, err := manager.Upgrade(l.ctx, l.plan(second), &scripted{t: t}, l.observe); err != nil || !result.Unchanged {
		t.Errorf("%+v, %v", result, err)
	}
}

// Software that runs already is not reason enough to leave a device alone. What is missing
// is made up for, and the software is not installed again.
func TestNotUnchanged(t *testing.T) {
	upgrade := func(l *lab, plan manager.Plan) manager.Result {
		l.t.Helper()
		result, err := manager.Upgrade(l.ctx, plan, &scripted{t: l.t}, l.observe)
		if err != nil {
			l.t.Fatal(err)
		}
		return result
	}
	t.Run("generation 0", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labOptions{noConfig: true})
		plan := l.plan(l.image("1.1.0", 1))
		plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
		upgrade(l, plan)
		for _, resume := range []bool{false, true} { // resumed or not: the journal is done
			plan.Resume = resume
			l.updates = nil
			if result := upgrade(l, plan); result.Unchanged || !result.OnDefaults {
				t.Errorf("resumed %v: %+v", resume, result)
			}
			if !slices.ContainsFunc(l.updates, func(u manager.Update) bool { return u.Kind == manager.Warned && u.Step == manager.StepRecover }) {
				t.Errorf("resumed %v: nobody hears that it stays on its defaults", resume)
			}
		}
		plan.CheckOnly = true
		if result := upgrade(l, plan); result.Unchanged {
			t.Errorf("checked: %+v", result)
		}
		plan.CheckOnly = false
		l.reconfigure(1)
		if result := upgrade(l, plan); !result.Unchanged || l.done()[mib.OperationKindDownloadSoftware] != 1 {
			t.Errorf("with data in force: %+v, operations %v", result, l.done())
		}
	})
	t.Run("defaults, with a backup", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labOptions{configure: noConverter})
		plan := l.plan(l.image("2.0.0", 2))
		plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
		if _, err := manager.Upgrade(l.ctx, plan, manager.Automatic{}, l.observe); err == nil {
			t.Fatal("a conversion succeeded that cannot")
		}
		plan.Journal = nil // of another machine
		if result, err := manager.Upgrade(l.ctx, plan, manager.Automatic{}, l.observe); err == nil || result.Unchanged || l.done()[mib.OperationKindDownloadSoftware] != 1 {
			t.Errorf("%+v, %v; operations %v", result, err, l.done())
		}
	})
	t.Run("on trial", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labOptions{})
		l.leaveConfirmationToManager()
		plan := l.plan(l.image("1.1.0", 1))
		l.interrupted(plan, &scripted{t: t}, manager.StepRecover, manager.StepBegins)
		if b := l.running(); b.State != mib.BankStateTrial || b.Version != "1.1.0" {
			t.Fatalf("%s runs", b)
		}
		if result := upgrade(l, plan); result.Unchanged || l.running().State != mib.BankStateGood {
			t.Errorf("%+v; %s runs", result, l.running())
		}
		if done := l.done(); done[mib.OperationKindDownloadSoftware] != 1 || done[mib.OperationKindRecoverConfig] != 0 {
			t.Errorf("operations %v", done)
		}
		if result := upgrade(l, plan); !result.Unchanged {
			t.Errorf("once more: %+v", result)
		}
	})
	for _, step := range []manager.Step{manager.StepBackup, manager.StepUpdate, manager.StepUpdateJudge, manager.StepRecover} {
		t.Run(fmt.Sprintf("unfinished journal, %d", step), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{})
			journal := manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
			plan := l.plan(l.image("1.1.0", 1))
			if step <= manager.StepUpdate { // the journal of an upgrade that had nothing to do
				upgrade(l, plan)
				plan.Force = true // or it would not come that far
			}
			plan.Journal = journal
			l.interrupted(plan, &scripted{t: t}, step, manager.StepBegins)
			plan.Force, plan.Resume = false, step == manager.StepUpdate
			check := plan
			check.CheckOnly = true
			if result := upgrade(l, check); result.Unchanged {
				t.Errorf("checked: %+v", result)
			}
			commands := 1
			if step == manager.StepUpdate { // the journal has a command that may have been taken
				commands = 2
			}
			if result := upgrade(l, plan); result.Unchanged || l.done()[mib.OperationKindDownloadSoftware] != commands {
				t.Errorf("%+v; operations %v", result, l.done())
			}
			if result := upgrade(l, plan); !result.Unchanged {
				t.Errorf("once more: %+v", result)
			}
		})
	}
	t.Run("other software next", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labOptions{})
		plan := l.plan(l.image("1.1.0", 1))
		upgrade(l, plan)
		if _, err := l.client.Start(l.ctx, device.Request{Kind: mib.OperationKindActivate, ID: 7, Owner: "other", Version: "1.0.0", Options: []device.Option{device.AllowDowngrade}}); err != nil {
			t.Fatal(err)
		}
		for l.running().Next {
			if l.ctx.Err() != nil {
				t.Fatal("not activated")
			}
		}
		if result, _ := manager.Upgrade(l.ctx, plan, manager.Automatic{}, l.observe); result.Unchanged {
			t.Errorf("%+v", result)
		}
	})
}

package manager_test

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// reconfigure puts other configuration data in force, as another operator would.
func (l *lab) reconfigure(format uint32) {
	l.t.Helper()
	if err := l.putInForce(l.ctx, format, nil); err != nil {
		l.t.Fatal(err)
	}
}

// putInForce puts other configuration data in force.
func (l *lab) putInForce(ctx context.Context, format uint32, observe manager.Observer) error {
	l.t.Helper()
	dir := "backup/TEST-0001/other"
	for kind, data := range configuration(format) {
		name := path.Join(dir, kind.String()+".cfg")
		if err := afero.WriteFile(l.store, name, append(data, "newer = yes\n"...), 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	list, err := files.ReadBackup(l.store, dir)
	if err != nil {
		return err
	}
	_, err = manager.Recover(ctx, l.plan(nil), dir, list, manager.Automatic{}, observe)
	return err
}

// inForce is the user data that the device has in force.
func (l *lab) inForce() string {
	l.t.Helper()
	result, err := manager.Backup(l.ctx, l.plan(nil), manager.Automatic{}, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	dir := result.Directory[strings.Index(result.Directory, "backup/"):]
	data, err := afero.ReadFile(l.store, path.Join(dir, mib.FileTypeUserData.String()+".cfg"))
	if err != nil {
		l.t.Fatal(err)
	}
	return string(data)
}

// Configuration data that were put in force after the backup are not overwritten by
// it unless an operator wants that.
func TestNewerConfiguration(t *testing.T) {
	for _, c := range []struct {
		name     string
		version  string
		format   uint32
		operator func(*testing.T) manager.Operator
		newer    bool
		decision bool
	}{
		{"nobody to ask", "1.1.0", 1, func(*testing.T) manager.Operator {
			return &manager.Policies{List: []manager.Policy{{Kind: manager.PolicyAdvice}, {Kind: manager.PolicyService}}, Automatic: manager.Automatic{Retries: 2}}
		}, true, true},
		{"in another format", "2.0.0", 2, func(*testing.T) manager.Operator { return manager.Automatic{Retries: 2} }, true, true},
		{"keep", "1.1.0", 1, func(t *testing.T) manager.Operator {
			return &scripted{t: t, answers: []manager.Answer{{Choice: manager.KeepNewer}}}
		}, true, false},
		{"keep by policy", "1.1.0", 1, func(*testing.T) manager.Operator {
			return &manager.Policies{List: []manager.Policy{{Kind: manager.PolicyAdvice}, {Kind: manager.PolicyKeep}, {Kind: manager.PolicyService}}, Automatic: manager.Automatic{Retries: 2}}
		}, true, false},
		{"overwrite", "1.1.0", 1, func(t *testing.T) manager.Operator {
			return &scripted{t: t, answers: []manager.Answer{{Choice: manager.Overwrite}}}
		}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{})
			plan := l.plan(l.image(c.version, c.format))
			plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
			plan.Verify = func(context.Context, *device.Device) error {
				l.reconfigure(c.format)
				return nil
			}
			_, err := manager.Upgrade(l.ctx, plan, c.operator(t), l.observe)
			if errors.Is(err, manager.ErrDecision) != c.decision || (err != nil) != c.decision {
				t.Errorf("ended with %v", err)
			}
			if got := l.inForce(); strings.Contains(got, "newer") != c.newer {
				t.Errorf("in force:\n%s", got)
			}
			if d, err := l.client.Device(l.ctx); err != nil || d.Version != c.version {
				t.Errorf("%+v, %v", d, err)
			}
			if c.decision { // resumed, it is asked again; kept, that is the end
				plan.Resume, plan.Verify = true, nil
				operator := &scripted{t: t, answers: []manager.Answer{{Choice: manager.KeepNewer}}}
				if _, err := manager.Upgrade(l.ctx, plan, operator, l.observe); err != nil || len(operator.asked) != 1 {
					t.Errorf("resumed: %v; asked %d times", err, len(operator.asked))
				}
			}
		})
	}
}

// A loss of power may hide the end of a recovery that has put its data in force: they are not
// somebody else's, and the recovery is repeated.
func TestPowerCutInRecovery(t *testing.T) {
	var hidden atomic.Int32
	t.Run("writes", func(t *testing.T) {
		for write := 40; write <= 54; write++ { // the data come into force on the way
			t.Run(fmt.Sprint(write), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, labOptions{})
				before := l.inForce()
				operator := &manager.Policies{List: []manager.Policy{{Kind: manager.PolicyAdvice}, {Kind: manager.PolicyService}}, Automatic: manager.Automatic{Retries: 3, Clock: fastClock{100}}}
				plan := l.plan(l.image("1.1.0", 1))
				plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
				once := false
				_, err := manager.Upgrade(l.ctx, plan, operator, func(u manager.Update) {
					if l.observe(u); u.Step == manager.StepRecover && u.Kind == manager.StepBegins && !once {
						once = true
						l.device.Inject(sim.Fault{Kind: sim.PowerCut, Write: write, Delay: time.Millisecond})
					}
				})
				if err != nil {
					t.Errorf("write %d: %v", write, err)
				}
				if got := l.inForce(); got != before {
					t.Errorf("write %d: in force:\n%s", write, got)
				}
				d, err := l.client.Device(l.ctx)
				if err != nil {
					t.Fatal(err)
				}
				if d.Generation > 2 {
					hidden.Add(1)
				}
			})
		}
	})
	if hidden.Load() == 0 {
		t.Error("no loss of power hid the end of a recovery")
	}
}

// Data that are changed between the backup and the update, or during the backup, are
// backed up again.
func TestChangedBeforeUpdate(t *testing.T) {
	for _, step := range []manager.Step{manager.StepBackupJudge, manager.StepUpdate} {
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{})
			changed := false
			// Step 130 begins after the comparison: what comes last before it counts.
			at := manager.Update{Step: step, Kind: manager.StepBegins}
			if step == manager.StepUpdate {
				at = manager.Update{Step: manager.StepBackupJudge, Kind: manager.StepEnds}
			}
			_, err := manager.Upgrade(l.ctx, l.plan(l.image("2.0.0", 2)), manager.Automatic{Retries: 2}, func(u manager.Update) {
				l.observe(u)
				if u.Step == at.Step && u.Kind == at.Kind && !changed {
					changed = true
					l.reconfigure(1)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := l.inForce(); !strings.Contains(got, "newer") {
				t.Errorf("in force:\n%s", got)
			}
		})
	}
}

// Without a terminal a recovery that fails ends with the old software and its data, not
// with the new one on its defaults.
func TestRecoveryFailsUnattended(t *testing.T) {
	unattended := func() manager.Operator {
		return &manager.Policies{List: []manager.Policy{{Kind: manager.PolicyAdvice}, {Kind: manager.PolicyService}}, Automatic: manager.Automatic{Retries: 1, Clock: fastClock{100}}}
	}
	disk := new(fullFs)
	for _, c := range []struct {
		name    string
		options labOptions
		change  func(*lab, *manager.Plan)
		version string
	}{
		{"conversion", labOptions{configure: noConverter}, nil, "1.0.0"},
		{"file server", labOptions{}, func(l *lab, p *manager.Plan) {
			a := absent(l.t)
			p.Files = &detour{Servers: l.servers, wrong: map[int]device.FileServerAddress{3: a, 4: a}}
		}, "2.0.0"},
		// What follows would fail again with any server.
		{"damaged backup", labOptions{}, func(l *lab, p *manager.Plan) {
			p.Verify = func(context.Context, *device.Device) error {
				for _, dir := range must(files.Backups(l.store, "TEST-0001")) {
					for _, f := range must(files.ReadBackup(l.store, dir)) {
						if err := afero.WriteFile(l.store, path.Join(dir, f.Name), []byte("iad-config userData 1\n"), 0o600); err != nil {
							return err
						}
					}
				}
				return nil
			}
		}, "1.0.0"},
		{"no room to modify", labOptions{files: func(c *files.ServersConfig) { disk.Fs, c.Files = c.Files, disk }}, func(l *lab, p *manager.Plan) {
			p.Modifier, p.ModifyFirst = idle{}, true
			p.Verify = func(context.Context, *device.Device) error { disk.full = true; return nil }
		}, "1.0.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, c.options)
			plan := l.plan(l.image("2.0.0", 2))
			if c.change != nil {
				c.change(l, &plan)
			}
			if c.options.files != nil { // the journal is in the same full store
				plan.Journal = manager.NewJournal(disk, "TEST-0001")
			}
			result, err := manager.Upgrade(l.ctx, plan, unattended(), l.observe)
			var failure *manager.Failure
			if !errors.As(err, &failure) || result.NewVersion != c.version || result.OnDefaults != (c.version == "2.0.0") {
				t.Errorf("%+v, %v", result, err)
			}
		})
	}
}

// The trial may end while the operator's own check goes on: the device is looked at
// again after it, and the old software gets nothing of the new one's.
func TestCheckOutlastsTrial(t *testing.T) {
	l := newLab(t, labOptions{})
	plan := l.plan(l.image("2.0.0", 2))
	plan.Verify = func(ctx context.Context, _ *device.Device) error {
		_, err := manager.Rollback(ctx, l.plan(nil), manager.Automatic{}, nil)
		return err
	}
	result, err := manager.Upgrade(l.ctx, plan, manager.Automatic{Retries: 2}, l.observe)
	if !errors.Is(err, manager.ErrDecision) || result.NewVersion != "1.0.0" {
		t.Errorf("%+v, %v", result, err)
	}
	for _, u := range l.updates {
		if u.Step == manager.StepUpdateJudge && u.Kind == manager.StepEnds || u.Step >= manager.StepRecover {
			t.Errorf("%d %s %s", u.Step, u.Kind, u.Text)
		}
	}
}

// Software that is itself at fault is taken back once and not installed again, also
// when the upgrade is resumed, unless the operator insists.
func TestSoftwareAtFault(t *testing.T) {
	for _, c := range []struct {
		name    string
		verify  bool
		insists bool
		want    int // installations
	}{{"self-test", false, false, 1}, {"operator's check", true, false, 1}, {"operator insists", true, true, 3}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{})
			plan := l.plan(l.image("2.0.0", 2))
			plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
			if c.verify {
				plan.Verify = func(context.Context, *device.Device) error { return errors.New("no ring tone") }
			} else {
				l.failTest["2.0.0"] = true
			}
			operator := manager.Automatic{Retries: 2, RetrySoftware: c.insists}
			_, err := manager.Upgrade(l.ctx, plan, operator, l.observe)
			if !errors.Is(err, manager.ErrDecision) {
				t.Errorf("ended with %v", err)
			}
			plan.Resume = true
			if _, err = manager.Upgrade(l.ctx, plan, manager.Automatic{Retries: 2}, l.observe); !errors.Is(err, manager.ErrDecision) {
				t.Errorf("resumed, it ended with %v", err)
			}
			history, err := l.client.History(l.ctx)
			if err != nil {
				t.Fatal(err)
			}
			installed := 0
			for _, h := range history {
				if h.Kind == mib.OperationKindDownloadSoftware {
					installed++
				}
			}
			if installed != c.want {
				t.Errorf("installed %d times, want %d", installed, c.want)
			}
		})
	}
}

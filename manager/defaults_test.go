package manager_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/manager"
	"example.com/iad/manager/files"
	"example.com/iad/sim"
)

// brokenConverter is a lab whose device cannot convert until the test says so.
func brokenConverter(t *testing.T, o labOptions) (*lab, *atomic.Bool) {
	broken := new(atomic.Bool)
	broken.Store(true)
	o.configure = func(_ *lab, c *sim.Config) {
		usual := c.Hooks.Convert
		c.Hooks.Convert = func(ctx context.Context, conv agentConversion, work afero.Fs) error {
			if broken.Load() {
				return errors.New("no such parameter")
			}
			return usual(ctx, conv, work)
		}
	}
	return newLab(t, o), broken
}

// warned is whatever was warned of.
func (l *lab) warned() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := ""
	for _, u := range l.updates {
		if u.Kind == manager.Warned {
			text += u.Text + "\n"
		}
	}
	return text
}

// onOperatorsData checks that the data of the operator are in force in the new format.
func (l *lab) onOperatorsData(result manager.Result) {
	l.t.Helper()
	d, err := l.client.Device(l.ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	if d.Version != "2.0.1" || d.Generation == 0 || d.ConfigFormat != 2 || result.OnDefaults {
		l.t.Errorf("runs %s with generation %d of format %d", d.Version, d.Generation, d.ConfigFormat)
	}
	made, err := manager.Backup(l.ctx, l.plan(nil), &scripted{t: l.t}, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	if data := string(must(afero.ReadFile(l.store, made.Directory+"/userData.cfg"))); !strings.Contains(data, "userData of the test") {
		l.t.Errorf("in force: %q", data)
	}
}

// After a failed conversion the device is on its defaults. They are not taken for the
// operator's data, and the next upgrade brings those back.
func TestUpgradeFromDefaults(t *testing.T) {
	l, broken := brokenConverter(t, labOptions{noNotifications: true})
	failing := &scripted{t: t, answers: []manager.Answer{{Choice: manager.GiveUp}}}
	if _, err := manager.Upgrade(l.ctx, l.plan(l.image("2.0.0", 2)), failing, nil); err == nil {
		t.Fatal("the conversion did not fail")
	}
	broken.Store(false)
	if _, err := manager.Backup(l.ctx, l.plan(nil), &scripted{t: t}, nil); !errors.Is(err, manager.ErrDecision) {
		t.Errorf("backup of a device on its defaults: %v", err)
	}
	result, err := manager.Upgrade(l.ctx, l.plan(l.image("2.0.1", 2)), &scripted{t: t}, l.observe)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(must(files.Backups(l.store, "TEST-0001"))); n != 1 {
		t.Errorf("%d backups", n)
	}
	if text := l.warned(); !strings.Contains(text, "runs on the defaults") {
		t.Errorf("warned: %q", text)
	}
	l.onOperatorsData(result)
}

// An upgrade whose image turned out bad is resumed with a corrected one: the backup that
// was made at its beginning comes back.
func TestResumeWithCorrectedImage(t *testing.T) {
	for _, choice := range []manager.Choice{manager.GiveUp, manager.RestoreOld} {
		l, broken := brokenConverter(t, labOptions{noNotifications: true})
		plan := l.plan(l.image("2.0.0", 2))
		plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
		failing := &scripted{t: t, answers: []manager.Answer{{Choice: choice}}}
		if _, err := manager.Upgrade(l.ctx, plan, failing, nil); err == nil {
			t.Fatal("the conversion did not fail")
		}
		broken.Store(false)
		plan.Image, plan.Resume = l.image("2.0.1", 2), true
		result, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(must(files.Backups(l.store, "TEST-0001"))); n != 1 {
			t.Errorf("%d backups", n)
		}
		l.onOperatorsData(result)
	}
}

// A device that never had data is upgraded, with a warning, and makes no backup.
func TestUpgradeWithoutConfiguration(t *testing.T) {
	l := newLab(t, labOptions{noNotifications: true, noConfig: true})
	result, err := manager.Upgrade(l.ctx, l.plan(l.image("2.0.0", 2)), &scripted{t: t}, l.observe)
	if err != nil || result.NewVersion != "2.0.0" || !result.OnDefaults {
		t.Errorf("%+v, %v", result, err)
	}
	if dirs, err := files.Backups(l.store, "TEST-0001"); err == nil && len(dirs) > 0 {
		t.Errorf("backups %q", dirs)
	}
	if text := l.warned(); !strings.Contains(text, "stays on the defaults") {
		t.Errorf("warned: %q", text)
	}
	if _, err := manager.Backup(l.ctx, l.plan(nil), &scripted{t: t}, nil); !errors.Is(err, manager.ErrDecision) {
		t.Errorf("backup: %v", err)
	}
}

// A device that lost its data is offered its last real backup, and a backup of defaults
// that an earlier version made is not taken for one.
func TestLastBackupIsOffered(t *testing.T) {
	for _, choice := range []manager.Choice{manager.GiveUp, manager.KeepDefaults, manager.GiveLast} {
		l := newLab(t, labOptions{noNotifications: true})
		made, err := manager.Backup(l.ctx, l.plan(nil), &scripted{t: t}, nil)
		if err != nil {
			t.Fatal(err)
		}
		lost := newLab(t, labOptions{noNotifications: true, noConfig: true})
		for _, info := range must(afero.ReadDir(l.store, made.Directory)) {
			name := made.Directory + "/" + info.Name()
			if err := afero.WriteFile(lost.store, name, must(afero.ReadFile(l.store, name)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for name, data := range map[string]string{
			"userData.cfg": "iad-config userData 2\n",
			".complete":    "0000000000000000000000000000000000000000000000000000000000000000  userData.cfg\n",
		} {
			if err := afero.WriteFile(lost.store, "backup/TEST-0001/29990101T000000Z-1/"+name, []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		operator := &scripted{t: t, answers: []manager.Answer{{Choice: choice}}}
		result, err := manager.Upgrade(lost.ctx, lost.plan(lost.image("2.0.0", 2)), operator, lost.observe)
		if (choice == manager.GiveUp) != errors.Is(err, manager.ErrDecision) || choice != manager.GiveUp && err != nil {
			t.Errorf("choice %d: %v", choice, err)
		}
		if result.OnDefaults != (choice != manager.GiveLast) || result.NewVersion != "2.0.0" {
			t.Errorf("choice %d: %+v", choice, result)
		}
		if len(operator.asked) != 1 || !strings.Contains(operator.asked[0].Failure.Error(), made.Directory) {
			t.Errorf("choice %d: asked %v", choice, operator.asked)
		}
	}
}

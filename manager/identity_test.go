package manager_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// loseIdentity makes the device come back from its next restart with another SNMP engine
// ID, as after a loss of its state.
func (l *lab) loseIdentity() {
	l.t.Helper()
	lost := 0
	err := afero.Walk(l.disk.State, "", func(name string, info fs.FileInfo, err error) error {
		if err == nil && !info.IsDir() && strings.Contains(name, "identity") {
			lost++
			return l.disk.State.Remove(name)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) || lost == 0 {
		l.t.Fatalf("%d files, %v", lost, err)
	}
}

// dial reaches the device by another client, as another iadms would.
func (l *lab) dial(user *device.User, warn func(string)) *device.Client {
	l.t.Helper()
	c, err := device.Dial(device.Target{
		Address: l.device.Addr(l.ctx).String(), Credentials: device.Credentials{User: user}, Timeout: 200 * time.Millisecond, Warn: warn,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

// A device that comes back from a restart with a new engine ID is found again, with a
// warning; no message says that the credentials are wrong.
func TestResetToNewEngine(t *testing.T) {
	l := newLab(t, embeddedV3(false))
	warned := ""
	plan := l.plan(nil)
	user := operatorUser
	plan.Client = l.dial(&user, func(text string) { warned += text })
	if _, err := plan.Client.Device(l.ctx); err != nil {
		t.Fatal(err)
	}
	before := plan.Client.Identity().EngineID
	l.loseIdentity()
	if _, err := manager.Reset(l.ctx, plan, &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	after := plan.Client.Identity().EngineID
	if before == "" || after == "" || before == after || !strings.Contains(warned, after) {
		t.Errorf("engine ID %q, then %q; warned: %q", before, after, warned)
	}
	if _, err := plan.Client.Device(l.ctx); err != nil {
		t.Error(err)
	}
	// Another command of the same run goes to the new engine only if somebody accepts it.
	if _, err := manager.Reset(l.ctx, plan, &scripted{t: t}, nil); !errors.Is(err, device.ErrIdentity) {
		t.Errorf("commanded: %v", err)
	}
	plan.OtherDevice = true
	if _, err := manager.Reset(l.ctx, plan, &scripted{t: t}, nil); err != nil {
		t.Error(err)
	}
}

// In a procedure somebody is asked about a new engine ID before anything but a read.
func TestUpgradeToNewEngine(t *testing.T) {
	for _, accepts := range []bool{false, true} {
		l := newLab(t, embeddedV3(false))
		plan := l.plan(l.image("2.0.0", 2))
		plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
		asked := 0
		if accepts {
			plan.Accept = func(context.Context, string) bool { asked++; return true }
		}
		_, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, func(u manager.Update) {
			l.observe(u)
			if u.Step == manager.StepUpdate && u.Kind == manager.StepBegins { // a quick device restarts before it is followed
				l.loseIdentity()
			}
		})
		d, readErr := l.client.Device(l.ctx)
		if readErr != nil {
			t.Fatal(readErr)
		}
		switch {
		case accepts && (err != nil || asked != 1 || d.Generation == 0):
			t.Errorf("accepted: asked %d times, generation %d, %v", asked, d.Generation, err)
		case !accepts && (!errors.Is(err, device.ErrIdentity) || d.Generation != 0):
			t.Errorf("not accepted: generation %d, %v", d.Generation, err)
		}
		if accepts {
			continue
		}
		// Resumed by another run, it is still another device than it was.
		user := operatorUser
		plan.Client, plan.Resume = l.dial(&user, nil), true
		if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, nil); !errors.Is(err, device.ErrIdentity) {
			t.Errorf("resumed: %v", err)
		}
		plan.OtherDevice = true
		if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, nil); err != nil {
			t.Errorf("resumed with consent: %v", err)
		}
	}
}

// A unit with the device ID of another one neither adds to its backups nor gets them.
func TestClonedUnit(t *testing.T) {
	l := newLab(t, embeddedV3(false))
	plan := l.plan(nil)
	made, err := manager.Backup(l.ctx, plan, &scripted{t: t}, l.observe)
	if err != nil {
		t.Fatal(err)
	}
	l.loseIdentity() // from here on it stands for the other unit
	if _, err := manager.Reset(l.ctx, plan, &scripted{t: t}, nil); err != nil {
		t.Fatal(err)
	}
	user := operatorUser
	plan.Client = l.dial(&user, nil)
	if _, err := manager.Backup(l.ctx, plan, &scripted{t: t}, nil); !errors.Is(err, device.ErrIdentity) || !strings.Contains(err.Error(), "TEST-0001") {
		t.Errorf("backup: %v", err)
	}
	give := func() error {
		list, err := files.ReadBackup(l.store, made.Directory)
		if err != nil {
			t.Fatal(err)
		}
		_, err = manager.Recover(l.ctx, plan, made.Directory, list, &scripted{t: t}, nil)
		return err
	}
	if err := give(); !errors.Is(err, device.ErrIdentity) {
		t.Errorf("recover: %v", err)
	}
	if n := len(must(files.Backups(l.store, "TEST-0001"))); n != 1 {
		t.Errorf("%d backups", n)
	}
	plan.OtherDevice = true
	if err := give(); err != nil {
		t.Errorf("recover with consent: %v", err)
	}
	plan.OtherDevice = false // it is the known one now
	if _, err := manager.Backup(l.ctx, plan, &scripted{t: t}, nil); err != nil {
		t.Errorf("backup: %v", err)
	}
	if err := give(); !errors.Is(err, device.ErrIdentity) {
		t.Errorf("recover of the other unit's backup: %v", err)
	}
}

// Backups of the first release have no identity recorded, and keep working.
func TestBackupWithoutIdentity(t *testing.T) {
	l := newLab(t, embeddedV3(false))
	made, err := manager.Backup(l.ctx, l.plan(nil), &scripted{t: t}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{made.Directory + "/.identity", "backup/TEST-0001/.identity"} {
		if err := l.store.Remove(name); err != nil {
			t.Error(err)
		}
	}
	list, err := files.ReadBackup(l.store, made.Directory)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := manager.Recover(l.ctx, l.plan(nil), made.Directory, list, &scripted{t: t}, nil); err != nil {
		t.Error(err)
	}
	if id, known, err := files.RecordedIdentity(l.store, "TEST-0001"); err != nil || !known || id.EngineID != l.client.Identity().EngineID {
		t.Errorf("recorded: %v %v %v", id, known, err)
	}
}

package manager_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"
	"github.com/spf13/afero"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// parking is an operator that decides later, until it has an answer.
type parking struct {
	asked  []manager.Question
	answer *manager.Answer
}

func (p *parking) Ask(_ context.Context, q manager.Question) (manager.Answer, error) {
	p.asked = append(p.asked, q)
	if p.answer == nil {
		return manager.Answer{}, fmt.Errorf("question 1: %w", manager.ErrParked)
	}
	answer := *p.answer
	p.answer = nil
	return answer, nil
}

// A question can be answered by another run of the procedure. Until then nothing is done,
// however often the procedure is resumed.
func TestQuestionIsParked(t *testing.T) {
	l := newLab(t, labOptions{})
	l.failTest["2.0.0"] = true
	plan := l.plan(l.image("2.0.0", 2))
	plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
	p := &parking{}
	for run := range 3 {
		_, err := manager.Upgrade(l.ctx, plan, p, l.observe)
		if !errors.Is(err, manager.ErrParked) {
			t.Fatalf("run %d: %v", run, err)
		}
		if len(p.asked) != run+1 || p.asked[run].Step != p.asked[0].Step || p.asked[run].Failure.Error() != p.asked[0].Failure.Error() {
			t.Fatalf("run %d asked %+v", run, p.asked)
		}
		r, err := plan.Journal.Load()
		if err != nil || r.Ended {
			t.Fatalf("run %d: ended %v, %v", run, r.Ended, err)
		}
		plan.Resume = true
	}
	if n := l.operations(mib.OperationKindDownloadSoftware); n != 1 {
		t.Errorf("the software was downloaded %d times before the answer", n)
	}
	l.mu.Lock()
	delete(l.failTest, "2.0.0")
	l.mu.Unlock()
	p.answer = &manager.Answer{Choice: manager.Retry}
	result, err := manager.Upgrade(l.ctx, plan, p, l.observe)
	if err != nil || result.NewVersion != "2.0.0" {
		t.Errorf("after the answer: %+v, %v", result, err)
	}
	if n := l.operations(mib.OperationKindDownloadSoftware); n != 2 {
		t.Errorf("the software was downloaded %d times", n)
	}
}

// operations counts the operations of a kind in the device's history.
func (l *lab) operations(kind mib.OperationKind) (n int) {
	l.t.Helper()
	history, err := l.client.History(l.ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, h := range history {
		if h.Kind == kind {
			n++
		}
	}
	return n
}

// A backup and a recovery alone can be resumed too: what was done is not done again.
func TestStandaloneIsResumed(t *testing.T) {
	l := newLab(t, labOptions{})
	plan := l.plan(nil)
	plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	_, err := manager.Backup(ctx, plan, manager.Automatic{}, func(u manager.Update) {
		if u.Step == manager.StepBackupJudge && u.Kind == manager.StepBegins {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	plan.Resume = true
	if _, err := manager.Backup(l.ctx, plan, manager.Automatic{}, l.observe); err != nil {
		t.Fatal(err)
	}
	if n := l.operations(mib.OperationKindBackupConfig); n != 1 {
		t.Errorf("backed up %d times", n)
	}
	if r, err := plan.Journal.Load(); err != nil || r.Stage != manager.StageDone || !r.Ended {
		t.Errorf("record %+v, %v", r, err)
	}
}

// Nor is a recovery repeated before the answer, although what failed may have passed.
func TestRecoveryIsParked(t *testing.T) {
	l := newLab(t, labOptions{})
	plan := l.plan(l.image("2.0.0", 2))
	plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
	p := &parking{}
	const away = "away"
	var backup string
	for run := range 3 {
		_, err := manager.Upgrade(l.ctx, plan, p, func(u manager.Update) {
			if u.Step == manager.StepRecover && u.Kind == manager.StepBegins && backup == "" {
				backup = l.find("userData.cfg")
				if err := l.store.Rename(backup, away); err != nil {
					t.Error(err)
				}
			}
			l.observe(u)
		})
		if !errors.Is(err, manager.ErrParked) {
			t.Fatalf("run %d: %v", run, err)
		}
		if run == 0 {
			if err := l.store.Rename(away, backup); err != nil {
				t.Fatal(err)
			}
		}
		if n := l.operations(mib.OperationKindRecoverConfig); n != 1 || len(p.asked) != run+1 || p.asked[run].Step != manager.StepRecoverJudge {
			t.Fatalf("run %d: recovered %d times, asked %+v", run, n, p.asked)
		}
		plan.Resume = true
	}
	p.answer = &manager.Answer{Choice: manager.Retry}
	if _, err := manager.Upgrade(l.ctx, plan, p, l.observe); err != nil {
		t.Errorf("after the answer: %v", err)
	}
	if n := l.operations(mib.OperationKindRecoverConfig); n != 2 {
		t.Errorf("recovered %d times", n)
	}
	if r, err := plan.Journal.Load(); err != nil || r.Parked != nil || !r.Ended {
		t.Errorf("record %+v, %v", r, err)
	}
}

// find returns the file of the manager's store that has a name.
func (l *lab) find(name string) (found string) {
	l.t.Helper()
	err := afero.Walk(l.store, "", func(file string, _ fs.FileInfo, err error) error {
		if path.Base(file) == name {
			found = file
		}
		return err
	})
	if err != nil || found == "" {
		l.t.Fatalf("no file %s: %v", name, err)
	}
	return found
}

// confirmByManager has software on trial wait for the manager.
func (l *lab) confirmByManager() {
	l.t.Helper()
	snmp := &gosnmp.GoSNMP{Target: host(l.client.Address()), Port: port(l.client.Address()), Community: "private", Version: gosnmp.Version2c, Timeout: time.Second}
	if err := snmp.Connect(); err != nil {
		l.t.Fatal(err)
	}
	defer snmp.Conn.Close()
	mode := mib.NewModule(nil).OID(mib.ConfirmMode, 0).String()
	if _, err := snmp.Set([]gosnmp.SnmpPDU{{Name: mode, Type: gosnmp.Integer, Value: int(mib.ConfirmModeManager)}}); err != nil {
		l.t.Fatal(err)
	}
}

// Software is not confirmed while it is not decided what becomes of newer configuration data.
func TestNewerConfigurationIsParked(t *testing.T) {
	l := newLab(t, labOptions{})
	l.confirmByManager()
	plan := l.plan(l.image("1.1.0", 1))
	plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
	plan.Verify = func(context.Context, *device.Device) error {
		ctx, cancel := context.WithCancel(l.ctx)
		defer cancel()
		err := l.putInForce(ctx, 1, func(u manager.Update) {
			if u.Step == manager.StepRecoverJudge && u.Kind == manager.StepEnds {
				cancel() // before it confirms
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("put in force: %v", err)
		}
		return nil
	}
	p := &parking{}
	if _, err := manager.Upgrade(l.ctx, plan, p, l.observe); !errors.Is(err, manager.ErrParked) || len(p.asked) != 1 || !slices.Contains(p.asked[0].Choices, manager.KeepNewer) {
		t.Fatalf("%v, asked %+v", err, p.asked)
	}
	state := func() mib.BankStateEnum {
		banks, err := l.client.Banks(l.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range banks {
			if b.Running {
				return b.State
			}
		}
		return 0
	}
	if s := state(); s != mib.BankStateTrial {
		t.Errorf("before the answer, the software is %s", s)
	}
	plan.Resume, plan.Verify = true, nil
	p.answer = &manager.Answer{Choice: manager.KeepNewer}
	if _, err := manager.Upgrade(l.ctx, plan, p, l.observe); err != nil {
		t.Fatal(err)
	}
	if s := state(); s != mib.BankStateGood {
		t.Errorf("after the answer, the software is %s", s)
	}
}

// A rollback that had been carried out when the manager was killed is reported as such.
func TestRollbackIsResumed(t *testing.T) {
	l := newLab(t, labOptions{})
	if _, err := manager.Upgrade(l.ctx, l.plan(l.image("1.1.0", 1)), manager.Automatic{}, l.observe); err != nil {
		t.Fatal(err)
	}
	plan := l.plan(nil)
	plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	_, err := manager.Rollback(ctx, plan, manager.Automatic{}, func(u manager.Update) {
		if u.Step == manager.StepRestore && strings.HasPrefix(u.Text, "follow operation") {
			cancel() // whatever follows is not stored
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	for l.ctx.Err() == nil { // the device rolls back by itself
		if d, err := l.client.Device(l.ctx); err == nil && d.Version == "1.0.0" {
			break
		}
	}
	plan.Resume = true
	result, err := manager.Rollback(l.ctx, plan, manager.Automatic{}, l.observe)
	if err != nil || result.Unchanged || result.OldVersion != "1.1.0" || result.NewVersion != "1.0.0" {
		t.Errorf("%+v, %v", result, err)
	}
	if n := l.operations(mib.OperationKindRestoreOldSoftware); n != 1 {
		t.Errorf("rolled back %d times", n)
	}
}

package manager_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gosnmp/gosnmp"
	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/internal/iadtest"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

type agentConversion = agent.Conversion

func host(address string) string {
	h, _, _ := net.SplitHostPort(address)
	return h
}

func port(address string) uint16 {
	_, p, _ := net.SplitHostPort(address)
	n, _ := strconv.ParseUint(p, 10, 16)
	return uint16(n)
}

// interrupted runs a procedure until an update of a kind and step comes.
func (l *lab) interrupted(plan manager.Plan, operator manager.Operator, step manager.Step, kind manager.UpdateKind) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	came := false
	_, err := manager.Upgrade(ctx, plan, operator, func(u manager.Update) {
		if u.Step == step && u.Kind == kind {
			came = true
			cancel()
		}
	})
	if !came || !errors.Is(err, context.Canceled) {
		l.t.Fatalf("not interrupted at %d %s: %v", step, kind, err)
	}
}

// Interrupted at any step and resumed, nothing that was done is done again.
func TestResume(t *testing.T) {
	for _, c := range []struct {
		name string
		step manager.Step
		kind manager.UpdateKind
	}{
		{"before the backup", 100, manager.StepBegins},
		{"in the backup", 110, manager.StepBegins},
		{"judging the backup", 120, manager.StepBegins},
		{"backup judged", 120, manager.StepEnds},
		{"before the update", 130, manager.StepBegins},
		{"in the update", 140, manager.Progressed},
		{"judging the update", 150, manager.StepBegins},
		{"before the recovery", 170, manager.StepBegins},
		{"in the recovery", 180, manager.StepBegins},
		{"judging the recovery", 190, manager.StepBegins},
		{"recovery judged", 190, manager.StepEnds},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{})
			plan := l.plan(l.image("2.0.0", 2))
			plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
			plan.Pace = &device.Pace{Step: 5}
			pace, err := l.client.Pace(l.ctx)
			if err != nil {
				t.Fatal(err)
			}
			l.interrupted(plan, &scripted{t: t}, c.step, c.kind)
			plan.Resume, plan.Owner = true, "somebody else"
			result, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe)
			if err != nil {
				t.Fatal(err)
			}
			if result.OldVersion != "1.0.0" || result.NewVersion != "2.0.0" {
				t.Errorf("upgraded %s -> %s", result.OldVersion, result.NewVersion)
			}
			l.checkBackup(result)
			l.checkDoneOnce(pace)
			// Resumed once more there is nothing left to do.
			if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, nil); err != nil {
				t.Error(err)
			}
			l.checkDoneOnce(pace)
		})
	}
}

func (l *lab) checkDoneOnce(pace device.Pace) {
	l.t.Helper()
	history, err := l.client.History(l.ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	done := make(map[string]int)
	for _, h := range history {
		if h.State == mib.OperationStateSucceeded {
			done[h.Kind.String()]++
		}
	}
	want := map[string]int{"backupConfig": 1, "downloadSoftware": 1, "recoverConfig": 1}
	if diff := cmp.Diff(want, done); diff != "" {
		l.t.Errorf("operations that succeeded (-want +got):\n%s", diff)
	}
	if now, err := l.client.Pace(l.ctx); err != nil || now != pace {
		l.t.Errorf("reports progress every %v (%v), before: %v", now, err, pace)
	}
}

// Interrupted at step 160, the failure is not forgotten: the operator is asked
// again, and the software that failed is not tried again.
func TestResumeRestore(t *testing.T) {
	l := newLab(t, labOptions{})
	l.failTest["2.0.0"] = true
	plan := l.plan(l.image("2.0.0", 2))
	plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
	l.interrupted(plan, &scripted{t: t}, 160, manager.StepBegins)
	plan.Resume = true
	operator := &scripted{t: t, answers: []manager.Answer{{Choice: manager.OtherFile, Image: l.image("2.0.1", 2)}}}
	result, err := manager.Upgrade(l.ctx, plan, operator, l.observe)
	if err != nil {
		t.Fatal(err)
	}
	if result.NewVersion != "2.0.1" || len(operator.asked) != 1 {
		t.Errorf("runs %s after %d questions", result.NewVersion, len(operator.asked))
	}
	if steps := l.steps(); steps[0] != 160 {
		t.Errorf("went on with step %d", steps[0])
	}
}

func TestJournalRefuses(t *testing.T) {
	l := newLab(t, labOptions{})
	disk := afero.NewMemMapFs()
	plan := l.plan(l.image("2.0.0", 2))
	journal := manager.NewJournal(disk, "TEST-0001")
	plan.Journal, plan.Resume = journal, true
	resume := func() error {
		_, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe)
		return err
	}
	if err := resume(); !errors.Is(err, manager.ErrNoRecord) {
		t.Errorf("without a record: %v", err)
	}
	for content, want := range map[string]string{
		"{":             "damaged",
		`{"format":99}`: "format 99",
		`{"format":2,"device":"OTHER","image":"x.iad"}`: "device OTHER",
	} {
		if err := afero.WriteFile(disk, journal.Name(), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := resume(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", content, err)
		}
	}
}

// A transfer whose file server went with the manager is not waited for: it is
// stopped and commanded anew, once.
func TestResumeInTransfer(t *testing.T) {
	l := newLab(t, labOptions{files: func(c *files.ServersConfig) { c.Bandwidth = 200_000 }})
	plan := l.plan(l.image("2.0.0", 2))
	plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	_, err := manager.Upgrade(ctx, plan, &scripted{t: t}, func(u manager.Update) {
		if op := u.Operation; u.Step == 140 && op != nil && op.Phase == mib.OperationPhaseTransferring {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	plan.Resume = true
	if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	history, err := l.client.History(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, h := range history {
		states = append(states, h.Kind.String()+" "+h.State.String())
	}
	want := []string{"backupConfig succeeded", "downloadSoftware aborted", "downloadSoftware succeeded", "recoverConfig succeeded"}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
}

// An operation that succeeds while it is being stopped is not done again.
func TestResumeStopsTooLate(t *testing.T) {
	l := newLab(t, labOptions{files: func(c *files.ServersConfig) { c.Bandwidth = 400_000 }})
	plan := l.plan(l.image("2.0.0", 2))
	journals := &lateFs{Fs: afero.NewMemMapFs()}
	plan.Journal = manager.NewJournal(journals, "TEST-0001")
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	_, err := manager.Upgrade(ctx, plan, &scripted{t: t}, func(u manager.Update) {
		if op := u.Operation; u.Step == 140 && op != nil && op.Phase == mib.OperationPhaseTransferring {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	// That it will be stopped is recorded first: the device finishes before the SET reaches it.
	journals.renamed = func(name string) {
		if data, err := afero.ReadFile(journals, name); err != nil || !bytes.Contains(data, []byte(`"abandoned": true`)) {
			return
		}
		journals.renamed = nil
		for {
			op, err := l.client.Operation(l.ctx)
			if l.ctx.Err() != nil || err == nil && op.Final() {
				return
			}
		}
	}
	plan.Resume = true
	if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	history, err := l.client.History(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, h := range history {
		states = append(states, h.Kind.String()+" "+h.State.String())
	}
	want := []string{"backupConfig succeeded", "downloadSoftware succeeded", "recoverConfig succeeded"}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
}

// lateFs calls renamed after each file that takes its name.
type lateFs struct {
	afero.Fs
	renamed func(name string)
}

func (f *lateFs) Rename(from, to string) error {
	err := f.Fs.Rename(from, to)
	if f.renamed != nil {
		f.renamed(to)
	}
	return err
}

// fullFs has no room for new files while full.
type fullFs struct {
	afero.Fs
	full bool
}

func (f *fullFs) OpenFile(name string, flag int, mode os.FileMode) (afero.File, error) {
	if f.full && flag&os.O_CREATE != 0 {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.ENOSPC}
	}
	return f.Fs.OpenFile(name, flag, mode)
}

// A journal that cannot be written keeps new software out. Once that runs, the device gets
// its configuration data all the same, or goes back to the old software.
func TestJournalCannotBeWritten(t *testing.T) {
	for _, test := range []struct {
		name   string
		before mib.OperationKind // nothing can be written from the verdict on this one on
		bad    bool
		want   string
	}{
		{"before the download", mib.OperationKindBackupConfig, false, "1.0.0"},
		{"with the new software", mib.OperationKindDownloadSoftware, false, "2.0.0"},
		{"with bad software", mib.OperationKindDownloadSoftware, true, "1.0.0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, labOptions{})
			disk := &fullFs{Fs: afero.NewMemMapFs()}
			plan := l.plan(l.image("2.0.0", 2))
			plan.Journal = manager.NewJournal(disk, "TEST-0001")
			plan.Verify = func(context.Context, *device.Device) error {
				disk.full = true
				if test.bad {
					return errors.New("no dial tone")
				}
				return nil
			}
			observe := func(u manager.Update) {
				if test.before == mib.OperationKindBackupConfig && u.Kind == manager.BackupListed {
					disk.full = true
				}
				l.observe(u)
			}
			_, err := manager.Upgrade(l.ctx, plan, &scripted{t: t, answers: []manager.Answer{{Choice: manager.GiveUp}}}, observe)
			if (err == nil) != (test.want == "2.0.0") {
				t.Error(err)
			}
			d, err := l.client.Device(l.ctx)
			if err != nil || d.Version != test.want || d.Generation == 0 {
				t.Errorf("runs %s with generation %d, %v", d.Version, d.Generation, err)
			}
			if warned := strings.Contains(l.warned(), "is not recorded"); warned != (test.before == mib.OperationKindDownloadSoftware) {
				t.Errorf("warned %v", warned)
			}
		})
	}
}

// A device that restarts as soon as it has the command, and before anybody
// hears that it has, has it all the same.
func TestStartRestartsAtOnce(t *testing.T) {
	p := iadtest.NewPeer(t)
	c := p.Client()
	gone := false
	p.Script(func() {
		// The response to the command, and some to questions after it, get lost.
		silent := 4
		p.Drop = func(kind gosnmp.PDUType) bool {
			if kind == gosnmp.SetRequest {
				gone = true
			}
			if gone {
				silent--
			}
			return gone && silent >= 0
		}
	})
	op, err := c.Start(t.Context(), device.Request{Kind: mib.OperationKindReset, ID: 77, Owner: "tester"})
	if err != nil {
		t.Fatal(err)
	}
	if !op.Is(77, "tester") || p.Started() != 1 {
		t.Errorf("%+v, commanded %d times", op, p.Started())
	}
}

// The whole procedure with files on a server that somebody else runs.
func TestExternalServer(t *testing.T) {
	l := newLab(t, labOptions{})
	img := l.image("2.0.0", 2)
	session, err := l.servers.Open(device.TFTP, "TEST-0001", l.client.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	dir, list, err := session.NewBackup(files.ConfigKinds)
	if err != nil {
		t.Fatal(err)
	}
	image, err := afero.ReadFile(l.images, img.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := afero.WriteFile(l.store, dir+"/"+img.FileName(), image, 0o600); err != nil {
		t.Fatal(err)
	}
	plan := l.plan(img)
	external := &fixedNames{ExternalServer: files.ExternalServer{Server: session.Address(), Directory: dir}, names: list}
	plan.Files = external
	result, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe)
	if err != nil {
		t.Fatal(err)
	}
	if l.version() != "2.0.0" || result.Directory != dir {
		t.Errorf("runs %s, backup in %s", l.version(), result.Directory)
	}
	if _, err := external.ExternalServer.Open(device.FTP, "TEST-0001", ""); err == nil {
		t.Error("a TFTP server was opened for FTP")
	}
	made, err := external.ExternalServer.Open(device.TFTP, "TEST-0001", "")
	if err != nil {
		t.Fatal(err)
	}
	_, first, err1 := made.NewBackup(files.ConfigKinds)
	_, second, err2 := made.NewBackup(files.ConfigKinds)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if first[0].Name == second[0].Name || !strings.HasPrefix(first[0].Name, "TEST-0001-") {
		t.Errorf("names %s and %s", first[0].Name, second[0].Name)
	}
}

// fixedNames is an external server that accepts certain names alone.
type fixedNames struct {
	files.ExternalServer
	names []files.BackupFile
}

func (f *fixedNames) Open(p device.Protocol, deviceID, target string) (files.Session, error) {
	s, err := f.ExternalServer.Open(p, deviceID, target)
	return fixedSession{s, f}, err
}

type fixedSession struct {
	files.Session
	of *fixedNames
}

func (s fixedSession) NewBackup([]mib.FileType) (string, []files.BackupFile, error) {
	return s.of.Directory, s.of.names, nil
}

// TestNewerJournal: the journal of a later version is refused by its number, whatever
// types its fields have.
func TestNewerJournal(t *testing.T) {
	disk := afero.NewMemMapFs()
	journal := manager.NewJournal(disk, "IAD-1")
	if err := afero.WriteFile(disk, journal.Name(), []byte(`{"format": 3, "tasks": {"one": 1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Load(); err == nil || !strings.Contains(err.Error(), "has format 3; this iadms reads format 2") {
		t.Errorf("Load: %v", err)
	}
}

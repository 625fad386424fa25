package manager_test

import (
	"context"
	"errors"
	"io"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/afero"

	"example.com/iad/agent/config"
	"example.com/iad/bank/image"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

func (l *lab) version() string {
	l.t.Helper()
	d, err := l.client.Device(l.ctx)
	if err != nil {
		l.t.Fatal(err)
	}
	return d.Version
}

// A backup that was not compared is not called good without a word.
func TestBackupNotCompared(t *testing.T) {
	l := newLab(t, labOptions{})
	plan := l.plan(nil)
	plan.Files = &detour{Servers: l.servers, withhold: true}
	if _, err := manager.Backup(l.ctx, plan, &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	warned := ""
	for _, u := range l.updates {
		if u.Kind == manager.Warned && u.Step == manager.StepBackupJudge {
			warned += u.Text
		}
		if u.Kind == manager.StepEnds && u.Step == manager.StepBackupJudge && !strings.Contains(u.Text, "according to the device") {
			t.Errorf("the verdict is %q", u.Text)
		}
	}
	if !strings.Contains(warned, "userData.cfg") || !strings.Contains(warned, "could not be compared") || strings.Contains(warned, "so says") {
		t.Errorf("warned: %q", warned)
	}
}

// Each part of the procedure by itself.
func TestParts(t *testing.T) {
	l := newLab(t, labOptions{})
	plan := l.plan(nil)
	old, err := l.client.Device(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	// Two backups of one second do not meet.
	var dirs []string
	for range 2 {
		result, err := manager.Backup(l.ctx, plan, &scripted{t: t}, l.observe)
		if err != nil {
			t.Fatal(err)
		}
		l.checkBackup(result)
		dirs = append(dirs, result.Directory)
	}
	listed, err := files.Backups(l.store, old.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(dirs, listed); diff != "" {
		t.Errorf("backups (-made +listed):\n%s", diff)
	}

	if _, err := manager.Upgrade(l.ctx, l.plan(l.image("2.0.0", 2)), &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	result, err := manager.Rollback(l.ctx, plan, &scripted{t: t}, l.observe)
	if err != nil {
		t.Fatal(err)
	}
	if result.OldVersion != "2.0.0" || result.NewVersion != "1.0.0" || l.version() != "1.0.0" {
		t.Errorf("rolled back %s -> %s", result.OldVersion, result.NewVersion)
	}

	// An operator edits a backup and gives it back.
	edited := path.Join(path.Dir(dirs[0]), "edited")
	copyBackup(t, l.store, dirs[0], edited)
	if err := afero.WriteFile(l.store, path.Join(edited, "userData.cfg"), config.WithHeader(mib.FileTypeUserData, 1, []byte("name = edited\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := files.ReadBackup(l.store, edited)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := manager.Recover(l.ctx, plan, edited, list, &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	now, err := l.client.Device(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if now.Generation <= old.Generation || string(now.ConfigDigest) == string(old.ConfigDigest) {
		t.Errorf("generation %d is in force, as before: %d", now.Generation, old.Generation)
	}

	if _, err := manager.Reset(l.ctx, plan, &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	after, err := l.client.Device(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if after.RestartCount != now.RestartCount+1 || after.RestartReason != mib.RestartReasonCommanded {
		t.Errorf("restart %d after %d, %v", after.RestartCount, now.RestartCount, after.RestartReason)
	}
}

// Without a backup data in another format are converted on the device.
func TestSkipBackup(t *testing.T) {
	l := newLab(t, labOptions{})
	plan := l.plan(l.image("2.0.0", 2))
	plan.SkipBackup = true
	if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	d, err := l.client.Device(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if d.Version != "2.0.0" || d.Generation == 0 || d.ConfigFormat != 2 {
		t.Errorf("runs %s with generation %d", d.Version, d.Generation)
	}
	plan.Image = l.image("2.1.0", 2)
	if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe); err != nil || l.version() != "2.1.0" {
		t.Errorf("runs %s: %v", l.version(), err)
	}
}

func TestConvert(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	l := newLab(t, labOptions{configure: func(_ *lab, c *sim.Config) {
		usual := c.Hooks.Convert
		c.Hooks.Convert = func(ctx context.Context, conv agentConversion, work afero.Fs) error {
			if broken.Load() {
				return errors.New("not today")
			}
			return usual(ctx, conv, work)
		}
	}})
	plan := l.plan(l.image("2.0.0", 2))
	if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t, answers: []manager.Answer{{Choice: manager.GiveUp}}}, l.observe); err == nil {
		t.Fatal("a conversion succeeded that cannot")
	}
	broken.Store(false)
	if _, err := manager.Convert(l.ctx, plan, &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	d, err := l.client.Device(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if d.Generation == 0 {
		t.Error("no configuration data in force")
	}
}

// With data in force and none in another format there is nothing to convert, which is no
// failure; on its defaults a device stays out of service, and that is one.
func TestNothingToConvert(t *testing.T) {
	l := newLab(t, labOptions{})
	result, err := manager.Convert(l.ctx, l.plan(nil), &scripted{t: t}, l.observe)
	if err != nil || !result.Unchanged {
		t.Errorf("unchanged %v, %v", result.Unchanged, err)
	}
	empty := newLab(t, labOptions{noConfig: true})
	var failure *manager.Failure
	if result, err = manager.Convert(empty.ctx, empty.plan(nil), &scripted{t: t}, empty.observe); !errors.As(err, &failure) || !failure.Refused || result.Unchanged {
		t.Errorf("on defaults: unchanged %v, %v", result.Unchanged, err)
	}
}

// Software that waits for the manager's word gets it when all is done.
func TestConfirmedByManager(t *testing.T) {
	l := newLab(t, labOptions{})
	l.leaveConfirmationToManager()
	if _, err := manager.Upgrade(l.ctx, l.plan(l.image("2.0.0", 2)), &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	if b := l.running(); b.State != mib.BankStateGood {
		t.Errorf("%s runs", b)
	}
}

// A confirmation that the device does not answer, or cannot record, is a question to the operator, and succeeds when it is
// repeated.
func TestConfirmationFails(t *testing.T) {
	for fault, want := range map[sim.FaultKind]string{sim.Silent: "no answer", sim.ReadOnly: "still on trial"} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{})
			l.leaveConfirmationToManager()
			plan := l.plan(l.image("1.1.0", 1))
			asked := 0
			operator := asking(func(q manager.Question) manager.Answer {
				asked++
				if q.Step != manager.StepRecoverJudge || !strings.Contains(q.Failure.Error(), want) || l.device.ClearFaults(fault) != 1 {
					t.Errorf("step %d: %v", q.Step, q.Failure)
					return manager.Answer{Choice: manager.GiveUp}
				}
				return manager.Answer{Choice: manager.Retry}
			})
			_, err := manager.Upgrade(l.ctx, plan, operator, func(u manager.Update) {
				if l.observe(u); u.Step == manager.StepRecoverJudge && u.Kind == manager.StepEnds {
					l.device.Inject(sim.Fault{Kind: fault})
				}
			})
			if b := l.running(); err != nil || asked != 1 || b.State != mib.BankStateGood || b.Version != "1.1.0" {
				t.Errorf("%v after %d questions; %s runs", err, asked, b)
			}
		})
	}
}

// A check changes nothing; what cannot succeed is refused before anything.
func TestCheckAndRefuse(t *testing.T) {
	l := newLab(t, labOptions{})
	plan := l.plan(l.image("2.0.0", 2))
	plan.CheckOnly = true
	if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe); err != nil {
		t.Error(err)
	}
	banks, err := l.client.Banks(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if banks[1].State != mib.BankStateEmpty || l.version() != "1.0.0" {
		t.Errorf("after a check: %v", banks)
	}
	for name, change := range map[string]func(*manager.Plan){
		"hardware": func(p *manager.Plan) { p.Image = l.foreign() },
		"protocol": func(p *manager.Plan) { p.Protocol = device.FTPS },
		"owner":    func(p *manager.Plan) { p.Owner = strings.Repeat("o", 33) },
		"24h":      func(p *manager.Plan) { p.Limits.Backup = 25 * time.Hour },
		"retry":    func(p *manager.Plan) { p.DeviceRetries = 11 },
		"software": func(p *manager.Plan) { p.Kinds = []mib.FileType{mib.FileTypeSoftware} },
		"percent":  func(p *manager.Plan) { p.Pace = &device.Pace{} },
		"Modifier": func(p *manager.Plan) { p.ModifyFirst = true },
		"Image":    func(p *manager.Plan) { p.Image = nil },
		"Journal":  func(p *manager.Plan) { p.Resume = true },
		"required": func(p *manager.Plan) { p.Files = nil },
	} {
		plan := l.plan(l.image("2.0.0", 2))
		change(&plan)
		_, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	history, err := l.client.History(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(history) != 1 {
		t.Errorf("operations: %v", history)
	}
}

// foreign is an image for other hardware.
func (l *lab) foreign() *files.Image {
	l.t.Helper()
	dir := "foreign"
	err := image.BuildSplit(l.images, dir, image.Manifest{Version: "2.0.0", Hardware: []string{"other hardware"}, ConfigFormat: 2},
		[]image.PayloadFile{{Name: "app", Mode: 0o755, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("software")), nil
		}}}, l.key)
	if err != nil {
		l.t.Fatal(err)
	}
	img, err := files.OpenImage(l.images, dir+"/"+image.ManifestName)
	if err != nil {
		l.t.Fatal(err)
	}
	return img
}

// An image in split form is fetched file by file.
func TestSplitImage(t *testing.T) {
	for _, protocol := range []device.Protocol{device.TFTP, device.FTP} {
		t.Run(protocol.String(), func(t *testing.T) {
			l := newLab(t, labOptions{})
			err := image.BuildSplit(l.images, "split", image.Manifest{Version: "2.0.0", Hardware: []string{hardware}, ConfigFormat: 1},
				[]image.PayloadFile{{Name: "app", Mode: 0o755, Open: func() (io.ReadCloser, error) {
					return io.NopCloser(strings.NewReader("software of 2.0.0")), nil
				}}}, l.key)
			if err != nil {
				t.Fatal(err)
			}
			img, err := files.OpenImage(l.images, "split/"+image.ManifestName)
			if err != nil {
				t.Fatal(err)
			}
			if !img.Split || img.Total <= img.Size {
				t.Errorf("split %v, %d bytes of %d", img.Split, img.Size, img.Total)
			}
			plan := l.plan(img)
			plan.Protocol = protocol
			if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe); err != nil || l.version() != "2.0.0" {
				t.Errorf("runs %s: %v", l.version(), err)
			}
			if err := l.images.Remove("split/app"); err != nil {
				t.Fatal(err)
			}
			if _, err := files.OpenImage(l.images, "split/"+image.ManifestName); err == nil {
				t.Error("an image without its payload was opened")
			}
		})
	}
}

func TestOpenImageRefuses(t *testing.T) {
	disk := afero.NewMemMapFs()
	for name, content := range map[string]string{"empty": "", "text": "hello", "manifest": `{"version":"x"}`, "long": "{" + strings.Repeat(" ", image.MaxManifest+1)} {
		if err := afero.WriteFile(disk, name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := files.OpenImage(disk, name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := files.OpenImage(disk, "absent"); err == nil {
		t.Error("an absent file was opened")
	}
}

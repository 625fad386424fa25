package manager_test

import (
	"path"
	"strings"
	"testing"

	"github.com/pin/tftp/v3"
	"github.com/spf13/afero"

	"example.com/iad/agent/config"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// copyBackup copies the files of a backup, without its mark, as an operator does to
// edit them.
func copyBackup(t *testing.T, disk afero.Fs, from, to string) {
	t.Helper()
	list, err := afero.ReadDir(disk, from)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range list {
		if strings.HasPrefix(info.Name(), ".") {
			continue
		}
		data, err := afero.ReadFile(disk, path.Join(from, info.Name()))
		if err == nil {
			err = afero.WriteFile(disk, path.Join(to, info.Name()), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A backup that is not what was judged good is refused before anything is sent, with the
// name of the file; what is not part of it is not sent.
func TestDamagedBackupIsRefused(t *testing.T) {
	l := newLab(t, labOptions{noNotifications: true})
	made, err := manager.Backup(l.ctx, l.plan(nil), &scripted{t: t}, l.observe)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, store afero.Fs) (dir string)
		want   string // in the error; empty: none
	}{
		{"unchanged", func(*testing.T, afero.Fs) string { return made.Directory }, ""},
		{"a stranger's file beside", func(t *testing.T, store afero.Fs) string {
			data := config.WithHeader(mib.FileTypeUserData, 1, []byte("name = stranger\n"))
			if err := afero.WriteFile(store, made.Directory+"/userData~1.cfg", data, 0o600); err != nil {
				t.Fatal(err)
			}
			return made.Directory
		}, ""},
		{"a byte flipped", func(t *testing.T, store afero.Fs) string {
			name := made.Directory + "/portData.cfg"
			data, err := afero.ReadFile(store, name)
			if err == nil {
				data[len(data)-2] ^= 1
				err = afero.WriteFile(store, name, data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			return made.Directory
		}, "portData.cfg has changed"},
		{"a file missing", func(t *testing.T, store afero.Fs) string {
			if err := store.Remove(made.Directory + "/otherData.cfg"); err != nil {
				t.Fatal(err)
			}
			return made.Directory
		}, "otherData.cfg is missing"},
		{"a kind missing in an edited copy", func(t *testing.T, store afero.Fs) string {
			edited := path.Dir(made.Directory) + "/new"
			copyBackup(t, store, made.Directory, edited)
			if err := store.Remove(edited + "/otherData.cfg"); err != nil {
				t.Fatal(err)
			}
			return edited
		}, "no file of kind otherData"},
		{"the mark damaged", func(t *testing.T, store afero.Fs) string {
			if err := afero.WriteFile(store, made.Directory+"/.complete", []byte("12  ../../x\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return made.Directory
		}, ".complete is damaged"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := afero.NewMemMapFs()
			for _, info := range must(afero.ReadDir(l.store, made.Directory)) {
				name := path.Join(made.Directory, info.Name())
				if err := afero.WriteFile(store, name, must(afero.ReadFile(l.store, name)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			list, err := files.ReadBackup(store, c.damage(t, store))
			switch {
			case c.want == "" && (err != nil || len(list) != len(files.ConfigKinds)):
				t.Errorf("%d files, %v", len(list), err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("not refused with %q: %v", c.want, err)
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// What changes between steps 120 and 170 is not sent either.
func TestBackupChangedBeforeRecovery(t *testing.T) {
	l := newLab(t, labOptions{noNotifications: true})
	operator := &scripted{t: t, answers: []manager.Answer{{Choice: manager.GiveUp}}}
	_, err := manager.Upgrade(l.ctx, l.plan(l.image("2.0.0", 2)), operator, func(u manager.Update) {
		if u.Step == 150 && u.Kind == manager.StepBegins {
			dir := must(files.Backups(l.store, "TEST-0001"))[0]
			data := config.WithHeader(mib.FileTypeUserData, 1, []byte("name = stranger\n"))
			if err := afero.WriteFile(l.store, dir+"/userData.cfg", data, 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	if err == nil || !strings.Contains(err.Error(), "userData.cfg has changed") {
		t.Error(err)
	}
	for _, h := range must(l.client.History(l.ctx)) {
		if h.Kind == mib.OperationKindRecoverConfig {
			t.Errorf("recovered: %+v", h)
		}
	}
}

func TestJudgedBackupStaysClosed(t *testing.T) {
	for _, at := range []struct {
		step manager.Step
		kind manager.UpdateKind
	}{{120, manager.StepEnds}, {140, manager.StepBegins}, {170, manager.StepBegins}} {
		l := newLab(t, labOptions{noNotifications: true})
		plan := l.plan(l.image("2.0.0", 2))
		plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
		intrude := func() {
			dir := must(files.Backups(l.store, "TEST-0001"))[0]
			if err := putByTFTP(l.servers, dir+"/userData.cfg", "iad-config userData 1\nstranger\n"); err == nil {
				t.Error("a stranger's file was taken")
			}
		}
		l.interrupted(plan, &scripted{t: t}, at.step, at.kind)
		plan.Resume = true
		if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, func(u manager.Update) {
			if u.Kind == manager.StepBegins && u.Step > 120 {
				intrude()
			}
		}); err != nil {
			t.Error(err)
		}
	}
}

// putByTFTP writes a file as anybody can.
func putByTFTP(s *files.Servers, name, data string) error {
	c, err := tftp.NewClient(s.Addr(device.TFTP).String())
	if err != nil {
		return err
	}
	to, err := c.Send(name, "octet")
	if err != nil {
		return err
	}
	_, err = to.ReadFrom(strings.NewReader(data))
	return err
}

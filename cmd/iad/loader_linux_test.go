package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/agent/settings"
	"example.com/iad/internal/bootscript"
	"example.com/iad/internal/peers"
	"example.com/iad/manager"
)

// loaderBoard is a device whose banks are chosen by a boot loader: what the boot script
// does, done by the test, with the agent's own way of keeping the state.
type loaderBoard struct {
	*unit
	board   *bootscript.Board
	cmdline string
	starts  []string // the command lines
}

func newLoaderBoard(t *testing.T, script string) *loaderBoard {
	t.Helper()
	d := newDevice(t)
	b := &loaderBoard{unit: d, cmdline: filepath.Join(d.root, "cmdline")}
	env, reboot := filepath.Join(d.root, "env"), filepath.Join(d.root, "reboot")
	for name, data := range map[string]string{
		env: strings.Repeat("\xff", bootscript.FileSize),
		// The system ends every process. Until then the agent must not go on.
		reboot: "#!/bin/sh\n" + script + "\n",
	} {
		if err := os.WriteFile(name, []byte(data), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b.board = bootscript.Script(afero.NewOsFs(), env)
	b.edit(func(s string) string {
		return fmt.Sprintf("restart = %q\n", reboot) + strings.Replace(s, "[loader]\n", bootscript.Settings(env, b.cmdline), 1)
	})
	return b
}

// power starts the board by the rules of the boot script. broken names a bank that the
// loader cannot load.
func (b *loaderBoard) power(broken int) {
	b.t.Helper()
	b.board.Broken = func(n int) bool { return n == broken }
	n, why, err := b.board.Start()
	if err != nil {
		b.t.Fatal(err)
	}
	line := fmt.Sprintf("quiet iad.bank=%d iad.why=%s", n, why)
	b.starts = append(b.starts, line)
	if err := os.WriteFile(b.cmdline, []byte(line+"\n"), 0o600); err != nil {
		b.t.Fatal(err)
	}
	b.start()
}

// upgrade upgrades the board to 2.0.0, which restarts as often as its agent ends.
func (b *loaderBoard) upgrade(broken int) (manager.Result, error) {
	b.t.Helper()
	type end struct {
		result manager.Result
		err    error
	}
	ended := make(chan end, 1)
	plan := b.plan("2.0.0", 200_000, 0)
	go func() {
		result, err := manager.Upgrade(b.t.Context(), plan, manager.Automatic{}, func(manager.Update) {})
		ended <- end{result, err}
	}()
	for {
		select {
		case err := <-b.done:
			b.done <- err
			b.stop()
			b.power(broken)
		case e := <-ended:
			return e.result, e.err
		}
	}
}

func (b *loaderBoard) loader() (r loaderReport) {
	b.t.Helper()
	out, err := command("loader", "show", "--root", b.root, "--json").Output()
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
	return r
}

// The agent's way to restart is a program that ends it, as a system that restarts does.
const endsAgent = "kill -KILL $PPID"

func TestLoaderUpgrade(t *testing.T) {
	b := newLoaderBoard(t, endsAgent)
	b.power(0)
	if r := b.loader(); r.Lost || r.Next != 1 || r.Counted || r.Started != 1 {
		t.Errorf("after the first start: %+v", r)
	}
	result, err := b.upgrade(0)
	if err != nil {
		t.Fatal(err)
	}
	if result.NewVersion != "2.0.0" {
		t.Errorf("runs %s", result.NewVersion)
	}
	if r := b.loader(); r.Next != 2 || r.Counted || r.Fallback == nil || *r.Fallback != 1 || r.Started != 2 || r.Recorded != 2 || len(r.Findings) != 0 {
		t.Errorf("after the upgrade: %+v", r)
	}
	want := []string{"quiet iad.bank=1 iad.why=lost", "quiet iad.bank=2 iad.why=next"}
	if fmt.Sprint(b.starts) != fmt.Sprint(want) {
		t.Errorf("starts: %q, want %q", b.starts, want)
	}
}

// TestLoaderCannotLoad: new software that the loader cannot load never runs, the old one
// starts again at once, and the manager gets the reason.
func TestLoaderCannotLoad(t *testing.T) {
	b := newLoaderBoard(t, endsAgent)
	b.power(0)
	if _, err := b.upgrade(2); err == nil || !strings.Contains(err.Error(), "the boot loader started bank 1: load") {
		t.Errorf("the upgrade ended with %v", err)
	}
	c := b.client()
	dev, err := c.Device(t.Context())
	if err != nil || dev.Version != "1.0.0" {
		t.Errorf("runs %+v, %v", dev, err)
	}
	if r := b.loader(); r.Next != 1 || r.Counted || r.Recorded != 1 {
		t.Errorf("%+v", r)
	}
}

// TestLoaderStartsWrongBank: the loader had lost its state and starts a bank that holds
// nothing to run; the agent writes the state and restarts the board once.
func TestLoaderStartsWrongBank(t *testing.T) {
	b := newLoaderBoard(t, endsAgent)
	b.power(0)
	if _, err := b.upgrade(0); err != nil {
		t.Fatal(err)
	}
	b.stop()
	// Bank 1 holds half of a download.
	if err := os.Truncate(filepath.Join(b.root, "bank1", "firmware"), 10_000); err != nil {
		t.Fatal(err)
	}
	env := filepath.Join(b.root, "env")
	if err := os.WriteFile(env, make([]byte, bootscript.FileSize), 0o600); err != nil {
		t.Fatal(err)
	}
	b.starts = nil
	func() {
		line := "iad.bank=1 iad.why=lost"
		if err := os.WriteFile(b.cmdline, []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := command("run", "--root", b.root, "--snmp", b.addr)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "must not run") {
			t.Fatalf("%v\n%s", err, out)
		}
	}()
	b.power(0)
	if r := b.loader(); r.Next != 2 || r.Started != 2 || r.Recorded != 2 {
		t.Errorf("%+v, %q", r, b.starts)
	}
}

// TestRestartThatFails: a program that does not restart the board is reported, and the
// agent ends, so that whoever supervises it or the watchdog can do it.
func TestRestartThatFails(t *testing.T) {
	b := newLoaderBoard(t, "echo no such runlevel; exit 3")
	var log peers.Output
	b.log = &log
	b.power(0)
	ctx := t.Context()
	go manager.Upgrade(ctx, b.plan("2.0.0", 200_000, 0), manager.Automatic{}, func(manager.Update) {})
	select {
	case err := <-b.done:
		b.done <- err
	case <-time.After(time.Minute):
		t.Fatal("the agent goes on")
	}
	if s := log.String(); !strings.Contains(s, "no such runlevel") || !strings.Contains(s, "exit status 3") {
		t.Errorf("%s", s)
	}
}

func TestLoaderByHand(t *testing.T) {
	b := newLoaderBoard(t, endsAgent)
	run := func(want string, args ...string) {
		t.Helper()
		out, err := command(append(args, "--root", b.root)...).CombinedOutput()
		if !strings.Contains(string(out), want) {
			t.Errorf("%q: %v\n%s\nwant %q", args, err, out, want)
		}
	}
	run("the state is lost", "loader", "show")
	run("want 1 or 2", "loader", "set", "--next", "3")
	run("want the other bank", "loader", "set", "--next", "1", "--fallback", "1")
	run("want 0 to 255", "loader", "set", "--next", "1", "--left", "256")
	run("bank 2, on trial, starts left: 2", "loader", "set", "--next", "2", "--left", "2", "--fallback", "1")
	run("the boot record has bank 1 as the next one", "loader", "show")
	run("fallback:  none", "loader", "set", "--next", "1")
	b.power(0)
	run("another agent runs on it", "loader", "set", "--next", "1")
	plain := newDevice(t)
	b.unit = plain
	run("no section [loader]", "loader", "show")
}

func TestLoaderSettings(t *testing.T) {
	for text, want := range map[string]string{
		"[loader]\nkind = 'script'":                     "restart must be",
		"restart = 'soon'":                              "restart must be",
		"restart = 'reboot'\n[loader]\nkind = 'grub'":   "loader.kind must be",
		"restart = 'reboot'\n[loader]\nkind = 'script'": "loader.copies must be",
		"restart = 'reboot'\n[loader]\nkind = 'script'\ncopies = ['/dev/a:0', '/dev/a:0x800']":                   "overlap",
		"restart = 'reboot'\n[loader]\nkind = 'script'\ncopies = ['/dev/a:0', '/dev/a:x']":                       "loader.copies must be",
		"restart = 'reboot'\n[loader]\nkind = 'script'\nsize = 9\ncopies = ['/dev/a:0', '/dev/b:0']":             "loader.size must be",
		"restart = 'reboot'\n[loader]\nkind = 'uboot'\nconfig = 'none'":                                          "loader.config: open",
		"restart = 'reboot'\n[loader]\nkind = 'uboot'\nbyte_order = 'middle'":                                    "loader.byte_order must be",
		"restart = 'reboot'\n[loader]\nkind = 'bootcount'":                                                       "loader.banks must be",
		"restart = 'reboot'\n[loader]\nkind = 'bootcount'\nbanks = ['2', '3']":                                   "loader.variable must be",
		"restart = 'reboot'\n[loader]\nkind = 'rauc'\nbanks = ['A']":                                             "loader.banks must be",
		"restart = 'reboot'\n[loader]\nkind = 'script'\nstarted = ['A']\ncopies = ['/dev/a:0', '/dev/b:0x8000']": "loader.started must be",
	} {
		file := filepath.Join(t.TempDir(), settings.Name)
		if err := os.WriteFile(file, []byte("device_id = 'x'\n"+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := settings.Load(file)
		if err == nil {
			_, _, err = s.Config(filepath.Dir(file), "")
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v, want %q", text, err, want)
		}
	}
}

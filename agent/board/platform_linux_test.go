package board_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/afero"
	"golang.org/x/sys/unix"

	"example.com/iad/agent"
	"example.com/iad/agent/board"
	"example.com/iad/agent/config"
	"example.com/iad/mib"
)

// platform makes a board in temporary directories, without programs.
func platform(t *testing.T) *board.Platform {
	t.Helper()
	root, err := board.RootIn(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var c agent.Config
	if root.Open(&c); len(c.Findings) > 0 {
		t.Fatal(err)
	}
	return &board.Platform{Banks: root.Banks, Work: root.Work, Applied: root.Applied}
}

// payload puts an executable script into a bank.
func payload(t *testing.T, p *board.Platform, bank int, name, script string) agent.Program {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.Banks[bank-1], name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return agent.Program{Bank: bank, Payload: name}
}

func settings(format uint32) config.Set {
	set := config.Set{}
	for _, k := range []mib.FileType{mib.FileTypeUserData, mib.FileTypePortData} {
		set[k] = config.WithHeader(k, format, []byte("a = b\n"))
	}
	return set
}

func TestRootOpen(t *testing.T) {
	root, err := board.RootIn(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var c agent.Config
	if root.Open(&c); len(c.Findings) > 0 {
		t.Fatal(c.Findings)
	}
	for directory, files := range map[string]afero.Fs{
		root.Banks[0]: c.Banks[0], root.Banks[1]: c.Banks[1], root.State: c.State, root.Data: c.Data, root.Work: c.Work,
	} {
		if err := afero.WriteFile(files, "x", []byte(directory), 0o600); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(filepath.Join(directory, "x")); err != nil || string(got) != directory {
			t.Errorf("%s: %q, %v", directory, got, err)
		}
	}
	if info, err := os.Stat(root.State); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the state, which holds passwords: %v, %v", info.Mode(), err)
	}
	// What is in the way is set aside, what cannot be made is reported.
	if err := errors.Join(os.RemoveAll(root.Data), os.WriteFile(root.Data, []byte("a file"), 0o600)); err != nil {
		t.Fatal(err)
	}
	root.Banks[1] = filepath.Join(root.Banks[0], "x", "y")
	root.Open(&c)
	if got, err := os.ReadFile(root.Data + ".corrupt-1"); err != nil || string(got) != "a file" {
		t.Errorf("%q, %v", got, err)
	}
	if info, err := os.Stat(root.Data); err != nil || !info.IsDir() {
		t.Error(err)
	}
	if len(c.Findings) != 2 {
		t.Errorf("%q", c.Findings)
	}
}

// A link whose target is not mounted at one start is kept, and nothing takes its
// place.
func TestRootOpenKeepsLinks(t *testing.T) {
	dir := t.TempDir()
	root, err := board.RootIn(filepath.Join(dir, "root"))
	if err != nil {
		t.Fatal(err)
	}
	flash := filepath.Join(dir, "flash")
	if err := errors.Join(os.Mkdir(filepath.Dir(root.State), 0o755), os.Symlink(flash, root.State)); err != nil {
		t.Fatal(err)
	}
	var c agent.Config
	root.Open(&c)
	if found := strings.Join(c.Findings, "\n"); !strings.Contains(found, root.State+" leads to "+flash) || len(c.Findings) != 1 {
		t.Errorf("findings: %s", found)
	}
	if err := afero.WriteFile(c.State, "x", nil, 0o600); err == nil {
		t.Error("something was kept elsewhere")
	}
	if err := os.Mkdir(flash, 0o700); err != nil {
		t.Fatal(err)
	}
	c = agent.Config{}
	if root.Open(&c); len(c.Findings) != 0 {
		t.Errorf("findings: %q", c.Findings)
	}
	if err := afero.WriteFile(c.State, "x", nil, 0o600); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(flash, "x")); err != nil {
		t.Error(err)
	}
}

func TestMakeDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	dir := filepath.Join("a", "b", "c")
	defer unix.Umask(unix.Umask(0o077))
	for range 2 {
		if err := board.MakeDirectory(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := board.MakeDirectory(filepath.Join(dir, "file", "x"), 0o755); err == nil {
		t.Error("made below a file")
	}
}

func TestSelfTest(t *testing.T) {
	p := platform(t)
	healthy := agent.SelfTest{Version: "2.0.0", Program: payload(t, p, 2, "healthy",
		`[ "$IAD_BANK" = "`+p.Banks[1]+`" ] && [ "$IAD_VERSION" = 2.0.0 ] && [ "$IAD_CONFIG" = none ] || { env; exit 1; }`)}
	if err := p.SelfTest(t.Context(), healthy); err != nil {
		t.Error(err)
	}
	reads := agent.SelfTest{Generation: 4, Program: payload(t, p, 1, "reads", `grep -q "a = b" "$IAD_CONFIG/userData"`)}
	if _, err := p.ApplyConfig(t.Context(), config.Generation{Number: 4}, settings(1)); err != nil {
		t.Fatal(err)
	}
	if err := p.SelfTest(t.Context(), reads); err != nil {
		t.Error(err)
	}
	sick := agent.SelfTest{Program: payload(t, p, 1, "sick", `echo "line card 2 missing"; exit 1`)}
	if err := p.SelfTest(t.Context(), sick); err == nil || !strings.Contains(err.Error(), "line card 2 missing") {
		t.Errorf("a failed self-test: %v", err)
	}
	slow := agent.SelfTest{Program: payload(t, p, 1, "slow", "exec sleep 300")}
	p.Limit = 1
	if err := p.SelfTest(t.Context(), slow); !errors.Is(err, board.ErrTimeout) {
		t.Errorf("a self-test that does not end: %v", err)
	}
	p.Limit = 0
	if err := p.SelfTest(t.Context(), agent.SelfTest{Program: agent.Program{Bank: 1, Payload: "none"}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a self-test that is not there: %v", err)
	}
	// Software without a self-test of its own.
	if err := p.SelfTest(t.Context(), agent.SelfTest{Program: agent.Program{Bank: 1}}); err != nil {
		t.Errorf("no self-test anywhere: %v", err)
	}
	p.SelfTestProgram = program(t, `echo "the board's own"; exit 1`)
	if err := p.SelfTest(t.Context(), agent.SelfTest{Program: agent.Program{Bank: 1}}); err == nil || !strings.Contains(err.Error(), "own") {
		t.Errorf("the board's self-test: %v", err)
	}
}

func TestPlatformConverts(t *testing.T) {
	p := platform(t)
	const script = `for f in "$3"/*; do sed "1s/$1\$/$2/" "$f" >"$4/${f##*/}"; done`
	run := func(c agent.Conversion) (string, error) {
		for _, dir := range []string{"in", "out"} {
			if err := os.RemoveAll(filepath.Join(p.Work, dir)); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(p.Work, dir), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(p.Work, "in", "userData"), settings(1)[mib.FileTypeUserData], 0o600); err != nil {
			t.Fatal(err)
		}
		c.From, c.To, c.InDir, c.OutDir = 1, 2, "in", "out"
		err := p.Convert(t.Context(), c)
		got, _ := os.ReadFile(filepath.Join(p.Work, "out", "userData"))
		return string(got), err
	}
	want := string(settings(2)[mib.FileTypeUserData])
	if got, err := run(agent.Conversion{Program: payload(t, p, 2, "convert", script)}); err != nil || got != want {
		t.Errorf("the software's program: %q, %v", got, err)
	}
	if _, err := run(agent.Conversion{}); !errors.Is(err, fs.ErrNotExist) || p.CanConvert(1, 2) {
		t.Errorf("no program: %v, can convert: %t", err, p.CanConvert(1, 2))
	}
	p.ConverterProgram = program(t, script)
	if got, err := run(agent.Conversion{}); err != nil || got != want || !p.CanConvert(1, 2) {
		t.Errorf("the board's program: %q, %v", got, err)
	}
}

func TestCheckConfig(t *testing.T) {
	p := platform(t)
	if err := p.CheckConfig(settings(1)); err != nil {
		t.Errorf("no program: %v", err)
	}
	p.CheckProgram = program(t, `grep -q "a = b" "$1/userData" && grep -q "a = b" "$1/portData" || { echo "port 1 unknown"; exit 1; }`)
	if err := p.CheckConfig(settings(1)); err != nil {
		t.Errorf("good data: %v", err)
	}
	bad := config.Set{mib.FileTypeUserData: config.WithHeader(mib.FileTypeUserData, 1, nil)}
	if err := p.CheckConfig(bad); cause(err) != mib.FailCauseConfigParseError || !strings.Contains(err.Error(), "port 1 unknown") {
		t.Errorf("bad data: %v", err)
	}
	if left, err := os.ReadDir(p.Work); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestApplyConfig(t *testing.T) {
	p := platform(t)
	apply := func(set config.Set) (bool, error) {
		return p.ApplyConfig(t.Context(), config.Generation{Number: 1}, set)
	}
	if reset, err := apply(settings(1)); reset || err != nil {
		t.Errorf("no program: %t, %v", reset, err)
	}
	p.ApplyProgram = program(t, `[ -f "$1/portData" ] || exit 3; grep -q "a = b" "$1/portData" || { echo "port 1 refused"; exit 4; }`)
	if reset, err := apply(settings(1)); reset || err != nil {
		t.Errorf("applied at once: %t, %v", reset, err)
	}
	// What is not in the new set must be gone.
	if reset, err := apply(config.Set{mib.FileTypeUserData: settings(1)[mib.FileTypeUserData]}); !reset || err != nil {
		t.Errorf("applied by a restart: %t, %v", reset, err)
	}
	refused := config.Set{mib.FileTypePortData: config.WithHeader(mib.FileTypePortData, 1, nil)}
	if _, err := apply(refused); err == nil || !strings.Contains(err.Error(), "port 1 refused") {
		t.Errorf("refused: %v", err)
	}
}

// Configuration data may hold passwords: only the agent and whom it runs programs
// as may read the copies.
func TestAppliedFilesAreConfined(t *testing.T) {
	p := platform(t)
	// So that the other user gets as far as to the directory.
	p.Applied = filepath.Join(t.TempDir(), "applied")
	for dir := filepath.Dir(p.Applied); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	test := agent.SelfTest{Generation: 1, Program: agent.Program{Bank: 1}}
	p.SelfTestProgram = "/bin/ls"
	if os.Getuid() == 0 {
		p.As = &board.User{UID: 65534, GID: 65534}
		p.SelfTestProgram = program(t, `cat "$IAD_CONFIG/userData"`)
		for dir := p.SelfTestProgram; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := p.ApplyConfig(t.Context(), config.Generation{Number: 1}, settings(1)); err != nil {
		t.Fatal(err)
	}
	if err := p.SelfTest(t.Context(), test); err != nil {
		t.Errorf("the self-test's user: %v", err)
	}
	directory, file := os.FileMode(0o700), os.FileMode(0o600)
	if p.As != nil {
		directory, file = 0o750, 0o640
	}
	for name, want := range map[string]os.FileMode{p.Applied: directory, filepath.Join(p.Applied, "userData"): file} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode().Perm(), err, want)
		}
	}
}

func TestCalls(t *testing.T) {
	p := platform(t)
	for script, want := range map[string]int{"echo 3": 3, "echo -1": 0, "echo many": 0, "echo 5; exit 1": 0} {
		p.CallsProgram = program(t, script)
		if got := p.Calls(); got != want {
			t.Errorf("%s: %d calls, want %d", script, got, want)
		}
	}
	p.CallsProgram = ""
	if got := p.Calls(); got != 0 {
		t.Errorf("%d calls without a program", got)
	}
}

func TestPlatformSpaceAndWatchdog(t *testing.T) {
	p := platform(t)
	free, err := p.Free(1)
	if size := p.Capacity(2); err != nil || size <= 0 || free > size {
		t.Errorf("free %d of %d, %v", free, size, err)
	}
	p.BankSize = 1 << 20
	if size := p.Capacity(1); size != 1<<20 {
		t.Errorf("capacity %d, want what was set", size)
	}
	p.BankSize, p.Banks[0] = 0, "/nowhere"
	if size := p.Capacity(1); size != 0 {
		t.Errorf("capacity %d of a bank that is not there", size)
	}
	if p.TakesOver() || p.BootReason() != 0 {
		t.Error("a board that says nothing takes over software, or knows why it started")
	}
	p.NoReset, p.Reason = true, mib.RestartReasonWatchdog
	if !p.TakesOver() || p.BootReason() != mib.RestartReasonWatchdog {
		t.Error("settings ignored")
	}
	device := filepath.Join(t.TempDir(), "watchdog")
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Kick() // no watchdog: nothing to do
	if p.Dog, err = board.OpenWatchdog(device); err != nil {
		t.Fatal(err)
	}
	p.Kick()
	if got, _ := os.ReadFile(device); string(got) != "k" {
		t.Errorf("watchdog got %q", got)
	}
}

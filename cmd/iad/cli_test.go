package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/agent/settings"
	"example.com/iad/bank/image"
	"example.com/iad/internal/cli"
	"example.com/iad/internal/credentials"
	"example.com/iad/internal/iadtest"
)

// What somebody at the device sees: help, mistakes with their remedies, status.
func TestCommandLine(t *testing.T) {
	d := newDevice(t, "--manager", filepath.Join(t.TempDir(), "credentials.toml"))
	file := filepath.Join(d.root, settings.Name)
	used := t.TempDir()
	if err := os.Mkdir(filepath.Join(used, "bank1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(used, "bank1", "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := t.TempDir()
	initArgs := func(args ...string) []string {
		return append([]string{"init", "--root", fresh, "--image", "x", "--trust", "x", "--hardware", "x", "--device-id", "x"}, args...)
	}
	for _, c := range []struct {
		name string
		args []string
		env  []string
		exit int
		says []string
	}{
		{name: "help", args: []string{"--help"}, says: []string{"init", "run", "status", "IAD_TRAP_SINK"}},
		{name: "unknown command", args: []string{"start"}, exit: cli.ExitUsage, says: []string{`unknown command "start"`, "iad --help"}},
		{name: "an argument too many", args: []string{"status", "--root", d.root, "x"}, exit: cli.ExitUsage, says: []string{"takes no arguments", `"x"`}},
		{name: "unknown flag", args: []string{"run", "--rot", "x"}, exit: cli.ExitUsage, says: []string{"--rot", "iad run --help"}},
		{name: "missing flags", args: []string{"init", "--root", "x"}, exit: cli.ExitUsage, says: []string{"image", "trust", "hardware", "device-id"}},
		{name: "a second device in the same directory", exit: cli.ExitFailed, says: []string{file, "another directory"},
			args: []string{"init", "--root", d.root, "--image", "x", "--trust", "x", "--hardware", "x", "--device-id", "x"}},
		{name: "an identity that is too long", args: initArgs("--device-id", strings.Repeat("x", 33)), exit: cli.ExitUsage, says: []string{"device-id", "1 to 32"}},
		{name: "an identity of no letters", args: initArgs("--device-id", "a\nb"), exit: cli.ExitUsage, says: []string{"device-id"}},
		{name: "a bank of less than nothing", args: initArgs("--bank-size", "-1"), exit: cli.ExitUsage, says: []string{"bank-size"}},
		{name: "a rate of less than nothing", args: initArgs("--rate-limit", "-5"), exit: cli.ExitUsage, says: []string{"rate-limit"}},
		{name: "an address that is none", args: initArgs("--snmp", "foo"), exit: cli.ExitUsage, says: []string{"--snmp"}},
		{name: "a directory in use", args: initArgs("--root", used), exit: cli.ExitFailed, says: []string{used, "bank1"}},
		{name: "no device", args: []string{"run", "--root", t.TempDir()}, exit: cli.ExitFailed, says: []string{settings.Name, "iad init"}},
		{name: "no directory", args: []string{"run", "--root", filepath.Join(fresh, "none")}, exit: cli.ExitFailed, says: []string{"none", "iad init"}},
		{name: "a floor for no device", args: []string{"floor", "--root", filepath.Join(fresh, "none"), "--set", "1.0.0"}, exit: cli.ExitFailed, says: []string{"none", "iad init"}},
		{name: "settings of no device", args: []string{"settings", "accept", "--root", filepath.Join(fresh, "none")}, exit: cli.ExitFailed, says: []string{"none", "iad init"}},
		{name: "nothing to serve", args: []string{"run", "--root", d.root, "--snmp", "none"}, exit: cli.ExitUsage, says: []string{"--agentx"}},
		{name: "bad value in the environment", args: []string{"init", "--root", "x", "--image", "x", "--trust", "x", "--hardware", "x", "--device-id", "x"},
			env: []string{"IAD_BANK_SIZE=many"}, exit: cli.ExitUsage, says: []string{"IAD_BANK_SIZE", "many"}},
		{name: "status", args: []string{"status", "--root", d.root}, says: []string{"IAD-0001", "1.0.0", "good", "nextBoot"}},
		{name: "root from the environment", args: []string{"status"}, env: []string{"IAD_ROOT=" + d.root}, says: []string{"IAD-0001", "never started"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := command(c.args...)
			cmd.Env = append(cmd.Env, c.env...)
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != c.exit {
				t.Errorf("exit status %d, want %d", got, c.exit)
			}
			for _, s := range c.says {
				if !strings.Contains(string(out), s) {
					t.Errorf("does not say %q:\n%s", s, out)
				}
			}
		})
	}

	t.Run("status for programs", func(t *testing.T) {
		out, err := command("status", "--root", d.root, "--json").Output()
		if err != nil {
			t.Fatal(err)
		}
		var st struct {
			Device string
			Banks  []struct {
				Version, State string
				Roles          []string
			}
		}
		if err := json.Unmarshal(out, &st); err != nil {
			t.Fatal(err)
		}
		if st.Device != "IAD-0001" || len(st.Banks) != 2 || st.Banks[0].Version != "1.0.0" || st.Banks[1].State != "empty" || strings.Join(st.Banks[0].Roles, ",") != "nextBoot" {
			t.Errorf("%s", out)
		}
	})

	t.Run("settings that others can read", func(t *testing.T) {
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := command("status", "--root", d.root).CombinedOutput()
		if err != nil || !strings.Contains(string(out), file+" could be read by others") {
			t.Errorf("%v: %s", err, out)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	})

	t.Run("a setting that does not exist", func(t *testing.T) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append([]byte("ritme_limit = 1\n"), data...), 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.WriteFile(file, data, 0o600)
		out, err := command("run", "--root", d.root).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "ritme_limit") {
			t.Errorf("%v: %s", err, out)
		}
	})

	t.Run("two agents on one root", func(t *testing.T) {
		d.start()
		out, err := command("run", "--root", d.root).CombinedOutput()
		if err == nil || !strings.Contains(string(out), d.root) {
			t.Errorf("%v: %s", err, out)
		}
		if out, err := command("status", "--root", d.root).CombinedOutput(); err != nil {
			t.Errorf("status of a running device: %v: %s", err, out)
		}
	})
}

// What is wrong with the files that init is given is found before it writes anything.
func TestInitWritesNothingBeforeItsInputIsGood(t *testing.T) {
	dir := t.TempDir()
	pub, private, err := image.GenerateKey("")
	if err != nil {
		t.Fatal(err)
	}
	// Making one takes seconds.
	encrypted := []byte("untrusted comment: minisign encrypted secret key\n" +
		base64.StdEncoding.EncodeToString(append([]byte("EdScB2"), make([]byte, 152)...)) + "\n")
	for _, private := range [][]byte{private, encrypted} {
		for name, data := range map[string][]byte{
			"maker.key": private, "second line": bytes.SplitN(private, []byte("\n"), 2)[1], "maker.pub": pub, "text": []byte("a key\n"),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			key  string
			args []string
			says string
		}{
			{"maker.key", nil, "that is a private key"},
			{"second line", nil, "that is a private key"},
			{"text", nil, "public key"},
			{"maker.pub", []string{"--config-dir", dir}, "none of the files"},
			{"maker.pub", nil, "none.iad"},
		} {
			root := filepath.Join(t.TempDir(), "root")
			args := append([]string{"init", "--root", root, "--image", filepath.Join(dir, "none.iad"), "--trust", filepath.Join(dir, c.key),
				"--hardware", "H", "--device-id", "D"}, c.args...)
			out, err := command(args...).CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.says) {
				t.Errorf("%s %v: %v: %s", c.key, c.args, err, out)
			}
			if _, err := os.Stat(root); err == nil {
				t.Errorf("%s %v: %s was made", c.key, c.args, root)
			}
		}
	}
}

// The directory that ext4 makes in each partition is no content.
func TestInitWithLostAndFound(t *testing.T) {
	d := newDevice(t)
	for _, part := range []string{"bank1", "bank2", "state", "config"} {
		if err := os.MkdirAll(filepath.Join(d.root+"2", part, "lost+found"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d.init(d.root + "2")
	d.start()
	for _, part := range []string{"bank1", "bank2", "state", "config"} {
		if _, err := os.Stat(filepath.Join(d.root, part, "lost+found")); err != nil {
			t.Error(err)
		}
	}
}

// TestInitAgain: an init that a power cut ended after it wrote the credentials may be run
// again; they stay as they are, and another device's are refused.
func TestInitAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials.toml")
	d := newDevice(t, "--manager", file)
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cut := func() { // before the last two files
		for _, name := range []string{settings.Name, settings.GoodName} {
			if err := os.Remove(filepath.Join(d.root, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut()
	d.init(d.root, "--manager", file)
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, written) {
		t.Errorf("the credentials were replaced: %v", err)
	}
	f, err := credentials.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(d.root, settings.Name))
	if err != nil || !strings.Contains(string(text), f.User.AuthPassphrase) || !strings.Contains(string(text), f.User.PrivPassphrase) {
		t.Errorf("the settings do not have the passphrases of the credentials: %v", err)
	}

	again := func(root string) {
		t.Helper()
		out, err := command("init", "--root", root, "--image", d.software, "--trust", d.trust, "--hardware", "IAD-4FXS", "--device-id", "IAD-0001",
			"--manager", file).CombinedOutput()
		if err == nil || !strings.Contains(string(out), file+" exists") {
			t.Errorf("%v: %s", err, out)
		}
	}
	again(d.root + "2")
	cut()
	for _, other := range []string{"", "read_community = 'public'\n", strings.Replace(string(written), "iadms", "somebody", 1)} {
		if err := os.WriteFile(file, []byte(other), 0o600); err != nil {
			t.Fatal(err)
		}
		again(d.root)
		if now, err := os.ReadFile(file); err != nil || string(now) != other {
			t.Errorf("%q was replaced by %q: %v", other, now, err)
		}
	}
}

func TestCommandLineInCommon(t *testing.T) {
	iadtest.TestCommandLine(t, newRoot(), variable, []string{"IAD_BANK", "IAD_VERSION"}, command)
}

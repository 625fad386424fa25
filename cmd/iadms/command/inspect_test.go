package command

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What people and programs see of a device.
func TestSeeing(t *testing.T) {
	l := newLab(t, nil)
	dir := filepath.Join(l.dir, "iadms")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf(`trap_listen = "%s"
community = "public"
write_community = "private"
[devices.attic]
address = "%s"
[devices.cellar]
address = "%s"
`, l.traps, l.address, loopback())
	if err := os.WriteFile(filepath.Join(dir, "iadms.toml"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	image := l.image("2.0.0", 2)
	if out, status := l.run(l.command("upgrade", "attic", "--image", image, "--check", "--listen", "127.0.0.1")); status != 0 || !strings.Contains(out, "OK: TEST-0001 would accept fw-2.0.0.iad") {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	if out, status := l.run(l.command("upgrade", "attic", "--image", image, "--listen", "127.0.0.1", "--yes")); status != 0 || !strings.Contains(out, "OK: TEST-0001 upgraded 1.0.0 -> 2.0.0 in ") {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"devices"}, []string{"attic", l.address, "TEST-0001", "IAD-4FXS", "2.0.0", "keys", "idle", "cellar", "no answer"}},
		{[]string{"status", "attic"}, []string{"TEST-0001", "2.0.0", "bank 1", "1.0.0", "recoverConfig"}},
		{[]string{"history", "attic"}, []string{"backupConfig", "downloadSoftware", "1.0.0 -> 2.0.0", "tester"}},
		{[]string{"logs", "attic"}, []string{"restarted", "bankSwitched", "last upgrade from here", "stage done"}},
		{[]string{"backup", "attic", "--listen", "127.0.0.1"}, []string{"100 back up", "OK: TEST-0001 backed up to backup/TEST-0001/"}},
		{[]string{"recover", "attic", "--listen", "127.0.0.1"}, []string{"170 recover", "OK: TEST-0001 has recovered its configuration data from backup/TEST-0001/"}},
		{[]string{"rollback", "attic"}, []string{"160 ", "OK: TEST-0001 rolled back 2.0.0 -> 1.0.0"}},
		{[]string{"reset", "attic"}, []string{"OK: reset of TEST-0001 done"}},
		{[]string{"abort", "attic"}, []string{"OK: "}},
		{[]string{"confirm", "attic"}, []string{"OK: "}},
	} {
		out, status := l.run(l.command(c.args...))
		if status != 0 {
			t.Errorf("iadms %v: exit status %d\n%s", c.args, status, out)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("iadms %v does not say %q:\n%s", c.args, want, out)
			}
		}
	}
	for _, command := range []string{"status", "history", "logs"} {
		out, err := l.command(command, "attic", "--json").Output()
		if err != nil {
			t.Fatal(err)
		}
		for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
			var value map[string]any
			if err := d.Decode(&value); err != nil {
				t.Errorf("iadms %s --json: %v\n%s", command, err, out)
				break
			}
			if version, ok := value["software_version"]; command == "status" && (!ok || version != "1.0.0") {
				t.Errorf("status: %v", value)
			}
		}
	}
}

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/iad/agent/settings"
)

// Settings that are damaged are those of the last start; settings that somebody
// got wrong are reported.
func TestDamagedSettings(t *testing.T) {
	d := newDevice(t)
	d.start()
	d.stop()
	file := filepath.Join(d.root, settings.Name)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(d.root, settings.GoodName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the copy: %v, %v", info, err)
	}
	const device = `"device": "IAD-0001"`
	for name, c := range map[string]struct {
		text string
		want string // of status; "" for the error in the file
	}{
		"empty":       {"", "is damaged"},
		"cut off":     {string(whole[:len(whole)-3]), "is damaged"},
		"cut early":   {string(whole[:100]), "is damaged"},
		"zeros":       {strings.Repeat("\x00", len(whole)), "is damaged"},
		"a bad block": {string(whole[:50]) + "\xff\xfe" + string(whole[52:]), "is damaged"},
		"a mistake":   {strings.Replace(string(whole), "device_id = ", "device_id : ", 1), ""},
		"a new one":   {string(whole) + "# added\n", device},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := command("status", "--json", "--root", d.root).CombinedOutput()
			switch said := string(out); {
			case c.want == "":
				if err == nil || !strings.Contains(said, "line ") {
					t.Errorf("%s%v", said, err)
				}
			case err != nil || !strings.Contains(said, c.want) || !strings.Contains(said, device):
				t.Errorf("%s%v", said, err)
			}
		})
	}
	// It comes up, reports the loss to its manager, and leaves the file to the operator.
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.start()
	events, err := d.client().Events(t.Context())
	if err != nil || len(events) == 0 || !strings.Contains(events[len(events)-1].Text, "is damaged") {
		t.Errorf("events %+v, %v", events, err)
	}
	if left, err := os.ReadFile(file); err != nil || len(left) != 0 {
		t.Errorf("%q, %v", left, err)
	}
}

// A byte order mark before the settings is skipped, and the copy of them has none:
// earlier releases cannot read it. One before configuration data is refused, because
// the software gets them byte for byte.
func TestByteOrderMarks(t *testing.T) {
	const mark = "\xef\xbb\xbf"
	d := newDevice(t)
	file := filepath.Join(d.root, settings.Name)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(file, mark+"# edited\n"+string(text))
	d.start()
	d.stop()
	good, err := os.ReadFile(filepath.Join(d.root, settings.GoodName))
	if err != nil || !strings.HasPrefix(string(good), "# edited\n") {
		t.Errorf("the copy begins with %.20q, %v", good, err)
	}
	out, err := command("status", "--root", d.root).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "IAD-0001") || strings.Contains(string(out), "Damage") {
		t.Errorf("%v: %s", err, out)
	}
	other := filepath.Join(t.TempDir(), "other.toml")
	write(other, "\xff\xfed\x00")
	if out, err := command("status", "--root", d.root, "--config", other).CombinedOutput(); err == nil || !strings.Contains(string(out), other+" is in UTF-16: save it as UTF-8") {
		t.Errorf("%v: %s", err, out)
	}

	key, err := os.ReadFile(d.trust)
	if err != nil {
		t.Fatal(err)
	}
	write(d.trust, mark+string(key))
	d.init(d.root + "2")
	if copied, err := os.ReadFile(filepath.Join(d.root, keysDir, "1-"+filepath.Base(d.trust))); err != nil || string(copied) != string(key) {
		t.Errorf("the key: %q, %v", copied, err)
	}
	config := t.TempDir()
	for _, begin := range []string{mark, "\xff\xfe"} {
		write(filepath.Join(config, "userData"), begin+"iad-config userData 1\n")
		out, err := command("init", "--root", d.root+"3", "--image", d.software, "--trust", d.trust, "--hardware", "IAD-4FXS",
			"--device-id", "IAD-0001", "--config-dir", config).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "userData: the file begins with a byte order mark") || !strings.Contains(string(out), "save it as UTF-8 without one") {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// The reference names every setting. The file that iad init writes has them all too,
// the unused ones commented out.
func TestReference(t *testing.T) {
	reference, err := command("settings", "--reference").Output()
	if err != nil {
		t.Fatal(err)
	}
	d := newDevice(t)
	text, err := os.ReadFile(filepath.Join(d.root, settings.Name))
	if err != nil {
		t.Fatal(err)
	}
	keys := regexp.MustCompile(`(?m)^#?([a-z0-9_]+) = |^#?(\[+[a-z.]+)`)
	var listed, written []string
	for _, m := range keys.FindAllSubmatch(reference, -1) {
		listed = append(listed, string(m[1])+string(m[2]))
	}
	for _, m := range keys.FindAllSubmatch(text, -1) {
		written = append(written, string(m[1])+string(m[2]))
	}
	if len(listed) < 40 || !slices.Equal(listed, written) {
		t.Errorf("reference: %q\ninit: %q", listed, written)
	}
	for _, want := range []string{"device_id = 'IAD-0001'\n", "\n#rate_limit = ", "\n#[[snmp.users]]\n", "\n#name = "} {
		if !strings.Contains(string(text), want) {
			t.Errorf("init writes no %q", want)
		}
	}
}

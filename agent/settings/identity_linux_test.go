package settings_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/agent/settings"
)

func TestIdentityFromElsewhere(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	revision := write("hw_revision", "IAD-4FXS 1.2\nsecond line\n", 0o644)
	serial := write("serial-number", "0123456789\x00", 0o644) // as a device tree has it
	program := write("board", "#!/bin/sh\necho IAD-4FXS\necho more\n", 0o755)
	failing := write("failing", "#!/bin/sh\necho no EEPROM >&2\nexit 3\n", 0o755)
	file := filepath.Join(dir, settings.Name)
	load := func(text string) (*settings.Settings, error) {
		write(settings.Name, text, 0o600)
		return settings.Load(file)
	}
	s, err := load("device_id = '@" + serial + "'\nmodel = '@" + revision + "'\nhardware = '|" + program + "'\n")
	if err != nil || s.DeviceID != "0123456789" || s.Model != "IAD-4FXS 1.2" || s.Hardware != "IAD-4FXS" {
		t.Errorf("%+v, %v", s, err)
	}
	for text, want := range map[string]string{
		"\ndevice_id = '@" + dir + "/none'": "line 2: device_id: open",
		"device_id = '@none'":               "not an absolute path",
		"device_id = '@'":                   "not an absolute path",
		"hardware = '|" + failing + "'":     "exit status 3",
		"hardware = '@/dev/null'":           "no text",
		"model = '@/proc/self/exe'":         "not a text",
		"model = '|" + dir + "/none'":       "no such file",
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

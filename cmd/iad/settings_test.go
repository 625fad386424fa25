package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A setting that does not exist is named without what stands around it.
func TestUnknownSetting(t *testing.T) {
	file := filepath.Join(t.TempDir(), "iad.toml")
	text := "device_id = \"x\"\n[snmp]\nwrite_community = \"secret one\"\nwrite_comunity = \"secret two\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := load(file)
	if err == nil || !strings.Contains(err.Error(), "line 4: snmp.write_comunity") || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

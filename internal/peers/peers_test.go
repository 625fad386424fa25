package peers_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"example.com/iad/internal/peers"
)

// recorder notes how a test would have ended.
type recorder struct {
	testing.TB
	end string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) { r.note("fatal: "+format, args) }

func (r *recorder) Skipf(format string, args ...any) { r.note("skip: "+format, args) }

// note keeps the first end: a real test does not go on after it.
func (r *recorder) note(format string, args []any) {
	r.end = cmp.Or(r.end, fmt.Sprintf(format, args...))
}

func TestFindInPath(t *testing.T) {
	dir := t.TempDir()
	want := filepath.Join(dir, "some-peer")
	if err := os.WriteFile(want, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if got := peers.Find(t, "some-peer"); got != want {
		t.Errorf("found %q, want %q", got, want)
	}
}

func TestFindPrefersUnpacked(t *testing.T) {
	unpacked, err := filepath.Glob(filepath.Join(peers.Dir(), "bin", "*"))
	if err != nil || len(unpacked) == 0 {
		t.Skip("nothing unpacked: run make peers")
	}
	for _, want := range unpacked {
		if got := peers.Find(t, filepath.Base(want)); got != want {
			t.Errorf("found %q, want %q", got, want)
		}
	}
}

func TestMissing(t *testing.T) {
	for ci, want := range map[string]string{
		"true": "fatal: no-such-peer not found: run make peers",
		"":     "skip: no-such-peer not found: run make peers",
	} {
		t.Setenv("CI", ci)
		r := &recorder{TB: t}
		if got := peers.Find(r, "no-such-peer"); got != "" || r.end != want {
			t.Errorf("CI=%q: found %q, %s", ci, got, r.end)
		}
	}
}

func TestDirIsAtTheModuleRoot(t *testing.T) {
	if _, err := os.Stat(filepath.Join(peers.Dir(), "..", "go.mod")); err != nil {
		t.Error(err)
	}
}

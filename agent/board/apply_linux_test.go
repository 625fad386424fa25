package board_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/agent/config"
	"example.com/iad/mib"
)

// large is configuration data of which one file is large.
func large() config.Set {
	set := settings(1)
	set[mib.FileTypePortData] = config.WithHeader(mib.FileTypePortData, 1, []byte("new = 1\n"))
	set[mib.FileTypeUserData] = config.WithHeader(mib.FileTypeUserData, 1, bytes.Repeat([]byte("a = b\n"), 13500))
	return set
}

// Where files cannot be written whole, the software keeps all of those from before.
func TestApplyConfigWithoutRoom(t *testing.T) {
	p := platform(t)
	if _, err := p.ApplyConfig(t.Context(), config.Generation{Number: 1}, settings(1)); err != nil {
		t.Fatal(err)
	}
	out, err := helper(t, "overflow", filepath.Dir(p.Applied)).CombinedOutput()
	// The text has room for the reason, but not for long paths.
	if err != nil || !strings.HasPrefix(string(out), "true [userData portData] ") || strings.Contains(string(out), p.Applied) {
		t.Errorf("%s%v", out, err)
	}
	left, err := os.ReadDir(p.Applied)
	if err != nil || len(left) != 2 || p.NotHandedOver(settings(1)) != nil {
		t.Errorf("%v, %v; not as before: %v", left, err, p.NotHandedOver(settings(1)))
	}
	if _, err := p.ApplyConfig(t.Context(), config.Generation{Number: 2}, large()); err != nil || p.NotHandedOver(large()) != nil {
		t.Errorf("with room again: %v", err)
	}
}

// Files that do not change are not written again, and whatever stands in the place
// of one, or of the directory, makes room for it.
func TestApplyConfigRepairs(t *testing.T) {
	p := platform(t)
	apply := func() {
		t.Helper()
		_, err := p.ApplyConfig(t.Context(), config.Generation{Number: 1}, settings(1))
		left, rerr := os.ReadDir(p.Applied)
		if err != nil || rerr != nil || len(left) != 2 || p.NotHandedOver(settings(1)) != nil {
			t.Errorf("%v, %v, %v", err, rerr, left)
		}
	}
	apply()
	in := func(name string) string { return filepath.Join(p.Applied, name) }
	before, err := os.Stat(in("userData"))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Remove(in("portData")), os.MkdirAll(in("portData/x"), 0o700), os.WriteFile(in("ringData"), nil, 0o600),
		os.MkdirAll(in("userData.new/x"), 0o700), os.Symlink("/etc/passwd", in("portData.new")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	apply()
	if after, err := os.Stat(in("userData")); err != nil || !os.SameFile(before, after) {
		t.Errorf("a file that did not change was replaced: %v", err)
	}
	if err := os.RemoveAll(p.Applied); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.Applied, []byte("a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	apply()
}

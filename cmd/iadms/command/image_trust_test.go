package command

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/bank/image"
)

// An operator's day: devices that have one key alone follow a trust chain, the signing key is
// rotated by an upgrade, a root is lost and replaced. Software by the removed key is refused,
// also with the older chain. A device that missed an upgrade follows all the same.
func TestTrustOperatorsDay(t *testing.T) {
	dir := t.TempDir()
	var labs []*lab
	iadms := func(want int, text string, args ...string) string {
		t.Helper()
		maker := &lab{t: t, dir: dir}
		cmd := maker.command(args...)
		cmd.Dir = dir
		out, status := maker.run(cmd)
		if status != want || !strings.Contains(out, text) {
			t.Fatalf("iadms %s: exit status %d\n%s\nwant %d, %q", strings.Join(args, " "), status, out, want, text)
		}
		return out
	}
	for _, name := range []string{"maker", "release-2", "a", "b", "c", "d"} {
		iadms(0, "", "image", "keygen", "--no-password", "-o", name)
	}
	text, err := os.ReadFile(filepath.Join(dir, "maker.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := image.ReadPrivateKey(text, "")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		labs = append(labs, newLabOf(t, nil, key))
	}
	build := func(version, key, chain string) string {
		t.Helper()
		args := []string{"image", "build", "--version", version, "--hardware", "IAD-4FXS", "--key", key, "-o", version + ".iad", "maker.pub"}
		if chain != "" {
			args = append(args, "--trust-chain", chain)
		}
		iadms(0, "", args...)
		return filepath.Join(dir, version+".iad")
	}
	upgrade := func(l *lab, img string, version, cause string) {
		t.Helper()
		out, status := l.run(l.upgrade("--image", img, "--on-fail", "give-up"))
		if (status == 0) != (cause == "") || !strings.Contains(out, cause) {
			t.Errorf("%s: exit status %d\n%s", img, status, out)
		}
		if v := l.outcome().Version; v != version {
			t.Errorf("%s: %s runs, want %s", img, v, version)
		}
	}
	// holds: an operator sees which documents the devices hold, 0 for keys alone.
	holds := func(documents ...uint32) {
		t.Helper()
		for i, want := range documents {
			text := "by the public keys in the settings of the device\n"
			if want > 0 {
				text = fmt.Sprintf("by the keys of trust document %d\n", want)
			}
			if r, out := labs[i].status(); r.TrustSerial != want || !strings.Contains(out, text) {
				t.Errorf("device %d holds document %d, want %d\n%s", i, r.TrustSerial, want, out)
			}
		}
	}

	// From one key to a chain, by an ordinary upgrade. Half a chain goes into no image.
	iadms(0, "needs 2 more by its own roots", "image", "trust", "init", "--root", "a.pub", "--root", "b.pub", "--root", "c.pub", "--root-threshold", "2", "--key", "maker.pub", "-o", "trust.chain")
	iadms(1, "trust.chain exists", "image", "trust", "init", "--root", "a.pub", "--key", "maker.pub", "-o", "trust.chain")
	iadms(0, "needs 1 more by its own roots", "image", "trust", "sign", "trust.chain", "--key", "a.key")
	iadms(1, "document 1 is not complete: it needs 1 more by its own roots", "image", "build", "--version", "2.0.0", "--hardware", "IAD-4FXS", "--key", "maker.key", "--trust-chain", "trust.chain", "-o", "2.0.0.iad", "maker.pub")
	iadms(0, "document 1, complete", "image", "trust", "sign", "trust.chain", "--key", "b.key", "--key", "maker.key")
	holds(0, 0)
	first := build("2.0.0", "maker.key", "trust.chain")
	for _, l := range labs {
		upgrade(l, first, "2.0.0", "")
	}
	holds(1, 1)
	old, err := os.ReadFile(filepath.Join(dir, "trust.chain"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "old.chain"), old, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}

	// The signing key is replaced. The second device is away.
	iadms(0, "document 2, NOT COMPLETE: needs 2 more by roots of document 1", "image", "trust", "rotate", "trust.chain", "--key", "maker.pub", "--to", "release-2.pub")
	iadms(1, "is not a root of document 1 or 2", "image", "trust", "sign", "trust.chain", "--key", "maker.key")
	iadms(0, "document 2, complete", "image", "trust", "sign", "trust.chain", "--key", "a.key", "--key", "b.key")
	iadms(1, "does not list the key that signs the image", "image", "build", "--version", "3.0.0", "--hardware", "IAD-4FXS", "--key", "maker.key", "--trust-chain", "trust.chain", "-o", "3.0.0.iad", "maker.pub")
	upgrade(labs[0], build("3.0.0", "release-2.key", "trust.chain"), "3.0.0", "")
	upgrade(labs[0], build("3.1.0", "maker.key", ""), "3.0.0", "signerUntrusted")
	upgrade(labs[0], build("3.2.0", "maker.key", "old.chain"), "3.0.0", "signerUntrusted")
	holds(2, 1)

	// Root b is lost, file and all.
	var report struct{ Documents []trustReport }
	if err := json.Unmarshal([]byte(iadms(0, "", "image", "trust", "inspect", "trust.chain", "--json")), &report); err != nil || len(report.Documents) != 2 {
		t.Fatal(report, err)
	}
	lost := report.Documents[1].Roots[1].ID
	for _, name := range []string{"b.pub", "b.key"} {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, "lost."+name)); err != nil {
			t.Fatal(err)
		}
	}
	iadms(1, "name the key by its ID", "image", "trust", "rotate", "trust.chain", "--root", "b.pub", "--to", "d.pub")
	iadms(0, "needs 2 more by roots of document 2", "image", "trust", "rotate", "trust.chain", "--root", lost, "--to", "d.pub")
	iadms(0, "document 3, complete", "image", "trust", "sign", "trust.chain", "--key", "a.key", "--key", "c.key", "--key", "d.key")
	last := build("4.0.0", "release-2.key", "trust.chain")
	for _, l := range labs {
		upgrade(l, last, "4.0.0", "")
	}
	holds(3, 3)

	// From now on the lost root signs nothing, and two signatures may be asked of an image.
	iadms(0, "", "image", "trust", "add", "trust.chain", "--key", "maker.pub", "--threshold", "2")
	iadms(1, "is not a root of document 3 or 4", "image", "trust", "sign", "trust.chain", "--key", "lost.b.key")
	iadms(0, "document 4, complete", "image", "trust", "sign", "trust.chain", "--key", "d.key", "--key", "c.key")
	two := build("5.0.0", "release-2.key", "trust.chain")
	upgrade(labs[0], two, "4.0.0", "signerUntrusted")
	iadms(0, "", "image", "sign", "5.0.0.iad", "--add", "--key", "maker.key")
	iadms(0, "OK: 5.0.0.iad is 5.0.0", "image", "verify", "5.0.0.iad", "--trust", "trust.chain")
	upgrade(labs[0], two, "5.0.0", "")
}

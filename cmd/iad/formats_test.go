package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/agefile"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// firstFormats is the commit whose records every later version must read, and whose
// program must read the records of every later version: an operator rolls back.
const firstFormats = "4c3e7a7"

// release is one version of the programs, built, on the device and the backup store
// that it shares with another release.
type release struct {
	t        *testing.T
	bin, dir string
	addr     string
	log      bytes.Buffer // what the device said, complete when it is stopped
}

// TestRollbackToFirstFormats runs a device and a backup store with the programs of the
// first release, then with these, then with the first ones again: both read what
// the other one wrote, and set nothing aside.
func TestRollbackToFirstFormats(t *testing.T) {
	if out, err := exec.CommandContext(t.Context(), "git", "cat-file", "-e", firstFormats+"^{commit}").CombinedOutput(); err != nil {
		text := fmt.Sprintf("commit %s is not in this clone; get it with git fetch --unshallow: %v %s", firstFormats, err, out)
		if os.Getenv("CI") == "true" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	dir, addr := t.TempDir(), fmt.Sprintf("%s:%d", ownAddress(), 10000+rand.IntN(20000))
	first := &release{t: t, bin: buildRelease(t, firstFormats), dir: dir, addr: addr}
	these := &release{t: t, bin: buildRelease(t, ""), dir: dir, addr: addr}

	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("app", strings.Repeat("software\n", 10000), 0o644)
	write("selftest", "#!/bin/sh\nexit 0\n", 0o755)
	write("convert", "#!/bin/sh\nfor f in \"$3\"/*; do sed \"1s/ [0-9]*$/ $2/\" \"$f\" >\"$4/${f##*/}\"; done\n", 0o755)
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("data/userData", "iad-config userData 1\nline.1 = +4930123\n", 0o600)
	first.iadms("image", "keygen", "--no-password", "-o", "maker")
	image := func(r *release, version string, format string) string {
		name := version + ".iad"
		r.iadms("image", "build", "--version", version, "--hardware", "H", "--key", "maker.key", "--selftest", "selftest",
			"--config-format", format, "--converter", "1:2:convert", "-o", name, "app")
		return name
	}
	first.run("iad", "init", "--root", "dev", "--image", image(first, "1.0.0", "1"), "--trust", "maker.pub", "--hardware", "H", "--device-id", "D1",
		"--config-dir", "data", "--read-community", "public", "--write-community", "private", "--snmp", addr)

	stop := first.start()
	first.iadms("upgrade", addr, "--image", image(first, "2.0.0", "2"), "--yes", "--store", "store", "--notifications", "none")
	before := first.history()
	stop()

	stop = these.start()
	if s := these.status(); s.Version != "2.0.0" || s.Generation == 0 {
		t.Errorf("these programs find %+v", s)
	}
	if after := these.history(); !slices.Equal(after, before) {
		t.Errorf("history of the first programs: %q, these find %q", before, after)
	}
	these.iadms("recover", addr, "--store", "store", "--notifications", "none")
	these.iadms("upgrade", addr, "--image", image(these, "3.0.0", "2"), "--yes", "--store", "store", "--notifications", "none")
	these.iadms("reset", addr, "--notifications", "none")
	want, before := these.status(), these.history()
	stop()
	these.nothingSetAside()

	stop = first.start()
	defer func() { stop() }()
	if s := first.status(); s != want || s.Version != "3.0.0" || s.Generation == 0 {
		t.Errorf("the first programs find %+v, want %+v", s, want)
	}
	if after := first.history(); !slices.Equal(after, before) {
		t.Errorf("history of these programs: %q, the first ones find %q", before, after)
	}
	first.iadms("recover", addr, "--store", "store", "--notifications", "none")
	first.iadms("rollback", addr, "--notifications", "none")
	if s := first.status(); s.Version != "2.0.0" || s.Generation == 0 {
		t.Errorf("after the rollback the first programs find %+v", s)
	}
	first.nothingSetAside()

	// Software for a partition has a field in its manifest that the first programs do not
	// know: they refuse it, and keep what they have.
	write("kernel", strings.Repeat("kernel\n", 1000), 0o644)
	these.iadms("image", "build", "--version", "4.0.0", "--hardware", "H", "--key", "maker.key", "--config-format", "2", "-o", "4.0.0.iad", "--partition", "kernel")
	refused := exec.CommandContext(t.Context(), filepath.Join(these.bin, "iadms"), "upgrade", addr, "--image", "4.0.0.iad", "--yes", "--store", "store", "--notifications", "none")
	refused.Dir = dir
	if out, err := refused.CombinedOutput(); err == nil || !strings.Contains(string(out), `unknown field "target"`) {
		t.Errorf("software for a partition: %v\n%s", err, out)
	}
	if s := first.status(); s.Version != "2.0.0" {
		t.Errorf("after that the first programs find %+v", s)
	}

	// They do not read compressed images either, and refuse one before they erase a bank.
	these.iadms("image", "keygen", "--no-password", "-o", "release")
	program := make([]byte, 40_000)
	_, _ = rand.NewChaCha8([32]byte{}).Read(program)
	write("app", hex.EncodeToString(program), 0o644)
	split := func(version string, options ...string) string {
		these.iadms(slices.Concat([]string{"image", "build", "--version", version, "--hardware", "H", "--key", "maker.key", "--key", "release.key",
			"--selftest", "selftest", "--config-format", "2", "--split", version, "--compress", "xz"}, options, []string{"app"})...)
		return filepath.Join(version, "manifest.json")
	}
	compressed := split("4.0.0")
	first.refuses(compressed, mib.FailCauseBadFormat)
	first.refusesEncrypted(these)
	first.ignoresTrust(these, &stop)
	// The management system has the device fetch the plain files instead, and once these
	// programs run there, a difference.
	if out := first.upgrade(these, compressed); !strings.Contains(out, "the device reads image format 1 only: it fetches the plain files, by manifest-1.json") {
		t.Errorf("upgrade of the first programs:\n%s", out)
	}
	stop()
	stop = these.start()
	write("app", "new"+hex.EncodeToString(program), 0o644)
	next := split("5.0.0", "--delta-from", compressed)
	if out := these.upgrade(these, next); !strings.Contains(out, "the device reads image format 2") {
		t.Errorf("upgrade of these programs:\n%s", out)
	}
	if s := these.status(); s.Version != "5.0.0" {
		t.Errorf("after that these programs find %+v", s)
	}
	// What is in that image already runs.
	if out := these.upgrade(these, next); !strings.Contains(out, "unchanged") {
		t.Errorf("the same upgrade again:\n%s", out)
	}
	stop()
	if log := these.log.String(); !strings.Contains(log, "fetching app.d-4.0.0, the difference from the running 4.0.0") {
		t.Errorf("these programs do not say that they fetch the difference:\n%s", log)
	}
}

// refuses has the device download an image, which has to fail without a change of the banks.
func (r *release) refuses(name string, cause mib.FailCause) {
	r.t.Helper()
	banks, files := r.banks(), r.bankFiles()
	op := r.download(name)
	if op.State != mib.OperationStateFailed || op.Cause != cause {
		r.t.Errorf("%s: %s, %s, %s; want %s", name, op.State, op.Cause, op.Text, cause)
	}
	if now := r.banks(); !slices.Equal(now, banks) || !maps.Equal(r.bankFiles(), files) {
		r.t.Errorf("%s: the banks are %q, and were %q", name, now, banks)
	}
}

// refusesEncrypted: the first programs refuse an encrypted image in each form, whatever it
// holds, before they erase a bank, and settings with the key.
func (r *release) refusesEncrypted(these *release) {
	r.t.Helper()
	key, err := agefile.NewIdentity()
	if err != nil {
		r.t.Fatal(err)
	}
	args := []string{"image", "build", "--version", "4.1.0", "--hardware", "H", "--key", "maker.key", "--selftest", "selftest", "--config-format", "2",
		"--encrypt-to", key.Recipient().String()}
	these.iadms(slices.Concat(args, []string{"-o", "encrypted.iad", "app"})...)
	these.iadms(slices.Concat(args, []string{"--delta-from", filepath.Join("4.0.0", "manifest.json"), "--split", "encrypted", "app"})...)
	r.refuses("encrypted.iad", mib.FailCauseBadFormat)
	r.refuses(filepath.Join("encrypted", "manifest.json"), mib.FailCauseBadFormat)

	settings := filepath.Join(r.dir, "dev", "iad.toml")
	before, err := os.ReadFile(settings)
	if err != nil {
		r.t.Fatal(err)
	}
	for name, changed := range map[string]string{
		"image_keys": "image_keys = ['model.key']\n" + string(before),
		"backup":     string(before) + "\n[backup]\nrecipients = ['" + key.Recipient().String() + "']\n",
	} {
		if err := os.WriteFile(filepath.Join(r.dir, "newer.toml"), []byte(changed), 0o600); err != nil {
			r.t.Fatal(err)
		}
		cmd := exec.CommandContext(r.t.Context(), filepath.Join(r.bin, "iad"), "status", "--root", "dev", "--config", "newer.toml")
		cmd.Dir = r.dir
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "do not exist") || !strings.Contains(string(out), name) {
			r.t.Errorf("settings with %s: %v\n%s", name, err, out)
		}
	}
}

// ignoresTrust: the first programs store a trust chain as a file of the software, and trust
// the keys that they have. These programs follow the chain when they start with that
// software; the first ones do not when they are back.
func (r *release) ignoresTrust(these *release, stop *func()) {
	r.t.Helper()
	these.iadms("image", "keygen", "--no-password", "-o", "root")
	these.iadms("image", "trust", "init", "--root", "root.pub", "--key", "maker.pub", "-o", "trust.chain")
	these.iadms("image", "trust", "sign", "trust.chain", "--key", "root.key", "--key", "maker.key")
	these.iadms("image", "trust", "rotate", "trust.chain", "--key", "maker.pub", "--to", "release.pub")
	these.iadms("image", "trust", "sign", "trust.chain", "--key", "root.key")
	build := func(version string, options ...string) string {
		name := version + ".iad"
		these.iadms(slices.Concat([]string{"image", "build", "--version", version, "--hardware", "H", "--config-format", "2", "-o", name}, options, []string{"app"})...)
		return name
	}
	both := build("3.1.0", "--key", "maker.key", "--key", "release.key", "--trust-chain", "trust.chain")
	byMaker, byRelease := build("3.2.0", "--key", "maker.key"), build("3.3.0", "--key", "release.key", "--trust-chain", "trust.chain")

	r.refuses(byRelease, mib.FailCauseSignerUntrusted)
	r.iadms("upgrade", r.addr, "--image", both, "--yes", "--store", "store", "--notifications", "none")
	r.refuses(byRelease, mib.FailCauseSignerUntrusted)
	(*stop)()
	*stop = these.start()
	if out := string(these.iadms("status", r.addr)); !strings.Contains(out, "3.1.0") || !strings.Contains(out, "by the keys of trust document 2") {
		r.t.Errorf("these programs do not follow the chain of the software:\n%s", out)
	}
	these.refuses(byMaker, mib.FailCauseSignerUntrusted)
	these.iadms("upgrade", r.addr, "--image", byRelease, "--yes", "--store", "store", "--notifications", "none")
	(*stop)()
	*stop = r.start()
	if s := r.status(); s.Version != "3.3.0" {
		r.t.Errorf("the first programs find %+v", s)
	}
	r.refuses(build("3.4.0", "--key", "release.key"), mib.FailCauseSignerUntrusted)
	r.iadms("upgrade", r.addr, "--image", build("3.5.0", "--key", "maker.key"), "--yes", "--store", "store", "--notifications", "none")
}

// bankFiles returns the SHA-256 of each file in the banks.
func (r *release) bankFiles() map[string][32]byte {
	r.t.Helper()
	files := make(map[string][32]byte)
	for _, bank := range []string{"bank1", "bank2"} {
		dir := filepath.Join(r.dir, "dev", bank)
		entries, err := os.ReadDir(dir)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, e := range entries {
			data, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				r.t.Fatal(err)
			}
			files[filepath.Join(bank, e.Name())] = sha256.Sum256(data)
		}
	}
	if len(files) == 0 {
		r.t.Fatal("the banks are empty")
	}
	return files
}

// upgrade upgrades the device by iadms of another release, and returns its output.
func (r *release) upgrade(by *release, image string) string {
	r.t.Helper()
	return string(by.iadms("upgrade", r.addr, "--image", image, "--yes", "--store", "store", "--notifications", "none"))
}

// client controls the device as these programs' iadms does.
func (r *release) client() *device.Client {
	r.t.Helper()
	c, err := device.Dial(device.Target{Address: r.addr, Credentials: device.Credentials{Read: "public", Write: "private"}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// download has the device download an image, which iadms would not try.
func (r *release) download(name string) *device.Operation {
	r.t.Helper()
	img, err := files.OpenImage(afero.NewOsFs(), filepath.Join(r.dir, name))
	if err != nil {
		r.t.Fatal(err)
	}
	srv, err := files.StartServers(files.ServersConfig{Files: afero.NewMemMapFs(), TFTP: "127.0.0.1:0", Advertise: "127.0.0.1"})
	if err != nil {
		r.t.Fatal(err)
	}
	defer srv.Close()
	c := r.client()
	session, err := srv.Open(device.TFTP, "D1", c.Address())
	if err != nil {
		r.t.Fatal(err)
	}
	defer session.Close()
	folder, file, err := session.Publish(img)
	if err != nil {
		r.t.Fatal(err)
	}
	op, err := c.Start(r.t.Context(), device.Request{
		Kind: mib.OperationKindDownloadSoftware, ID: device.NewReqID(), Owner: "formats",
		Server: &device.ServerRow{Index: 1, FileServerAddress: session.Address(), Path: folder},
		Files:  []device.FileRow{{Kind: mib.FileTypeSoftware, Name: file}},
	})
	for err == nil && !op.Final() {
		op, err = c.Operation(r.t.Context())
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return op
}

// banks describes what the banks hold.
func (r *release) banks() (all []string) {
	r.t.Helper()
	banks, err := r.client().Banks(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, b := range banks {
		all = append(all, b.String())
	}
	return all
}

// buildRelease builds iad and iadms of a commit, or of the working tree.
func buildRelease(t *testing.T, commit string) string {
	t.Helper()
	bin, tree := t.TempDir(), filepath.Join("..", "..")
	if commit != "" {
		tree = t.TempDir()
		archive := exec.CommandContext(t.Context(), "sh", "-c", `git -C "$1" archive "$2" | tar -x -C "$3"`, "sh", filepath.Join("..", ".."), commit, tree)
		if out, err := archive.CombinedOutput(); err != nil {
			t.Fatalf("git archive %s: %v\n%s", commit, err, out)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", bin, "./cmd/iad", "./cmd/iadms")
	build.Dir, build.Env = tree, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// run runs a program in the directory of the test and returns what it printed.
func (r *release) run(program string, args ...string) []byte {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), filepath.Join(r.bin, program), args...)
	cmd.Dir = r.dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out, &stderr)
	}
	return out
}

func (r *release) iadms(args ...string) []byte { r.t.Helper(); return r.run("iadms", args...) }

// start runs the device; the function that it returns kills it.
func (r *release) start() (stop func()) {
	r.t.Helper()
	was := program
	program = filepath.Join(r.bin, "iad")
	d := &unit{t: r.t, root: filepath.Join(r.dir, "dev"), addr: r.addr, log: &r.log}
	d.start()
	program = was
	return d.stop
}

// found is what a device shows of its software and configuration data.
type found struct {
	Version    string `json:"software_version"`
	Generation int    `json:"config_generation"`
	Digest     string `json:"config_sha256"`
}

func (r *release) status() (s found) {
	r.t.Helper()
	if err := json.Unmarshal(r.iadms("status", r.addr, "--json"), &s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// history is kind, state and number of the operations in the device's journal.
func (r *release) history() (all []string) {
	r.t.Helper()
	for line := range bytes.Lines(r.iadms("history", r.addr, "--json")) {
		var op struct {
			ID    uint32 `json:"id"`
			Kind  string `json:"kind"`
			State string `json:"state"`
		}
		if err := json.Unmarshal(line, &op); err != nil {
			r.t.Fatalf("%v: %s", err, line)
		}
		all = append(all, fmt.Sprint(op.ID, " ", op.Kind, " ", op.State))
	}
	if len(all) == 0 {
		r.t.Error("the history is empty")
	}
	return all
}

var setAside = regexp.MustCompile(`\.(corrupt|newer)-\d+`)

// nothingSetAside: a record or file that a program could not read is set aside.
func (r *release) nothingSetAside() {
	r.t.Helper()
	err := filepath.WalkDir(filepath.Join(r.dir, "dev"), func(name string, _ fs.DirEntry, err error) error {
		if err == nil && setAside.MatchString(name) {
			r.t.Errorf("set aside: %s", name)
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

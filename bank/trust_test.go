package bank

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/durable"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// nextKey signs software once the first chain holds, rootKey the documents.
var nextKey, rootKey = keyOf(81), keyOf(82)

func keyOf(seed byte) minisign.PrivateKey {
	_, key, err := minisign.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{seed}, 64)))
	if err != nil {
		panic(err)
	}
	return key
}

// trustDocument is a document by which key signs software.
func trustDocument(serial uint32, key minisign.PrivateKey) []byte {
	d := image.Trust{
		Format: image.TrustFormat, Serial: serial, RootThreshold: 1, Threshold: 1,
		Roots: []image.Key{{PublicKey: rootKey.Public().(minisign.PublicKey)}},
		Keys:  []image.Key{{PublicKey: key.Public().(minisign.PublicKey)}},
	}
	signed, err := d.Sign(rootKey, imagetest.Key)
	if err != nil {
		panic(err)
	}
	return signed.Record()
}

// rotating are images of the sweeps' payloads with a chain that ends with a serial, by version.
func rotating(version string, serial uint32) []byte {
	chain := trustDocument(1, imagetest.Key)
	signers := []minisign.PrivateKey{imagetest.Key}
	if serial == 2 {
		chain, signers = slices.Concat(chain, trustDocument(2, nextKey)), []minisign.PrivateKey{nextKey}
	}
	var b bytes.Buffer
	if err := image.Build(&b, imagetest.Manifest(version), imagetest.WithChain(crashFiles(version, image.TargetFile), chain), signers...); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func fetchImage(b *Banks, img []byte, opt InstallOptions) (InstallResult, error) {
	return b.Install(context.Background(), serve("fw.iad", img), "fw.iad", opt)
}

// rotateLife installs software that carries a chain of two documents.
func rotateLife(opt Options, w *reported) error {
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	s := b.Status()
	if s.Trust != 0 && s.Trust != 2 {
		return fmt.Errorf("serial %d holds", s.Trust)
	}
	// The document is recorded before anything of the bank is changed.
	if s.Trust == 0 && (w.ready || s.Banks[1].State != mib.BankStateEmpty) {
		return fmt.Errorf("bank 2 is %s, and no trust document holds", s.Banks[1].State)
	}
	if version(b) != "2.0.0" {
		res, err := fetchImage(b, rotating("2.0.0", 2), InstallOptions{})
		if err != nil {
			return err
		}
		if w.ready && !res.Already {
			return errors.New("downloaded again what was reported as ready")
		}
		w.ready = true
		if err := b.Activate(2); err != nil {
			return err
		}
		if b, _, err = start(opt); err != nil {
			return err
		}
	}
	if err := b.Confirm(); err != nil {
		return err
	}
	if s := b.Status(); s.Trust != 2 || version(b) != "2.0.0" {
		return fmt.Errorf("after the upgrade: %+v", s)
	}
	return nil
}

// What a device trusts follows the software, and never goes back.
func TestTrustFollowsSoftware(t *testing.T) {
	m := provisioned(t).Start()
	b, _ := boot(t, mount(m, nil))
	install := func(img []byte, opt InstallOptions, cause mib.FailCause, text string, serial uint32) {
		t.Helper()
		before := len(m.Ops())
		_, err := fetchImage(b, img, opt)
		if mib.CauseOf(err, 0) != cause || cause != 0 && !strings.Contains(err.Error(), text) || cause == 0 && err != nil {
			t.Errorf("%v; want cause %d, %q", err, cause, text)
		}
		for _, op := range m.Ops()[before:] {
			if cause != 0 && (op.Part == "state" || strings.HasPrefix(op.Part, "bank")) && op.Kind == crashfs.OpWrite {
				t.Errorf("refused, and %s", op)
			}
		}
		if s := b.Status(); s.Trust != serial {
			t.Errorf("serial %d holds, want %d", s.Trust, serial)
		}
	}
	old := crashImages["1.5.0"]
	install(rotating("2.0.0", 2), InstallOptions{CheckOnly: true}, 0, "", 0)
	install(rotating("2.0.0", 2), InstallOptions{Version: "9.9.9"}, mib.FailCauseVersionMismatch, "", 0)
	install(rotating("2.0.0", 2), InstallOptions{}, 0, "", 2)
	install(old, InstallOptions{}, mib.FailCauseSignerUntrusted, "is not trusted here", 2)
	install(rotating("1.5.0", 1), InstallOptions{}, mib.FailCauseSignerUntrusted, "end with serial 1, and serial 2 is held here", 2)
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}

	// After a restart too.
	b, _ = boot(t, mount(m, nil))
	if err := b.Confirm(); err != nil {
		t.Fatal(err)
	}
	install(old, InstallOptions{}, mib.FailCauseSignerUntrusted, "is not trusted here", 2)
	if s, findings := Peek(mount(m, nil)); s.Trust != 2 || len(findings) != 0 {
		t.Errorf("Peek: serial %d, %q", s.Trust, findings)
	}
	if _, err := Verify(mount(m, nil), 2); err != nil {
		t.Errorf("Verify: %v", err)
	}
	if _, err := Verify(mount(m, nil), 1); mib.CauseOf(err, 0) != mib.FailCauseSignerUntrusted {
		t.Errorf("Verify of software by the removed key: %v", err)
	}
	// Software by the removed key still starts, and can be gone back to.
	if n, err := b.Restore(); n != 1 || err != nil {
		t.Errorf("restore: bank %d, %v", n, err)
	}
}

// A record of the trust document that is lost comes back from the software in the banks.
func TestTrustRecordLost(t *testing.T) {
	m := after(t, provisioned(t), func(opt Options) error { return rotateLife(opt, new(reported)) }).Start()
	opt := mount(m, nil)
	for _, name := range []string{"trust.a", "trust.b"} {
		if err := opt.State.Remove(name); err != nil { // both are written by the first change
			t.Fatal(err)
		}
	}
	b, _ := boot(t, opt)
	if s := b.Status(); s.Trust != 2 {
		t.Errorf("serial %d holds, want 2", s.Trust)
	}
	if ok, _ := afero.Exists(opt.State, "trust.a"); !ok {
		t.Error("the record was not written")
	}
}

// A damaged copy of the trust document is replaced at the next start, whichever it is.
func TestTrustCopyDamaged(t *testing.T) {
	for _, name := range []string{"trust.a", "trust.b"} {
		opt := mount(after(t, provisioned(t), func(opt Options) error { return rotateLife(opt, new(reported)) }).Start(), nil)
		spoil(t, opt.State, name)
		if b, _ := boot(t, opt); b.Status().Trust != 2 {
			t.Errorf("%s damaged: serial %d holds", name, b.Status().Trust)
		}
		data, err := durable.LoadFrame(opt.State, name, trustMagic, trustVersion)
		if err != nil || checkTrust(data) != nil {
			t.Errorf("%s is not replaced: %v", name, err)
		}
	}
}

// Without room for the document nothing is changed: its software could not be activated.
func TestTrustNotRecorded(t *testing.T) {
	m := provisioned(t).Start()
	b, _ := boot(t, mount(m, nil))
	m.Fail(crashfs.Fault{Part: "state", Op: crashfs.OpWrite, Err: errKilled})
	if _, err := fetchImage(b, rotating("2.0.0", 2), InstallOptions{}); mib.CauseOf(err, 0) != mib.FailCauseWriteError {
		t.Errorf("%v", err)
	}
	m.Heal()
	if s := b.Status(); s.Trust != 0 || s.Banks[1].State != mib.BankStateEmpty {
		t.Errorf("%+v", s)
	}
}

// A new device takes the chain of its first software.
func TestProvisionWithChain(t *testing.T) {
	m := blank().Start()
	if err := Provision(mount(m, nil), bytes.NewReader(rotating("1.0.0", 2)), nil); err != nil {
		t.Fatal(err)
	}
	b, _ := boot(t, mount(m, nil))
	if s := b.Status(); s.Trust != 2 {
		t.Errorf("serial %d holds, want 2", s.Trust)
	}
}

// A chain that the device was given holds if it is the newer one, never if it is older.
func TestTrustGiven(t *testing.T) {
	m := after(t, provisioned(t), func(opt Options) error { return rotateLife(opt, new(reported)) }).Start()
	for _, serial := range []uint32{1, 2, 7} {
		opt := mount(m, nil)
		var err error
		if opt.Trust, err = opt.Trust.With(trustDocument(serial, imagetest.Key)); err != nil {
			t.Fatal(err)
		}
		b, _ := boot(t, opt)
		if s := b.Status(); s.Trust != max(2, serial) {
			t.Errorf("given serial %d, %d holds", serial, s.Trust)
		}
	}
}

// TestSignedAgain: software in a bank whose signer is not trusted any more is replaced by the same software with a signature by
// one who is, and can then be activated.
func TestSignedAgain(t *testing.T) {
	m := provisioned(t).Start()
	opt := mount(m, nil)
	b, _ := boot(t, opt)
	if err := fetchInto(b, "2.0.0", false); err != nil {
		t.Fatal(err)
	}
	var err error
	if opt.Trust, err = opt.Trust.With(trustDocument(1, nextKey)); err != nil {
		t.Fatal(err)
	}
	b, _ = boot(t, opt)
	if err := b.Activate(2); causeOf(err) != mib.FailCauseSignerUntrusted {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := image.Build(&again, imagetest.Manifest("2.0.0"), crashFiles("2.0.0", image.TargetFile), nextKey); err != nil {
		t.Fatal(err)
	}
	for _, already := range []bool{false, true} {
		res, err := fetchImage(b, again.Bytes(), InstallOptions{})
		if err != nil || res.Already != already {
			t.Errorf("already %v, %v; want %v", res.Already, err, already)
		}
	}
	if err := b.Activate(2); err != nil {
		t.Error(err)
	}
}

// TestProvisionAgainWithAnotherChain: what an interrupted provisioning has recorded of a trust chain does not hold for the next one.
func TestProvisionAgainWithAnotherChain(t *testing.T) {
	m := blank().Start()
	opt := mount(m, nil)
	fails := errors.New("no configuration data")
	if err := Provision(opt, bytes.NewReader(rotating("1.0.0", 2)), nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{recordBase + ".a", recordBase + ".b"} { // it is written last of all
		if err := opt.State.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := Provision(opt, bytes.NewReader(rotating("1.0.0", 1)), func(*image.Manifest) (uint32, error) { return 0, fails }); !errors.Is(err, fails) {
		t.Fatal(err)
	}
	if err := Provision(opt, bytes.NewReader(rotating("1.0.0", 1)), nil); err != nil {
		t.Fatal(err)
	}
	b, _ := boot(t, mount(m, nil))
	if s := b.Status(); s.Trust != 1 || s.Running != 1 {
		t.Errorf("%+v", s)
	}
}

package bank

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"

	"example.com/iad/bank/image"
	"example.com/iad/mib"
)

// reported is what the outside world knows: which steps were reported as done.
type reported struct {
	ready, activated, confirmed, restored, givenUp bool
}

// start boots and checks what must hold after every boot.
func start(opt Options) (*Banks, BootReport, error) {
	b, report, err := power(opt)
	if err != nil {
		return nil, report, err
	}
	if report.Bank == 0 {
		return nil, report, fmt.Errorf("nothing boots: %q", report.Findings)
	}
	if report.Rebuilt {
		return nil, report, fmt.Errorf("the record is lost: %q", report.Findings)
	}
	s := b.Status()
	if s.Running != report.Bank || s.Next != report.Bank {
		return nil, report, fmt.Errorf("bank %d boots, status says %+v", report.Bank, s)
	}
	if err := checkRunning(opt, s); err != nil {
		return nil, report, err
	}
	return b, report, checkFirstBlocks(opt)
}

// checkRunning compares the running bank's payloads with what was once built.
func checkRunning(opt Options, s Status) error {
	version := s.Bank(s.Running).Version
	for name, want := range crashPayloads(version) {
		got, err := readPayload(opt, s.Running, name)
		if err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("bank %d runs damaged software %s: %s differs: %v", s.Running, version, name, err)
		}
	}
	return nil
}

// version is the running one.
func version(b *Banks) string {
	s := b.Status()
	return s.Bank(s.Running).Version
}

// upgrade brings the device to a version, from wherever it is, and confirms it.
func upgrade(opt Options, to string, w *reported) error {
	b, report, err := start(opt)
	if err != nil {
		return err
	}
	s := b.Status()
	n := other(1)
	switch target := s.Bank(n); {
	case w.confirmed && (version(b) != to || target.State != mib.BankStateGood):
		return fmt.Errorf("confirmed software is lost: %+v", s)
	case w.activated && version(b) != to:
		return fmt.Errorf("activated software does not start: %+v, %+v", report, s)
	case w.ready && (target.Version != to || target.State < mib.BankStateReady || target.State > mib.BankStateGood):
		return fmt.Errorf("downloaded software is lost: %+v", s)
	case report.RolledBack != 0:
		return fmt.Errorf("rolled back for no reason: %+v", report)
	}
	if version(b) != to {
		if err := fetchInto(b, to, w.ready); err != nil {
			return err
		}
		w.ready = true
		if err := b.Activate(n); err != nil {
			return err
		}
		w.activated = true
		if b, _, err = start(opt); err != nil {
			return err
		}
	}
	if version(b) != to {
		return fmt.Errorf("after activation %s runs", version(b))
	}
	if err := b.Confirm(); err != nil {
		return err
	}
	w.confirmed = true
	if s := b.Status(); s.Bank(n).State != mib.BankStateGood || s.Fallback != other(n) {
		return fmt.Errorf("after confirmation: %+v", s)
	}
	return nil
}

// fetchInto installs a version; held says that the bank must have it already.
func fetchInto(b *Banks, version string, held bool) error {
	res, err := b.Install(context.Background(), serve("fw.iad", imagesOf(b.opt)[version]), "fw.iad", InstallOptions{})
	if err != nil {
		return err
	}
	if held && !res.Already {
		return fmt.Errorf("downloaded again what was reported as ready")
	}
	return nil
}

func provisionLife(opt Options, w *reported) error {
	// Without a record the software that is there starts all the same.
	_, report := Boot(opt)
	if w.ready && report.Bank == 0 {
		return fmt.Errorf("provisioned device does not boot: %q", report.Findings)
	}
	if report.Bank == 0 {
		if err := Provision(opt, bytes.NewReader(imagesOf(opt)["1.0.0"]), nil); err != nil {
			return err
		}
		w.ready = true
	}
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	if s := b.Status(); s.Running != 1 || s.Banks[0].State != mib.BankStateGood || s.Banks[1].State == mib.BankStateGood {
		return fmt.Errorf("provisioned device: %+v", s)
	}
	return nil
}

func restoreLife(opt Options, w *reported) error {
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	if w.restored && version(b) != "1.0.0" {
		return fmt.Errorf("restored software does not start: %+v", b.Status())
	}
	if _, err := b.Restore(); err != nil {
		return err
	}
	w.restored = true
	if b, _, err = start(opt); err != nil {
		return err
	}
	if version(b) != "1.0.0" || b.Status().Banks[0].State != mib.BankStateGood {
		return fmt.Errorf("after restore: %+v", b.Status())
	}
	return nil
}

func giveUpLife(opt Options, w *reported) error {
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	if version(b) == "2.0.0" {
		if w.givenUp {
			return fmt.Errorf("software that was given up starts again: %+v", b.Status())
		}
		if err := b.GiveUp(mib.FailCauseOther, "self-test failed"); err != nil {
			return err
		}
		w.givenUp = true
		if b, _, err = start(opt); err != nil {
			return err
		}
	}
	if s := b.Status(); version(b) != "1.0.0" || s.Banks[1].State != mib.BankStateFailed {
		return fmt.Errorf("after giving up: %+v", s)
	}
	return nil
}

// changedMindLife activates 2.0.0 and, before the restart, downloads 1.5.0 instead.
func changedMindLife(opt Options, w *reported) error {
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	if version(b) == "2.0.0" {
		// It was activated when the power failed.
		if w.ready {
			return fmt.Errorf("software that was overwritten starts: %+v", b.Status())
		}
		if _, err := b.Restore(); err != nil {
			return err
		}
		if b, _, err = start(opt); err != nil {
			return err
		}
	}
	if s := b.Status(); s.Banks[1].State == mib.BankStateEmpty {
		if err := fetchInto(b, "2.0.0", false); err != nil {
			return err
		}
		if err := b.Activate(2); err != nil {
			return err
		}
	}
	if err := fetchInto(b, "1.5.0", w.ready); err != nil {
		return err
	}
	w.ready = true
	if s := b.Status(); s.Next != 1 || s.Banks[1].Version != "1.5.0" || s.Banks[1].State != mib.BankStateReady {
		return fmt.Errorf("after the second download: %+v", s)
	}
	return nil
}

// neverConfirmedLife starts the software on trial until the device gives it up.
func neverConfirmedLife(opt Options, _ *reported) error {
	for starts := 0; ; starts++ {
		b, report, err := start(opt)
		switch {
		case err != nil:
			return err
		case starts > Tries:
			return fmt.Errorf("started for ever: %+v", report)
		case report.Trial:
			continue
		}
		if s := b.Status(); s.Running != 1 || s.Banks[1].State != mib.BankStateFailed {
			return fmt.Errorf("after the tries: %+v", s)
		}
		if n, err := b.Restore(); n != 1 || err != nil {
			return fmt.Errorf("the old software runs, restore says bank %d, %v", n, err)
		}
		return nil
	}
}

// splitLife downloads 2.0.0 in split form, from a server that breaks off once.
func splitLife(opt Options, w *reported) error {
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	src := splitServer(imagesOf(opt)["2.0.0"])
	for _, src.cut = range []int64{35_000, 0} {
		_, err = b.Install(context.Background(), src, "dir/"+image.ManifestName, InstallOptions{})
	}
	if err != nil {
		return err
	}
	w.ready = true
	if s := b.Status(); s.Next != 1 || s.Banks[1].Version != "2.0.0" || s.Banks[1].State != mib.BankStateReady {
		return fmt.Errorf("after the download: %+v", s)
	}
	return nil
}

// splitServer serves the files of an image in the directory dir.
func splitServer(img []byte) *server {
	s := &server{files: make(map[string][]byte)}
	for r := tar.NewReader(bytes.NewReader(img)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return s
		}
		if err != nil {
			panic(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			panic(err)
		}
		s.files["dir/"+h.Name] = data
	}
}

func takeOverLife(opt Options, w *reported) error {
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	if w.confirmed && version(b) != "2.0.0" {
		return fmt.Errorf("confirmed software is lost: %+v", b.Status())
	}
	if version(b) != "2.0.0" {
		if err := fetchInto(b, "2.0.0", w.ready); err != nil {
			return err
		}
		w.ready = true
		if err := b.Activate(2); err != nil {
			return err
		}
		if err := b.TakeOver(2); err != nil {
			return err
		}
	}
	if err := b.Confirm(); err != nil {
		return err
	}
	w.confirmed = true
	if s := b.Status(); s.Running != 2 || s.Banks[1].State != mib.BankStateGood {
		return fmt.Errorf("after taking over: %+v", s)
	}
	return nil
}

package bank

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// damaged is a disk with one byte changed in each bank.
func damaged(t testing.TB) *crashfs.Disk {
	return upgraded(t, "1.5.0").Flip("bank1", "app", 999).Flip("bank2", "app", 999)
}

// rescueLife repairs a device whose banks are both damaged, wherever it was cut.
func rescueLife(opt Options, w *reported) error {
	b, report := Boot(opt)
	s := b.Status()
	switch {
	case report.Rebuilt:
		return fmt.Errorf("the record is lost: %q", report.Findings)
	case report.Bank != 0:
		if err := checkRunning(opt, s); err != nil {
			return err
		}
	}
	switch {
	case w.confirmed && (version(b) != "2.0.0" || s.Bank(s.Running).State != mib.BankStateGood):
		return fmt.Errorf("confirmed software is lost: %+v", s)
	case w.activated && version(b) != "2.0.0":
		return fmt.Errorf("activated software does not start: %+v", s)
	case w.ready && s.Next == 0:
		return fmt.Errorf("downloaded software is lost: %+v", s)
	}
	if report.Bank == 0 {
		if !w.ready {
			if err := fetchInto(b, "2.0.0", false); err != nil {
				return err
			}
		}
		w.ready = true
		if err := b.Activate(b.Status().Next); err != nil {
			return err
		}
		w.activated = true
		b, report = Boot(opt)
	}
	if version(b) != "2.0.0" {
		return fmt.Errorf("%q runs: %+v, %+v", version(b), report, b.Status())
	}
	w.activated = true
	if err := b.Confirm(); err != nil {
		return err
	}
	w.confirmed = true
	return nil
}

// rescued is a device in rescue mode: 1.0.0 in bank 1 has one damaged payload, 2.0.0 in
// bank 2 has two. No version below 1.5.0 is accepted.
func rescued(t *testing.T) (Options, *Banks) {
	t.Helper()
	opt, b := readyDevice(t)
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	b, _ = boot(t, opt)
	if err := errors.Join(b.Confirm(), b.SetFloor("1.5.0"), b.SetGeneration(2, 7)); err != nil {
		t.Fatal(err)
	}
	spoil(t, opt.Banks[0], "app")
	spoil(t, opt.Banks[1], "app")
	spoil(t, opt.Banks[1], "selftest")
	return opt, inRescue(t, opt, 2)
}

// inRescue starts a device in rescue mode that would write bank spare.
func inRescue(t *testing.T, opt Options, spare int) *Banks {
	t.Helper()
	b, report := Boot(opt)
	s := b.Status()
	if report.Bank != 0 || report.Trial || len(report.Findings) == 0 || !strings.HasPrefix(report.Findings[0], "no usable software, rescue mode: ") {
		t.Fatalf("%+v", report)
	}
	if s.Running != 0 || s.Next != 0 || s.Fallback != 0 || s.Spare != spare || s.Bank(0).Version != "" {
		t.Fatalf("%+v", s)
	}
	for _, in := range s.Banks {
		if in.Running || in.Next || in.Fallback {
			t.Errorf("%+v has a role", in)
		}
	}
	return b
}

// TestRescue: without usable software the banks can be written, one after the other, and
// software that fails leads back.
func TestRescue(t *testing.T) {
	opt, b := rescued(t)
	if peeked, _ := Peek(opt); peeked.Running != 0 || peeked.Next != 0 || peeked.Floor != "1.5.0" {
		t.Errorf("%+v", peeked)
	}
	_, restored := b.Restore()
	_, checked := b.CheckFallback()
	for _, err := range []error{restored, checked} {
		if causeOf(err) != mib.FailCauseNoFallback || !strings.Contains(err.Error(), "rescue mode") {
			t.Error(err)
		}
	}
	if err := b.GiveUp(62, "x"); causeOf(err) != mib.FailCausePreconditionMissing {
		t.Error(err)
	}
	if err := errors.Join(b.Confirm(), b.Tested(), b.Unselect(), b.RewriteRecord()); err != nil {
		t.Error(err)
	}
	for _, n := range []int{0, 1, 2} {
		if err := b.Activate(n); err == nil {
			t.Errorf("bank %d was activated", n)
		}
		if err := b.Check(n, true); err == nil {
			t.Errorf("bank %d could be activated", n)
		}
	}
	_, err := b.Install(t.Context(), serve("fw.iad", imagetest.Build(t, imagetest.Manifest("1.4.0"))), "fw.iad", InstallOptions{AllowDowngrade: true, Force: true})
	if causeOf(err) != mib.FailCauseDowngradeRefused {
		t.Errorf("below the floor: %v", err)
	}
	// A download that breaks off is continued where it was, whatever the other bank has.
	image := imagetest.Build(t, imagetest.Manifest("1.6.0"))
	src := serve("fw.iad", image)
	src.cut = int64(len(image) - 1700) // in the last payload: bank 1 has no more whole ones
	if _, err := b.Install(t.Context(), src, "fw.iad", InstallOptions{}); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	if s := b.Status(); s.Spare != 2 || s.Next != 0 {
		t.Errorf("%+v", s)
	}
	b = inRescue(t, opt, 2)
	src.cut, src.opened = 0, nil
	if res, err := b.Install(t.Context(), src, "fw.iad", InstallOptions{}); err != nil || res.Bank != 2 || src.opened[1] < 70_000 {
		t.Fatalf("%+v, %v, opened at %v", res, err, src.opened)
	}
	if s := b.Status(); s.Next != 2 || s.Spare != 1 || s.Banks[1].State != mib.BankStateReady {
		t.Errorf("%+v", s)
	}
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time with software that was given up in both banks
		b, report := boot(t, opt)
		if !report.Trial || b.Status().Fallback != 0 {
			t.Fatalf("%+v", report)
		}
		n := report.Bank
		if err := b.GiveUp(62, "sick"); causeOf(err) != mib.FailCauseNoFallback {
			t.Error(err)
		}
		b = inRescue(t, opt, other(n))
		inRescue(t, opt, other(n))
		install(t, b, "2.1.0")
		if err := b.Activate(other(n)); err != nil {
			t.Fatal(err)
		}
	}
	b, report := boot(t, opt)
	if err := b.Confirm(); err != nil || version(b) != "2.1.0" || report.Bank != 2 {
		t.Errorf("%v, %+v", err, b.Status())
	}
	install(t, b, "2.2.0")
}

// TestRescueEnds: software on trial that does not pass its self-test ends in rescue mode,
// whether its starts can be counted or not, and is not started again.
func TestRescueEnds(t *testing.T) {
	opt, b := rescued(t)
	install(t, b, "3.0.0")
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	uncounted := opt
	uncounted.State = afero.NewReadOnlyFs(opt.State)
	if b, report := Boot(uncounted); report.Bank != 0 || b.Status().Banks[1].Cause != mib.FailCauseBootFlagError {
		t.Errorf("%+v", report)
	}
	for range Tries {
		boot(t, opt)
	}
	for range 2 {
		b = inRescue(t, opt, 1)
	}
	if in := b.Status().Banks[1]; in.State != mib.BankStateFailed || in.Cause != mib.FailCauseBootFailed {
		t.Errorf("%+v", in)
	}
}

// TestRescueOver: what could not be read and then can is good again.
func TestRescueOver(t *testing.T) {
	opt, _ := rescued(t)
	spoil(t, opt.Banks[0], "app") // flips the same bit back
	if b, report := boot(t, opt); report.Bank != 1 || report.Trial || version(b) != "1.0.0" {
		t.Errorf("%+v", report)
	}
}

// TestRescueWithoutRecord: with the record lost as well, nothing is recorded before
// software comes.
func TestRescueWithoutRecord(t *testing.T) {
	opt, _ := rescued(t)
	opt.State = afero.NewMemMapFs()
	for range 2 {
		b := inRescue(t, opt, 2)
		if err := b.Unselect(); err != nil {
			t.Error(err)
		}
	}
	if rec, findings := peekRecord(opt.State); !rec.lost() || len(findings) > 0 {
		t.Errorf("%+v, %q", rec, findings)
	}
	b := inRescue(t, opt, 2)
	install(t, b, "1.6.0")
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	if b, report := boot(t, opt); report.Rebuilt || version(b) != "1.6.0" {
		t.Errorf("%+v", report)
	}
}

// TestRescueBank: where a bank is not there, the other one is written.
func TestRescueBank(t *testing.T) {
	opt, _ := rescued(t)
	opt.Banks[1] = notThere{opt.Banks[1]}
	b := inRescue(t, opt, 1)
	install(t, b, "1.6.0")
	if _, err := b.Install(context.Background(), serve("fw.iad", nil), "fw.iad", InstallOptions{Bank: 2}); causeOf(err) != mib.FailCauseBankUnavailable {
		t.Error(err)
	}
}

// notThere is a bank that is not mounted.
type notThere struct{ afero.Fs }

func (notThere) Stat(string) (os.FileInfo, error) {
	return nil, refuse(mib.FailCauseBankUnavailable, "not mounted")
}
func (notThere) Open(string) (afero.File, error) {
	return nil, refuse(mib.FailCauseBankUnavailable, "not mounted")
}

// TestRescueWear: starts in rescue mode write no boot record but the first one.
func TestRescueWear(t *testing.T) {
	m := damaged(t).Start()
	for start := range 3 {
		before := len(m.Ops())
		Boot(mount(m, nil))
		writes := 0
		for _, op := range m.Ops()[before:] {
			if op.Kind == crashfs.OpWrite {
				writes++
			}
		}
		if start == 0 && writes != 1 || start > 0 && writes != 0 {
			t.Errorf("start %d: %d writes", start, writes)
		}
	}
}

package bank

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"example.com/iad/bank/image"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// TestRefusals has what is wrong with properly signed software, in both forms. All of
// it must be noticed before anything is changed.
func TestRefusals(t *testing.T) {
	good := imagetest.TakeApart(t, "2.0.0")
	signed := func(change func(m *image.Manifest)) *imagetest.Parts { return good.Resign(t, change, imagetest.Key) }
	for _, test := range []struct {
		name    string
		image   *imagetest.Parts
		device  func(opt *Options)
		install InstallOptions
		want    mib.FailCause
	}{
		{"wrong hardware", signed(func(m *image.Manifest) { m.Hardware = []string{"IAD-2FXS"} }), nil, InstallOptions{Force: true}, mib.FailCauseIncompatibleHardware},
		{"part of the hardware's name", signed(func(m *image.Manifest) { m.Hardware = []string{"IAD"} }), nil, InstallOptions{}, mib.FailCauseIncompatibleHardware},
		{"below min_version", signed(func(m *image.Manifest) { m.MinVersion = "1.0.1" }), nil, InstallOptions{Force: true, AllowDowngrade: true}, mib.FailCausePreconditionMissing},
		{"older", imagetest.TakeApart(t, "0.9.0"), nil, InstallOptions{Force: true}, mib.FailCauseDowngradeRefused},
		{"older by pre-release", imagetest.TakeApart(t, "1.0.0-rc.1"), nil, InstallOptions{}, mib.FailCauseDowngradeRefused},
		{"no order", signed(func(m *image.Manifest) { m.Version = "1.0.0+old" }), nil, InstallOptions{Force: true}, mib.FailCauseDowngradeRefused},
		{"running version", imagetest.TakeApart(t, "1.0.0"), nil, InstallOptions{}, mib.FailCauseAlreadyInstalled},
		{"other version than asked for", good, nil, InstallOptions{Version: "2.0.1"}, mib.FailCauseVersionMismatch},
		{"other size than expected", good, nil, InstallOptions{ExpectSize: 5}, mib.FailCauseSizeMismatch},
		{"larger than the bank", good, func(o *Options) { o.Capacity = func(int) int64 { return 71_000 } }, InstallOptions{}, mib.FailCauseFileTooLarge},
		{"more than is free", good, func(o *Options) { o.Free = func(int) (int64, error) { return 80_000, nil } }, InstallOptions{}, mib.FailCauseStorageFull},
		{"free space unknown", good, func(o *Options) { o.Free = func(int) (int64, error) { return 0, syscall.EIO } }, InstallOptions{}, mib.FailCauseWriteError},
		{"no such bank", good, nil, InstallOptions{Bank: 3}, mib.FailCauseBadRequest},
		{"running bank", good, nil, InstallOptions{Bank: 1}, mib.FailCauseBankUnavailable},
		{"nobody trusted", good, func(o *Options) { o.Trust = nil }, InstallOptions{}, mib.FailCauseSignerUntrusted},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, form := range []string{"fw.iad", "dir/manifest.json"} {
				opt := device(t)
				if test.device != nil {
					test.device(&opt)
				}
				b, _ := boot(t, opt)
				was := snapshot(t, opt)
				src := split(test.image)
				src.files["fw.iad"] = test.image.Tar()
				for _, checkOnly := range []bool{true, false} {
					test.install.CheckOnly = checkOnly
					_, err := b.Install(context.Background(), src, form, test.install)
					var e *Error
					if !errors.As(err, &e) || e.Code != test.want {
						t.Errorf("%s, check only %v: got %v, want cause %d", form, checkOnly, err, test.want)
					}
				}
				if !maps.Equal(snapshot(t, opt), was) {
					t.Errorf("%s: something was changed", form)
				}
			}
		})
	}
}

// TestAccepted has the options that let software pass that would be refused.
func TestAccepted(t *testing.T) {
	for _, test := range []struct {
		name    string
		version string
		install InstallOptions
	}{
		{"newer", "1.0.1", InstallOptions{}},
		{"older if allowed", "0.9.0", InstallOptions{AllowDowngrade: true}},
		{"running version by force", "1.0.0", InstallOptions{Force: true}},
		{"named bank and version", "2.0.0", InstallOptions{Bank: 2, Version: "2.0.0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := imagetest.TakeApart(t, test.version)
			for _, form := range []string{"fw.iad", "dir/manifest.json"} {
				opt := device(t)
				opt.Capacity = func(int) int64 { return p.Head.StoredSize() }
				opt.Free = func(int) (int64, error) { return 90_112, nil }
				b, _ := boot(t, opt)
				src := split(p)
				src.files["fw.iad"] = p.Tar()
				test.install.ExpectSize = int64(len(src.files[form]))
				test.install.ExpectDigest = sha(src.files[form])
				was := snapshot(t, opt)
				test.install.CheckOnly = true
				if _, err := b.Install(context.Background(), src, form, test.install); err != nil {
					t.Errorf("%s: check: %v", form, err)
				}
				if !maps.Equal(snapshot(t, opt), was) {
					t.Errorf("%s: checking changed something", form)
				}
				test.install.CheckOnly = false
				res, err := b.Install(context.Background(), src, form, test.install)
				if err != nil {
					t.Fatalf("%s: %v", form, err)
				}
				if res.Bank != 2 || res.Version != test.version || res.Already || !bytes.Equal(res.Digest, sha(src.files[form])) ||
					res.Size != int64(len(src.files[form])) || res.Fetched < 70_000 {
					t.Errorf("%s: %+v", form, res)
				}
				info := b.Status().Banks[1]
				if info.State != mib.BankStateReady || info.Version != test.version || info.Size != p.Head.StoredSize() ||
					!bytes.Equal(info.Digest, sha(p.Head.Raw)) || info.Written.Unix() != 1_800_000_000 || !info.NeedsReset {
					t.Errorf("%s: %+v", form, info)
				}
				for name, want := range p.Files {
					f, err := b.Open(2, name)
					if err != nil {
						t.Fatal(err)
					}
					if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%s: %s differs, %v", form, name, err)
					}
				}
				// Whatever the image says, nobody but the agent may write.
				for name, want := range map[string]os.FileMode{"app": 0o755, "empty": 0o644, "data.bin": 0o600} {
					if info, err := opt.Banks[1].Stat(name); err != nil || info.Mode().Perm() != want {
						t.Errorf("%s: %s: %v %v", form, name, info.Mode(), err)
					}
				}
			}
		})
	}
}

// TestDigestIfExpected: the digest of the whole file, a second hash over all of it, is computed
// if it is expected, and not if that of the manifest or none is. The progress is the same.
func TestDigestIfExpected(t *testing.T) {
	p := imagetest.TakeApart(t, "2.0.0")
	img := p.Tar()
	for name, test := range map[string]struct{ expected, want []byte }{
		"none":         {nil, nil},
		"the manifest": {sha(p.Head.Raw), nil},
		"the file":     {sha(img), sha(img)},
	} {
		b, _ := boot(t, device(t))
		var last InstallProgress
		res, err := b.Install(context.Background(), serve("fw.iad", img), "fw.iad", InstallOptions{ExpectDigest: test.expected, Progress: func(p InstallProgress) {
			if p.Phase == mib.OperationPhaseTransferring {
				last = p
			}
		}})
		if err != nil || !bytes.Equal(res.Digest, test.want) {
			t.Errorf("%s: digest %x, want %x, %v", name, res.Digest, test.want, err)
		}
		if last.Done != last.Total || last.Total != int64(len(img))-imagetest.TrailerSize && last.Total != int64(len(img)) {
			t.Errorf("%s: transferred %d of %d bytes", name, last.Done, last.Total)
		}
	}
}

func TestAlreadyThere(t *testing.T) {
	opt := device(t)
	b, _ := boot(t, opt)
	install(t, b, "2.0.0")
	was := snapshot(t, opt)
	src := serve("fw.iad", imagetest.TakeApart(t, "2.0.0").Tar())
	res, err := b.Install(context.Background(), src, "fw.iad", InstallOptions{})
	if err != nil || !res.Already || res.Bank != 2 || !maps.Equal(snapshot(t, opt), was) {
		t.Errorf("%+v, %v", res, err)
	}
	res, err = b.Install(context.Background(), src, "fw.iad", InstallOptions{Force: true})
	if err != nil || res.Already {
		t.Errorf("by force: %+v, %v", res, err)
	}
}

// TestSplitFetchesWhatDiffers: payloads that the bank holds are not fetched again,
// also those of older software.
func TestSplitFetchesWhatDiffers(t *testing.T) {
	opt := device(t)
	b, _ := boot(t, opt)
	install(t, b, "1.9.0")
	p, old := imagetest.TakeApart(t, "2.0.0"), imagetest.TakeApart(t, "1.9.0")
	p.Files["app"] = old.Files["app"]
	p = p.Resign(t, func(m *image.Manifest) { *m.Payload("app") = *old.Head.Manifest.Payload("app") }, imagetest.Key)
	src := split(p)
	delete(src.files, "dir/app")
	res, err := b.Install(context.Background(), src, "dir/manifest.json", InstallOptions{})
	if err != nil || res.Fetched > 10_000 {
		t.Fatalf("%+v, %v", res, err)
	}
	if err := b.Activate(2); err != nil {
		t.Error(err)
	}
}

// TestResumeMendsWhatWasSpoilt: a part kept from before with damage in it is fetched
// anew.
func TestResumeMendsWhatWasSpoilt(t *testing.T) {
	p := imagetest.TakeApart(t, "2.0.0")
	for _, form := range []string{"fw.iad", "dir/manifest.json"} {
		for _, noResume := range []bool{false, true} {
			opt := device(t)
			b, _ := boot(t, opt)
			src := split(p)
			src.files["fw.iad"] = p.Tar()
			src.noResume, src.cut = noResume, 50_000
			if _, err := b.Install(context.Background(), src, form, InstallOptions{}); !errors.Is(err, errBroken) {
				t.Fatal(err)
			}
			if info := b.Status().Banks[1]; info.State != mib.BankStateWriting || info.Cause != mib.FailCauseOther || !strings.Contains(info.Text, "connection lost") {
				t.Errorf("%s: %+v", form, info)
			}
			f, err := opt.Banks[1].OpenFile("app", os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("spoilt"), 1000); err != nil {
				t.Fatal(err)
			}
			f.Close()
			src.cut = 0
			res, err := b.Install(context.Background(), src, form, InstallOptions{ExpectDigest: sha(src.files[form])})
			if err != nil {
				t.Errorf("%s: %+v, %v", form, res, err)
			}
			if err := b.Activate(2); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestWrongExpectedDigest is noticed late in tar form, and at once in split form.
func TestWrongExpectedDigest(t *testing.T) {
	p := imagetest.TakeApart(t, "2.0.0")
	for _, form := range []string{"fw.iad", "dir/manifest.json"} {
		opt := device(t)
		b, _ := boot(t, opt)
		src := split(p)
		src.files["fw.iad"] = p.Tar()
		_, err := b.Install(context.Background(), src, form, InstallOptions{ExpectDigest: make([]byte, 32)})
		var e *Error
		if !errors.As(err, &e) || e.Code != mib.FailCauseDigestMismatch {
			t.Errorf("%s: %v", form, err)
		}
		if s := b.Status().Banks[1].State; s >= mib.BankStateReady {
			t.Errorf("%s: %s", form, s)
		}
	}
}

func TestProgress(t *testing.T) {
	b, _ := boot(t, device(t))
	img := imagetest.TakeApart(t, "2.0.0").Tar()
	var phases []mib.OperationPhase
	last := InstallProgress{}
	_, err := b.Install(context.Background(), serve("fw.iad", img), "fw.iad", InstallOptions{Progress: func(p InstallProgress) {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		} else if p.Done < last.Done || p.Total != last.Total || p.Done > p.Total {
			t.Errorf("%+v after %+v", p, last)
		}
		if p.Phase == mib.OperationPhaseTransferring && p.Total != int64(len(img)) {
			t.Errorf("total %d of %d", p.Total, len(img))
		}
		if last = p; p.Phase == mib.OperationPhaseVerifying && b.Status().Banks[1].State != mib.BankStateVerifying {
			t.Errorf("state %s", b.Status().Banks[1].State)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []mib.OperationPhase{mib.OperationPhaseChecking, mib.OperationPhaseConnecting, mib.OperationPhaseErasing, mib.OperationPhaseTransferring, mib.OperationPhaseVerifying}
	if !slices.Equal(phases, want) || last.Done != last.Total {
		t.Errorf("phases %v, last %+v", phases, last)
	}
}

// TestCancelled stops in the middle; the cause of the context comes back.
func TestCancelled(t *testing.T) {
	b, _ := boot(t, device(t))
	reason := errors.New("aborted by the manager")
	ctx, cancel := context.WithCancelCause(context.Background())
	_, err := b.Install(ctx, serve("fw.iad", imagetest.TakeApart(t, "2.0.0").Tar()), "fw.iad", InstallOptions{Progress: func(p InstallProgress) {
		if p.Phase == mib.OperationPhaseTransferring && p.Done > 30_000 {
			cancel(reason)
		}
	}})
	if !errors.Is(err, reason) {
		t.Error(err)
	}
	if s := b.Status(); s.Next != 1 || s.Banks[1].State != mib.BankStateWriting {
		t.Errorf("%+v", s)
	}
}

// TestBusy: nothing else is done with the bank meanwhile, and Status answers.
func TestBusy(t *testing.T) {
	b, _ := boot(t, device(t))
	tried := false
	_, err := b.Install(context.Background(), serve("fw.iad", imagetest.TakeApart(t, "2.0.0").Tar()), "fw.iad", InstallOptions{Progress: func(p InstallProgress) {
		if p.Phase != mib.OperationPhaseTransferring || tried {
			return
		}
		tried = true
		_, err := b.Install(context.Background(), serve("x", nil), "x", InstallOptions{})
		for what, err := range map[string]error{"install": err, "activate": b.Activate(2)} {
			if causeOf(err) != mib.FailCauseBusy {
				t.Errorf("%s: %v", what, err)
			}
		}
		if n, err := b.Restore(); n != 1 || err != nil {
			t.Errorf("restore: %d, %v", n, err)
		}
	}})
	if err != nil || !tried {
		t.Error(err)
	}
}

// TestNoDownloadOverTheFallback: software on trial keeps its fallback.
func TestNoDownloadOverTheFallback(t *testing.T) {
	opt := device(t)
	b, _ := boot(t, opt)
	install(t, b, "2.0.0")
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	b, _ = boot(t, opt)
	src := serve("fw.iad", imagetest.TakeApart(t, "3.0.0").Tar())
	if _, err := b.Install(context.Background(), src, "fw.iad", InstallOptions{Force: true}); causeOf(err) != mib.FailCauseBankUnavailable {
		t.Errorf("on trial: %v", err)
	}
	if err := b.GiveUp(mib.FailCauseBootFailed, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Install(context.Background(), src, "fw.iad", InstallOptions{Force: true}); causeOf(err) != mib.FailCauseBankUnavailable {
		t.Errorf("given up: %v", err)
	}
}

func TestErrorText(t *testing.T) {
	err := fmt.Errorf("wrapped: %w", &Error{Code: mib.FailCauseBusy, Op: "do", Text: "no", Err: io.EOF})
	if err.Error() != "wrapped: do: no: EOF" || causeOf(err) != mib.FailCauseBusy || !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if got := shorten(strings.Repeat("é", 100)); len(got) != 128 || got != strings.Repeat("é", 64) {
		t.Error(got)
	}
	if got := shorten("a" + strings.Repeat("é", 100)); len(got) != 127 {
		t.Error(len(got))
	}
}

func (pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i)
	}
	return len(p), nil
}

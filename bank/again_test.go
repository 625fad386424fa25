package bank

import (
	"context"
	"errors"
	"strings"
	"testing"

	"example.com/iad/bank/image"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// TestDamagedIsFetchedAgain: software that is said to be there is there whole, and
// is what was commanded.
func TestDamagedIsFetchedAgain(t *testing.T) {
	opt, b := readyDevice(t)
	spoil(t, opt.Banks[1], "app")
	res, err := b.Install(context.Background(), serve("fw.iad", imagetest.TakeApart(t, "2.0.0").Tar()), "fw.iad", InstallOptions{})
	if err != nil || res.Already {
		t.Fatalf("%+v, %v", res, err)
	}
	if err := b.Check(2, false); err != nil {
		t.Error(err)
	}
	// The same version with other contents is other software.
	other := imagetest.TakeApart(t, "2.0.0").Resign(t, func(m *image.Manifest) { m.Hardware = append(m.Hardware, "ANOTHER") }, imagetest.Key)
	res, err = b.Install(context.Background(), serve("fw.iad", other.Tar()), "fw.iad", InstallOptions{})
	if err != nil || res.Already {
		t.Fatalf("%+v, %v", res, err)
	}
	if m, err := b.Manifest(2); err != nil || m.Hardware[len(m.Hardware)-1] != "ANOTHER" {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestServerNeverResumes: a server that says that it can start in the middle of a file,
// and starts at the beginning, delivers all the same: files are opened at their
// beginnings then.
func TestServerNeverResumes(t *testing.T) {
	p := imagetest.TakeApart(t, "2.0.0")
	for _, form := range []string{"fw.iad", "dir/manifest.json"} {
		for _, cut := range []int64{40_000, 68_000, 73_000} { // within a payload, near its end, behind it
			for _, damaged := range []bool{false, true} {
				opt := device(t)
				b, _ := boot(t, opt)
				src := split(p)
				src.files["fw.iad"] = p.Tar()
				src.alwaysWhole, src.cut = true, cut
				if _, err := b.Install(context.Background(), src, form, InstallOptions{}); err != nil && !errors.Is(err, errBroken) {
					t.Fatal(err)
				}
				if damaged {
					spoil(t, opt.Banks[1], "app")
				}
				src.cut = 0
				res, err := b.Install(context.Background(), src, form, InstallOptions{ExpectDigest: sha(src.files[form])})
				if err != nil {
					t.Errorf("%s broke at %d, damaged %v: %+v, %v", form, cut, damaged, res, err)
				}
				if err := b.Check(2, false); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestForceWritesAgain: with force all of the image is fetched and written once more.
func TestForceWritesAgain(t *testing.T) {
	_, b := readyDevice(t)
	img := imagetest.TakeApart(t, "2.0.0").Tar()
	res, err := b.Install(context.Background(), serve("fw.iad", img), "fw.iad", InstallOptions{Force: true})
	if err != nil || res.Fetched < int64(len(img)) {
		t.Errorf("%d bytes of %d fetched, %v", res.Fetched, len(img), err)
	}
}

// TestProgressOverOtherSoftware: what the bank held of other software does not count,
// though the files have the same names and sizes.
func TestProgressOverOtherSoftware(t *testing.T) {
	_, b := readyDevice(t)
	var last int64
	_, err := b.Install(context.Background(), serve("fw.iad", imagetest.TakeApart(t, "3.0.0").Tar()), "fw.iad", InstallOptions{
		Progress: func(p InstallProgress) {
			if p.Phase != mib.OperationPhaseTransferring {
				return
			}
			if p.Done < last {
				t.Errorf("%d bytes after %d", p.Done, last)
			}
			last = p.Done
		},
	})
	if err != nil || last == 0 {
		t.Error(last, err)
	}
	if m, err := b.Manifest(2); err != nil || !strings.HasPrefix(m.Version, "3.") {
		t.Errorf("%+v, %v", m, err)
	}
}

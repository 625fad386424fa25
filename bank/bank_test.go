package bank

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// A server is a Source in memory.
type server struct {
	files    map[string][]byte
	noResume bool
	unsized  bool
	// alwaysWhole begins each file at its beginning, whatever it was asked for.
	alwaysWhole bool
	cut         int64 // the connection breaks after so many bytes of a longer file, 0 never
	opened      []int64
	names       []string          // of the files opened
	before      func(name string) // called before a file is opened, if not nil
}

var errBroken = errors.New("connection lost")

func (s *server) Open(_ context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	if s.before != nil {
		s.before(name)
	}
	s.names = append(s.names, name)
	data, ok := s.files[name]
	switch {
	case !ok:
		return nil, 0, &notFound{name}
	case offset > 0 && s.noResume:
		return nil, 0, image.ErrNoResume
	}
	s.opened = append(s.opened, offset)
	if s.alwaysWhole {
		offset = 0
	}
	size := int64(len(data))
	var r io.Reader = bytes.NewReader(data[min(offset, size):])
	if s.cut > 0 && size-offset > s.cut {
		r = io.MultiReader(io.LimitReader(r, s.cut), broken{})
	}
	if s.unsized {
		size = -1
	}
	return io.NopCloser(r), size, nil
}

type notFound struct{ name string }

func (e *notFound) Error() string        { return "file not found: " + e.name }
func (e *notFound) Cause() mib.FailCause { return mib.FailCauseFileNotFound }

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errBroken }

func serve(name string, data []byte) *server {
	return &server{files: map[string][]byte{name: data}}
}

func device(t testing.TB) Options {
	t.Helper()
	opt := Options{
		Banks:    [2]afero.Fs{afero.NewMemMapFs(), afero.NewMemMapFs()},
		State:    afero.NewMemMapFs(),
		Trust:    imagetest.Trust(imagetest.Key),
		Keys:     []agefile.Identity{imagetest.ModelKey},
		Hardware: "IAD-4FXS",
		Now:      func() time.Time { return time.Unix(1_800_000_000, 0) },
	}
	if err := Provision(opt, bytes.NewReader(imagetest.Build(t, imagetest.Manifest("1.0.0"))), nil); err != nil {
		t.Fatal(err)
	}
	return opt
}

func boot(t testing.TB, opt Options) (*Banks, BootReport) {
	t.Helper()
	b, report := Boot(opt)
	if report.Bank == 0 {
		t.Fatal(report.Findings)
	}
	return b, report
}

func install(t testing.TB, b *Banks, version string) {
	t.Helper()
	_, err := b.Install(context.Background(), serve("fw.iad", imagetest.Build(t, imagetest.Manifest(version))), "fw.iad", InstallOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func TestUpgrade(t *testing.T) {
	opt := device(t)
	b, report := boot(t, opt)
	if report.Bank != 1 || report.Trial || len(report.Findings) != 0 {
		t.Fatalf("first boot: %+v", report)
	}
	install(t, b, "2.0.0")
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	b, report = boot(t, opt)
	if report.Bank != 2 || !report.Trial {
		t.Fatalf("boot after activation: %+v", report)
	}
	if err := b.Confirm(); err != nil {
		t.Fatal(err)
	}
	b, report = boot(t, opt)
	if report.Bank != 2 || report.Trial {
		t.Fatalf("boot after confirmation: %+v", report)
	}
	s := b.Status()
	if s.Running != 2 || s.Next != 2 || s.Fallback != 1 || s.Banks[1].State != mib.BankStateGood || s.Banks[1].Version != "2.0.0" {
		t.Fatalf("status: %+v", s)
	}
	for range 2 {
		n, err := b.Restore()
		if n != 1 || err != nil {
			t.Fatalf("restore: %d, %v", n, err)
		}
		b, report = boot(t, opt)
		if report.Bank != 1 || report.Trial || report.RolledBack != 0 {
			t.Fatalf("boot after restore: %+v", report)
		}
	}
}

func TestTriesUsedUp(t *testing.T) {
	opt := device(t)
	b, _ := boot(t, opt)
	install(t, b, "2.0.0")
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	for i := range Tries {
		b, report := boot(t, opt)
		if report.Bank != 2 || b.Status().Banks[1].TriesLeft != Tries-1-i {
			t.Fatalf("start %d: %+v", i, report)
		}
	}
	b, report := boot(t, opt)
	if report.Bank != 1 || report.RolledBack != 2 || report.Cause != mib.FailCauseBootFailed {
		t.Fatalf("%+v", report)
	}
	if s := b.Status(); s.Banks[1].State != mib.BankStateFailed || s.Fallback != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestResume(t *testing.T) {
	img := imagetest.Build(t, imagetest.Manifest("2.0.0"))
	for _, noResume := range []bool{false, true} {
		opt := device(t)
		b, _ := boot(t, opt)
		src := serve("fw.iad", img)
		src.noResume, src.cut = noResume, 40_000
		if _, err := b.Install(context.Background(), src, "fw.iad", InstallOptions{}); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		b, _ = boot(t, opt)
		src.cut, src.opened = 0, nil
		// The digest is that of the whole file, of which a part was fetched before.
		res, err := b.Install(context.Background(), src, "fw.iad", InstallOptions{ExpectDigest: sha(img)})
		if err != nil {
			t.Fatal(err)
		}
		if want := sha(img); !bytes.Equal(res.Digest, want) {
			t.Errorf("digest %x, want %x", res.Digest, want)
		}
		if resumed := len(src.opened) == 2 && src.opened[1] > 30_000; resumed == noResume {
			t.Errorf("noResume %v: opened at %v", noResume, src.opened)
		}
		if err := b.Activate(2); err != nil {
			t.Error(err)
		}
	}
}

func sha(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}

// causeOf is the cause that an error carries, mib.FailCauseOther if it carries none.
func causeOf(err error) mib.FailCause { return mib.CauseOf(err, mib.FailCauseOther) }

package partition_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/spf13/afero"
	"golang.org/x/sys/unix"

	"example.com/iad/bank"
	"example.com/iad/bank/image"
	"example.com/iad/bank/partition"
	"example.com/iad/internal/imagetest"
	"example.com/iad/internal/peers"
	"example.com/iad/mib"
)

// kernel is a payload for the partition that fills no sector.
var kernel = func() []byte {
	data := make([]byte, 300_001)
	rand.Read(data)
	return data
}()

func rawImage(t *testing.T, version string) []byte {
	t.Helper()
	file := func(name string, data []byte, target image.Target) image.PayloadFile {
		return image.PayloadFile{Name: name, Mode: 0o755, Target: target, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}}
	}
	var b bytes.Buffer
	if err := image.Build(&b, imagetest.Manifest(version), []image.PayloadFile{
		file("kernel", kernel, image.TargetPartition), file("selftest", []byte(version), image.TargetFile),
	}, imagetest.Key); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// flaky is a server with one file, whose connection breaks once.
type flaky struct {
	data []byte
	cut  int64 // after so many bytes, 0 never
}

func (s *flaky) Open(_ context.Context, _ string, offset int64) (io.ReadCloser, int64, error) {
	r := io.Reader(bytes.NewReader(s.data[offset:]))
	if s.cut > 0 {
		r, s.cut = io.MultiReader(io.LimitReader(r, s.cut), iotest.ErrReader(errors.New("connection lost"))), 0
	}
	return io.NopCloser(r), int64(len(s.data)), nil
}

// TestBlockDevice makes a device with real block devices.
func TestBlockDevice(t *testing.T) {
	for _, sector := range []string{"512", "4096"} {
		t.Run(sector, func(t *testing.T) {
			const size = 512 << 10
			one, file := peers.Loop(t, size, sector)
			two, _ := peers.Loop(t, size, sector)
			parts, findings := partition.Pair([2]string{one, two})
			if len(findings) != 0 {
				t.Error(findings)
			}
			if n, err := parts[0].Capacity(); n != size || err != nil {
				t.Errorf("capacity %d, %v", n, err)
			}
			opt := bank.Options{
				Banks: [2]afero.Fs{afero.NewMemMapFs(), afero.NewMemMapFs()}, State: afero.NewMemMapFs(), Partitions: parts,
				Trust: imagetest.Trust(imagetest.Key), Hardware: "IAD-4FXS",
			}
			if err := bank.Provision(opt, bytes.NewReader(rawImage(t, "1.0.0")), nil); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(one); err != nil || !bytes.Equal(got[:len(kernel)], kernel) || got[size-1] != 0xA5 {
				t.Errorf("the device has something else, %v", err)
			}
			if got, err := os.ReadFile(two); err != nil || bytes.Count(got[:512], []byte{0}) != 512 {
				t.Errorf("the first sector of the other device is %x, %v", got[:16], err)
			}
			if _, report := bank.Boot(opt); report.Bank != 1 {
				t.Fatalf("%+v", report)
			}
			// While somebody has the device open, the kernel keeps all of it in its cache. The
			// medium changes.
			user, err := os.Open(one)
			if err != nil {
				t.Fatal(err)
			}
			defer user.Close()
			if _, err := io.Copy(io.Discard, user); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt([]byte{kernel[200_000] ^ 1}, 200_000)
			}
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			if got, err := os.ReadFile(one); err != nil || !bytes.Equal(got[:len(kernel)], kernel) {
				t.Fatalf("this system has no cache to read from: %v", err)
			}
			if b, report := bank.Boot(opt); report.Bank != 0 {
				t.Errorf("a change of the medium was not noticed: %+v, %+v", report, b.Status())
			}
		})
	}
}

// TestBlockDeviceInUse: what is mounted, or the same device as that of the other bank, is not
// written.
func TestBlockDeviceInUse(t *testing.T) {
	one, _ := peers.Loop(t, 1<<20, "512")
	dir := t.TempDir()
	if out, err := exec.Command(peers.Find(t, "mke2fs"), "-q", "-F", one).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := unix.Mount(one, dir, "ext2", unix.MS_RDONLY, ""); err != nil {
		t.Skipf("ext2 cannot be mounted: %v", err)
	}
	_, err := partition.Open(one).Claim()
	if err == nil || !strings.Contains(err.Error(), one+" is mounted or in use") {
		t.Error(err)
	}
	r, rerr := partition.Open(one).Open() // it may be what runs
	if rerr != nil {
		t.Error(rerr)
	} else {
		r.Close()
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	w, err := partition.Open(one).Claim()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(one, dir, "ext2", unix.MS_RDONLY, ""); err == nil {
		t.Error("it can be mounted while it is written")
		_ = unix.Unmount(dir, 0)
	}
	w.Close()

	link := filepath.Join(dir, "link")
	if err := os.Symlink(one, link); err != nil {
		t.Fatal(err)
	}
	parts, findings := partition.Pair([2]string{one, link})
	if len(findings) != 1 || !strings.Contains(findings[0], "are the same device") {
		t.Errorf("%q", findings)
	}
	for i := range parts {
		if _, err := parts[i].Claim(); err == nil {
			t.Errorf("partition %d can be written", i+1)
		}
	}
}

// TestPairFindings says what is wrong with names in the settings.
func TestPairFindings(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, want string }{
		{filepath.Join(dir, "missing"), "no such file"},
		{dir, "neither a block device"},
		{"/dev/null", "neither a block device"},
		{filepath.Join(dir, "mtd7"), "no such file"},
		{filepath.Join(dir, "ubi0_7"), "no such file"},
	} {
		parts, findings := partition.Pair([2]string{file, test.name})
		if len(findings) != 1 || !strings.Contains(findings[0], "bank 2") || !strings.Contains(findings[0], test.want) {
			t.Errorf("%s: %q", test.name, findings)
		}
		if _, err := parts[1].Claim(); err == nil {
			t.Errorf("%s can be written", test.name)
		}
	}
}

// TestFileForDevice writes to a file that stands for a block device, of whose size it is.
func TestFileForDevice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, make([]byte, len(kernel)-1), 0o600); err != nil {
		t.Fatal(err)
	}
	opt := bank.Options{
		Banks: [2]afero.Fs{afero.NewMemMapFs(), afero.NewMemMapFs()}, State: afero.NewMemMapFs(),
		Partitions: [2]bank.Partition{partition.Open(file), partition.Open(file)},
		Trust:      imagetest.Trust(imagetest.Key), Hardware: "IAD-4FXS",
	}
	err := bank.Provision(opt, bytes.NewReader(rawImage(t, "1.0.0")), nil)
	if mib.CauseOf(err, 0) != mib.FailCauseFileTooLarge {
		t.Errorf("one byte too large: %v", err)
	}
}

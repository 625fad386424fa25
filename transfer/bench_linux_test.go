package transfer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/pin/tftp/v3"
	"golang.org/x/sys/unix"

	"example.com/iad/internal/peers"
	"example.com/iad/transfer"
)

// rounds of each side of a comparison, one after the other in turn; their
// medians are compared.
const rounds = 7

// compare runs both sides and reports their medians in milliseconds and the
// ratio of the first to the second.
func compare(b *testing.B, times int, ours, peer func() error) (ratio float64) {
	b.Helper()
	var took [2][]time.Duration
	for range times {
		for i, run := range []func() error{ours, peer} {
			begin := time.Now()
			if err := run(); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(begin))
		}
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2]) / float64(time.Millisecond)
	}
	us, them := median(took[0]), median(took[1])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(us, "our-ms")
	b.ReportMetric(them, "peer-ms")
	return us / them
}

// BenchmarkFarLine: 1 MiB at a round trip of 20 ms in blocks of 1428 bytes,
// windows against pin/tftp in lockstep. Wanted: at least 30 times as fast.
func BenchmarkFarLine(b *testing.B) {
	const size = 1 << 20
	for b.Loop() {
		root := newRoot(b)
		r := relayed(b, serverNamed(b, "atftpd"), root, line{delay: 10 * time.Millisecond, seed: 1})
		if err := os.WriteFile(filepath.Join(root, "file"), testContent(size, 1), 0o644); err != nil {
			b.Fatal(err)
		}
		c := r.client(b)
		pin, err := tftp.NewClient(netip.AddrPortFrom(netip.MustParseAddr(r.Host), uint16(r.Port)).String())
		if err != nil {
			b.Fatal(err)
		}
		pin.SetBlockSize(1428)
		ratio := compare(b, 1,
			func() error { return discard(c, size) },
			func() error {
				w, err := pin.Receive("file", "octet")
				if err != nil {
					return err
				}
				n, err := w.WriteTo(io.Discard)
				if err == nil && n != size {
					err = fmt.Errorf("pin/tftp: %d bytes", n)
				}
				return err
			})
		b.ReportMetric(1/ratio, "times-as-fast")
	}
}

func discard(c *transfer.Client, size int64) error {
	r, _, err := c.Get(context.Background(), "file", 0)
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes", n)
	}
	return err
}

// benchSize is what is moved in the comparisons on loopback.
const benchSize = 64 << 20

// BenchmarkDownload: from the server onto the disk: fetched, hashed, written,
// synced and read back past the page cache, against the usual client to a file,
// sha256sum and sync. Wanted: at most 0.8 of its time.
func BenchmarkDownload(b *testing.B) {
	for _, x := range []struct {
		server string
		fetch  func(b *testing.B, r *running, to string) *exec.Cmd
	}{
		{"vsftpd", func(b *testing.B, r *running, to string) *exec.Cmd {
			return exec.Command(peers.Find(b, "curl"), "-sS", "-o", to, fmt.Sprintf("ftp://%s:%d/%s/file", r.Host, r.Port, r.Path))
		}},
		{"atftpd", func(b *testing.B, r *running, to string) *exec.Cmd {
			return exec.Command(peers.Find(b, "atftp"), "--option", "blksize 1428", "--option", "windowsize 64", "--get", "--remote-file", "file",
				"--local-file", to, r.Host, fmt.Sprint(r.Port))
		}},
	} {
		b.Run(x.server, func(b *testing.B) {
			for b.Loop() {
				root, to := newRoot(b), newRoot(b)
				r := serverNamed(b, x.server).start(b, root)
				content := testContent(benchSize, 1)
				if err := os.WriteFile(filepath.Join(root, "file"), content, 0o644); err != nil {
					b.Fatal(err)
				}
				want := sha256.Sum256(content)
				c := r.client(b)
				ratio := compare(b, rounds,
					func() error { return toBank(c, filepath.Join(to, "bank"), want) },
					func() error {
						file := filepath.Join(to, "peer")
						for _, cmd := range []*exec.Cmd{x.fetch(b, r, file), exec.Command("sha256sum", file), exec.Command("sync", file)} {
							if out, err := cmd.CombinedOutput(); err != nil {
								return fmt.Errorf("%s: %w: %s", cmd, err, out)
							}
						}
						return os.Remove(file)
					})
				b.ReportMetric(ratio, "of-peer")
			}
		})
	}
}

// toBank does what a bank does with a payload.
func toBank(c *transfer.Client, path string, want [32]byte) error {
	r, _, err := c.Get(context.Background(), "file", 0)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer f.Close()
	h, buf := sha256.New(), make([]byte, 128<<10)
	if _, err := io.CopyBuffer(io.MultiWriter(h, f), r, buf); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	again := sha256.New()
	if _, err := io.CopyBuffer(again, struct{ io.Reader }{f}, buf); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), want[:]) || !bytes.Equal(again.Sum(nil), want[:]) {
		return fmt.Errorf("digest differs")
	}
	return nil
}

// BenchmarkUpload: a file of 64 MiB to vsftpd against curl -T.
func BenchmarkUpload(b *testing.B) {
	for b.Loop() {
		root, from := newRoot(b), newRoot(b)
		r := serverNamed(b, "vsftpd").start(b, root)
		source := filepath.Join(from, "file")
		if err := os.WriteFile(source, testContent(benchSize, 1), 0o644); err != nil {
			b.Fatal(err)
		}
		c := r.client(b)
		ratio := compare(b, rounds,
			func() error {
				f, err := os.Open(source)
				if err != nil {
					return err
				}
				defer f.Close()
				_, err = c.Put(context.Background(), "ours", f, benchSize)
				return err
			},
			func() error {
				cmd := exec.Command(peers.Find(b, "curl"), "-sS", "-T", source, fmt.Sprintf("ftp://%s:%d/%s/peer", r.Host, r.Port, r.Path))
				if out, err := cmd.CombinedOutput(); err != nil {
					return fmt.Errorf("%s: %w: %s", cmd, err, out)
				}
				return nil
			})
		b.ReportMetric(ratio, "of-peer")
	}
}

// TestMemory: what a transfer holds does not grow with the file.
func TestMemory(t *testing.T) {
	const most = 3 << 20
	for _, name := range []string{"atftpd", "vsftpd"} {
		root := newRoot(t)
		r := serverNamed(t, name).start(t, root)
		f, err := os.Create(filepath.Join(root, "file"))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(100 << 20); err != nil {
			t.Fatal(err)
		}
		f.Close()
		c := r.client(t)
		before := memoryInUse()
		in, _, err := c.Get(testContext(t), "file", 0)
		if err != nil {
			t.Fatal(err)
		}
		peak := uint64(0)
		for buf := make([]byte, 64<<10); err == nil; {
			for range 80 { // 5 MiB
				if _, err = io.ReadFull(in, buf); err != nil {
					break
				}
			}
			peak = max(peak, memoryInUse())
		}
		if err != io.EOF {
			t.Fatal(err)
		}
		in.Close()
		if peak > before+most {
			t.Errorf("%s: %d bytes of memory while receiving, %d before", name, peak, before)
		}
		t.Logf("%s: %d KiB", name, (int64(peak)-int64(before))/1024)
	}
}

// memoryInUse returns the bytes in use.
func memoryInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

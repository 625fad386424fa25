package bank

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// cachedFs is a file system with a cache in memory: what was written to its file "app" reads as it was written until it is
// dropped, and then as the medium has it, with other content in one byte.
type cachedFs struct {
	afero.Fs
	mu      sync.Mutex
	bad     int64      // the byte that the medium has lost, -1 none
	dropped [][2]int64 // from, to
	read    int64      // so many bytes of "app" have been read by ReadAt
	onRead  func(read int64)
}

func (c *cachedFs) Open(name string) (afero.File, error) {
	f, err := c.Fs.Open(name)
	if err != nil || name != "app" {
		return f, err
	}
	return &cachedFile{File: f, fs: c}, nil
}

func (c *cachedFs) drop(from, to int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped = append(c.dropped, [2]int64{from, to})
}

// spoilt changes what was read at an offset to what the medium has.
func (c *cachedFs) spoilt(p []byte, at int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bad < at || c.bad >= at+int64(len(p)) {
		return
	}
	for _, d := range c.dropped {
		if d[0] <= c.bad && c.bad < d[1] {
			p[c.bad-at] ^= 0xFF
			return
		}
	}
}

// cachedFile is a file that was opened for reading.
type cachedFile struct {
	afero.File
	fs *cachedFs
}

func (f *cachedFile) Read(p []byte) (int, error) {
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	n, err := f.File.Read(p)
	f.fs.spoilt(p[:n], at)
	return n, err
}

func (f *cachedFile) ReadAt(p []byte, at int64) (int, error) {
	n, err := f.File.ReadAt(p, at)
	f.fs.spoilt(p[:n], at)
	f.fs.mu.Lock()
	f.fs.read = max(f.fs.read, at+int64(n))
	read := f.fs.read
	f.fs.mu.Unlock()
	if f.fs.onRead != nil {
		f.fs.onRead(read)
	}
	return n, err
}

// cachedDevice has such a file system as bank 2, which is on a disk.
func cachedDevice(t *testing.T, bad int64) (Options, *cachedFs) {
	t.Helper()
	was := runtime.GOMAXPROCS(2) // with one processor nothing is read back meanwhile
	t.Cleanup(func() { runtime.GOMAXPROCS(was) })
	opt := device(t)
	c := &cachedFs{Fs: afero.NewBasePathFs(afero.NewOsFs(), t.TempDir()), bad: bad}
	opt.Banks[1] = c
	opt.DropCache = func(f afero.File) error {
		if _, ok := f.(*cachedFile); ok {
			c.drop(0, 1<<62)
		}
		return nil
	}
	opt.DropRange = func(_ afero.File, offset, n int64) error { c.drop(offset, offset+n); return nil }
	return opt, c
}

const behindSize = 9<<20 + 1000

// bigImage has a payload "app" of behindSize bytes.
func bigImage(t *testing.T) []byte {
	content := imagetest.Content("2.0.0", "app", behindSize)
	m := imagetest.Manifest("2.0.0")
	m.SelfTest = ""
	return imagetest.Tar(t, m, []image.PayloadFile{{Name: "app", Mode: 0o755, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }}})
}

// waitingSource holds the last bytes of a file back until a channel is closed.
type waitingSource struct {
	data []byte
	wait <-chan struct{}
}

func (s waitingSource) Open(_ context.Context, _ string, offset int64) (io.ReadCloser, int64, error) {
	const last = 4000
	rest := s.data[offset:]
	if len(rest) <= last {
		return io.NopCloser(bytes.NewReader(rest)), int64(len(s.data)), nil
	}
	held := readerFunc(func([]byte) (int, error) {
		select {
		case <-s.wait:
			return 0, io.EOF
		case <-time.After(30 * time.Second):
			return 0, errors.New("nothing was read back meanwhile")
		}
	})
	return io.NopCloser(io.MultiReader(bytes.NewReader(rest[:len(rest)-last]), held, bytes.NewReader(rest[len(rest)-last:]))), int64(len(s.data)), nil
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestReadsBackMeanwhile: all but the newest part of a large file is read back while the rest of it comes.
func TestReadsBackMeanwhile(t *testing.T) {
	opt, c := cachedDevice(t, -1)
	read := make(chan struct{})
	var once sync.Once
	c.onRead = func(n int64) {
		if n >= behindSize-2*behindStep-behindStep/2 {
			once.Do(func() { close(read) })
		}
	}
	b, _ := boot(t, opt)
	if _, err := b.Install(t.Context(), waitingSource{bigImage(t), read}, "fw.iad", InstallOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := b.Status().Banks[1].State; s != mib.BankStateReady {
		t.Error(s)
	}
	// What was just written is left for the end.
	if c.read > behindSize-behindStep {
		t.Errorf("%d bytes of %d were read meanwhile", c.read, behindSize)
	}
}

// TestReadBackMeanwhileFinds: wherever the medium has something else, it is found, although the cache has what was written: in
// what is read meanwhile or at the end, also if the download was interrupted, and if nothing can be read meanwhile.
func TestReadBackMeanwhileFinds(t *testing.T) {
	img := bigImage(t)
	for _, bad := range []int64{0, behindStep - 1, behindStep, 5 << 20, behindSize - behindStep, behindSize - 1} {
		for name, change := range map[string]func(opt *Options, src *server){
			"whole":   func(*Options, *server) {},
			"resumed": func(_ *Options, src *server) { src.cut = 6 << 20 },
			"cannot": func(opt *Options, _ *server) {
				opt.DropRange = func(afero.File, int64, int64) error { return errors.ErrUnsupported }
			},
		} {
			opt, c := cachedDevice(t, -1)
			src := serve("fw.iad", img)
			change(&opt, src)
			b, _ := boot(t, opt)
			if src.cut > 0 {
				if _, err := b.Install(t.Context(), src, "fw.iad", InstallOptions{}); !errors.Is(err, errBroken) {
					t.Fatal(err)
				}
				src.cut = 0
				c.dropped = nil // what came before the interruption is in the cache
			}
			c.bad = bad
			if _, err := b.Install(t.Context(), src, "fw.iad", InstallOptions{}); causeOf(err) != mib.FailCauseReadBackMismatch {
				t.Errorf("%s, byte %d: %v", name, bad, err)
			}
			if s := b.Status().Banks[1].State; s == mib.BankStateReady {
				t.Errorf("%s, byte %d: %v", name, bad, s)
			}
			c.bad = -1
			if _, err := b.Install(t.Context(), src, "fw.iad", InstallOptions{}); err != nil {
				t.Errorf("%s, byte %d, again: %v", name, bad, err)
			}
		}
	}
}

// TestReadBackMeanwhileOfOneProcessor: with one processor everything is read at the end.
func TestReadBackMeanwhileOfOneProcessor(t *testing.T) {
	opt, c := cachedDevice(t, -1)
	runtime.GOMAXPROCS(1)
	b, _ := boot(t, opt)
	if _, err := b.Install(t.Context(), serve("fw.iad", bigImage(t)), "fw.iad", InstallOptions{}); err != nil || c.read > 0 {
		t.Errorf("%d bytes read meanwhile, %v", c.read, err)
	}
}

package bank

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/spf13/afero"
	"golang.org/x/sys/unix"

	"example.com/iad/bank/image"
	"example.com/iad/internal/imagetest"
)

// BenchmarkInstall downloads software over a TCP connection into a bank that is a directory.
func BenchmarkInstall(b *testing.B) {
	const size = 64 << 20
	content := imagetest.Content("2.0.0", "selftest", size)
	img := imagetest.Tar(b, imagetest.Manifest("2.0.0"), []image.PayloadFile{{
		Name: "selftest", Mode: 0o755,
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	}})
	for _, expected := range []bool{false, true} {
		b.Run(fmt.Sprintf("expected=%v", expected), func(b *testing.B) {
			opt := device(b)
			opt.Banks[1] = afero.NewBasePathFs(afero.NewOsFs(), b.TempDir())
			opt.DropCache = func(f afero.File) error {
				on, ok := f.(*afero.BasePathFile)
				if !ok {
					return nil
				}
				return unix.Fadvise(int(on.File.(*os.File).Fd()), 0, 0, unix.FADV_DONTNEED)
			}
			banks, _ := boot(b, opt)
			o := InstallOptions{Force: true}
			if expected {
				o.ExpectDigest = sha(img)
			}
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := banks.Install(context.Background(), tcpSource(img), "fw.iad", o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// tcpSource sends one file over a connection.
type tcpSource []byte

func (s tcpSource) Open(_ context.Context, _ string, offset int64) (io.ReadCloser, int64, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, 0, err
	}
	defer l.Close()
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Write(s[offset:])
	}()
	c, err := l.Accept()
	return c, int64(len(s)), err
}

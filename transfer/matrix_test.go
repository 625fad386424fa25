package transfer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// testContent returns n bytes that no other call with another seed returns.
func testContent(n int, seed int64) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

// client returns a client of a running server.
func (r *running) client(t testing.TB, change ...func(*transfer.Server, *transfer.Options)) *transfer.Client {
	t.Helper()
	server, options := r.Server, transfer.Options{Pin: r.pin}
	if server.Timeout == 0 {
		server.Timeout = 20 * time.Second
	}
	for _, c := range change {
		c(&server, &options)
	}
	c, err := transfer.New(server, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// testContext bounds a test that would hang.
// soon is the time-out where a test waits for it to pass: long enough that a busy
// machine does not let it pass elsewhere.
func soon(s *transfer.Server, _ *transfer.Options) { s.Timeout = 3 * time.Second }

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func fetch(ctx context.Context, c *transfer.Client, name string) ([]byte, int64, error) {
	r, size, err := c.Get(ctx, name, 0)
	if err != nil {
		return nil, size, err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return b, size, err
}

func wantCause(t *testing.T, err error, want ...mib.FailCause) {
	t.Helper()
	var e *transfer.Error
	if !errors.As(err, &e) {
		t.Errorf("error is %v, want an *Error with cause %v", err, want)
		return
	}
	for _, w := range want {
		if e.Code == w {
			return
		}
	}
	t.Errorf("cause is %d, want %v: %v", e.Code, want, err)
}

// awaitFile waits until a file has its content: atftpd writes its last blocks
// after it acknowledged them.
func awaitFile(t testing.TB, path string, want []byte) {
	t.Helper()
	var got []byte
	var err error
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if got, err = os.ReadFile(path); err == nil && bytes.Equal(got, want) {
			return
		}
	}
	t.Fatalf("%s: the server has %d bytes of %d, or others: %v", path, len(got), len(want), err)
}

// sizes are those where protocols go wrong: nothing, one byte, exact multiples
// of the block sizes and of a window, and next to them.
var sizes = []int{0, 1, 511, 512, 513, 1428, 2 * 1428, 64 * 1428, 64*1428 + 1, 100_001, 1 << 20}

func TestMatrixTransfer(t *testing.T) {
	t.Parallel()
	for _, s := range realServers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t)
			r := s.start(t, root)
			c, ctx := r.client(t), testContext(t)
			for i, n := range sizes {
				want := testContent(n, int64(i))
				name := fmt.Sprintf("file %d ü.bin", n)
				if s.readOnly {
					writeFile(t, filepath.Join(root, name), string(want))
				} else {
					sent, err := c.Put(ctx, name, bytes.NewReader(want), int64(n))
					if err != nil || sent != int64(n) {
						t.Fatalf("put of %d bytes: %d, %v", n, sent, err)
					}
					awaitFile(t, filepath.Join(root, name), want)
					sum := sha256.Sum256(want)
					os.Chmod(filepath.Join(root, name), 0o666)
					if err := c.Verify(ctx, name, int64(n), sum[:]); err != nil {
						t.Errorf("verify of %d bytes: %v", n, err)
					}
				}
				got, size, err := fetch(ctx, c, name)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("get of %d bytes: %d, %v", n, len(got), err)
				}
				if size != int64(n) && size != -1 {
					t.Errorf("get of %d bytes: announced %d", n, size)
				}
			}
			left, _ := filepath.Glob(filepath.Join(root, "*.part"))
			if len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// prompt is how long a cancelled transfer may take to end on a busy machine. Without
// being cancelled it would take several times as long.
const prompt = 10 * time.Second

// TestCancel: a cancelled context ends a transfer promptly wherever it stands.
func TestCancel(t *testing.T) {
	silentTCP, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silentTCP.Close()
	silentUDP := scriptTFTP(t, func(s *scripted) {})
	ftp := transfer.Server{Protocol: mib.ProtocolFtp, Host: "127.0.0.1", Port: silentTCP.Addr().(*net.TCPAddr).Port, Timeout: time.Minute}
	tftp := silentUDP.Server
	tftp.Timeout = time.Minute
	ftps := ftp
	ftps.Protocol = mib.ProtocolFtps
	for _, server := range []transfer.Server{ftp, ftps, tftp} {
		for _, op := range []string{"get", "put"} {
			t.Run(fmt.Sprint(server.Protocol, " ", op), func(t *testing.T) {
				c := (&running{Server: server}).client(t)
				ctx, cancel := context.WithCancel(t.Context())
				result := make(chan error, 1)
				go func() {
					if op == "get" {
						_, _, err := c.Get(ctx, "file", 0)
						result <- err
					} else {
						_, err := c.Put(ctx, "file", bytes.NewReader(file512), int64(len(file512)))
						result <- err
					}
				}()
				<-time.After(50 * time.Millisecond)
				cancel()
				wantPrompt(t, result)
			})
		}
	}
}

func wantPrompt(t *testing.T, result <-chan error) {
	t.Helper()
	select {
	case err := <-result:
		wantCause(t, err, mib.FailCauseAbortedByManager)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v does not wrap context.Canceled", err)
		}
	case <-time.After(prompt):
		t.Fatalf("still running %v after it was cancelled", prompt)
	}
}

// TestCancelReading: the same while data comes in from real servers, or stops
// coming.
func TestCancelReading(t *testing.T) {
	eachServer(t, func(t *testing.T, s realServer, r *running, root string) {
		writeFile(t, filepath.Join(root, "file"), string(make([]byte, 32<<20)))
		c := r.client(t)
		ctx, cancel := context.WithCancel(t.Context())
		in, _, err := c.Get(ctx, "file", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if _, err := io.CopyN(io.Discard, in, 1<<20); err != nil {
			t.Fatal(err)
		}
		result := make(chan error, 1)
		cancel()
		go func() {
			_, err := io.Copy(io.Discard, in)
			result <- err
		}()
		wantPrompt(t, result)
		in.Close()
		// The client works on.
		if err := os.WriteFile(filepath.Join(root, "small"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, _, err := fetch(testContext(t), c, "small"); err != nil || string(got) != "x" {
			t.Errorf("afterwards: %q, %v", got, err)
		}
	})
}

// TestCancelWriting: the same in the middle of an upload.
func TestCancelWriting(t *testing.T) {
	eachServer(t, func(t *testing.T, s realServer, r *running, root string) {
		if s.readOnly {
			t.Skip("takes no uploads")
		}
		c := r.client(t, func(_ *transfer.Server, o *transfer.Options) { o.RateLimit = 128 << 10 })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cancelled := make(chan struct{})
		source := &hook{Reader: bytes.NewReader(testContent(4<<20, 1)), after: 1 << 16, do: func() {
			cancel()
			close(cancelled)
		}}
		result := make(chan error, 1)
		go func() {
			_, err := c.Put(ctx, "file", stream{source}, 4<<20)
			result <- err
		}()
		<-cancelled
		wantPrompt(t, result)
		if err := put(t, c, "small", []byte("x")); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestPassing: a node that starts knows its streams a moment later, whichever part of the
// library asks for them.
func TestPassing(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{jetstream.ErrStreamNotFound, true},
		{nats.ErrStreamNotFound, true},
		{nats.ErrConsumerNotFound, true},
		{nats.ErrJetStreamNotEnabled, true},
		{&jetstream.APIError{Code: 503, Description: "no leader"}, true},
		{&jetstream.APIError{Code: 400, ErrorCode: jetstream.JSErrCodeStreamWrongLastSequenceConstant}, true}, // a write is in progress
		{&nats.APIError{Code: 503, Description: "no leader"}, true},
		{&nats.APIError{Code: 400, Description: "bad request"}, false},
		{&jetstream.APIError{Code: 400, ErrorCode: jetstream.JSErrCodeStreamWrongLastSequence}, false},
		{jetstream.ErrKeyNotFound, false},
		{context.Canceled, false},
	} {
		if got := passing(fmt.Errorf("bucket: %w", c.err)); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

// mute relays connections to a server. When armed, it loses the server's next answer, and the
// connection if closes.
func mute(t *testing.T, server string, closes bool) (address string, armed *atomic.Bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	armed = new(atomic.Bool)
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() { _, _ = io.Copy(there, client); _ = there.Close() }()
			go func() {
				defer client.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := there.Read(buf)
					lost := err == nil && armed.CompareAndSwap(true, false)
					if err != nil || lost && closes {
						return
					}
					if lost {
						continue
					}
					if _, err := client.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String(), armed
}

// connectMuted connects a worker to a node through mute.
func connectMuted(t *testing.T, node *Engine, secret string, closes bool) (_ *Engine, armed *atomic.Bool) {
	t.Helper()
	address, armed := mute(t, node.Address(), closes)
	w, err := Connect(t.Context(), Remote{URLs: []string{"nats://" + address}, Name: "writer", Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w, armed
}

// TestAnswerLost: a write whose answer is lost is repeated. Its own success is no conflict,
// also after the server has forgotten the message ID, as after a longer interruption.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	const secret = "0123456789abcdef"
	ctx := t.Context()
	e, err := Start(ctx, Config{Data: t.TempDir(), Listen: "127.0.0.1:0", Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	for _, forgotten := range []bool{false, true} {
		t.Run(fmt.Sprintf("forgotten %v", forgotten), func(t *testing.T) {
			config := bucketConfig(Runs, 1)
			if forgotten {
				config.Duplicates = 100 * time.Millisecond
			}
			if _, err := e.js.UpdateStream(ctx, config); err != nil {
				t.Fatal(err)
			}
			w, armed := connectMuted(t, e, secret, true)
			b, err := w.Bucket(ctx, Runs)
			if err != nil {
				t.Fatal(err)
			}
			key := Key("run", fmt.Sprint(forgotten))
			first, err := b.Create(ctx, key, []byte("a"))
			if err != nil {
				t.Fatal(err)
			}
			armed.Store(true)
			second, err := b.Update(ctx, key, []byte("b"), first)
			if err != nil {
				t.Fatalf("the write was done, but: %v", err)
			}
			if armed.Load() {
				t.Error("no answer was lost")
			}
			if got, err := b.Get(ctx, key); err != nil || string(got.Value) != "b" || got.Revision != second || second != first+1 {
				t.Errorf("%q, revision %d after %d, and %d was returned, %v", got.Value, got.Revision, first, second, err)
			}
			if _, err := b.Update(ctx, key, []byte("c"), second); err != nil {
				t.Error(err)
			}
			// The same for entries of a log that must follow one another.
			config = logConfig(Audit, 1)
			if forgotten {
				config.Duplicates = 100 * time.Millisecond
			}
			if _, err := e.js.UpdateStream(ctx, config); err != nil {
				t.Fatal(err)
			}
			log := w.Log(Audit)
			last, err := log.Append(ctx, "entry", []byte("a"))
			if err != nil {
				t.Fatal(err)
			}
			armed.Store(true)
			if n, err := log.AppendAfter(ctx, last, "entry", []byte("b")); err != nil || n != last+1 {
				t.Fatalf("entry %d after %d was written, but: %v", n, last, err)
			}
			if _, err := log.AppendAfter(ctx, last, "entry", []byte("c")); !errors.Is(err, ErrConflict) {
				t.Errorf("another entry in the same place: %v", err)
			}
		})
	}
}

// TestBlobAnswerLost: a blob is stored although the answer to one of its parts is lost.
func TestBlobAnswerLost(t *testing.T) {
	t.Parallel()
	const secret = "0123456789abcdef"
	ctx := t.Context()
	e, err := Start(ctx, Config{Data: t.TempDir(), Listen: "127.0.0.1:0", Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	w, armed := connectMuted(t, e, secret, false)
	s, err := w.Store(ctx, BackupFiles)
	if err != nil {
		t.Fatal(err)
	}
	tries := 0
	size, _, err := s.Put(ctx, "b", func() (io.ReadCloser, error) {
		if tries++; tries > 1 {
			return io.NopCloser(strings.NewReader("data")), nil
		}
		return io.NopCloser(readerFunc(func(p []byte) (int, error) {
			armed.Store(true) // everything before has been answered
			return copy(p, "data"), io.EOF
		})), nil
	})
	if err != nil || size != 4 || tries < 2 {
		t.Errorf("%d bytes after %d tries, %v", size, tries, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

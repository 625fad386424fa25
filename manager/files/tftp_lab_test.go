package files

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/transfer/tftp"
)

// memoryConn is one end of a line between a server's transfer and a client; the
// line is a function that says when copies of a datagram arrive.
type memoryConn struct {
	inbox chan []byte
	other *memoryConn
	line  func(b []byte) []time.Duration
	once  sync.Once
	gone  chan struct{}

	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{}
}

func memoryPair(toClient, toServer func(b []byte) []time.Duration) (server, client *memoryConn) {
	server = &memoryConn{inbox: make(chan []byte, 1<<12), line: toClient, gone: make(chan struct{}), changed: make(chan struct{})}
	client = &memoryConn{inbox: make(chan []byte, 1<<12), line: toServer, gone: make(chan struct{}), changed: make(chan struct{}), other: server}
	server.other = client
	return server, client
}

func (c *memoryConn) Write(b []byte) (int, error) {
	delays := []time.Duration{0}
	if c.line != nil {
		delays = c.line(b)
	}
	for _, d := range delays {
		copied := bytes.Clone(b)
		if d == 0 {
			c.other.inbox <- copied
			continue
		}
		time.AfterFunc(d, func() { c.other.inbox <- copied })
	}
	return len(b), nil
}

func (c *memoryConn) Read(b []byte) (int, error) {
	for {
		c.mu.Lock()
		wait, changed := time.Until(c.deadline), c.changed
		c.mu.Unlock()
		if wait <= 0 {
			return 0, os.ErrDeadlineExceeded
		}
		select {
		case p := <-c.inbox:
			return copy(b, p), nil
		case <-c.gone:
			return 0, net.ErrClosed
		case <-time.After(wait):
		case <-changed:
		}
	}
}

// SetReadDeadline is what the server bounds its waiting with.
func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

func (c *memoryConn) Close() error {
	c.once.Do(func() { close(c.gone) })
	return nil
}

func (c *memoryConn) LocalAddr() net.Addr              { return &net.UDPAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr             { return &net.UDPAddr{} }
func (c *memoryConn) SetDeadline(time.Time) error      { return nil }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }

// receive returns the next packet, ok false when none came in time.
func (c *memoryConn) receive(t *testing.T, patience time.Duration) (p tftp.Packet, ok bool) {
	t.Helper()
	select {
	case b := <-c.inbox:
		p, err := tftp.Parse(b)
		if err != nil {
			t.Fatalf("the server sent %x: %v", b, err)
		}
		return p, true
	case <-time.After(patience):
		return p, false
	}
}

// badLine loses, doubles and holds back datagrams.
func badLine(seed int64, delay time.Duration, loss, double, late float64) func([]byte) []time.Duration {
	random := rand.New(rand.NewSource(seed))
	var mu sync.Mutex
	var last time.Time
	return func([]byte) []time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if random.Float64() < loss {
			return nil
		}
		d := delay
		if random.Float64() < late {
			d += delay/4 + time.Millisecond
		} else { // in order: two timers of one instant run in any order
			last = later(time.Now().Add(delay), last.Add(1))
			d = time.Until(last)
		}
		if random.Float64() < double {
			return []time.Duration{d, d + time.Millisecond}
		}
		return []time.Duration{d}
	}
}

// tftpLab is a server whose one client is the test.
type tftpLab struct {
	*testing.T
	server *tftpServer
	store  *store
	client *memoryConn
	dir    string
	stop   context.CancelFunc
	log    *bytes.Buffer
}

// newTFTPLab makes the lab within a synctest bubble.
func newTFTPLab(t *testing.T, toClient, toServer func(b []byte) []time.Duration) *tftpLab {
	t.Helper()
	log := &bytes.Buffer{}
	s := &store{
		files: afero.NewMemMapFs(), maxUpload: 4 << 20, log: slog.New(slog.NewTextHandler(log, nil)),
		images: map[string]imageSource{}, grants: map[string]*grant{}, uploads: map[*upload]bool{}, used: map[string]int64{},
	}
	s.grants["x"] = &grant{anonymous: true, directory: "backup/A/1", final: map[string]bool{"f": true}}
	if err := s.files.MkdirAll("backup/A/1", 0o700); err != nil {
		t.Fatal(err)
	}
	l := &tftpLab{T: t, store: s, dir: "backup/A/1/", log: log}
	l.connect(toClient, toServer)
	return l
}

// connect gives the server a new life on a new line.
func (l *tftpLab) connect(toClient, toServer func(b []byte) []time.Duration) {
	if l.server != nil {
		l.stop()
		l.server.tasks.Wait()
	}
	ctx, stop := context.WithCancel(l.Context())
	server, client := memoryPair(toClient, toServer)
	l.stop, l.client, l.server = stop, client, newTFTPServer(ctx, l.store, nil)
	l.server.dialer = func(netip.Addr, netip.AddrPort) (tftp.Conn, error) { return server, nil }
	l.Cleanup(func() { stop(); l.server.tasks.Wait() })
}

func (l *tftpLab) request(op tftp.Op, name string, o tftp.Options) {
	l.requestFrom(op, name, o, netip.MustParseAddrPort("192.0.2.1:1000"))
}

func (l *tftpLab) requestFrom(op tftp.Op, name string, o tftp.Options, from netip.AddrPort) {
	raw := tftp.AppendRequest(nil, op, name, o)
	p, ok := parseTFTPRequest(raw)
	if !ok {
		l.Fatalf("request %q not understood", raw)
	}
	l.server.handle(p, string(raw), from, netip.Addr{})
}

// download is a plain client: it acknowledges windows, and what it has when nothing
// comes for a while. It returns the number of DATA packets it got as well.
func (l *tftpLab) download(name string, o tftp.Options) (data []byte, packets int) {
	l.Helper()
	l.request(tftp.OpReadRequest, name, o)
	block, window, next, acked := 512, int64(1), int64(1), int64(0)
	for silences := 0; ; {
		p, ok := l.client.receive(l.T, 700*time.Millisecond)
		switch {
		case !ok && silences > 20:
			l.Fatalf("the server is silent after %d bytes", len(data))
		case !ok:
			silences++
			if next > 1 || !o.None() {
				_, _ = l.client.Write(tftp.AppendAck(nil, uint16(next-1)))
				acked = next - 1
			}
			continue
		case p.Op == tftp.OpError:
			l.Fatalf("ERROR %d %s", p.Code, p.Message)
		case p.Op == tftp.OpOptionAck:
			if p.Options.BlockSize > 0 {
				block = p.Options.BlockSize
			}
			window = max(1, int64(p.Options.Window))
			if next == 1 {
				_, _ = l.client.Write(tftp.AppendAck(nil, 0))
			}
			continue
		}
		silences = 0
		packets++
		if n := tftp.Unwrap(next, p.Block); n != next {
			if n <= acked { // as plain clients do
				_, _ = l.client.Write(tftp.AppendAck(nil, uint16(next-1)))
			}
			continue
		}
		data = append(data, p.Data...)
		next++
		if final := len(p.Data) < block; final || next > acked+window {
			_, _ = l.client.Write(tftp.AppendAck(nil, uint16(next-1)))
			if acked = next - 1; final {
				return data, packets
			}
		}
	}
}

// upload is a plain client: it sends windows and goes back where the server says.
func (l *tftpLab) upload(name string, data []byte, o tftp.Options) (last tftp.Packet) {
	l.Helper()
	l.request(tftp.OpWriteRequest, name, o)
	block, window, acked := 512, int64(1), int64(-1)
	final := int64(-1)
	for silences := 0; final < 0 || acked < final; {
		p, ok := l.client.receive(l.T, 900*time.Millisecond)
		n := int64(-1)
		switch {
		case !ok && silences > 20:
			l.Fatalf("the server is silent at block %d", acked)
		case !ok:
			silences++
			if n = acked; n < 0 {
				l.request(tftp.OpWriteRequest, name, o)
				continue
			}
		case p.Op == tftp.OpError:
			return p
		case p.Op == tftp.OpOptionAck:
			if p.Options.BlockSize > 0 {
				block = p.Options.BlockSize
			}
			window = max(1, int64(p.Options.Window))
			n = 0
		case p.Op == tftp.OpAck:
			n = tftp.Unwrap(max(acked, 0), p.Block)
		}
		if ok && n <= acked {
			continue
		}
		if ok {
			silences = 0
		}
		acked, final, last = n, int64(len(data)/block+1), p
		for k := acked + 1; k <= min(acked+window, final); k++ {
			from := int(k-1) * block
			_, _ = l.client.Write(append(tftp.AppendDataHeader(nil, uint16(k)), data[from:min(from+block, len(data))]...))
		}
	}
	return last
}

func contents(n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(b)
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

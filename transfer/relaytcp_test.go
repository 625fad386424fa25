package transfer_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"example.com/iad/mib"
)

// tcpRelay relays FTP to a server: control connections, and the data connections
// that they announce. The way there and back takes a while.
type tcpRelay struct {
	delay time.Duration
	// cut breaks the data connection on which so many bytes have passed, counted
	// over all of them and once; 0 for never.
	mu     sync.Mutex
	cut    int64
	open   []io.Closer
	closed bool
	all    sync.WaitGroup
}

func relayTCP(t testing.TB, port int, delay time.Duration, cut int64) (newPort int) {
	t.Helper()
	r := &tcpRelay{delay: delay, cut: cut}
	t.Cleanup(func() {
		r.mu.Lock()
		for _, c := range r.open {
			c.Close()
		}
		r.open = nil
		r.closed = true
		r.mu.Unlock()
		r.all.Wait()
	})
	return r.listen(port, true)
}

func (r *tcpRelay) keep(c io.Closer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		c.Close()
	}
	r.open = append(r.open, c)
}

func (r *tcpRelay) listen(port int, control bool) (newPort int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0
	}
	r.keep(l)
	r.all.Add(1)
	go func() {
		defer r.all.Done()
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			r.keep(client)
			server, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
			if err != nil {
				client.Close()
				continue
			}
			r.keep(server)
			r.all.Add(2)
			if control {
				go r.replies(client, server)
			} else {
				go r.pipe(client, server, server, true)
			}
			go r.pipe(server, client, server, !control)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

// pipe passes bytes on after the delay. server is one of the two.
func (r *tcpRelay) pipe(to, from, server net.Conn, data bool) {
	defer r.all.Done()
	later := newDelayLine()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		b := bytes.Clone(buf[:n])
		broken := data && r.count(n)
		later.add(r.delay, func() {
			_, _ = to.Write(b)
			if broken { // without a proper end, or the server takes it for the file's
				_ = server.(*net.TCPConn).SetLinger(0)
				server.Close()
			}
		})
		if err != nil || broken {
			break
		}
	}
	done := make(chan struct{})
	later.add(r.delay, func() {
		if t, ok := to.(*net.TCPConn); ok {
			_ = t.CloseWrite()
		}
		close(done)
	})
	<-done
	later.close()
}

// count reports whether the line is to be cut now.
func (r *tcpRelay) count(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut == 0 {
		return false
	}
	if r.cut -= int64(n); r.cut > 0 {
		return false
	}
	r.cut = 0
	return true
}

var extendedPassive = regexp.MustCompile(`^229 .*\|\|\|(\d+)\|`)

// replies passes the server's replies on and opens relays for the ports that
// they announce.
func (r *tcpRelay) replies(client, server net.Conn) {
	defer r.all.Done()
	later := newDelayLine()
	defer later.close()
	in := bufio.NewReader(server)
	for {
		line, err := in.ReadString('\n')
		if m := extendedPassive.FindStringSubmatch(line); m != nil {
			var port int
			fmt.Sscan(m[1], &port)
			line = fmt.Sprintf("229 go (|||%d|)\r\n", r.listen(port, false))
		}
		later.add(r.delay, func() { _, _ = io.WriteString(client, line) })
		if err != nil {
			client.Close()
			return
		}
	}
}

func TestBadLineFTP(t *testing.T) {
	t.Parallel()
	const size = 256 << 10
	for _, s := range realServers {
		if s.protocol != mib.ProtocolFtp {
			continue
		}
		for _, x := range []struct {
			delay time.Duration
			cut   int64
		}{{10 * time.Millisecond, 0}, {100 * time.Millisecond, 0}, {time.Millisecond, 100_000}} {
			t.Run(fmt.Sprintf("%s/rtt %v cut %d", s.name, 2*x.delay, x.cut), func(t *testing.T) {
				t.Parallel()
				root := newRoot(t)
				r := s.start(t, root)
				r.Port = relayTCP(t, r.Port, x.delay, x.cut)
				c := r.client(t)
				want := testContent(size, 7)
				begin := time.Now()
				if err := put(t, c, "file", want); err != nil { // goes on by itself where it was cut
					t.Fatal(err)
				}
				up := time.Since(begin)
				awaitFile(t, filepath.Join(root, "file"), want)
				begin = time.Now()
				got, _, err := fetch(testContext(t), c, "file")
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("got %d bytes: %v", len(got), err)
				}
				t.Logf("up %v, down %v", up.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
			})
		}
	}
}

// TestResumeAfterCut: what a reader got before the line broke need not be
// fetched again.
func TestResumeAfterCut(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"vsftpd", "proftpd", "pure-ftpd"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t)
			r := serverNamed(t, name).start(t, root)
			want := testContent(1<<20, 3)
			writeFile(t, filepath.Join(root, "file"), string(want))
			r.Port = relayTCP(t, r.Port, 0, 300_000)
			c := r.client(t)
			first, _, err := fetch(testContext(t), c, "file")
			wantCause(t, err, mib.FailCauseConnectionLost, mib.FailCauseSizeMismatch)
			if len(first) == 0 || len(first) >= len(want) {
				t.Fatalf("%d bytes before the cut", len(first))
			}
			in, _, err := c.Get(testContext(t), "file", int64(len(first)))
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			rest, err := io.ReadAll(in)
			if err != nil || !bytes.Equal(append(first, rest...), want) {
				t.Errorf("%d and %d bytes: %v", len(first), len(rest), err)
			}
		})
	}
}

package transfer_test

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"example.com/iad/internal/peers"
	"example.com/iad/mib"
	"example.com/iad/transfer"
	"example.com/iad/transfer/tftp"
)

// scripted is the server's side of one transfer, played by a test.
type scripted struct {
	t       testing.TB
	main    *net.UDPConn // where requests arrive
	conn    *net.UDPConn // with the transfer ID
	client  netip.AddrPort
	request tftp.Packet
	buf     []byte
}

// scriptTFTP starts a server that plays script once for each request, one after
// the other.
func scriptTFTP(t testing.TB, script func(s *scripted)) *running {
	t.Helper()
	main, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		main.Close()
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := main.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			p, err := tftp.Parse(buf[:n])
			if err != nil {
				t.Errorf("request: %v", err)
				continue
			}
			conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Error(err)
				return
			}
			script(&scripted{t: t, main: main, conn: conn, client: from, request: p, buf: make([]byte, 1<<16)})
			conn.Close()
		}
	}()
	r := &running{log: &peers.Output{}}
	r.Server = transfer.Server{Protocol: mib.ProtocolTftp, Host: "127.0.0.1", Port: main.LocalAddr().(*net.UDPAddr).Port, Timeout: 5 * time.Second}
	return r
}

// patient is how long a played server waits for a packet that must come, on a
// machine that does much else.
const patient = 5 * time.Second

func (s *scripted) send(b []byte) { _, _ = s.conn.WriteToUDPAddrPort(b, s.client) }

func (s *scripted) data(n int, payload []byte) {
	s.send(append(tftp.AppendDataHeader(nil, uint16(n)), payload...))
}

func (s *scripted) ack(n int) { s.send(tftp.AppendAck(nil, uint16(n))) }

func (s *scripted) accept(o tftp.Options) { s.send(tftp.AppendOptionAck(nil, o)) }

func (s *scripted) fail(code tftp.ErrorCode, text string) {
	s.send(tftp.AppendError(nil, code, text))
}

// next returns the client's next packet; ok is false if none comes in time.
func (s *scripted) next(limit time.Duration) (p tftp.Packet, ok bool) {
	_ = s.conn.SetReadDeadline(time.Now().Add(limit))
	n, _, err := s.conn.ReadFromUDPAddrPort(s.buf)
	if err != nil {
		return p, false
	}
	p, err = tftp.Parse(s.buf[:n])
	if err != nil {
		s.t.Errorf("from the client: %v", err)
	}
	return p, true
}

// wantAck waits for an acknowledgement; older ones are passed over.
func (s *scripted) wantAck(n int) {
	for {
		p, ok := s.next(patient)
		if !ok || p.Op != tftp.OpAck || p.Block > uint16(n) {
			s.t.Errorf("want ACK %d, got %v %v", n, p, ok)
			return
		}
		if p.Block == uint16(n) {
			return
		}
	}
}

func block(n, size int) []byte { return bytes.Repeat([]byte{byte(n)}, size) }

// file512 is two full blocks and a short one.
var file512 = bytes.Join([][]byte{block(1, 512), block(2, 512), block(3, 100)}, nil)

func wantFile(t *testing.T, c *transfer.Client, want []byte) {
	t.Helper()
	got, _, err := fetch(testContext(t), c, "file")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes of %d, or others: %v", len(got), len(want), err)
	}
}

func TestTFTPServerWithoutOptions(t *testing.T) {
	r := scriptTFTP(t, func(s *scripted) {
		for n := 1; n <= 3; n++ {
			s.data(n, file512[(n-1)*512:min(n*512, len(file512))])
			s.wantAck(n)
		}
	})
	wantFile(t, r.client(t), file512)
}

// TestTFTPSorcerersApprentice: each block comes many times, in lockstep. If each
// were acknowledged, a server that answers acknowledgements would double its
// blocks for ever.
func TestTFTPSorcerersApprentice(t *testing.T) {
	const blocks, copies = 50, 4
	acks := make(chan int, 1)
	r := scriptTFTP(t, func(s *scripted) {
		count := 0
		for n := 1; n <= blocks; n++ {
			size := 512
			if n == blocks {
				size = 1
			}
			for range copies {
				s.data(n, block(n, size))
			}
			for {
				p, ok := s.next(patient)
				if count++; !ok || p.Block == uint16(n) {
					break
				}
			}
		}
		for {
			if _, ok := s.next(50 * time.Millisecond); !ok {
				break
			}
			count++
		}
		acks <- count
	})
	c := r.client(t)
	got, _, err := fetch(testContext(t), c, "file")
	if err != nil || len(got) != 512*(blocks-1)+1 {
		t.Fatalf("got %d bytes: %v", len(got), err)
	}
	if n := <-acks; n > blocks*3/2 {
		t.Errorf("%d acknowledgements of %d blocks", n, blocks)
	}
}

func TestTFTPLostLastAck(t *testing.T) {
	again := make(chan bool, 1)
	r := scriptTFTP(t, func(s *scripted) {
		s.data(1, []byte("short"))
		s.wantAck(1)                // lost on the way
		<-time.After(serverRepeats) // the server's time-out
		s.data(1, []byte("short"))  // it repeats
		p, ok := s.next(patient)
		again <- ok && p.Op == tftp.OpAck && p.Block == 1
	})
	wantFile(t, r.client(t), []byte("short"))
	if !<-again {
		t.Error("the repeated last block was not acknowledged")
	}
}

// serverRepeats is how long a played server waits before it repeats itself.
const serverRepeats = 100 * time.Millisecond

// TestTFTPStrangers: packets from others come in the middle of a transfer, also among the
// blocks of a window.
func TestTFTPStrangers(t *testing.T) {
	t.Run("lockstep", func(t *testing.T) { testStrangers(t, 1) })
	t.Run("window", func(t *testing.T) { testStrangers(t, 2) })
}

func testStrangers(t *testing.T, window int) {
	rejected := make(chan bool, 1)
	r := scriptTFTP(t, func(s *scripted) {
		if window > 1 {
			s.accept(tftp.Options{Window: window})
			s.wantAck(0)
		}
		s.data(1, file512[:512])
		if window == 1 {
			s.wantAck(1)
		}
		stranger, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Error(err)
			return
		}
		defer stranger.Close()
		elsewhere, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)})
		if err != nil {
			t.Error(err)
			return
		}
		defer elsewhere.Close()
		for _, from := range []*net.UDPConn{elsewhere, stranger} {
			_, _ = from.WriteToUDPAddrPort(append(tftp.AppendDataHeader(nil, 2), "evil"...), s.client)
			_, _ = from.WriteToUDPAddrPort(tftp.AppendError(nil, tftp.ErrDiskFull, "evil"), s.client)
		}
		_ = stranger.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, _, err := stranger.ReadFromUDPAddrPort(s.buf)
		p, _ := tftp.Parse(s.buf[:max(n, 0)])
		rejected <- err == nil && p.Op == tftp.OpError && p.Code == tftp.ErrUnknownID
		s.data(2, file512[512:1024])
		s.wantAck(2)
		s.data(3, file512[1024:])
		s.wantAck(3)
	})
	wantFile(t, r.client(t), file512)
	if !<-rejected {
		t.Error("the stranger got no error for its transfer ID")
	}
}

func TestTFTPWindowReordered(t *testing.T) {
	r := scriptTFTP(t, func(s *scripted) {
		s.accept(tftp.Options{Window: 4})
		s.wantAck(0)
		for _, n := range []int{2, 1, 4, 3} {
			s.data(n, block(n, 512))
		}
		s.wantAck(4)
		s.data(6, block(6, 10))
		s.data(5, block(5, 512))
		s.wantAck(6)
	})
	want := bytes.Join([][]byte{block(1, 512), block(2, 512), block(3, 512), block(4, 512), block(5, 512), block(6, 10)}, nil)
	wantFile(t, r.client(t), want)
}

func TestTFTPWindowGap(t *testing.T) {
	r := scriptTFTP(t, func(s *scripted) {
		s.accept(tftp.Options{Window: 4})
		s.wantAck(0)
		for _, n := range []int{1, 2, 4} {
			s.data(n, block(n, 512))
		}
		s.wantAck(2) // the last one in order: go on with 3
		s.data(3, block(3, 512))
		// Block 4 was kept, so the window after 2 goes on with 5.
		s.data(5, block(5, 512))
		s.data(6, block(6, 0))
		s.wantAck(6)
	})
	want := bytes.Join([][]byte{block(1, 512), block(2, 512), block(3, 512), block(4, 512), block(5, 512)}, nil)
	wantFile(t, r.client(t), want)
}

func TestTFTPOptionsRefused(t *testing.T) {
	for _, code := range []tftp.ErrorCode{tftp.ErrOptions, tftp.ErrIllegal} {
		r := scriptTFTP(t, func(s *scripted) {
			if !s.request.Options.None() {
				s.fail(code, "what is this?")
				return
			}
			s.data(1, []byte("plain"))
			s.wantAck(1)
		})
		wantFile(t, r.client(t), []byte("plain"))
	}
}

// TestTFTPBadOptionAck: options that were not asked for, out of range, endless
// or broken end that attempt; the next one has no options.
func TestTFTPBadOptionAck(t *testing.T) {
	t.Parallel()
	endless := append([]byte{0, 6}, bytes.Repeat([]byte("x\x00y\x00"), 5000)...)
	for name, oack := range map[string][]byte{
		"larger block":  tftp.AppendOptionAck(nil, tftp.Options{BlockSize: 65464}),
		"larger window": tftp.AppendOptionAck(nil, tftp.Options{Window: 65535}),
		"block of 0":    []byte("\x00\x06blksize\x000\x00"),
		"negative size": []byte("\x00\x06tsize\x00-1\x00"),
		"no value":      []byte("\x00\x06blksize\x00"),
		"endless":       endless,
	} {
		t.Run(name, func(t *testing.T) {
			refused := make(chan bool, 1)
			r := scriptTFTP(t, func(s *scripted) {
				if !s.request.Options.None() {
					s.send(oack)
					p, ok := s.next(patient)
					refused <- ok && p.Op == tftp.OpError && p.Code == tftp.ErrOptions
					return
				}
				s.data(1, []byte("plain"))
				s.wantAck(1)
			})
			wantFile(t, r.client(t), []byte("plain"))
			if !<-refused {
				t.Error("the acknowledgement was not refused with code 8")
			}
		})
	}
}

// TestTFTPStubbornOptions: a server that accepts what nobody asked for, whatever it is
// asked, does not speak the protocol.
func TestTFTPStubbornOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []tftp.Options{{BlockSize: 65464}, {Window: 65535}} {
		r := scriptTFTP(t, func(s *scripted) {
			s.accept(o)
			s.next(patient)
		})
		// A request that was repeated is served first, to nobody, for as long as patient says.
		r.Timeout = 4 * patient
		_, _, err := fetch(testContext(t), r.client(t), "file")
		wantCause(t, err, mib.FailCauseProtocolError)
		_, err = r.client(t).Put(testContext(t), "file", bytes.NewReader([]byte("x")), 1)
		wantCause(t, err, mib.FailCauseProtocolError)
	}
}

// TestTFTPErrorAnywhere: an ERROR ends the transfer wherever it comes, with its
// words, made printable.
func TestTFTPErrorAnywhere(t *testing.T) {
	fail := func(s *scripted) { s.fail(tftp.ErrNotDefined, "No space left\r\n on\x1b[31m device") }
	for name, script := range map[string]func(*scripted){
		"request":  fail,
		"options":  func(s *scripted) { s.accept(tftp.Options{Window: 2}); s.next(patient); fail(s) },
		"transfer": func(s *scripted) { s.data(1, block(1, 512)); s.next(patient); fail(s) },
	} {
		t.Run("get/"+name, func(t *testing.T) {
			_, _, err := fetch(testContext(t), scriptTFTP(t, script).client(t), "file")
			wantCause(t, err, mib.FailCauseRemoteStorageFull)
			if want := "TFTP error 0: No space left   on?[31m device"; err != nil && !bytes.Contains([]byte(err.Error()), []byte(want)) {
				t.Errorf("%q does not hold %q", err, want)
			}
		})
	}
	for name, script := range map[string]func(*scripted){
		"request":  fail,
		"options":  func(s *scripted) { s.accept(tftp.Options{Window: 2}); s.next(patient); fail(s) },
		"transfer": func(s *scripted) { s.ack(0); s.next(patient); s.ack(1); s.next(patient); fail(s) },
	} {
		t.Run("put/"+name, func(t *testing.T) {
			wantCause(t, put(t, scriptTFTP(t, script).client(t), "file", file512), mib.FailCauseRemoteStorageFull)
		})
	}
}

func TestTFTPWrongSize(t *testing.T) {
	for _, size := range []int64{100, 1124, 1 << 40} {
		r := scriptTFTP(t, func(s *scripted) {
			s.accept(tftp.Options{HasSize: true, Size: size})
			s.wantAck(0)
			for n := 1; n <= 2; n++ {
				s.data(n, block(n, 512))
				s.next(patient)
			}
			s.data(3, nil)
			s.next(patient)
		})
		_, _, err := fetch(testContext(t), r.client(t), "file")
		wantCause(t, err, mib.FailCauseSizeMismatch)
	}
}

func TestTFTPMaxSize(t *testing.T) {
	limit := func(_ *transfer.Server, o *transfer.Options) { o.MaxSize = 1000 }
	announced := scriptTFTP(t, func(s *scripted) {
		s.accept(tftp.Options{HasSize: true, Size: 1001})
		s.wantAck(0)
		s.data(1, block(1, 512))
	})
	_, _, err := fetch(testContext(t), announced.client(t, limit), "file")
	wantCause(t, err, mib.FailCauseFileTooLarge)
	silent := scriptTFTP(t, func(s *scripted) { // endless
		for n := 1; ; n++ {
			s.data(n, block(n, 512))
			if p, ok := s.next(patient); !ok || p.Op == tftp.OpError {
				return
			}
		}
	})
	got, _, err := fetch(testContext(t), silent.client(t, limit), "file")
	wantCause(t, err, mib.FailCauseFileTooLarge)
	if len(got) > 2000 {
		t.Errorf("%d bytes were handed out", len(got))
	}
}

// TestTFTPRollover: block numbers pass 65535; with blocks of 8 bytes that takes
// half a megabyte.
func TestTFTPRollover(t *testing.T) {
	t.Parallel()
	const size = 8*65536*2 + 13
	for _, name := range []string{"atftpd", "tftpd-hpa"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t)
			r := serverNamed(t, name).start(t, root)
			c := r.client(t, func(_ *transfer.Server, o *transfer.Options) { o.BlockSize = 8 })
			want := testContent(size, 3)
			if err := put(t, c, "file", want); err != nil {
				t.Fatal(err)
			}
			awaitFile(t, filepath.Join(root, "file"), want)
			open(t, filepath.Join(root, "file"))
			wantFile(t, c, want)
		})
	}
}

// TestTFTPSlowReader: the reader pauses for longer than the server's patience
// with a silent client; no transfer breaks over that.
func TestTFTPSlowReader(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for a server's time-outs")
	}
	for _, name := range []string{"atftpd", "tftpd-hpa", "dnsmasq"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t)
			r := serverNamed(t, name).start(t, root)
			want := testContent(2<<20, 1)
			writeFile(t, filepath.Join(root, "file"), string(want))
			in, _, err := r.client(t).Get(testContext(t), "file", 0)
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			first := make([]byte, 1000)
			if _, err := io.ReadFull(in, first); err != nil {
				t.Fatal(err)
			}
			<-time.After(8 * time.Second)
			rest, err := io.ReadAll(in)
			if err != nil || !bytes.Equal(append(first, rest...), want) {
				t.Errorf("%d bytes, %v", len(rest), err)
			}
		})
	}
}

func TestTFTPIPv6(t *testing.T) {
	main, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	defer main.Close()
	go func() {
		buf := make([]byte, 600)
		_, from, err := main.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		_, _ = main.WriteToUDPAddrPort(append(tftp.AppendDataHeader(nil, 1), "six"...), from)
	}()
	r := &running{Server: transfer.Server{Protocol: mib.ProtocolTftp, Host: "::1", Port: main.LocalAddr().(*net.UDPAddr).Port}}
	wantFile(t, r.client(t), []byte("six"))
}

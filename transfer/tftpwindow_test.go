package transfer_test

import (
	"bytes"
	"cmp"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"example.com/iad/transfer"
	"example.com/iad/transfer/tftp"
)

// serveOver plays a server that sends content in windows, a block in each pause, of which pass
// says which get through, and reports the window of each request.
func serveOver(t *testing.T, content []byte, pause time.Duration, pass func(acked, n int) bool) (*running, chan int) {
	windows := make(chan int, 100)
	return scriptTFTP(t, func(s *scripted) {
		block, window := s.request.Options.Terms()
		windows <- int(window)
		last := len(content)/int(block) + 1
		s.accept(tftp.Options{BlockSize: int(block), Window: int(window)})
		acked, p, ok := -1, tftp.Packet{}, false
		for acked < last {
			if !ok {
				p, ok = s.next(patient)
			}
			if !ok || p.Op != tftp.OpAck {
				return // the client asks again
			}
			n := int(tftp.Unwrap(int64(acked), p.Block))
			if ok = false; n < acked {
				continue
			}
			acked = n
			for n := acked + 1; n <= min(acked+int(window), last) && !ok; n++ {
				if pass(acked, n) {
					s.data(n, content[(n-1)*int(block):min(n*int(block), len(content))])
				}
				if pause > 0 {
					p, ok = s.next(pause)
				}
			}
		}
	}), windows
}

func requests(windows chan int) (list []int) {
	for {
		select {
		case w := <-windows:
			list = append(list, w)
		default:
			return list
		}
	}
}

// loseOnce loses a block the first time.
func loseOnce(block int) func() func(acked, n int) bool {
	return func() func(int, int) bool {
		lost := false
		return func(_, n int) bool {
			lose := n == block && !lost
			lost = lost || lose
			return !lose
		}
	}
}

// TestTFTPWindow: a window is narrowed where a queue on the way is shorter, not because of
// single losses, and the next file begins with what suited this one.
func TestTFTPWindow(t *testing.T) {
	content := testContent(200_000, 1)
	for name, c := range map[string]struct {
		pass  func() func(acked, n int) bool
		want  []int
		pause time.Duration
	}{
		"all":                           {func() func(int, int) bool { return func(int, int) bool { return true } }, []int{128, 128}, 0},
		"one lost":                      {loseOnce(5), []int{128, 128}, 0},
		"last one lost":                 {loseOnce(128), []int{128, 128}, 0},
		"one lost, the rest on its way": {loseOnce(5), []int{128, 128}, time.Millisecond},
		"short queue":                   {func() func(int, int) bool { return func(acked, n int) bool { return n-acked <= 50 } }, []int{128, 64, 32, 32}, 0},
		"queue with gaps":               {func() func(int, int) bool { return func(acked, n int) bool { return n-acked <= 50 || n%4 == 0 } }, []int{128, 64, 32, 32}, 0},
		"very short queue":              {func() func(int, int) bool { return func(acked, n int) bool { return n-acked <= 12 } }, []int{128, 64, 32, 16, 16}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []int
			for range 5 { // a machine that is busy for a moment looks like a loss
				r, windows := serveOver(t, content, c.pause, c.pass())
				client := r.client(t)
				wantFile(t, client, content)
				wantFile(t, client, content)
				if got = requests(windows); slices.Equal(got, c.want) {
					return
				}
			}
			t.Errorf("windows of %v blocks, want %v", got, c.want)
		})
	}
}

// TestTFTPWindowOfSlowLine: a window that the server would repeat while it is on its way is
// narrowed. A limit of the rate has the same effect from the start.
func TestTFTPWindowOfSlowLine(t *testing.T) {
	t.Parallel()
	content := testContent(120_000, 1)
	all := func(int, int) bool { return true }
	r, windows := serveOver(t, content, 10*time.Millisecond, all)
	client := r.client(t)
	wantFile(t, client, content)
	if got := requests(windows); len(got) < 2 || got[len(got)-1] >= got[0]/2 {
		t.Errorf("windows of %v blocks on a line of 100 blocks a second", got)
	}

	r, windows = serveOver(t, content, 0, all)
	client = r.client(t, func(_ *transfer.Server, o *transfer.Options) { o.RateLimit = 100_000 })
	wantFile(t, client, content)
	if got := requests(windows); len(got) != 1 || got[0] != 35 {
		t.Errorf("windows of %v blocks with a limit of 100,000 bytes a second", got)
	}
}

// TestTFTPDatagrams: servers send no more datagrams than the file has blocks. There is room for a
// machine that is busy, which looks like a loss.
func TestTFTPDatagrams(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ size, block int }{
		"atftpd":    {2 << 20, 1428},
		"tftpd-hpa": {200 << 10, 8192},
		"dnsmasq":   {50 << 10, 1428},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t)
			s := serverNamed(t, name)
			r := s.start(t, root)
			var data atomic.Int64
			server := netip.AddrPortFrom(netip.MustParseAddr(r.Host), uint16(cmp.Or(r.Port, 69)))
			r.Port = relayUDP(t, server, line{delay: 5 * time.Millisecond, passed: func(b []byte) {
				if p, err := tftp.Parse(b); err == nil && p.Op == tftp.OpData {
					data.Add(1)
				}
			}})
			r.Host = "127.0.0.1" // the relay's
			content := testContent(c.size, 1)
			writeFile(t, filepath.Join(root, "down"), string(content))
			client := r.client(t, func(_ *transfer.Server, o *transfer.Options) { o.BlockSize = c.block })
			got, _, err := fetch(testContext(t), client, "down")
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("got %d bytes: %v", len(got), err)
			}
			blocks := int64(c.size/c.block + 1)
			t.Logf("%d datagrams for %d blocks", data.Load(), blocks)
			if n := data.Load(); n > blocks*3/2 {
				t.Errorf("%d datagrams for %d blocks", n, blocks)
			}
		})
	}
}

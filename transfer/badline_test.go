package transfer_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"example.com/iad/transfer"
	"example.com/iad/transfer/tftp"
)

// relayed starts a TFTP server behind a bad line.
func relayed(t testing.TB, s realServer, root string, l line) *running {
	r := s.start(t, root)
	r.Port = relayUDP(t, netip.AddrPortFrom(netip.MustParseAddr(r.Host), uint16(r.Port)), l)
	return r
}

func serverNamed(t testing.TB, name string) realServer {
	t.Helper()
	for _, s := range realServers {
		if s.name == name {
			return s
		}
	}
	t.Fatalf("no server %s", name)
	return realServer{}
}

// TestBadLineTFTP moves files over lines that delay, lose, reorder and
// duplicate, with windows (atftpd) and in lockstep (tftpd-hpa).
func TestBadLineTFTP(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	for _, l := range []line{
		{delay: 10 * time.Millisecond},
		{delay: 10 * time.Millisecond, loss: 0.01},
		{delay: 10 * time.Millisecond, loss: 0.05, reorder: 0.02, duplicate: 0.02},
		{delay: 100 * time.Millisecond, loss: 0.01},
		{delay: 100 * time.Millisecond, loss: 0.05, reorder: 0.02, duplicate: 0.02},
		{reorder: 0.2, duplicate: 0.2},
		{delay: 10 * time.Millisecond, mtu: 1280},
	} {
		for _, name := range []string{"atftpd", "tftpd-hpa"} {
			s := serverNamed(t, name)
			l.seed = 1
			t.Run(fmt.Sprintf("%s/rtt %v loss %v reorder %v mtu %d", name, 2*l.delay, l.loss, l.reorder, l.mtu), func(t *testing.T) {
				t.Parallel()
				root := newRoot(t)
				r := relayed(t, s, root, l)
				c := r.client(t, func(s *transfer.Server, o *transfer.Options) {
					s.Timeout = 5 * time.Second
					if name == "tftpd-hpa" && l.mtu == 0 {
						o.BlockSize = 8192 // lockstep: a round trip for each block
					}
				})
				ctx, size := testContext(t), 256<<10
				if name == "tftpd-hpa" && l.mtu > 0 {
					size /= 4 // small blocks in lockstep
				}
				want := testContent(size, 7)
				begin := time.Now()
				_, err := c.Put(ctx, "up", bytes.NewReader(want), int64(size))
				if errors.Is(err, tftp.ErrUnconfirmed) {
					// A server that ends with its last acknowledgement cannot repeat it
					// when it is lost: a new attempt is the only remedy.
					awaitFile(t, filepath.Join(root, "up"), want)
					_, err = c.Put(ctx, "up", bytes.NewReader(want), int64(size))
				}
				if err != nil {
					t.Fatal(err)
				}
				up := time.Since(begin)
				awaitFile(t, filepath.Join(root, "up"), want)
				writeFile(t, filepath.Join(root, "down"), string(want))
				begin = time.Now()
				got, _, err := fetch(ctx, c, "down")
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("got %d bytes: %v", len(got), err)
				}
				t.Logf("up %v, down %v", up.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
			})
		}
	}
}

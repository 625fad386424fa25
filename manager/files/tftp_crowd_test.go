package files

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/transfer/tftp"
)

// A server without room ends nothing that runs and says nothing to who asks: a device
// repeats its request, while an error makes it give up.
func TestTFTPFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newTFTPLab(t, nil, nil)
		if err := afero.WriteFile(l.store.files, l.dir+"f", contents(600), 0o600); err != nil {
			t.Fatal(err)
		}
		clients := make(map[netip.AddrPort]*memoryConn)
		l.server.dialer = func(_ netip.Addr, client netip.AddrPort) (tftp.Conn, error) {
			server, c := memoryPair(nil, nil)
			clients[client] = c
			return server, nil
		}
		ask := func(host string, port int) *memoryConn {
			from := netip.AddrPortFrom(netip.MustParseAddr(host), uint16(port))
			delete(clients, from)
			l.requestFrom(tftp.OpReadRequest, l.dir+"f", tftp.Options{BlockSize: 512}, from)
			synctest.Wait()
			return clients[from]
		}
		ack := func(c *memoryConn, block int) {
			_, _ = c.Write(tftp.AppendAck(nil, uint16(block)))
			synctest.Wait()
		}
		// The addresses of one IPv6 network are one host.
		v6 := func(i int) string { return fmt.Sprintf("2001:db8::%x", i+1) }
		var all []*memoryConn
		for i := range maxTFTPPerHost {
			c := ask(v6(i), 1000)
			if c == nil {
				t.Fatalf("transfer %d is not served", i)
			}
			if i > 0 {
				ack(c, 0)
			}
			all = append(all, c)
		}
		if ask(v6(maxTFTPPerHost), 1000) != nil {
			t.Error("one network has more transfers than one host may have")
		}
		time.Sleep(tftpUnheard) // in the bubble: nobody waits
		for _, c := range all[1:] {
			ack(c, 0)
		}
		late := ask(v6(maxTFTPPerHost), 1000) // repeated: now the one that never answered makes room
		if late == nil {
			t.Fatal("a request that never was answered keeps its place")
		}
		ack(late, 0)
		if ask(v6(maxTFTPPerHost), 1001) != nil {
			t.Error("a running transfer was ended for a new one")
		}
		for i, c := range append(all, late) {
			for len(c.inbox) > 0 {
				if p, _ := c.receive(t, 0); p.Op == tftp.OpError {
					t.Errorf("transfer %d was ended: %d %s", i, p.Code, p.Message)
				}
			}
		}
		for block := 1; block <= 2; block++ {
			ack(late, block)
		}
		if ask(v6(maxTFTPPerHost), 1001) == nil {
			t.Error("the place of a transfer that ended is not given to the next")
		}
	})
}

// Devices are commanded when the servers have room for them, in the order in which they
// came, and one host's waiting delays no other.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newSlots()
		served := make(chan int, 1000)
		var release []func()
		waiting := 0
		var mu sync.Mutex
		take := func(ctx context.Context, host string, name int) {
			go func() {
				r, err := p.take(ctx, host, func() {
					mu.Lock()
					defer mu.Unlock()
					waiting++
				})
				if err == nil {
					mu.Lock()
					release = append(release, r)
					mu.Unlock()
					served <- name
				}
			}()
			synctest.Wait()
		}
		released := func(i int) func() {
			mu.Lock()
			defer mu.Unlock()
			return release[i]
		}
		waits := func() int {
			mu.Lock()
			defer mu.Unlock()
			return waiting
		}
		gone, leave := context.WithCancel(t.Context())
		for i := range maxSlotsPerHost {
			take(t.Context(), "a", i)
		}
		take(gone, "a", 1000)
		take(t.Context(), "a", 1001)
		take(t.Context(), "a", 1002)
		take(t.Context(), "b", 2000)
		if len(served) != maxSlotsPerHost+1 || waits() != 3 {
			t.Fatalf("%d are served, %d wait", len(served), waits())
		}
		leave()
		synctest.Wait()
		for len(served) > 0 {
			<-served
		}
		released(0)()
		released(0)() // once more means nothing
		synctest.Wait()
		if len(served) != 1 || <-served != 1001 {
			t.Error("a free place is not for who waited longest")
		}
		taken := func() int {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.taken
		}
		for i := 0; taken() < maxSlots; i++ {
			take(t.Context(), fmt.Sprint("host", i), i)
		}
		before := waits()
		take(t.Context(), "late", 3000)
		if waits() != before+1 {
			t.Error("there are places without end")
		}
		for range 2 { // the second time for those that had waited
			mu.Lock()
			all := slices.Clone(release)
			mu.Unlock()
			for _, r := range all {
				r()
			}
			synctest.Wait()
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.taken != 0 || len(p.hosts) != 0 || len(p.waiting) != 0 {
			t.Errorf("%d places stay taken by %v", p.taken, p.hosts)
		}
	})
}

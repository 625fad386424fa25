package files

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"example.com/iad/transfer/tftp"
)

// Limits of the TFTP server, against clients that send a request and then nothing.
const (
	maxTFTPTransfers = 512
	maxTFTPPerHost   = 128 // many devices may stand behind one address
	// tftpUnheard is how long a transfer keeps its slot although the client has sent only
	// its request. By then the answer was repeated twice, and a device on a busy machine or
	// far away has answered.
	tftpUnheard = 3500 * time.Millisecond
	// maxTFTPFailures of reading in a row mean that the socket is unusable.
	maxTFTPFailures = 100
	// tftpPatience is how long a client may be silent; it is a multiple of the client's own
	// time-out if that is long.
	tftpPatience = 20 * time.Second
	// tftpFirstPatience is the same while the client has sent only a request, whose sender
	// may be forged.
	tftpFirstPatience = 8 * time.Second
)

// tftpServer serves requests (RFC 1350, with the options of RFC 2347 to 2349 and the
// windows of RFC 7440). Every transfer has its own goroutine, and its own socket unless all
// share the server's.
type tftpServer struct {
	ctx     context.Context
	store   *store
	conn    *net.UDPConn
	tasks   sync.WaitGroup
	limited *limitedLog // of refusals
	dialer  func(local netip.Addr, client netip.AddrPort) (tftp.Conn, error)
	shared  *tftp.Shared // nil: every transfer has a port of its own

	mu        sync.Mutex
	transfers map[*tftpTransfer]struct{}
	clients   map[netip.AddrPort]*tftpTransfer // the newest of each
	hosts     map[netip.Prefix]int             // see hostOf
}

// tftpState decides which transfer makes room for another one.
type tftpState int

const (
	tftpOpening tftpState = iota // nothing came but the request
	tftpRunning
	tftpDone // staying in case the last acknowledgement was lost
)

// tftpTransfer is the server's record of a transfer.
type tftpTransfer struct {
	client  netip.AddrPort
	local   netip.Addr // where the request arrived, if known
	request string     // as it was received: repetitions are alike
	begun   time.Time
	cancel  context.CancelCauseFunc
	state   tftpState // under the server's lock
}

func newTFTPServer(ctx context.Context, s *store, conn *net.UDPConn) *tftpServer {
	return &tftpServer{
		ctx: ctx, store: s, conn: conn, limited: newLimitedLog(s.log), dialer: dialTFTP,
		transfers: map[*tftpTransfer]struct{}{}, clients: map[netip.AddrPort]*tftpTransfer{}, hosts: map[netip.Prefix]int{},
	}
}

// serveTFTP serves read and write requests on conn until ctx ends, and then ends every
// transfer. Any host may read what is published or granted and write to granted
// directories: TFTP knows no users (RFC 1350).
func serveTFTP(ctx context.Context, conn *net.UDPConn, s *store, singlePort bool) error {
	server := newTFTPServer(ctx, s, conn)
	tftp.EnableDestination(conn)
	if singlePort {
		server.sharePort()
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) }) // ends the read below
	defer stop()
	err := server.listen()
	server.tasks.Wait() // with one port their last words go out on conn
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// sharePort makes all transfers use the server's own port.
func (t *tftpServer) sharePort() {
	t.shared = tftp.Share(t.conn)
	t.dialer = func(local netip.Addr, client netip.AddrPort) (tftp.Conn, error) {
		return t.shared.Dial(local, client, 2*maxTFTPReceiveOctets), nil
	}
}

func (t *tftpServer) listen() error {
	// One byte more than the longest request, to detect a longer one.
	buf, extra := make([]byte, 2048), make([]byte, 128)
	if t.shared != nil {
		buf = make([]byte, 64<<10) // blocks of uploads arrive here too
	}
	for failures := 0; ; {
		n, m, _, from, err := t.conn.ReadMsgUDPAddrPort(buf, extra)
		switch {
		case t.ctx.Err() != nil:
			return t.ctx.Err()
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			if failures++; failures == maxTFTPFailures {
				return err
			}
			t.store.log.Debug("TFTP request lost", "err", err)
			continue
		}
		failures = 0
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if request, ok := parseTFTPRequest(buf[:n]); ok {
			t.handle(request, string(buf[:n]), from, tftp.Destination(extra[:m]))
		} else if t.shared != nil {
			t.shared.Deliver(from, buf[:n])
		}
	}
}

// parseTFTPRequest parses a datagram to the server's own port. One that is not a request
// gets no answer. A request with an option whose value cannot be parsed is served without
// options, as by a server that supports none; one without a file name or mode has empty
// ones.
func parseTFTPRequest(b []byte) (tftp.Packet, bool) {
	p, err := tftp.Parse(b)
	switch {
	case err == nil:
	case p.Filename != "":
		p.Options = tftp.Options{}
	case len(b) >= 4:
		p = tftp.Packet{Op: tftp.Op(binary.BigEndian.Uint16(b))}
	}
	return p, p.Op == tftp.OpReadRequest || p.Op == tftp.OpWriteRequest
}

// handle starts the transfer of a request if there is room. Otherwise the request is not
// answered: its sender repeats it.
func (t *tftpServer) handle(p tftp.Packet, raw string, from netip.AddrPort, local netip.Addr) {
	ctx, cancel := context.WithCancelCause(t.ctx)
	transfer := &tftpTransfer{client: from, local: local, request: raw, begun: time.Now(), cancel: cancel}
	if why := t.admit(transfer); why != "" {
		cancel(nil)
		if why != repeatedRequest {
			t.limited.warn("TFTP request not served", "client", from, "err", why)
		}
		return
	}
	t.tasks.Go(func() {
		defer cancel(nil)
		defer t.release(transfer)
		t.serve(ctx, transfer, p)
	})
}

// repeatedRequest is why a request that is already served is not served again.
const repeatedRequest = "repeated"

// admit records a transfer, or says why it is not admitted.
func (t *tftpServer) admit(n *tftpTransfer) (why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.clients[n.client]; old != nil {
		if old.request == n.request && old.state != tftpDone {
			return repeatedRequest
		}
		old.cancel(errSuperseded) // one port, one transfer
	}
	host := hostOf(n.client.Addr())
	if t.hosts[host] >= maxTFTPPerHost && !t.evict(host) {
		return "too many transfers with this host"
	}
	if len(t.transfers) >= maxTFTPTransfers && !t.evict(netip.Prefix{}) {
		return "too many transfers"
	}
	t.transfers[n] = struct{}{}
	t.clients[n.client] = n
	t.hosts[host]++
	return ""
}

// evict ends the least important transfer: the oldest that is done, or else the oldest
// without an answer for so long that the request must have been forged; of one host if
// host is valid. A running transfer continues: the client already has data, and a device
// does not start over by itself.
func (t *tftpServer) evict(host netip.Prefix) bool {
	var least *tftpTransfer
	for x := range t.transfers {
		if x.state == tftpRunning || host.IsValid() && hostOf(x.client.Addr()) != host {
			continue
		}
		if x.state == tftpOpening && time.Since(x.begun) < tftpUnheard {
			continue
		}
		if least == nil || x.state > least.state || x.state == least.state && x.begun.Before(least.begun) {
			least = x
		}
	}
	if least == nil {
		return false
	}
	least.cancel(errCrowded)
	t.forget(least)
	return true
}

func (t *tftpServer) release(x *tftpTransfer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(x)
}

// forget removes a transfer, once.
func (t *tftpServer) forget(x *tftpTransfer) {
	if _, ok := t.transfers[x]; !ok {
		return
	}
	delete(t.transfers, x)
	if t.clients[x.client] == x {
		delete(t.clients, x.client)
	}
	host := hostOf(x.client.Addr())
	if t.hosts[host]--; t.hosts[host] == 0 {
		delete(t.hosts, host)
	}
}

func (t *tftpServer) setState(x *tftpTransfer, s tftpState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x.state = s
}

package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"example.com/iad/transfer/tftp"
)

const (
	defaultBlockSize = 1428 // an Ethernet frame, also within a tunnel or two
	smallBlockSize   = 1228 // fits the least MTU of IPv6, 1280 octets
	defaultWindow    = 64
	// maxWindowOctets bounds the memory for a window; twice as much is buffered.
	maxWindowOctets = 4 << 20
	// firstBlockPatience is for a server that has to start its disk first.
	firstBlockPatience = 2 * time.Second
	// serverInterval is the retransmission interval that the server is asked for,
	// the least there is: some repeat a lost block only when it has passed.
	serverInterval = time.Second
)

// tftpSession has no connection: every transfer is on its own.
type tftpSession struct {
	server  Server
	options Options
	steps   []terms // the ladder, best terms first
	step    int     // where on it this server was reached

	ctx    context.Context // of what goes on behind a transfer that has ended
	cancel context.CancelFunc
	behind sync.WaitGroup
}

func newTFTP(server Server, options Options) (*tftpSession, error) {
	block, window := options.BlockSize, options.Window
	if block == 0 {
		block = defaultBlockSize
	}
	if window == 0 {
		window = defaultWindow
	}
	if block < tftp.MinBlockSize || block > tftp.MaxBlockSize {
		return nil, &causeError{CauseBadRequest, fmt.Errorf("block size %d is not within %d to %d", block, tftp.MinBlockSize, tftp.MaxBlockSize)}
	}
	if window < 1 || window > tftp.MaxWindow {
		return nil, &causeError{CauseBadRequest, fmt.Errorf("window %d is not within 1 to %d", window, tftp.MaxWindow)}
	}
	s := &tftpSession{server: server, options: options, steps: ladder(block, max(1, min(window, maxWindowOctets/block)))}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

func (s *tftpSession) close() error {
	s.cancel()
	s.behind.Wait()
	return nil
}

// terms are what a transfer runs under.
type terms struct {
	block, window int
	plain         bool // no options at all: a server of RFC 1350
}

func (t terms) String() string {
	if t.plain {
		return "no options"
	}
	return fmt.Sprintf("blksize %d windowsize %d", t.block, t.window)
}

// ladder lists the terms to try, best first.
func ladder(block, window int) []terms {
	steps := []terms{{block: block, window: window}}
	for _, b := range []int{defaultBlockSize, smallBlockSize, tftp.DefaultBlockSize} {
		if b < steps[len(steps)-1].block {
			steps = append(steps, terms{block: b, window: window})
		}
	}
	return append(steps, terms{block: tftp.DefaultBlockSize, window: 1, plain: true})
}

// Why to come down the ladder.
var (
	errOptionsRefused = errors.New("the server refuses the options")
	errNothingThrough = errors.New("no data came through")
)

// negotiate runs attempt down the ladder until it gets somewhere: block by block
// smaller when nothing comes through, at once to the end when the server does
// not like options. The next file starts where this one got.
func (s *tftpSession) negotiate(attempt func(terms) error) error {
	for i := s.step; ; {
		err := attempt(s.steps[i])
		last := i == len(s.steps)-1
		switch {
		case errors.Is(err, errOptionsRefused) && !last:
			i = len(s.steps) - 1
		case errors.Is(err, errNothingThrough) && !last:
			i++
		default:
			if err == nil {
				s.step = i
			}
			return err
		}
		s.options.Log.Info("tftp: stepping down", "to", s.steps[i].String(), "because", err)
	}
}

// patience is how long to wait for the first block before smaller ones are tried.
// With the smallest it is the server's time-out.
func (s *tftpSession) patience(t terms, rtt *roundTrip) time.Duration {
	if t.plain {
		return s.server.Timeout
	}
	return min(s.server.Timeout/time.Duration(len(s.steps)), max(10*rtt.timeout(), firstBlockPatience))
}

// request makes the packet that asks for a transfer under terms.
func (s *tftpSession) request(op tftp.Op, path string, t terms, size int64) []byte {
	var o tftp.Options
	if !t.plain {
		if op == tftp.OpReadRequest || size >= 0 {
			o.HasSize, o.Size = true, max(size, 0)
		}
		if t.block != tftp.DefaultBlockSize {
			o.BlockSize = t.block
		}
		if t.window > 1 {
			o.Window = t.window
		}
		o.Timeout = int(serverInterval / time.Second)
	}
	return tftp.AppendRequest(nil, op, path, o)
}

// accept judges an OACK against what was asked for.
func accept(t terms, o tftp.Options) (terms, error) {
	got := terms{block: tftp.DefaultBlockSize, window: 1}
	if o.BlockSize != 0 {
		if t.plain || o.BlockSize > t.block {
			return got, fmt.Errorf("%w: it wants blksize %d", errOptionsRefused, o.BlockSize)
		}
		got.block = o.BlockSize
	}
	if o.Window != 0 {
		if t.plain || o.Window > t.window {
			return got, fmt.Errorf("%w: it wants windowsize %d", errOptionsRefused, o.Window)
		}
		got.window = o.Window
	}
	return got, nil
}

// addresses resolves the server's host.
func (s *tftpSession) addresses(ctx context.Context) ([]netip.AddrPort, error) {
	ctx, stop := context.WithTimeout(ctx, s.server.Timeout)
	defer stop()
	port := s.server.Port
	if port == 0 {
		port = s.server.usualPort()
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, s.server.Host) // LookupNetIP loses zones
	if err != nil {
		return nil, &causeError{CauseNameNotResolved, err}
	}
	var list []netip.AddrPort
	for _, ip := range ips {
		address, _ := netip.AddrFromSlice(ip.IP)
		list = append(list, netip.AddrPortFrom(address.Unmap().WithZone(ip.Zone), uint16(port)))
	}
	return list, nil
}

// each tries the server's addresses in turn while they do not answer.
func (s *tftpSession) each(ctx context.Context, f func(netip.AddrPort) error) error {
	list, err := s.addresses(ctx)
	if err != nil {
		return err
	}
	for _, address := range list {
		if err = f(address); err == nil || ctx.Err() != nil || classify(err).Code != CauseServerUnreachable {
			return err
		}
	}
	return err
}

// ask sends a request until the server answers it, and makes the one who does
// the peer.
func (s *tftpSession) ask(sock *tftpSocket, request []byte, rtt *roundTrip) (tftp.Packet, error) {
	giveUp := time.Now().Add(s.server.Timeout)
	for first := true; ; first = false {
		sent := time.Now()
		if !sent.Before(giveUp) {
			return tftp.Packet{}, &causeError{CauseServerUnreachable, errors.New("no answer")}
		}
		if err := sock.send(request); err != nil {
			return tftp.Packet{}, err
		}
		p, from, err := sock.receive(earlier(sent.Add(min(rtt.timeout(), s.server.Timeout/3)), giveUp))
		switch {
		case err == nil:
			sock.lock(from)
			if first {
				rtt.sample(time.Since(sent))
			}
			rtt.answered()
			return p, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return p, optionsRefused(err)
		}
		rtt.silent()
	}
}

// optionsRefused marks the answers to a request that some servers have for
// options which they do not know.
func optionsRefused(err error) error {
	var r *replyError
	if errors.As(err, &r) && (r.code == int(tftp.ErrOptions) || r.code == int(tftp.ErrIllegal)) || errors.Is(err, tftp.ErrMalformed) {
		return fmt.Errorf("%w: %w", errOptionsRefused, err)
	}
	return err
}

func (s *tftpSession) get(ctx context.Context, path string, offset int64) (io.ReadCloser, int64, error) {
	if offset > 0 {
		return nil, 0, &causeError{CauseBadRequest, fmt.Errorf("%w: TFTP has no offset", ErrNoResume)}
	}
	var r *tftpReceiver
	err := s.each(ctx, func(server netip.AddrPort) error {
		return s.negotiate(func(t terms) (err error) {
			r, err = s.startGet(ctx, server, path, t)
			return err
		})
	})
	if err != nil {
		return nil, 0, err
	}
	s.behind.Add(1)
	go func() {
		defer s.behind.Done()
		r.run(s.ctx)
	}()
	return r, r.size, nil
}

// startGet brings a download to its first block: until then nothing has been
// handed out, and other terms can be tried.
func (s *tftpSession) startGet(ctx context.Context, server netip.AddrPort, path string, t terms) (*tftpReceiver, error) {
	sock, err := openTFTP(ctx, server, t.block)
	if err != nil {
		return nil, err
	}
	r := &tftpReceiver{sock: sock, stall: s.server.Timeout, size: -1}
	p, err := s.ask(sock, s.request(tftp.OpReadRequest, path, t, 0), &r.rtt)
	if err == nil {
		err = r.begin(p, t, s.patience(t, &r.rtt))
	}
	if err != nil {
		if errors.Is(err, errOptionsRefused) {
			sock.abort(tftp.ErrOptions, "option not asked for")
		} else {
			sock.abort(tftp.ErrNotDefined, "giving up")
		}
		sock.close()
		return nil, err
	}
	s.options.Log.Debug("tftp: receiving", "file", path, "blksize", r.block, "windowsize", r.window, "size", r.size)
	return r, nil
}

func (s *tftpSession) put(ctx context.Context, path string, u *upload) (int64, error) {
	err := s.each(ctx, func(server netip.AddrPort) error {
		return s.negotiate(func(t terms) error {
			if u.read > 0 && !u.seek(0) {
				return errNothingThrough
			}
			return s.sendFile(ctx, server, path, u, t)
		})
	})
	return u.read, err
}

func (s *tftpSession) sendFile(ctx context.Context, server netip.AddrPort, path string, u *upload, t terms) error {
	sock, err := openTFTP(ctx, server, t.block)
	if err != nil {
		return err
	}
	defer sock.close()
	w := &tftpSender{sock: sock, stall: s.server.Timeout}
	p, err := s.ask(sock, s.request(tftp.OpWriteRequest, path, t, u.size), &w.rtt)
	if err == nil {
		w.patience = s.patience(t, &w.rtt)
		if err = w.begin(p, t); err == nil {
			s.options.Log.Debug("tftp: sending", "file", path, "blksize", w.block, "windowsize", w.window)
			err = w.run(u)
		}
	}
	var reply *replyError
	switch {
	case err == nil, errors.As(err, &reply):
	case errors.Is(err, errOptionsRefused):
		sock.abort(tftp.ErrOptions, "option not asked for")
	default:
		sock.abort(tftp.ErrNotDefined, "giving up")
	}
	return err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

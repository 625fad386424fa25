package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"example.com/iad/mib"
	"example.com/iad/transfer/tftp"
)

const (
	defaultBlockSize = 1428 // an Ethernet frame, also within a tunnel or two
	smallBlockSize   = 1228 // fits the least MTU of IPv6, 1280 bytes
	// defaultWindow is for lines of more than 240 kB/s: where it is too wide, the request is repeated with
	// a narrower one.
	defaultWindow = 128
	// maxWindowOctets bounds the memory for a window; twice as much is buffered.
	maxWindowOctets = 4 << 20
	// firstBlockPatience is for a server that has to start its disk first.
	firstBlockPatience = 2 * time.Second
	// serverInterval is the retransmission interval that the server is asked for,
	// the least there is: some repeat a lost block only when it has passed.
	serverInterval = time.Second
	// leastRing is the least memory between receiving and reading.
	leastRing = 256 << 10
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
		return nil, &causeError{mib.FailCauseBadRequest, fmt.Errorf("block size %d is not within %d to %d", block, tftp.MinBlockSize, tftp.MaxBlockSize)}
	}
	if window < 1 || window > tftp.MaxWindow {
		return nil, &causeError{mib.FailCauseBadRequest, fmt.Errorf("window %d is not within 1 to %d", window, tftp.MaxWindow)}
	}
	window = min(window, maxWindowOctets/block)
	if options.RateLimit > 0 { // servers repeat a window that is not acknowledged in time
		window = min(window, int(int64(options.RateLimit)*int64(serverInterval/2)/int64(time.Second))/block)
	}
	s := &tftpSession{server: server, options: options, steps: ladder(block, max(1, window))}
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

// errOptionsRefused is why to come down the ladder to its end.
var errOptionsRefused = errors.New("the server refuses the options")

// tooWide is why a request is repeated for narrower windows.
type tooWide struct{ window int }

func (e *tooWide) Error() string {
	return fmt.Sprintf("the line calls for windows of %d blocks", e.window)
}

// errCancelled is why a link ends that nobody waits for any more.
var errCancelled = errors.New("transfer cancelled")

// negotiate runs attempt down the ladder until it gets somewhere: block by block
// smaller when nothing comes through, at once to the end when the server does
// not like options. Narrower windows may be asked for at any step. The next file starts where
// this one got.
func (s *tftpSession) negotiate(attempt func(terms) error) error {
	for i := s.step; ; {
		err := attempt(s.steps[i])
		last := i == len(s.steps)-1
		var wide *tooWide
		switch {
		case errors.As(err, &wide) && wide.window < s.steps[i].window:
			for k := range s.steps {
				s.steps[k].window = min(s.steps[k].window, wide.window)
			}
		case errors.Is(err, errOptionsRefused) && !last:
			i = len(s.steps) - 1
		case errors.Is(err, tftp.ErrNothingThrough) && !last:
			i++
		default:
			if err == nil {
				s.step = i
			}
			return err
		}
		s.options.Log.Info("tftp: stepping down", "to", s.steps[i].String(), "err", err)
	}
}

// patience is how long to wait for the first block before smaller ones are tried.
// With the smallest it is the server's time-out.
func (s *tftpSession) patience(t terms, rtt *tftp.RoundTrip) time.Duration {
	if t.plain {
		return s.server.Timeout
	}
	return min(s.server.Timeout/time.Duration(len(s.steps)), max(10*rtt.Timeout(), firstBlockPatience))
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

// accept judges the server's answer to a request: an OACK, or what a server that ignores
// options begins with.
func accept(t terms, p tftp.Packet, plain tftp.Op) (tftp.Options, error) {
	o := p.Options
	switch {
	case p.Op == plain && (plain == tftp.OpData || p.Block == 0):
		return tftp.Options{}, nil
	case p.Op != tftp.OpOptionAck:
		return o, &causeError{mib.FailCauseProtocolError, fmt.Errorf("the server answers the request with operation %d", p.Op)}
	case o.BlockSize != 0 && (t.plain || o.BlockSize > t.block):
		return o, fmt.Errorf("%w: it wants blksize %d", errOptionsRefused, o.BlockSize)
	case o.Window != 0 && (t.plain || o.Window > t.window):
		return o, fmt.Errorf("%w: it wants windowsize %d", errOptionsRefused, o.Window)
	}
	return o, nil
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
		return nil, &causeError{mib.FailCauseNameNotResolved, err}
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
		if err = f(address); err == nil || ctx.Err() != nil || classify(err).Code != mib.FailCauseServerUnreachable {
			return err
		}
	}
	return err
}

// ask opens a link and sends a request until the server answers it.
func (s *tftpSession) ask(ctx context.Context, server netip.AddrPort, op tftp.Op, path string, t terms, size int64) (*tftp.Link, tftp.Packet, error) {
	network := "udp4"
	if server.Addr().Is6() {
		network = "udp6"
	}
	conn, err := s.options.Network.ListenUDP(network)
	if err != nil {
		return nil, tftp.Packet{}, err
	}
	link := tftp.NewClient(ctx, conn, server, t.block)
	link.Patience = s.server.Timeout
	p, err := link.Ask(s.request(op, path, t, size))
	if err != nil {
		err = optionsRefused(err)
		end(link, err)
		return nil, p, err
	}
	link.FirstPatience = s.patience(t, &link.RoundTrip)
	return link, p, nil
}

// end closes a link, and sends the server an error unless it knows that the transfer failed.
func end(link *tftp.Link, err error) {
	var received *tftp.ErrorPacket
	var wide *tooWide
	switch {
	case err == nil, errors.As(err, &received):
	case errors.Is(err, errOptionsRefused):
		link.Abort(tftp.ErrOptions, "option not asked for")
	case errors.As(err, &wide):
		link.Abort(tftp.ErrNotDefined, "asking again for narrower windows")
	default:
		link.Abort(tftp.ErrNotDefined, "giving up")
	}
	link.Close()
}

// optionsRefused marks the answers to a request that some servers have for
// options which they do not know.
func optionsRefused(err error) error {
	var p *tftp.ErrorPacket
	if errors.As(err, &p) && (p.Code == tftp.ErrOptions || p.Code == tftp.ErrIllegal) || errors.Is(err, tftp.ErrMalformed) {
		return fmt.Errorf("%w: %w", errOptionsRefused, err)
	}
	return err
}

// inWords makes an ERROR packet the server's reply.
func inWords(err error) error {
	var p *tftp.ErrorPacket
	if errors.As(err, &p) {
		return &replyError{protocol: mib.ProtocolTftp, code: int(p.Code), text: p.Message}
	}
	return err
}

func (s *tftpSession) get(ctx context.Context, path string, offset int64) (io.ReadCloser, int64, error) {
	if offset > 0 {
		return nil, 0, &causeError{mib.FailCauseBadRequest, fmt.Errorf("%w: TFTP has no offset", ErrNoResume)}
	}
	var d *tftpDownload
	size := int64(-1)
	err := s.each(ctx, func(server netip.AddrPort) error {
		return s.negotiate(func(t terms) (err error) {
			d, size, err = s.startGet(ctx, server, path, t)
			return err
		})
	})
	if err != nil {
		return nil, 0, inWords(err)
	}
	s.behind.Go(func() { d.run(s.ctx) })
	return d, size, nil
}

// startGet brings a download to its first block: until then nothing has been
// handed out, and other terms can be tried.
func (s *tftpSession) startGet(ctx context.Context, server netip.AddrPort, path string, t terms) (*tftpDownload, int64, error) {
	link, p, err := s.ask(ctx, server, tftp.OpReadRequest, path, t, 0)
	if err != nil {
		return nil, 0, err
	}
	o, err := accept(t, p, tftp.OpData)
	block, window := o.Terms()
	d := &tftpDownload{link: link}
	if err == nil {
		d.ring = newRing(max(leastRing, 2*int(block*window)))
		d.receiver = tftp.NewReceiver(link, d.ring, o, nil)
		d.receiver.KeepEarly = true
		err = d.receiver.Begin(p)
	}
	if suits := window; err == nil && window > 1 {
		if suits, err = d.receiver.Probe(serverInterval); err == nil && suits < window {
			err = &tooWide{int(suits)}
		}
	}
	if err != nil {
		end(link, err)
		return nil, 0, err
	}
	size := int64(-1)
	if o.HasSize {
		size = o.Size
	}
	s.options.Log.Debug("tftp: receiving", "file", path, "blksize", block, "windowsize", window, "size", size)
	return d, size, nil
}

// tftpDownload is the reader of a file that is received meanwhile.
type tftpDownload struct {
	ring     *ring
	link     *tftp.Link
	receiver *tftp.Receiver
}

// run receives the file, then stays for a while in case the last ACK was lost.
func (d *tftpDownload) run(behind context.Context) {
	stop := context.AfterFunc(behind, func() { d.link.Cancel(errCancelled) })
	defer stop()
	err := d.receiver.Run()
	if err == nil {
		d.receiver.Dally()
	} else {
		d.ring.end(inWords(err))
	}
	end(d.link, err)
}

// Read returns the file's bytes in order.
func (d *tftpDownload) Read(p []byte) (int, error) { return d.ring.Read(p) }

// Close ends the transfer if it has not ended.
func (d *tftpDownload) Close() error {
	if !d.ring.ended() {
		d.link.Cancel(errCancelled)
	}
	return d.ring.Close()
}

func (s *tftpSession) put(ctx context.Context, path string, u *upload) (int64, error) {
	err := s.each(ctx, func(server netip.AddrPort) error {
		return s.negotiate(func(t terms) error {
			if u.read > 0 && !u.seek(0) {
				return tftp.ErrNothingThrough
			}
			return s.sendFile(ctx, server, path, u, t)
		})
	})
	return u.read, inWords(err)
}

func (s *tftpSession) sendFile(ctx context.Context, server netip.AddrPort, path string, u *upload, t terms) error {
	link, p, err := s.ask(ctx, server, tftp.OpWriteRequest, path, t, u.size)
	if err != nil {
		return err
	}
	o, err := accept(t, p, tftp.OpAck)
	if err == nil {
		block, window := o.Terms()
		s.options.Log.Debug("tftp: sending", "file", path, "blksize", block, "windowsize", window)
		err = tftp.NewSender(link, o, nil).SendStream(u)
	}
	end(link, err)
	return err
}

package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path"
	"strings"
	"sync"
	"time"

	"example.com/iad/mib"
	"example.com/iad/transfer/tftp"
)

// behaviour is what the lab's servers do with a file. The zero value serves it properly.
type behaviour struct {
	// tftp and tftpText are an ERROR packet in answer to the request.
	tftp     tftp.ErrorCode
	tftpText string
	// failing makes tftp apply; code 0 is an error too.
	failing bool
	// ftp is a reply, such as "550 no such file", to the command in ftpTo.
	ftp, ftpTo string
	// times is how often the failures above and below happen; 0: always.
	times int
	// silent gives no answer to the request.
	silent bool
	// hold stops the transfer after so many bytes until release; 0: no stop.
	hold int64
	// breakAt closes an FTP data connection after so many bytes, with the reply 426.
	breakAt int64
	// rate is the speed in bytes per second; 0: no limit.
	rate int
	// extra and missing make the size in TFTP's tsize and FTP's SIZE wrong by so many bytes.
	extra int64
	// noSize leaves out tsize and SIZE.
	noSize bool
	// full fails an upload after so many bytes as a full disk does; 0: never.
	full int64
}

// served is a file on the lab's servers.
type served struct {
	data []byte
	behaviour
	requests int
	released chan struct{} // closed by release
	reached  chan struct{} // closed when a transfer holds
	once     sync.Once
}

// fileServers are a TFTP and an FTP server with files in memory, which do with each file
// what its behaviour says.
type fileServers struct {
	ctx    context.Context
	cancel context.CancelFunc
	host   string
	tftp   *net.UDPConn
	ftp    net.Listener
	tasks  sync.WaitGroup
	log    func(format string, args ...any)

	mu       sync.Mutex
	files    map[string]*served
	uploads  map[string][]byte
	active   map[netip.AddrPort]string // TFTP requests in progress
	conns    map[net.Conn]bool
	greeting string // of FTP in place of 220
	login    string // of FTP in place of 230
}

// startServers listens on host, any free ports.
func startServers(ctx context.Context, host string, log func(string, ...any)) (*fileServers, error) {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return nil, fmt.Errorf("file servers: %q is not an IP address: %w", host, err)
	}
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		return nil, fmt.Errorf("TFTP server: %w", err)
	}
	tcp, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		udp.Close()
		return nil, fmt.Errorf("FTP server: %w", err)
	}
	s := &fileServers{host: host, tftp: udp, ftp: tcp, log: log, files: map[string]*served{}, uploads: map[string][]byte{},
		active: map[netip.AddrPort]string{}, conns: map[net.Conn]bool{}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.tasks.Go(s.serveTFTP)
	s.tasks.Go(s.serveFTP)
	return s, nil
}

// Close ends the servers and all transfers.
func (s *fileServers) Close() {
	s.cancel()
	s.tftp.Close()
	s.ftp.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.tasks.Wait()
}

// port returns the port of a protocol's server.
func (s *fileServers) port(p mib.Protocol) uint16 {
	if p == mib.ProtocolTftp {
		return s.tftp.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	}
	return s.ftp.Addr().(*net.TCPAddr).AddrPort().Port()
}

// reset removes all files and ends the transfers that hold.
func (s *fileServers) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		f.release()
	}
	s.files, s.uploads = map[string]*served{}, map[string][]byte{}
	s.greeting, s.login = "", ""
}

// put offers a file.
func (s *fileServers) put(name string, data []byte, b behaviour) *served {
	f := &served{data: data, behaviour: b, released: make(chan struct{}), reached: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = f
	return f
}

// release lets the transfers that hold continue.
func (f *served) release() {
	select {
	case <-f.released:
	default:
		close(f.released)
	}
}

// uploaded returns what a device has sent under a name.
func (s *fileServers) uploaded(name string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.uploads[name]
	return data, ok
}

// requested returns how often a file was requested.
func (s *fileServers) requested(f *served) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.requests
}

// find returns the file of a request, and whether its failure applies. An upload needs no
// file: nil then.
func (s *fileServers) find(name string, reading bool) (f *served, fails bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	f = s.files[name]
	if sent, ok := s.uploads[name]; ok && f == nil && reading {
		f = &served{data: sent} // devices may read back what they have sent
	}
	for prefix, candidate := range s.files { // a device may upload under a temporary name
		if f == nil && !reading && strings.HasPrefix(name, prefix) {
			f = candidate
		}
	}
	if f == nil {
		return nil, false
	}
	f.requests++
	return f, f.times == 0 || f.requests <= f.times
}

var errStopped = errors.New("the lab's server stops")

// heldReader is the content of a file, whose reading stops where the file is to be held.
type heldReader struct {
	ctx  context.Context
	file *served
	hold int64
}

func (r *heldReader) ReadAt(p []byte, off int64) (int, error) {
	if r.hold > 0 && off+int64(len(p)) > r.hold {
		r.file.once.Do(func() { close(r.file.reached) })
		select {
		case <-r.file.released:
		case <-r.ctx.Done():
			return 0, errStopped
		}
	}
	if off >= int64(len(r.file.data)) {
		return 0, io.EOF
	}
	n := copy(p, r.file.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// serveTFTP answers requests (RFC 1350) until the servers are closed.
func (s *fileServers) serveTFTP() {
	buf, extra := make([]byte, 2048), make([]byte, 128)
	tftp.EnableDestination(s.tftp)
	for {
		n, m, _, from, err := s.tftp.ReadMsgUDPAddrPort(buf, extra)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		p, err := tftp.Parse(buf[:n])
		if err != nil || p.Op != tftp.OpReadRequest && p.Op != tftp.OpWriteRequest {
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		request := string(buf[:n])
		s.mu.Lock()
		repeated := s.active[from] == request
		s.active[from] = request
		s.mu.Unlock()
		if repeated {
			continue
		}
		local := tftp.Destination(extra[:m])
		s.tasks.Go(func() {
			defer func() {
				s.mu.Lock()
				delete(s.active, from)
				s.mu.Unlock()
			}()
			s.transferTFTP(p, from, local)
		})
	}
}

func (s *fileServers) transferTFTP(p tftp.Packet, from netip.AddrPort, local netip.Addr) {
	f, fails := s.find(p.Filename, p.Op == tftp.OpReadRequest)
	if f != nil && f.silent && fails {
		s.log("TFTP: no answer to the request for %s", p.Filename)
		<-s.ctx.Done()
		return
	}
	conn, err := tftp.Dial(local, from, 1<<20)
	if err != nil {
		return
	}
	block := 0
	if p.Op == tftp.OpWriteRequest {
		block = p.Options.BlockSize
	}
	link := tftp.NewLink(s.ctx, conn, block)
	defer link.Close()
	link.FirstPatience, link.Patience = 8*time.Second, 20*time.Second
	switch {
	case f != nil && f.failing && fails:
		s.log("TFTP: error %d for %s", f.behaviour.tftp, p.Filename)
		link.Abort(f.behaviour.tftp, f.tftpText)
	case p.Op == tftp.OpReadRequest && f == nil:
		s.log("TFTP: file %s not found", p.Filename)
		link.Abort(tftp.ErrFileNotFound, "file not found")
	case p.Op == tftp.OpReadRequest:
		s.sendTFTP(link, p, f, fails)
	default:
		s.receiveTFTP(link, p, f, fails)
	}
}

// accept returns the options that a TFTP server accepts.
func accept(asked tftp.Options) tftp.Options {
	o := tftp.Options{BlockSize: asked.BlockSize, HasSize: asked.HasSize, Size: asked.Size, Timeout: asked.Timeout}
	if asked.Window > 0 {
		o.Window = min(asked.Window, 16)
	}
	return o
}

func optionAck(o tftp.Options) []byte {
	if o.None() {
		return nil
	}
	return tftp.AppendOptionAck(nil, o)
}

func (s *fileServers) sendTFTP(link *tftp.Link, p tftp.Packet, f *served, fails bool) {
	options := accept(p.Options)
	if options.HasSize {
		options.Size = int64(len(f.data)) + f.extra
	}
	if f.noSize {
		options.HasSize, options.Size = false, 0
	}
	sender := tftp.NewSender(link, options, optionAck(options))
	reader := &heldReader{ctx: s.ctx, file: f}
	if fails {
		reader.hold = f.hold
	}
	if f.rate > 0 {
		sender.Pace = f.pace()
	}
	err := sender.SendFile(reader, int64(len(f.data)))
	s.log("TFTP: sent %d of %d bytes of %s%s", link.Octets, len(f.data), p.Filename, because(err))
}

// pace limits a transfer to the file's rate.
func (f *served) pace() func(int) time.Duration {
	began, sent := time.Now(), 0
	return func(n int) time.Duration {
		sent += n
		return max(0, time.Duration(sent)*time.Second/time.Duration(f.rate)-time.Since(began))
	}
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// upload takes what a device sends.
type upload struct {
	servers *fileServers
	name    string
	data    []byte
	full    int64
}

var errFull = errors.New("disk full")

func (u *upload) Write(p []byte) (int, error) {
	if u.full > 0 && int64(len(u.data)+len(p)) > u.full {
		return 0, errFull
	}
	u.data = append(u.data, p...)
	return len(p), nil
}

func (u *upload) Room(int) (<-chan struct{}, error) { return nil, nil }

func (u *upload) End() error {
	u.servers.mu.Lock()
	defer u.servers.mu.Unlock()
	u.servers.uploads[strings.TrimPrefix(path.Clean("/"+u.name), "/")] = u.data
	return nil
}

func (s *fileServers) receiveTFTP(link *tftp.Link, p tftp.Packet, f *served, fails bool) {
	sink := &upload{servers: s, name: p.Filename}
	if f != nil && fails {
		sink.full = f.full
		if f.hold > 0 { // before the first block
			f.once.Do(func() { close(f.reached) })
			select {
			case <-f.released:
			case <-s.ctx.Done():
				return
			}
		}
	}
	options := accept(p.Options)
	receiver := tftp.NewReceiver(link, sink, options, optionAck(options))
	err := receiver.Run()
	s.log("TFTP: received %d bytes of %s%s", len(sink.data), p.Filename, because(err))
	switch {
	case errors.Is(err, errFull):
		link.Abort(tftp.ErrDiskFull, "disk full")
	case err == nil:
		receiver.Dally()
	}
}

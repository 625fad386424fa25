package files

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/manager/device"
)

// ServersConfig configures the embedded file servers.
type ServersConfig struct {
	// Files is where uploads are kept, in backup/DEVICE/... Required.
	Files afero.Fs
	// TFTP and FTP are the addresses to listen on (HOST:PORT, port 0 for a
	// free one); empty: the server is not started.
	TFTP, FTP string
	// Advertise is the host that devices connect to; empty: the address of this machine on
	// the route to the device.
	Advertise string
	// SinglePort makes TFTP transfers use the port that TFTP names, for firewalls and address
	// translation that let nothing else through; otherwise each has a port of its own
	// (RFC 1350 section 4).
	SinglePort bool
	// PassivePorts are the first and the last port for FTP data; zero: any free port. With
	// a range, data connections use IPv4 only.
	PassivePorts [2]int
	// Certificate is for FTP over TLS; nil: the server makes one and keeps it in Files.
	// Devices need its fingerprint.
	Certificate *tls.Certificate
	// MaxUpload is the maximum size of a file, in bytes; 0: 16 MiB. The directory of a
	// backup may have twice that for each of its files in total.
	MaxUpload int64
	// Bandwidth is the limit of all transfers together, in bytes per second; 0: none.
	Bandwidth int
	// Now returns the time for the names of backups; nil: time.Now.
	Now func() time.Time
	// Log gets transfers and refusals; nil: nothing is logged.
	Log *slog.Logger
}

// Servers are an embedded TFTP and an embedded FTP server on one store of
// files. They are safe for concurrent use by many upgrades.
type Servers struct {
	cfg    ServersConfig
	store  *store
	tftp   *net.UDPConn
	ftp    net.Listener
	cert   tls.Certificate
	slots  *slots
	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

var (
	_ FileServer = (*Servers)(nil)
	_ ShortLived = (*Servers)(nil)
)

// EndsWithProcess implements ShortLived.
func (s *Servers) EndsWithProcess() bool { return true }

// StartServers starts the servers. They run until Close.
func StartServers(cfg ServersConfig) (*Servers, error) {
	if cfg.MaxUpload == 0 {
		cfg.MaxUpload = 16 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Servers{cfg: cfg, cancel: cancel, slots: newSlots(), store: &store{
		files: cfg.Files, maxUpload: cfg.MaxUpload, limiter: newLimiter(cfg.Bandwidth), log: cfg.Log,
		images: make(map[string]imageSource), grants: make(map[string]*grant),
		uploads: make(map[*upload]bool), used: make(map[string]int64),
	}}
	if err := s.listen(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Servers) listen(ctx context.Context) error {
	if s.cfg.TFTP != "" {
		address, err := net.ResolveUDPAddr("udp", s.cfg.TFTP)
		if err != nil {
			return fmt.Errorf("TFTP server: %w", err)
		}
		conn, err := net.ListenUDP("udp", address)
		if err != nil {
			return fmt.Errorf("TFTP server: %w", err)
		}
		s.tftp = conn
		s.run("TFTP", func() error { return serveTFTP(ctx, conn, s.store, s.cfg.SinglePort) })
	}
	if s.cfg.FTP != "" {
		if p := s.cfg.PassivePorts; p[0] < 0 || p[1] > 65535 || p[0] > p[1] {
			return fmt.Errorf("FTP server: passive ports %d to %d are not a range", p[0], p[1])
		}
		if err := s.certify(); err != nil {
			return fmt.Errorf("FTP server: certificate: %w", err)
		}
		l, err := net.Listen("tcp", s.cfg.FTP)
		if err != nil {
			return fmt.Errorf("FTP server: %w", err)
		}
		s.ftp = l
		s.run("FTP", func() error { return serveFTP(ctx, l, s.store, s.cfg, s.cert) })
	}
	return nil
}

func (s *Servers) certify() (err error) {
	if s.cfg.Certificate != nil {
		s.cert = *s.cfg.Certificate
	} else if s.cert, err = loadCertificate(s.cfg.Files, s.cfg.Now()); err != nil {
		return err
	}
	s.cfg.Log.Info("certificate for FTP over TLS", "sha256", fmt.Sprintf("%x", s.Fingerprint()))
	return nil
}

// Fingerprint returns the SHA-256 digest of the FTP server's certificate (DER), by which
// a device can verify it over FTPS; nil if no FTP server runs.
func (s *Servers) Fingerprint() []byte {
	if len(s.cert.Certificate) == 0 {
		return nil
	}
	digest := sha256.Sum256(s.cert.Certificate[0])
	return digest[:]
}

func (s *Servers) run(name string, serve func() error) {
	s.tasks.Go(func() {
		if err := serve(); err != nil {
			s.cfg.Log.Error("file server stopped", "server", name, "err", err)
		}
	})
}

// Close ends both servers and every transfer.
func (s *Servers) Close() error {
	s.cancel()
	s.tasks.Wait()
	return nil
}

// Addr returns the address that a server listens on, nil if it does not run. FTP and
// FTPS are one server.
func (s *Servers) Addr(p device.Protocol) net.Addr {
	switch {
	case p == device.TFTP && s.tftp != nil:
		return s.tftp.LocalAddr()
	case (p == device.FTP || p == device.FTPS) && s.ftp != nil:
		return s.ftp.Addr()
	}
	return nil
}

// Open prepares the store for one device: a directory for one backup and, for FTP, a user
// and a password of its own. With FTPS the password is refused on a connection without
// TLS.
func (s *Servers) Open(p device.Protocol, deviceID, target string) (Session, error) {
	return s.OpenLimited(p, deviceID, target, nil)
}

// OpenLimited is Open for transfers that a limit applies to, beside Bandwidth; nil: none. What
// its session publishes has a directory of its own.
func (s *Servers) OpenLimited(p device.Protocol, deviceID, target string, limit *Limit) (Session, error) {
	addr := s.Addr(p)
	if addr == nil {
		return nil, fmt.Errorf("the embedded %s server is not running: start it or choose another protocol", p)
	}
	host, err := s.advertised(target)
	if err != nil {
		return nil, err
	}
	_, portText, err := net.SplitHostPort(addr.String())
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, err
	}
	if err := device.CheckDeviceID(target, []byte(deviceID)); err != nil {
		return nil, err
	}
	home := path.Join("backup", device.DirectoryName(deviceID))
	session := &serverSession{servers: s, target: target, home: home, grant: &grant{
		user: "iad-" + rand.Text()[:8], password: rand.Text(), anonymous: p == device.TFTP, secure: p == device.FTPS, final: make(map[string]bool), limit: limit,
	}}
	session.server = device.FileServerAddress{Protocol: p, Host: host, Port: uint16(port), Timeout: 30 * time.Second}
	if p != device.TFTP {
		session.server.User, session.server.Password = session.grant.user, session.grant.password
	}
	if err := durable.MkdirAll(s.store.files, home, 0o700); err != nil {
		return nil, fmt.Errorf("directory for backups of %s: %w", deviceID, err)
	}
	s.store.mu.Lock()
	s.store.grants[session.grant.user] = session.grant
	s.store.mu.Unlock()
	return session, nil
}

// Publish makes an image readable for every device and returns its directory.
func (s *Servers) Publish(img *Image) (dir string) { return s.publish(img, nil) }

func (s *Servers) publish(img *Image, limit *Limit) (dir string) {
	dir = path.Join("images", fmt.Sprintf("%x", img.Digest[:8]))
	if limit != nil {
		dir += "-" + limit.name
	}
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	for member, source := range img.sources() {
		source.limit = limit
		s.store.images[path.Join(dir, member)] = source
	}
	return dir
}

// advertised returns the host by which a device at target reaches this machine. It omits
// the zone of a link-local address, which would mean nothing to the device: it uses the
// link on which the request arrives.
func (s *Servers) advertised(target string) (string, error) {
	if s.cfg.Advertise != "" {
		return s.cfg.Advertise, nil
	}
	conn, err := net.Dial("udp", target)
	if err != nil {
		return "", fmt.Errorf("no route to %s: use --advertise to name the host that the device connects to: %w", target, err)
	}
	defer conn.Close()
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return "", err
	}
	return local.Addr().Unmap().WithZone("").String(), nil
}

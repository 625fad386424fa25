package command

import (
	"cmp"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/afero"
	"github.com/spf13/pflag"

	"example.com/iad/internal/cli"
	"example.com/iad/internal/textfile"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// fileServerOptions are the flags for the file server.
type fileServerOptions struct {
	server    string
	serverPin string
	serverCA  string
	listen    string
	advertise string
	protocol  string
	rateLimit string
	passive   string
	onePort   bool
}

const singlePortUsage = "transfer TFTP files on the server's own port, for firewalls that let only that port through"

func (o *fileServerOptions) register(f *pflag.FlagSet) {
	f.StringVar(&o.server, "server", "", "use the file server at `URL` instead of the embedded one, such as tftp://192.0.2.1/iad or ftp://user@192.0.2.1/iad (password in IADMS_SERVER_PASSWORD)")
	f.StringVar(&o.serverPin, "server-pin", "", "`SHA256` of the certificate of --server ftps://...")
	f.StringVar(&o.serverCA, "server-ca", "", "PEM `file` of the certificate authorities for --server ftps://... (default: those of the system)")
	f.StringVar(&o.listen, "listen", "", "serve files on `HOST[:PORT]` (default: any address, a free port)")
	f.StringVar(&o.advertise, "advertise", "", "`host` that devices connect to (default: that of --listen, or this machine's address on the route to the device)")
	f.StringVar(&o.protocol, "protocol", "tftp", "transfer `protocol`: tftp, ftp or ftps; iadms serve prints the SHA-256 of the certificate that devices have to trust for ftps")
	f.StringVar(&o.passive, "passive-ports", "", "range of ports for FTP data, `FIRST-LAST` (default: any free port)")
	f.BoolVar(&o.onePort, "single-port", false, singlePortUsage)
	f.StringVar(&o.rateLimit, "rate-limit", "", "limit all transfers together to `RATE` bytes per second, with k or M")
	cli.Group(f, "File server", "server", "server-pin", "server-ca", "listen", "advertise", "protocol", "passive-ports", "single-port", "rate-limit")
}

// chosen returns the protocol; with --server it is that of the URL.
func (o *fileServerOptions) chosen() device.Protocol {
	name := o.protocol
	if scheme, _, ok := strings.Cut(o.server, "://"); ok {
		name = scheme
	}
	p, err := device.ParseProtocol(name)
	if err != nil {
		return 0 // open has refused it
	}
	return p
}

// open starts or describes the file server; stop stops it.
func (o *fileServerOptions) open(store string, log *slog.Logger) (fs files.FileServer, stop func(), err error) {
	if o.server != "" {
		external, err := externalServer(o.server)
		if err == nil {
			external.TLS, err = o.serverTLS(external.Server.Protocol)
		}
		if err == nil {
			err = os.MkdirAll(store, 0o700)
			external.Store = afero.NewBasePathFs(afero.NewOsFs(), store)
		}
		return external, func() {}, err
	}
	if o.serverPin != "" || o.serverCA != "" {
		return nil, nil, cli.Usage(errors.New("--server-pin and --server-ca require --server"))
	}
	p, err := device.ParseProtocol(o.protocol)
	if err != nil {
		return nil, nil, cli.Usage(fmt.Errorf("--protocol: %w", err))
	}
	rate, err := parseRate(o.rateLimit)
	if err != nil {
		return nil, nil, cli.Usage(err)
	}
	ports, err := parsePorts(o.passive)
	if err != nil {
		return nil, nil, cli.Usage(err)
	}
	address := o.listen
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), "0")
	}
	local, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, nil, cli.Usage(fmt.Errorf("--listen %q: %w", o.listen, err))
	}
	if o.advertise != "" {
		if _, _, err := mib.InetAddress(o.advertise); err != nil {
			return nil, nil, cli.Usage(fmt.Errorf("--advertise: %w", err))
		}
	}
	if err := os.MkdirAll(store, 0o700); err != nil {
		return nil, nil, err
	}
	cfg := files.ServersConfig{
		Files: afero.NewBasePathFs(afero.NewOsFs(), store), Advertise: advertisedHost(o.advertise, local.IP), Bandwidth: rate, PassivePorts: ports, SinglePort: o.onePort, Log: log,
	}
	if p == device.TFTP {
		cfg.TFTP = address
	} else {
		cfg.FTP = address
	}
	servers, err := files.StartServers(cfg)
	if err != nil {
		return nil, nil, err
	}
	return servers, func() {
		if err := servers.Close(); err != nil {
			log.Warn("the file servers could not be stopped", "err", err)
		}
	}, nil
}

// serverTLS returns how the server is verified; nil: by the system's certificate
// authorities.
func (o *fileServerOptions) serverTLS(p device.Protocol) (*tls.Config, error) {
	var pin, ca []byte
	var err error
	name := "--server-pin"
	switch {
	case o.serverPin == "" && o.serverCA == "":
		return nil, nil
	case o.serverPin != "" && o.serverCA != "":
		return nil, cli.Usage(errors.New("--server-pin and --server-ca cannot be combined"))
	case p != device.FTPS:
		return nil, cli.Usage(errors.New("--server-pin and --server-ca require a --server of ftps"))
	case o.serverPin != "":
		pin, err = hex.DecodeString(strings.ReplaceAll(o.serverPin, ":", ""))
	default:
		name = "--server-ca"
		ca, err = textfile.Read(o.serverCA)
	}
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("%s: %w", name, err))
	}
	config, err := files.ServerTLS(pin, ca)
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("%s: %w", name, err))
	}
	return config, nil
}

// advertisedHost is the host that devices connect to: that of --advertise, or else the
// only address that is listened on; empty: the one on the route to the device.
func advertisedHost(advertise string, listen net.IP) string {
	if advertise != "" || listen == nil || listen.IsUnspecified() {
		return advertise
	}
	return listen.String()
}

func externalServer(text string) (*files.ExternalServer, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("--server: %w", err))
	}
	p, err := device.ParseProtocol(u.Scheme)
	if err != nil || u.Hostname() == "" {
		return nil, cli.Usage(fmt.Errorf("--server %q: use PROTOCOL://[USER@]HOST[:PORT][/DIRECTORY]", u.Redacted()))
	}
	if _, inURL := u.User.Password(); inURL {
		return nil, cli.Usage(fmt.Errorf("--server: a password does not belong on the command line; set IADMS_SERVER_PASSWORD"))
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "0"), 10, 16)
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("--server %q: %w", u.Redacted(), err))
	}
	return &files.ExternalServer{
		Server: device.FileServerAddress{
			Protocol: p, Host: u.Hostname(), Port: uint16(port), User: u.User.Username(),
			Password: os.Getenv("IADMS_SERVER_PASSWORD"), Timeout: 30 * time.Second,
		},
		Directory: strings.TrimPrefix(u.Path, "/"),
	}, nil
}

// parseRate parses a number of bytes per second, with k for 1000 or M for 1000000.
func parseRate(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	factor := 1
	number := text
	if n, ok := strings.CutSuffix(text, "k"); ok {
		number, factor = n, 1000
	} else if n, ok := strings.CutSuffix(text, "M"); ok {
		number, factor = n, 1_000_000
	}
	n, err := strconv.Atoi(number)
	if err != nil || n <= 0 || n > 1<<30/factor {
		return 0, fmt.Errorf("--rate-limit %q: use bytes per second, such as 800k or 2M", text)
	}
	return n * factor, nil
}

// parsePorts parses a range of ports; empty: any.
func parsePorts(text string) (ports [2]int, err error) {
	if text == "" {
		return ports, nil
	}
	first, last, _ := strings.Cut(text, "-")
	for i, number := range []string{first, cmp.Or(last, first)} {
		if ports[i], err = strconv.Atoi(number); err != nil || ports[i] < 1 || ports[i] > 65535 || ports[i] < ports[0] {
			return ports, fmt.Errorf("--passive-ports %q: use FIRST-LAST, such as 50000-50100", text)
		}
	}
	return ports, nil
}

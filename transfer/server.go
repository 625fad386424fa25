package transfer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"example.com/iad/mib"
)

// DefaultTimeout is the stall time-out of a server that names none
// (iadUpgServerTimeout).
const DefaultTimeout = 30 * time.Second

// Server says where files are and how to get at them.
type Server struct {
	Protocol mib.Protocol
	Host     string        // name or address; an IPv6 address without brackets
	Port     int           // 0 for the protocol's usual one
	User     string        // FTP; "" for anonymous
	Password string        // FTP
	Path     string        // directory put before each file name, "" for none
	Timeout  time.Duration // nothing arrived for so long: stalled; 0 for DefaultTimeout
}

// String returns the server's URL without its password.
func (s Server) String() string {
	u := s.Protocol.String() + "://"
	if s.User != "" {
		u += printable(s.User, 64) + "@"
	}
	host := printable(s.Host, 64)
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	u += host
	if s.Port != 0 && s.Port != s.usualPort() {
		u += ":" + strconv.Itoa(s.Port)
	}
	if s.Path != "" {
		u += "/" + printable(s.Path, 64)
	}
	return u
}

func (s Server) usualPort() int {
	if s.Protocol == mib.ProtocolTftp {
		return 69
	}
	return 21
}

// address returns host and port for a dialer.
func (s Server) address() string {
	port := s.Port
	if port == 0 {
		port = s.usualPort()
	}
	return net.JoinHostPort(s.Host, strconv.Itoa(port))
}

func (s Server) check() error {
	if s.Protocol < mib.ProtocolTftp || s.Protocol > mib.ProtocolFtps {
		return &Error{Op: "connect", Server: s.String(), Code: mib.FailCauseUnsupportedProtocol,
			Err: fmt.Errorf("%s is not known", s.Protocol)}
	}
	if s.Protocol == mib.ProtocolFtps && !HasFTPS {
		return &Error{Op: "connect", Server: s.String(), Code: mib.FailCauseUnsupportedProtocol,
			Err: errors.New("this program was built without FTPS")}
	}
	bad := func(err error) error {
		return &Error{Op: "connect", Server: s.String(), Code: mib.FailCauseBadRequest, Err: err}
	}
	if s.Host == "" || strings.ContainsAny(s.Host, " /\r\n\x00[]") {
		return bad(fmt.Errorf("%.80q is not a host", s.Host))
	}
	if a, err := netip.ParseAddr(s.Host); err == nil && a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" {
		return bad(fmt.Errorf("%s is link-local: name the interface as well, as in %s%%eth0", s.Host, s.Host))
	}
	if s.Port < 0 || s.Port > 65535 {
		return bad(fmt.Errorf("%d is not a port", s.Port))
	}
	if s.Timeout < 0 {
		return bad(errors.New("negative time-out"))
	}
	if s.Path != "" {
		if err := checkPath(s.Path); err != nil {
			return bad(err)
		}
	}
	if err := errors.Join(checkCredential("user", s.User), checkCredential("password", s.Password)); err != nil {
		return bad(err)
	}
	return nil
}

// ParseURL reads a server's URL: tftp://HOST[:PORT][/DIR], and ftp:// or ftps://
// with [USER[:PASSWORD]@] before the host. The directory is taken as it stands
// after the slash that follows the host, so it is absolute only when written
// with two slashes, as in RFC 1738 section 3.2.2; percent encoding is undone.
func ParseURL(s string) (Server, error) {
	u, err := url.Parse(s)
	if err != nil {
		var ue *url.Error // its text would repeat the URL, which may hold a password
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return Server{}, fmt.Errorf("server URL: %w: use for instance tftp://HOST/DIR", err)
	}
	var srv Server
	switch u.Scheme {
	case "tftp":
		srv.Protocol = mib.ProtocolTftp
	case "ftp":
		srv.Protocol = mib.ProtocolFtp
	case "ftps":
		srv.Protocol = mib.ProtocolFtps
	default:
		return Server{}, fmt.Errorf("server URL: scheme %.20q: use tftp, ftp or ftps", u.Scheme)
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return Server{}, errors.New("server URL: a query or fragment has no meaning here")
	}
	srv.Host = u.Hostname()
	if p := u.Port(); p != "" {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1 || n > 65535 {
			return Server{}, fmt.Errorf("server URL: port %.20q: use 1 to 65535", p)
		}
		srv.Port = n
	}
	srv.User = u.User.Username()
	srv.Password, _ = u.User.Password()
	srv.Path = strings.TrimSuffix(strings.TrimPrefix(u.Path, "/"), "/")
	if u.Path == "//" {
		srv.Path = "/"
	}
	return srv, srv.check()
}

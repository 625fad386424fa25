package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"

	"github.com/jlaffaye/ftp"

	"example.com/iad/mib"
)

// connect dials, secures the connection and logs in.
func (s *ftpSession) connect() error {
	err := s.logIn()
	if err != nil && s.control != nil && s.control.lastVerb() == "OPTS" && s.control.failure() == nil {
		// The server says that it knows UTF-8 but not how to switch it on, and
		// the library takes that for a failed log-in.
		s.disconnect()
		err = s.logIn(ftp.DialWithDisabledUTF8(true))
	}
	return err
}

func (s *ftpSession) logIn(options ...ftp.DialOption) error {
	peer := "" // with the zone of an IPv6 address, which the library loses
	dial := func(network, to string) (net.Conn, error) {
		if s.conn != nil {
			_, port, err := net.SplitHostPort(to)
			if err != nil {
				return nil, err
			}
			to = net.JoinHostPort(peer, port)
		}
		raw, err := s.dial(network, to)
		if err != nil {
			return nil, err
		}
		if s.conn != nil {
			return s.dataConn(raw), nil
		}
		if peer, _, err = net.SplitHostPort(raw.RemoteAddr().String()); err != nil {
			return nil, err
		}
		s.control = newControlConn(raw, s.server.Timeout)
		if s.tls != nil {
			err = s.secure(raw)
		}
		return s.control, err
	}
	user, password := s.server.User, s.server.Password
	if user == "" {
		user = "anonymous"
		if password == "" {
			password = "anonymous@"
		}
	}
	options = append(options, ftp.DialWithDialFunc(dial), ftp.DialWithShutTimeout(s.server.Timeout))
	if s.tls != nil {
		options = append(options, s.tls.option())
	}
	conn, err := ftp.Dial(s.server.address(), options...)
	if err != nil {
		return s.noAnswer(err)
	}
	s.conn = conn
	if err := conn.Login(user, password); err != nil {
		return s.loginError(err)
	}
	return nil
}

// dial opens a socket and registers it for the end of the context.
func (s *ftpSession) dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.server.Timeout)
	defer cancel()
	c, err := s.options.Network.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	limitUnsent(c)
	s.mu.Lock()
	s.open = append(s.open, c)
	s.mu.Unlock()
	if err := s.ctx.Err(); err != nil {
		s.drop()
		return nil, err
	}
	return c, nil
}

// secure does by hand what the library would do on the bare connection:
// greeting, AUTH TLS and handshake (RFC 4217 section 4).
func (s *ftpSession) secure(raw net.Conn) error {
	r := textproto.NewReader(bufio.NewReader(s.control))
	_, greeting, err := r.ReadResponse(220)
	if err != nil {
		return err
	}
	if _, err := s.control.Write([]byte("AUTH TLS\r\n")); err != nil {
		return err
	}
	if _, _, err := r.ReadResponse(234); err != nil {
		var refused *textproto.Error
		if errors.As(err, &refused) {
			return &replyError{protocol: mib.ProtocolFtp, code: refused.Code, text: refused.Msg, hint: mib.FailCauseTlsFailed}
		}
		return err
	}
	if r.R.Buffered() > 0 {
		return &causeError{mib.FailCauseTlsFailed, errors.New("plain text after the reply to AUTH TLS")}
	}
	secured := s.tls.client(raw)
	if err := secured.HandshakeContext(s.ctx); err != nil {
		if classify(err).Code == mib.FailCauseOther { // for instance the pin differs
			err = &causeError{mib.FailCauseTlsFailed, err}
		}
		return err
	}
	s.control = newControlConn(secured, s.server.Timeout)
	first, _, _ := strings.Cut(greeting, "\n")
	s.control.prepend(fmt.Appendf(nil, "220 %s\r\n", first))
	return nil
}

func (s *ftpSession) dataConn(raw net.Conn) net.Conn {
	d := &dataConn{Conn: raw, raw: raw, timeout: s.server.Timeout}
	if s.tls != nil {
		// The handshake comes with the first read or write: servers begin it
		// only after their reply to the command.
		d.Conn = s.tls.client(raw)
	}
	return d
}

// noAnswer distinguishes a server that cannot be reached, or never greets, from one
// that broke off later.
func (s *ftpSession) noAnswer(err error) error {
	var ne net.Error
	var dns *net.DNSError
	if errors.As(err, &ne) && ne.Timeout() && !errors.As(err, &dns) && s.ctx.Err() == nil {
		return &causeError{mib.FailCauseServerUnreachable, err}
	}
	return s.replied(err, either)
}

func (s *ftpSession) loginError(err error) error {
	var reply *textproto.Error
	if s.control.failure() != nil || errors.As(err, &reply) {
		return s.replied(err, either)
	}
	if code, text := s.control.lastReply(); code >= 300 {
		return &replyError{protocol: mib.ProtocolFtp, code: code, text: text}
	}
	return err
}

package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"example.com/iad/mib"
	"example.com/iad/transfer/tftp"
)

// Options are what is not a property of the server. The zero value is usable.
type Options struct {
	RateLimit int   // bytes a second in either direction, 0 for no limit
	MaxSize   int64 // a download of more bytes is refused or ended with fileTooLarge; 0 for no limit

	BlockSize int // TFTP blksize to ask for, 8 to 65464; 0 for 1428, which fits an Ethernet frame
	Window    int // TFTP windowsize in blocks to ask for, 1 (lockstep) to 65535; 0 for 128

	TLS *TLSConfig // FTPS; nil for the system's roots. ServerName "" means the server's host
	Pin []byte     // FTPS: SHA-256 of the server's certificate (DER); replaces every other check of it

	Network Network // opens the sockets; nil for the system's

	Log *slog.Logger // nil discards
}

// Network opens the sockets of transfers: from an address of the caller's choice, for
// instance.
type Network interface {
	// Dial opens a TCP connection, as net.Dialer.DialContext does.
	Dial(ctx context.Context, network, address string) (net.Conn, error)
	// ListenUDP opens a UDP socket on a free port; network is udp4 or udp6.
	ListenUDP(network string) (tftp.PacketConn, error)
}

// system is the Network of the operating system.
type system struct{}

func (system) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, network, address)
}

func (system) ListenUDP(network string) (tftp.PacketConn, error) {
	return tftp.ListenUDP(network)
}

// session is what a protocol must be able to do. Paths are complete and checked.
type session interface {
	// get returns a reader of the file from offset on and the size of the whole
	// file, -1 if unknown.
	get(ctx context.Context, path string, offset int64) (io.ReadCloser, int64, error)
	// put stores what u yields and returns how many bytes went out.
	put(ctx context.Context, path string, u *upload) (int64, error)
	close() error
}

// Client moves files from and to one server. It is not safe for concurrent use:
// one transfer at a time, and the reader of a Get is closed before the next.
type Client struct {
	server  Server
	options Options
	session session
	close   func() error
}

// New checks the server's parameters; it does not connect. The error is an
// [*Error] with cause badRequest or unsupportedProtocol.
func New(server Server, options Options) (*Client, error) {
	if err := server.check(); err != nil {
		return nil, err
	}
	if server.Timeout == 0 {
		server.Timeout = DefaultTimeout
	}
	if options.Network == nil {
		options.Network = system{}
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	options.Log = options.Log.With("server", server.String())
	c := &Client{server: server, options: options}
	switch server.Protocol {
	case mib.ProtocolTftp:
		s, err := newTFTP(server, options)
		if err != nil {
			return nil, c.fail("connect", "", err)
		}
		c.session = s
	default:
		c.session = newFTP(server, options)
	}
	c.close = sync.OnceValue(c.session.close)
	return c, nil
}

// Get opens a file for reading from offset on (FTP only; TFTP returns an error
// that wraps [ErrNoResume]). It returns a reader and the size of the whole file
// in bytes, -1 if the server does not report it. Read returns io.EOF only when the
// server said that the file is complete and, the size being known, as many
// bytes came. The context governs the reading until Close, too.
func (c *Client) Get(ctx context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	path, err := remotePath(c.server.Path, name)
	if err != nil {
		return nil, 0, c.fail("get", name, &causeError{mib.FailCauseBadRequest, err})
	}
	if offset < 0 {
		return nil, 0, c.fail("get", name, &causeError{mib.FailCauseBadRequest, fmt.Errorf("negative offset %d", offset)})
	}
	r, size, err := c.session.get(ctx, path, offset)
	if err != nil {
		return nil, 0, c.fail("get", name, contextFirst(ctx, err))
	}
	d := &download{ctx: ctx, client: c, name: name, inner: r, limit: newLimiter(c.options.RateLimit), at: offset, size: size, most: c.options.MaxSize}
	if d.most > 0 && size > d.most {
		r.Close()
		return nil, 0, c.fail("get", name, d.tooLarge(size))
	}
	return d, size, nil
}

// Put stores what r yields, size bytes (-1 if that is not known), under name and
// returns how many bytes went out. Over FTP the file gets a temporary name
// first and its own when it is complete, where the server can do that. It goes back
// in r when a connection breaks, when the server refuses the temporary name, and when
// TFTP needs smaller blocks; r is read from where it stands.
func (c *Client) Put(ctx context.Context, name string, r io.ReadSeeker, size int64) (int64, error) {
	path, err := remotePath(c.server.Path, name)
	if err != nil {
		return 0, c.fail("put", name, &causeError{mib.FailCauseBadRequest, err})
	}
	n, err := c.session.put(ctx, path, newUpload(ctx, r, size, c.options.RateLimit))
	if err != nil {
		return n, c.fail("put", name, contextFirst(ctx, err))
	}
	return n, nil
}

// Verify reads a file back and compares it with what was stored: size in bytes
// and SHA-256. The cause of its error is sizeMismatch or digestMismatch where
// they differ; any other means that the server did not let the file be read.
func (c *Client) Verify(ctx context.Context, name string, size int64, digest []byte) error {
	r, announced, err := c.Get(ctx, name, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	if announced >= 0 && announced != size {
		return c.fail("verify", name, &causeError{mib.FailCauseSizeMismatch, fmt.Errorf("the server has %d bytes, %d were sent", announced, size)})
	}
	h := sha256.New()
	n, err := io.CopyBuffer(h, io.LimitReader(r, size+1), make([]byte, copyBuffer))
	switch {
	case err != nil:
		return err
	case n != size:
		return c.fail("verify", name, &causeError{mib.FailCauseSizeMismatch, fmt.Errorf("%d bytes read back, %d were sent", n, size)})
	case !bytes.Equal(h.Sum(nil), digest):
		return c.fail("verify", name, &causeError{mib.FailCauseDigestMismatch, errors.New("the file reads back differently")})
	}
	return nil
}

// Close ends the connection to the server, if there is one.
func (c *Client) Close() error { return c.close() }

// fail makes an *Error of whatever went wrong, see classify.go.
func (c *Client) fail(op, name string, err error) error {
	e := classify(hide(err, c.server.Password))
	e.Op, e.Server, e.File = op, c.server.String(), name
	c.options.Log.Debug("transfer failed", "op", op, "file", name, "cause", e.Code, "reply", e.Reply, "err", e.Err)
	return e
}

// hide takes the password out of an error's text: some servers quote the commands that
// they refuse, PASS too.
func hide(err error, password string) error {
	text := withoutPassword(err.Error(), password)
	if text == err.Error() {
		return err
	}
	var reply *replyError
	if errors.As(err, &reply) {
		hidden := *reply
		hidden.text = withoutPassword(reply.text, password)
		return &hiddenError{text, &hidden}
	}
	return &hiddenError{text, err}
}

// withoutPassword hides the password where text quotes the command that it was sent in.
// Elsewhere only a password that no text contains by chance is hidden: replacing each p
// in a text garbles it, and reveals the password to whoever knows the text.
func withoutPassword(text, password string) string {
	if password == "" {
		return text
	}
	const hidden = "***"
	if !guessable(password) {
		return strings.ReplaceAll(text, password, hidden)
	}
	var b strings.Builder
	for {
		i := strings.Index(text, "PASS")
		if i < 0 {
			return b.String() + text
		}
		i += len("PASS")
		rest := strings.TrimLeft(text[i:], " ")
		spaces := len(text) - i - len(rest)
		b.WriteString(text[:i+spaces])
		text = rest
		if after, found := strings.CutPrefix(rest, password); found && spaces > 0 && !startsWithLetter(after) {
			b.WriteString(hidden)
			text = after
		}
	}
}

// guessable reports whether a password may be part of any text: it is short, or nothing
// but small letters.
func guessable(password string) bool {
	small := func(r rune) bool { return unicode.IsLower(r) }
	return len(password) < 6 || strings.TrimLeftFunc(password[1:], small) == ""
}

func startsWithLetter(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return unicode.IsLetter(r) || unicode.IsDigit(r)
}

// hiddenError is an error with another text.
type hiddenError struct {
	text string
	err  error
}

func (e *hiddenError) Error() string { return e.text }
func (e *hiddenError) Unwrap() error { return e.err }

// contextFirst replaces an error that followed from the end of the context.
func contextFirst(ctx context.Context, err error) error {
	if ctxErr := context.Cause(ctx); ctxErr != nil && err != io.EOF {
		return &contextError{ctx.Err(), ctxErr}
	}
	return err
}

// contextError is the end of a context with its cause.
type contextError struct{ err, cause error }

func (e *contextError) Error() string   { return e.cause.Error() }
func (e *contextError) Unwrap() []error { return []error{e.err, e.cause} }

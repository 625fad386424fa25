package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"sync"

	"github.com/jlaffaye/ftp"

	"example.com/iad/mib"
)

// ftpSession keeps one control connection from file to file.
type ftpSession struct {
	server  Server
	options Options
	tls     *tlsSettings // nil for plain FTP

	conn    *ftp.ServerConn // nil when not connected
	control *controlConn
	ctx     context.Context // of the transfer in hand: the library's callbacks take none

	renaming renaming // what the server supports

	mu   sync.Mutex
	open []net.Conn // sockets to close when the context ends
}

func newFTP(server Server, options Options) *ftpSession {
	s := &ftpSession{server: server, options: options}
	if server.Protocol == mib.ProtocolFtps {
		s.tls = newTLSSettings(server, options)
	}
	return s
}

// begin makes ctx the context of what follows, and connects if there is no
// connection that still answers. The returned function ends its hold.
func (s *ftpSession) begin(ctx context.Context) (end func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.ctx = ctx
	end = onEnd(ctx, s.drop)
	if s.conn != nil && s.conn.NoOp() != nil {
		s.disconnect()
	}
	if s.conn == nil {
		if err := s.connect(); err != nil {
			s.disconnect()
			end()
			return nil, err
		}
	}
	return end, nil
}

// drop closes all sockets; whatever waits on one returns.
func (s *ftpSession) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.open {
		c.Close()
	}
	s.open = nil
}

// disconnect gives up the control connection without a word.
func (s *ftpSession) disconnect() {
	s.drop()
	s.conn, s.control = nil, nil
}

func (s *ftpSession) close() error {
	if s.conn != nil {
		// Said for the server's sake; whether it hears it does not matter.
		_ = s.conn.Quit()
	}
	s.disconnect()
	return nil
}

// transferred is called when a transfer's data connection is done with: only
// the control connection remains.
func (s *ftpSession) transferred() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) > 1 {
		for _, c := range s.open[1:] {
			c.Close()
		}
		s.open = s.open[:1]
	}
}

// replied turns the library's error for a reply into ours. Several errors may
// be joined: ours are more specific than the reply that followed from them, and
// a reply more than the broken connection that it explains.
func (s *ftpSession) replied(err error, doing direction) error {
	var ours *causeError
	var source *sourceError
	var reply *textproto.Error
	switch {
	case err == nil, errors.As(err, &source), errors.As(err, &ours):
		return err
	case errors.As(err, &reply):
		return &replyError{protocol: mib.ProtocolFtp, code: reply.Code, text: reply.Msg, doing: doing}
	case classify(err).Code == mib.FailCauseOther && s.ctx.Err() == nil:
		// The library could not make sense of what came, perhaps because it was
		// only half of a reply.
		if s.control != nil && s.control.failure() != nil {
			return s.control.failure()
		}
		return &causeError{mib.FailCauseProtocolError, err}
	}
	return err
}

// size asks for a file's size: -1 if the server does not report it.
func (s *ftpSession) size(path string) (int64, error) {
	n, err := s.conn.FileSize(path)
	var reply *textproto.Error
	switch {
	case err == nil && n >= 0:
		return n, nil
	case s.control.failure() != nil:
		return -1, err
	case errors.As(err, &reply) && reply.Code == 421:
		return -1, err
	}
	return -1, nil
}

func (s *ftpSession) get(ctx context.Context, path string, offset int64) (io.ReadCloser, int64, error) {
	end, err := s.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	r, size, err := s.retrieve(path, offset)
	if err != nil {
		err = s.replied(err, getting)
		end()
		s.transferred()
		if s.control.failure() != nil {
			s.disconnect()
		}
		return nil, 0, err
	}
	r.end = end
	return r, size, nil
}

func (s *ftpSession) retrieve(path string, offset int64) (*ftpReader, int64, error) {
	size, err := s.size(path)
	if err != nil {
		return nil, 0, err
	}
	if size >= 0 && offset > size {
		return nil, 0, &causeError{mib.FailCauseSizeMismatch, fmt.Errorf("%w: it has %d bytes, %d are wanted to be skipped", ErrNoResume, size, offset)}
	}
	if offset > 0 && offset == size {
		return &ftpReader{session: s, done: true}, size, nil // some servers refuse to start at the end
	}
	response, err := s.conn.RetrFrom(path, uint64(offset))
	var reply *textproto.Error
	switch {
	case err == nil:
		return &ftpReader{session: s, response: response, left: size - offset, sized: size >= 0}, size, nil
	case errors.As(err, &reply) && s.control.lastVerb() == "REST":
		return nil, 0, &causeError{mib.FailCauseProtocolError, fmt.Errorf("%w: %d %s", ErrNoResume, reply.Code, reply.Msg)}
	case errors.As(err, &reply) && reply.Code == 550 && size >= 0:
		// It exists: it may not be read. vsftpd has the same words for both.
		return nil, 0, &replyError{protocol: mib.ProtocolFtp, code: reply.Code, text: reply.Msg, hint: mib.FailCauseAccessDenied}
	}
	return nil, 0, err
}

// ftpReader is a download in progress.
type ftpReader struct {
	session  *ftpSession
	response *ftp.Response
	left     int64 // bytes to come, if sized
	sized    bool
	done     bool
	end      func()
}

func (r *ftpReader) Read(p []byte) (int, error) {
	if r.done {
		return 0, io.EOF
	}
	n, err := r.response.Read(p)
	r.left -= int64(n)
	if err == io.EOF {
		r.done = true
		if err = r.finish(); err == nil {
			err = io.EOF
		}
	}
	return n, err
}

// finish reads the reply that ends the transfer.
func (r *ftpReader) finish() error {
	err := r.response.Close()
	if err == nil {
		return nil
	}
	var reply *textproto.Error
	if errors.As(err, &reply) && reply.Code < 200 {
		defer r.session.disconnect() // the last reply may still come, and would be taken for the next one
	}
	var ne net.Error
	if r.sized && r.left == 0 && errors.As(err, &ne) && ne.Timeout() {
		// Every byte came, only the reply did not: routers forget control
		// connections that are silent during a long transfer.
		r.session.options.Log.Info("no reply at the end of a complete download")
		r.session.disconnect()
		return nil
	}
	return r.session.replied(err, getting)
}

func (r *ftpReader) Close() error {
	r.end()
	if !r.done || r.session.control != nil && r.session.control.failure() != nil {
		r.done = true
		r.session.disconnect() // there is no way back to a quiet connection but ABOR, which few servers do well
		return nil
	}
	r.session.transferred()
	return nil
}

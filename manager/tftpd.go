package manager

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"time"

	"github.com/pin/tftp/v3"
)

// serveTFTP answers read and write requests on conn until ctx ends. Any host
// may read what is published or granted and write into granted folders: TFTP
// knows no users (RFC 1350).
func serveTFTP(ctx context.Context, conn net.PacketConn, s *store) error {
	server := tftp.NewServer(
		func(name string, to io.ReaderFrom) error { return s.sendTFTP(ctx, name, to) },
		func(name string, from io.WriterTo) error { return s.receiveTFTP(ctx, name, from) },
	)
	server.SetTimeout(2 * time.Second)
	server.SetRetries(5)
	stop := context.AfterFunc(ctx, server.Shutdown)
	defer stop()
	return server.Serve(conn)
}

func (s *store) sendTFTP(ctx context.Context, name string, to io.ReaderFrom) error {
	file, size, err := access{store: s}.open(name)
	if err != nil {
		s.log.Warn("TFTP read refused", "file", name, "cause", err)
		return plainError(err)
	}
	defer file.Close()
	if t, ok := to.(tftp.OutgoingTransfer); ok {
		t.SetSize(size)
	}
	n, err := to.ReadFrom(&limitedReader{ctx: ctx, r: file, l: s.limiter})
	s.logSent("TFTP", name, n, err)
	return err
}

func (s *store) receiveTFTP(ctx context.Context, name string, from io.WriterTo) error {
	up, err := access{store: s}.create(ctx, name)
	if err != nil {
		s.log.Warn("TFTP write refused", "file", name, "cause", err)
		return plainError(err)
	}
	if _, err := from.WriteTo(up); err != nil {
		up.abandon(err)
		return plainError(err)
	}
	return plainError(up.commit())
}

func (s *store) logSent(protocol, name string, octets int64, err error) {
	if err != nil {
		s.log.Warn("file not sent completely", "protocol", protocol, "file", name, "octets", octets, "cause", err)
		return
	}
	s.log.Log(context.Background(), slog.LevelInfo, "file sent", "protocol", protocol, "file", name, "octets", octets)
}

// plainError leaves out paths of this machine: the text goes to the device.
func plainError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("file not found")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("access denied")
	case errors.Is(err, errFileName), errors.Is(err, errNoUpload), errors.Is(err, errTooLarge):
		return err
	}
	return errors.New("server error")
}

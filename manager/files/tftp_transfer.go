package files

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"example.com/iad/transfer/tftp"
)

// Limits of what a client can negotiate.
const (
	maxTFTPSendWindow = 4096    // blocks; far from where block numbers roll over
	maxTFTPSendOctets = 4 << 20 // in flight
	// An upload's window has to fit the receive buffer that a kernel gives.
	maxTFTPReceiveWindow = 64
	maxTFTPReceiveOctets = 256 << 10
	// maxTFTPTimeout is the maximum time-out option that is accepted, in seconds.
	maxTFTPTimeout = 30
)

// Why a transfer ended, besides success.
var (
	errTFTPMode     = errors.New("request not served")
	errTFTPSize     = errors.New("the file's size is not what was announced")
	errServerStops  = errors.New("the server stops")
	errClientGone   = errors.New("the client is gone")
	errClientSilent = errors.New("the client does not answer")
	errClientEnds   = errors.New("the client gave up")
	errSuperseded   = errors.New("the client asked for something else")
	errCrowded      = errors.New("ended to make room for other clients")
)

// dialTFTP opens a transfer's socket, on the address where the request arrived.
func dialTFTP(local netip.Addr, client netip.AddrPort) (tftp.Conn, error) {
	return tftp.Dial(local, client, 4*maxTFTPReceiveOctets)
}

// serve carries out one transfer and sends the client an error if it fails.
func (t *tftpServer) serve(ctx context.Context, x *tftpTransfer, p tftp.Packet) {
	conn, err := t.dialer(x.local, x.client)
	if err != nil {
		t.limited.warn("TFTP request not served", "client", x.client, "err", err)
		return
	}
	block := 0
	if p.Op == tftp.OpWriteRequest {
		block = p.Options.BlockSize
	}
	link := tftp.NewLink(ctx, conn, block)
	defer link.Close()
	link.FirstPatience, link.Patience = tftpFirstPatience, tftpPatience
	if n := p.Options.Timeout; n > 0 && n <= maxTFTPTimeout {
		link.RoundTrip.Most = time.Duration(n) * time.Second
		link.Patience = max(tftpPatience, 5*link.RoundTrip.Most)
	}
	link.OnHeard = func() { t.setState(x, tftpRunning) }
	log := t.store.log.With("client", x.client)
	switch {
	case p.Filename == "":
		err = fmt.Errorf("%w: a request without file name or mode", errTFTPMode)
	case p.Mode != tftp.ModeOctet:
		err = fmt.Errorf("%w: mode %.16q: use binary (byte) mode", errTFTPMode, p.Mode)
	case p.Op == tftp.OpReadRequest:
		err = t.store.sendTFTP(link, p, log)
	default:
		err = t.store.receiveTFTP(ctx, link, p, log, func() { t.setState(x, tftpDone) })
	}
	switch {
	case err == nil:
	case errors.Is(err, errClientEnds):
		// A device that only read the start of an image needs no more.
		log.Debug("TFTP transfer ended by the client", "bytes", link.Octets, "err", err)
	default:
		refuse(link, err)
		t.limited.warn("TFTP transfer failed", "client", x.client, "file", p.Filename, "bytes", link.Octets, "err", err)
	}
}

// sendTFTP answers a read request.
func (s *store) sendTFTP(link *tftp.Link, p tftp.Packet, log *slog.Logger) error {
	file, size, err := access{store: s}.open(p.Filename)
	if err != nil {
		return err
	}
	defer file.Close()
	inFlight := maxTFTPSendOctets
	limits := access{store: s}.limits(p.Filename)
	if len(limits) > 0 { // a window is not to take longer than clients wait
		inFlight = min(inFlight, int(limits.rate()/2))
	}
	accepted := acceptTFTP(p.Options, maxTFTPSendWindow, inFlight)
	if p.Options.HasSize {
		accepted.Size = size
	}
	sender := tftp.NewSender(link, accepted, optionAck(accepted))
	if len(limits) > 0 {
		sender.Pace = limits.reserve
	}
	if err := sender.SendFile(file, size); err != nil && !(errors.Is(err, tftp.ErrGone) && sender.SentAll()) {
		return clientEnd(err) // one that has closed its port at the end: its last words were lost
	}
	log.Info("file sent", "protocol", "TFTP", "file", p.Filename, "bytes", size)
	return nil
}

// receiveTFTP serves a write request. The last block is acknowledged when the file is
// stored durably, which done reports.
func (s *store) receiveTFTP(ctx context.Context, link *tftp.Link, p tftp.Packet, log *slog.Logger, done func()) error {
	if p.Options.Size > s.maxUpload {
		return fmt.Errorf("%w: more than %d bytes", errTooLarge, s.maxUpload)
	}
	up, err := access{store: s}.create(ctx, p.Filename)
	if err != nil {
		return err
	}
	if err := s.checkQuota(up, p.Options.Size); err != nil {
		up.abandon(err)
		return err
	}
	log.Debug("TFTP upload started", "file", p.Filename)
	accepted := acceptTFTP(p.Options, maxTFTPReceiveWindow, maxTFTPReceiveOctets)
	receiver := tftp.NewReceiver(link, tftpUpload{up, accepted.Size}, accepted, optionAck(accepted))
	if err := clientEnd(receiver.Run()); err != nil {
		up.abandon(err)
		return err
	}
	done()
	receiver.Dally()
	return nil
}

// optionAck returns the answer to a request with options. Without options it is nil: then
// data or a plain acknowledgement follow at once.
func optionAck(accepted tftp.Options) []byte {
	if accepted.None() {
		return nil
	}
	return tftp.AppendOptionAck(nil, accepted)
}

// tftpUpload stores what a client sends.
type tftpUpload struct {
	*upload
	announced int64 // 0 for unknown
}

// There is always room: each block is written when it arrives.
func (tftpUpload) Room(int) (<-chan struct{}, error) { return nil, nil }

func (u tftpUpload) End() error {
	if u.announced > 0 && u.announced != u.size {
		return fmt.Errorf("%w: received %d bytes, %d were announced", errTFTPSize, u.size, u.announced)
	}
	return u.commit()
}

// clientEnd describes in this server's words what ended a transfer.
func clientEnd(err error) error {
	var received *tftp.ErrorPacket
	switch {
	case errors.As(err, &received):
		return fmt.Errorf("%w: %s", errClientEnds, printableTFTP(received.Message))
	case errors.Is(err, tftp.ErrGone):
		return errClientGone
	case errors.Is(err, tftp.ErrSilent), errors.Is(err, tftp.ErrNothingThrough):
		return errClientSilent
	case errors.Is(err, context.Canceled):
		return errServerStops
	}
	return err
}

// printableTFTP makes text from the network safe for a log.
func printableTFTP(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), 128)])
}

// acceptTFTP returns which requested options are accepted and with what values, for an
// option acknowledgement (RFC 2347).
func acceptTFTP(asked tftp.Options, maxWindow, maxOctets int) tftp.Options {
	o := tftp.Options{BlockSize: asked.BlockSize, HasSize: asked.HasSize, Size: asked.Size}
	if asked.Timeout <= maxTFTPTimeout {
		o.Timeout = asked.Timeout
	}
	if asked.Window > 0 {
		block := max(asked.BlockSize, tftp.MinBlockSize)
		if asked.BlockSize == 0 {
			block = tftp.DefaultBlockSize
		}
		o.Window = max(1, min(asked.Window, maxWindow, maxOctets/block))
	}
	return o
}

// refuse sends the client an error, once: a client that does not receive it runs into its
// time-out. A client that had to make room gets none: if it is still there, it repeats
// its request, while an error would make it give up.
func refuse(link *tftp.Link, err error) {
	if errors.Is(err, errClientGone) || errors.Is(err, errSuperseded) || errors.Is(err, errCrowded) {
		return
	}
	link.Abort(tftpError(err))
}

// tftpError returns the error code and text for the client (RFC 1350, appendix), without
// paths of this machine.
func tftpError(err error) (tftp.ErrorCode, string) {
	text := plainError(err).Error()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return tftp.ErrFileNotFound, text
	case errors.Is(err, fs.ErrPermission), errors.Is(err, errFileName), errors.Is(err, errNoUpload):
		return tftp.ErrAccessViolation, text
	case errors.Is(err, errTooLarge), errors.Is(err, errFull):
		return tftp.ErrDiskFull, text
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return tftp.ErrDiskFull, "disk full"
	case errors.Is(err, fs.ErrExist):
		return tftp.ErrFileExists, "too many versions of this file exist"
	case errors.Is(err, errTFTPMode):
		return tftp.ErrIllegal, err.Error()
	case errors.Is(err, errTFTPSize), errors.Is(err, errClientSilent), errors.Is(err, errServerStops):
		return tftp.ErrNotDefined, err.Error()
	}
	return tftp.ErrNotDefined, text
}

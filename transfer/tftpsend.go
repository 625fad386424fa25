package transfer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"example.com/iad/transfer/tftp"
)

// tftpSender is an upload: a window of blocks goes out, then the receiver says
// with which one to go on (RFC 7440). A second acknowledgement of the same block
// is never answered with data in lockstep (RFC 1123 section 4.2.3.1), and in a
// window at most once: there it means that the first block was lost.
//
// Block numbers are of full width here, from 1.
type tftpSender struct {
	sock     *tftpSocket
	stall    time.Duration // nothing acknowledged for so long: give up
	patience time.Duration // the same for the first block
	rtt      roundTrip

	block, window int
	packets       [][]byte // the window's packets, by block number modulo window
	acked         int64    // last block acknowledged
	read          int64    // last block read from the source
	sent          int64    // last block sent, since it was last gone back
	final         int64    // number of the last block, 0 while unknown
	sentAt        time.Time
	timed         bool // nothing of this window was sent twice
	wentBack      bool // in answer to a repeated acknowledgement of acked
	moveAt        time.Time
}

// begin takes the answer to the request.
func (w *tftpSender) begin(p tftp.Packet, t terms) error {
	got := terms{block: tftp.DefaultBlockSize, window: 1}
	switch {
	case p.Op == tftp.OpOptionAck:
		var err error
		if got, err = accept(t, p.Options); err != nil {
			return err
		}
	case p.Op == tftp.OpAck && p.Block == 0: // the server ignores options
	default:
		return &causeError{CauseProtocolError, fmt.Errorf("answer to a write request is operation %d", p.Op)}
	}
	w.block, w.window = got.block, got.window
	w.packets = make([][]byte, w.window)
	store := make([]byte, w.window*(w.block+tftp.DataHeader))
	for i := range w.packets {
		w.packets[i] = store[: 0 : w.block+tftp.DataHeader]
		store = store[w.block+tftp.DataHeader:]
	}
	w.moveAt = time.Now()
	return nil
}

// run sends the whole of source.
func (w *tftpSender) run(source io.Reader) error {
	w.timed = true
	for w.final == 0 || w.acked < w.final {
		if err := w.fill(source); err != nil {
			return err
		}
		limit := w.stall
		if w.acked == 0 {
			limit = w.patience
		}
		giveUp := w.moveAt.Add(limit)
		if !time.Now().Before(giveUp) {
			if w.acked == 0 {
				return errNothingThrough
			}
			return errStalled
		}
		if err := w.wait(giveUp); err != nil {
			return err
		}
	}
	return nil
}

// fill sends what the window has room for.
func (w *tftpSender) fill(source io.Reader) error {
	for w.sent < w.acked+int64(w.window) && (w.final == 0 || w.sent < w.final) {
		n := w.sent + 1
		if n > w.read {
			before := time.Now()
			if err := w.load(n, source); err != nil {
				return err
			}
			if w.sent == w.acked { // a slow source is no stall
				w.moveAt = w.moveAt.Add(time.Since(before))
			}
		}
		if err := w.sock.send(w.packets[n%int64(w.window)]); err != nil {
			return err
		}
		w.sent, w.sentAt = n, time.Now()
	}
	return nil
}

// load reads block n. The last block is the one that is not full.
func (w *tftpSender) load(n int64, source io.Reader) error {
	slot := &w.packets[n%int64(w.window)]
	p := tftp.AppendDataHeader((*slot)[:0], uint16(n))
	k, err := io.ReadFull(source, p[len(p):len(p)+w.block])
	switch {
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
		w.final = n
	case err != nil:
		return err
	}
	*slot, w.read = p[:len(p)+k], n
	return nil
}

// wait waits for an acknowledgement and goes back where it says, or to the
// window's beginning when there is none.
func (w *tftpSender) wait(giveUp time.Time) error {
	at := w.sentAt.Add(w.rtt.timeout())
	p, _, err := w.sock.receive(earlier(at, giveUp))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if !time.Now().Before(at) {
			w.rtt.silent()
			w.goBack()
		}
		return nil
	}
	if err != nil {
		return err
	}
	var n int64
	switch p.Op {
	case tftp.OpAck:
		n = tftp.Unwrap(w.acked, p.Block)
	case tftp.OpOptionAck:
		n = 0 // the first block was lost
	default:
		return nil
	}
	switch {
	case n > w.acked && n <= w.read:
		w.advance(n)
	case n == w.acked && w.window > 1 && !w.wentBack && time.Since(w.sentAt) >= w.rtt.share(3, 4, time.Millisecond):
		w.wentBack = true
		w.goBack()
	}
	return nil
}

func (w *tftpSender) advance(n int64) {
	if w.timed && n == w.sent {
		w.rtt.sample(time.Since(w.sentAt))
	}
	w.rtt.answered()
	w.acked, w.moveAt = n, time.Now()
	w.timed = w.sent <= n // otherwise the rest of the window goes out again
	w.sent = n
	w.wentBack = false
}

// goBack makes fill send the window again.
func (w *tftpSender) goBack() {
	w.sent, w.timed = w.acked, false
}

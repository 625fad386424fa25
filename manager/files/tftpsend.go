package files

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/time/rate"

	"example.com/iad/transfer/tftp"
)

// tftpSender is a download as the server sees it: a window of blocks goes out, then
// the client says with which one to go on (RFC 7440). In lockstep an acknowledgement
// that comes twice is never answered (RFC 1123 section 4.2.3.1, the Sorcerer's
// Apprentice), in a window at most once: there it means that the first block was
// lost.
//
// Blocks are read again from the file when they are sent again, so a window costs no
// memory. Block numbers are of full width here, from 1; block 0 is the option
// acknowledgement.
type tftpSender struct {
	link    *tftpLink
	file    io.ReaderAt
	size    int64
	answer  []byte // option acknowledgement, nil without options
	block   int64
	window  int64
	limiter *rate.Limiter

	packet   []byte
	acked    int64 // last block acknowledged
	sent     int64 // last block sent since the sender last went back
	highest  int64 // last block ever sent
	final    int64 // number of the last block
	sentAt   time.Time
	moved    time.Time // when something went on last
	fresh    bool      // nothing in this window was sent twice
	wentBack bool      // in answer to a repeated acknowledgement of acked
}

func newTFTPSender(link *tftpLink, file io.ReaderAt, size int64, o tftp.Options, limiter *rate.Limiter) *tftpSender {
	s := &tftpSender{link: link, file: file, size: size, block: tftp.DefaultBlockSize, window: 1, limiter: limiter, fresh: true}
	if o.BlockSize > 0 {
		s.block = int64(o.BlockSize)
	}
	s.window = max(s.window, int64(o.Window))
	if !o.None() {
		s.answer = tftp.AppendOptionAck(nil, o)
		s.acked, s.sent, s.highest = -1, -1, -1
	}
	s.final = size/s.block + 1 // the last block is the one that is not full
	s.packet = make([]byte, 0, tftp.DataHeader+s.block)
	return s
}

// run sends the whole file.
func (s *tftpSender) run() error {
	s.moved = time.Now()
	for s.acked < s.final {
		if err := s.fill(); err != nil {
			return err
		}
		if err := s.await(); err != nil {
			return err
		}
	}
	return nil
}

// last is the last block that may be sent now.
func (s *tftpSender) last() int64 {
	if s.acked < 0 {
		return 0
	}
	return min(s.acked+s.window, s.final)
}

// fill sends what the window has room for. While it waits for bandwidth it listens:
// a client that cannot wait says so.
func (s *tftpSender) fill() error {
	for s.sent < s.last() {
		for until := time.Now().Add(reserve(s.limiter, int(s.block))); time.Until(until) > 0; {
			p, err := s.link.receive(until)
			if errors.Is(err, errTFTPSilent) {
				break
			}
			if err != nil {
				return err
			}
			s.acknowledged(p)
		}
		if s.sent >= s.last() {
			return nil
		}
		if err := s.sendBlock(s.sent + 1); err != nil {
			return err
		}
	}
	return nil
}

func (s *tftpSender) sendBlock(n int64) error {
	b := s.answer
	if n > 0 {
		offset := (n - 1) * s.block
		k := int(min(s.block, s.size-offset))
		b = tftp.AppendDataHeader(s.packet[:0], uint16(n))
		b = b[:len(b)+k]
		if m, err := s.file.ReadAt(b[tftp.DataHeader:], offset); m < k {
			return fmt.Errorf("reading at octet %d: %w", offset, err)
		}
	}
	if err := s.link.send(b); err != nil {
		return err
	}
	s.sent, s.sentAt = n, time.Now()
	if n > s.highest {
		s.highest, s.moved = n, s.sentAt
	}
	return nil
}

// await waits for an acknowledgement, and goes back to the window's beginning when
// there is none.
func (s *tftpSender) await() error {
	p, err := s.link.receive(s.sentAt.Add(s.link.pace.timeout()))
	switch {
	case err == nil:
		s.acknowledged(p)
	case errors.Is(err, errClientGone) && s.highest == s.final:
		s.acked = s.final // it has closed its port: its last words were lost
	case !errors.Is(err, errTFTPSilent):
		return err
	case time.Since(s.moved) >= s.link.limit():
		return errClientSilent
	default:
		s.link.pace.silences++
		s.goBack()
	}
	return nil
}

func (s *tftpSender) acknowledged(p tftp.Packet) {
	if p.Op != tftp.OpAck {
		return
	}
	pace := &s.link.pace
	switch n := tftp.Unwrap(s.acked, p.Block); {
	case n > s.acked && n <= s.highest:
		now := time.Now()
		if s.fresh && n == s.sent {
			pace.sample(now.Sub(s.sentAt))
		}
		pace.silences = 0
		s.fresh = s.sent <= n // otherwise the rest of the window goes out again
		s.acked, s.sent, s.moved, s.wentBack = n, n, now, false
		s.link.octets = min(max(n, 0)*s.block, s.size)
	case n == s.acked && s.window > 1 && !s.wentBack && time.Since(s.sentAt) >= max(pace.smoothed*3/4, time.Millisecond):
		s.wentBack = true
		s.goBack()
	}
}

// goBack makes fill send the window again.
func (s *tftpSender) goBack() { s.sent, s.fresh = s.acked, false }

package tftp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// batchSize is the largest number of bytes that go out together: most of what there is to
// gain, and little memory for each of many transfers.
const batchSize = 32 << 10

// Sender sends a file: a window of blocks goes out, then the receiver says with
// which one to go on (RFC 7440). A second acknowledgement of the same block is
// never answered with data in lockstep (RFC 1123 section 4.2.3.1, the Sorcerer's
// Apprentice), and in a window at most once: there it means that the first block
// was lost.
//
// Block numbers are of full width here, from 1; block 0 is the answer to a request.
type Sender struct {
	// Pace reserves bandwidth for so many bytes, and says how long to wait before they
	// go out; nil for no limit.
	Pace func(octets int) time.Duration

	link          *Link
	answer        []byte
	block, window int64
	packet        func(n int64) ([]byte, error) // the DATA packet of block n, good until the next call
	batch         []byte                        // packets that go out together

	acked    int64 // last block acknowledged
	sent     int64 // last block sent, since the sender last went back
	highest  int64 // last block ever sent
	final    int64 // number of the last block, 0 while unknown
	size     int64 // of the file, when final is known
	begun    bool  // something was acknowledged
	sentAt   time.Time
	moved    time.Time // when something went on last
	timed    bool      // nothing of this window was sent twice
	wentBack bool      // in answer to a repeated acknowledgement of acked
}

// NewSender makes the sender of one file under the options agreed on. The answer is the
// option acknowledgement that a server begins with, nil for none.
func NewSender(link *Link, o Options, answer []byte) *Sender {
	s := &Sender{link: link, answer: answer, timed: true}
	if s.block, s.window = o.Terms(); answer != nil {
		s.acked, s.sent, s.highest = -1, -1, -1
	}
	return s
}

// SendFile sends a file and reads again what has to be sent again: a window costs no memory.
func (s *Sender) SendFile(file io.ReaderAt, size int64) error {
	buf := make([]byte, DataHeader+s.block)
	// Blocks are read several at once.
	ahead, start := make([]byte, 0, max(s.block, min(s.block*s.window, batchSize))), int64(0)
	s.packet = func(n int64) ([]byte, error) {
		offset := (n - 1) * s.block
		k := min(s.block, size-offset)
		if offset < start || offset+k > start+int64(len(ahead)) {
			start, ahead = offset, ahead[:min(int64(cap(ahead)), size-offset)]
			if got, err := file.ReadAt(ahead, offset); got < len(ahead) {
				ahead = ahead[:0]
				return nil, fmt.Errorf("reading at offset %d: %w", offset+int64(got), err)
			}
		}
		return append(AppendDataHeader(buf[:0], uint16(n)), ahead[offset-start:][:k]...), nil
	}
	return s.run()
}

// SendStream sends what can be read once: it keeps the window's packets.
func (s *Sender) SendStream(source io.Reader) error {
	packets := make([][]byte, s.window) // by block number modulo window
	store := make([]byte, s.window*(s.block+DataHeader))
	for i := range packets {
		packets[i] = store[: 0 : s.block+DataHeader]
		store = store[s.block+DataHeader:]
	}
	read := int64(0) // the last block read
	s.packet = func(n int64) ([]byte, error) {
		slot := &packets[n%s.window]
		if n <= read {
			return *slot, nil
		}
		p := AppendDataHeader((*slot)[:0], uint16(n))
		k, err := io.ReadFull(source, p[DataHeader:DataHeader+s.block])
		if err != nil && err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, err
		}
		*slot, read = p[:DataHeader+k], n
		return *slot, nil
	}
	return s.run()
}

// SentAll reports whether every block went out at least once.
func (s *Sender) SentAll() bool { return s.final > 0 && s.highest == s.final }

func (s *Sender) run() error {
	s.moved = time.Now()
	for s.final == 0 || s.acked < s.final {
		if err := s.fill(); err != nil {
			return err
		}
		if err := s.await(); errors.Is(err, ErrSilent) && s.SentAll() {
			return ErrUnconfirmed
		} else if err != nil {
			return err
		}
	}
	return nil
}

// last is the last block that may be sent now.
func (s *Sender) last() int64 {
	switch {
	case s.acked < 0:
		return 0
	case s.final > 0:
		return min(s.acked+s.window, s.final)
	}
	return s.acked + s.window
}

// fill sends what the window has room for. While it waits for bandwidth it listens:
// a receiver that cannot wait says so.
func (s *Sender) fill() error {
	for s.sent < s.last() && !s.link.refusedForGood() {
		if s.Pace != nil {
			for until := time.Now().Add(s.Pace(int(s.block))); time.Until(until) > 0; {
				if err := s.listen(until); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
					return err
				}
			}
			if s.sent >= s.last() {
				return nil
			}
		}
		if err := s.sendBlocks(s.sent + 1); err != nil {
			return err
		}
	}
	return nil
}

// sendBlocks sends blocks from n on: one, or as many as may go out together. The last one of
// the file is the one that is not full.
func (s *Sender) sendBlocks(n int64) error {
	if n == 0 {
		if err := s.link.send(s.answer); err != nil {
			return err
		}
		s.noteSent(0)
		return nil
	}
	b, err := s.packet(n)
	if err != nil {
		return err
	}
	s.noteFinal(n, b)
	if s.Pace == nil && s.link.together() && n < s.last() {
		s.batch = append(s.batch[:0], b...)
		for n < s.last() && len(s.batch)+DataHeader+int(s.block) <= batchSize {
			if b, err = s.packet(n + 1); err != nil {
				return err
			}
			n++
			s.noteFinal(n, b)
			s.batch = append(s.batch, b...)
		}
		b = s.batch
	}
	if err := s.link.sendSegments(b, DataHeader+int(s.block)); err != nil {
		return err
	}
	s.noteSent(n)
	return nil
}

// noteFinal learns from a packet that is not full that it is the last one.
func (s *Sender) noteFinal(n int64, packet []byte) {
	if k := int64(len(packet)) - DataHeader; k < s.block {
		s.final, s.size = n, (n-1)*s.block+k
	}
}

func (s *Sender) noteSent(n int64) {
	s.sent, s.sentAt = n, time.Now()
	if n > s.highest { // time that the source takes is no silence
		s.highest, s.moved = n, s.sentAt
	}
}

// await waits for an acknowledgement, and goes back to the window's beginning when
// there is none.
func (s *Sender) await() error {
	giveUp, why := s.link.giveUp(s.moved, s.begun)
	at := s.sentAt.Add(s.link.RoundTrip.Timeout())
	if err := s.listen(earlier(at, giveUp)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if !time.Now().Before(giveUp) {
		return why
	}
	s.link.RoundTrip.silent()
	s.goBack()
	return nil
}

// listen waits for a packet and goes where it says.
func (s *Sender) listen(until time.Time) error {
	p, err := s.link.receive(until)
	if err != nil {
		return err
	}
	var n int64
	switch {
	case p.Op == OpAck:
		n = Unwrap(s.acked, p.Block)
	case p.Op == OpOptionAck && s.link.client != nil:
		n = 0 // a server that repeats it did not get the first block
	default:
		return nil
	}
	pace := &s.link.RoundTrip
	switch {
	case n > s.acked && n <= s.highest:
		if s.timed && n == s.sent {
			pace.sample(time.Since(s.sentAt))
		}
		pace.answered()
		s.timed = s.sent <= n // otherwise the rest of the window goes out again
		s.acked, s.sent, s.moved, s.begun, s.wentBack = n, n, time.Now(), true, false
		if s.link.Octets = max(n, 0) * s.block; n == s.final {
			s.link.Octets = s.size
		}
	case n == s.acked && s.window > 1 && !s.wentBack && time.Since(s.sentAt) >= pace.share(3, 4, time.Millisecond):
		s.wentBack = true
		s.goBack()
	}
	return nil
}

// goBack makes fill send the window again.
func (s *Sender) goBack() { s.sent, s.timed = s.acked, false }

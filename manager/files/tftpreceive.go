package files

import (
	"errors"
	"fmt"
	"time"

	"example.com/iad/transfer/tftp"
)

var (
	errTFTPSize  = errors.New("the file's size is not what was announced")
	errTFTPBlock = errors.New("a block is longer than agreed")
)

// tftpReceiver is an upload as the server sees it: each window is acknowledged by its
// last block (RFC 7440). After a gap, or after silence, the last block received in
// order is acknowledged and the client goes on from there; anything else would
// deadlock when an acknowledgement is lost.
//
// Block numbers are of full width here, from 1.
type tftpReceiver struct {
	link   *tftpLink
	up     *upload
	answer []byte // to the request
	size   int64  // as announced, 0 for unknown
	block  int
	window int64

	next  int64 // the block that continues the file
	acked int64 // the last block acknowledged
	final bool  // the last block has come
	ackAt time.Time
	fresh bool      // that acknowledgement was the first of its kind
	gapAt time.Time // when to speak up about a gap, zero for no gap
	moved time.Time // when something new came last
}

func newTFTPReceiver(link *tftpLink, up *upload, o tftp.Options) *tftpReceiver {
	r := &tftpReceiver{link: link, up: up, size: o.Size, block: tftp.DefaultBlockSize, window: 1, next: 1}
	if o.BlockSize > 0 {
		r.block = o.BlockSize
	}
	r.window = max(r.window, int64(o.Window))
	if r.answer = tftp.AppendAck(nil, 0); !o.None() {
		r.answer = tftp.AppendOptionAck(nil, o)
	}
	return r
}

// run receives the whole file, stores it and acknowledges its last block.
func (r *tftpReceiver) run() error {
	r.moved = time.Now()
	if err := r.acknowledge(true); err != nil {
		return err
	}
	for !r.final {
		if err := r.step(); err != nil {
			return err
		}
	}
	if r.size > 0 && r.size != r.up.size {
		return fmt.Errorf("%w: %d octets came, %d were announced", errTFTPSize, r.up.size, r.size)
	}
	if err := r.up.commit(); err != nil {
		return err
	}
	return r.acknowledge(false)
}

// step waits for one packet, or for the time to speak up.
func (r *tftpReceiver) step() error {
	at := later(r.ackAt, r.moved).Add(r.link.pace.timeout())
	gap := !r.gapAt.IsZero() && r.gapAt.Before(at)
	if gap {
		at = r.gapAt
	}
	p, err := r.link.receive(at)
	switch {
	case err == nil && p.Op == tftp.OpData:
		return r.take(p)
	case err == nil:
		return nil
	case !errors.Is(err, errTFTPSilent):
		return err
	case time.Since(r.moved) >= r.link.limit():
		return errClientSilent
	case gap:
		r.gapAt = time.Time{}
	default:
		r.link.pace.silences++
	}
	return r.acknowledge(false)
}

// take handles one block.
func (r *tftpReceiver) take(p tftp.Packet) error {
	if len(p.Data) > r.block {
		return errTFTPBlock
	}
	pace := &r.link.pace
	switch n := tftp.Unwrap(r.next, p.Block); {
	case n <= r.acked:
		return r.repeat()
	case n < r.next:
		return nil
	case n > r.next:
		if r.gapAt.IsZero() {
			// Datagrams overtake one another: wait a little before the client
			// is made to send again.
			r.gapAt = time.Now().Add(max(pace.smoothed/8, 2*time.Millisecond))
		}
		return nil
	}
	if r.fresh && r.next == r.acked+1 {
		pace.sample(time.Since(r.ackAt))
	}
	r.fresh, r.gapAt, pace.silences = false, time.Time{}, 0
	if _, err := r.up.Write(p.Data); err != nil {
		return err
	}
	r.link.octets = r.up.size
	r.next, r.moved, r.final = r.next+1, time.Now(), len(p.Data) < r.block
	if !r.final && r.next > r.acked+r.window {
		return r.acknowledge(true)
	}
	return nil
}

// acknowledge acknowledges all that came in order.
func (r *tftpReceiver) acknowledge(fresh bool) error {
	r.acked, r.ackAt, r.fresh = r.next-1, time.Now(), fresh
	if r.acked == 0 {
		return r.link.send(r.answer)
	}
	return r.link.ack(r.acked)
}

// repeat acknowledges again because the client repeats itself, but once a round trip:
// otherwise both sides would answer each repetition for ever.
func (r *tftpReceiver) repeat() error {
	if time.Since(r.ackAt) < max(r.link.pace.smoothed*3/2, 20*time.Millisecond) {
		return nil
	}
	return r.acknowledge(false)
}

// dally answers a repeated last block (RFC 1350 section 6) until the client has had
// the time to repeat it twice.
func (r *tftpReceiver) dally() {
	for until := time.Now().Add(2 * max(firstTFTPTimeout, r.link.pace.timeout())); ; {
		p, err := r.link.receive(until)
		if err != nil || p.Op == tftp.OpData && r.repeat() != nil {
			return
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"example.com/iad/transfer/tftp"
)

// leastRing is the least memory between receiving and reading.
const leastRing = 256 << 10

// tftpReceiver is a download: blocks come in windows, each window is
// acknowledged by its last block (RFC 7440). A block that comes too early is
// kept for when the ones before it arrive. After a gap, or after silence, the
// last block received in order is acknowledged, and the server goes on from
// there; anything else would deadlock when an acknowledgement is lost.
//
// Block numbers are of full width here, from 1.
type tftpReceiver struct {
	sock  *tftpSocket
	stall time.Duration // nothing new for so long: give up
	rtt   roundTrip

	block, window int
	size          int64 // -1 unknown

	ring   *ring
	next   int64 // the block that continues the file
	acked  int64 // the last block acknowledged; the window is the blocks after it
	final  bool  // the last block is in the ring
	early  [][]byte
	store  []byte
	ackAt  time.Time // when the last ACK was sent
	timed  bool      // that ACK was not a repetition: what it brings is a round trip
	gapAt  time.Time // when to speak up about a gap, zero for no gap
	moveAt time.Time // when something new came last
}

// begin takes the answer to the request and waits for the first block.
func (r *tftpReceiver) begin(p tftp.Packet, t terms, patience time.Duration) error {
	got := terms{block: tftp.DefaultBlockSize, window: 1}
	switch p.Op {
	case tftp.OpOptionAck:
		var err error
		if got, err = accept(t, p.Options); err != nil {
			return err
		}
		if p.Options.HasSize {
			r.size = p.Options.Size
		}
	case tftp.OpData: // the server ignores options
	default:
		return &causeError{CauseProtocolError, fmt.Errorf("answer to a read request is operation %d", p.Op)}
	}
	r.prepare(got)
	if p.Op == tftp.OpData {
		r.ackAt = r.moveAt
		return r.take(p)
	}
	giveUp := time.Now().Add(patience)
	if err := r.acknowledge(true); err != nil {
		return err
	}
	for r.next == 1 && !r.final {
		if time.Now().After(giveUp) {
			return errNothingThrough
		}
		if err := r.step(giveUp); err != nil {
			return err
		}
	}
	return nil
}

// prepare gets memory for the terms agreed on.
func (r *tftpReceiver) prepare(t terms) {
	r.block, r.window = t.block, t.window
	r.ring = newRing(max(leastRing, 2*r.block*r.window))
	r.early = make([][]byte, r.window)
	r.store = make([]byte, r.window*r.block)
	r.next, r.moveAt = 1, time.Now()
}

// run receives the file, then stays for a while in case the last ACK was lost.
func (r *tftpReceiver) run(behind context.Context) {
	defer r.sock.close()
	defer onEnd(behind, r.sock.cancel)()
	err := r.receiveAll()
	if err != nil {
		var reply *replyError
		if !errors.As(err, &reply) {
			r.sock.abort(tftp.ErrNotDefined, "giving up")
		}
		r.ring.end(err)
		return
	}
	r.ring.end(io.EOF)
	r.early, r.store = nil, nil
	r.dally()
}

func (r *tftpReceiver) receiveAll() error {
	for !r.final {
		if err := r.waitForRoom(); err != nil {
			return err
		}
		if time.Since(r.moveAt) >= r.stall {
			return errStalled
		}
		if err := r.step(r.moveAt.Add(r.stall)); err != nil {
			return err
		}
	}
	return nil
}

// step waits for one packet, or for the time to speak up.
func (r *tftpReceiver) step(giveUp time.Time) error {
	at := r.ackAt
	if r.moveAt.After(at) {
		at = r.moveAt
	}
	at = at.Add(r.rtt.timeout())
	if !r.gapAt.IsZero() {
		at = earlier(at, r.gapAt)
	}
	p, _, err := r.sock.receive(earlier(at, giveUp))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		now := time.Now()
		switch {
		case !r.gapAt.IsZero() && !now.Before(r.gapAt):
			r.gapAt = time.Time{}
		case now.Before(at):
			return nil // the caller's limit
		default:
			r.rtt.silent()
		}
		return r.acknowledge(false)
	}
	if err != nil {
		return err
	}
	switch p.Op {
	case tftp.OpData:
		return r.take(p)
	case tftp.OpOptionAck:
		if r.next == 1 { // our ACK 0 was lost
			return r.repeat()
		}
	}
	return nil
}

// take handles one block.
func (r *tftpReceiver) take(p tftp.Packet) error {
	if len(p.Data) > r.block {
		return &causeError{CauseProtocolError, fmt.Errorf("block of more than %d octets", r.block)}
	}
	n := tftp.Unwrap(r.next, p.Block)
	switch {
	case n <= r.acked:
		return r.repeat() // the server did not get our ACK
	case n < r.next || n > r.acked+int64(r.window):
		return nil
	case n > r.next:
		r.keep(n, p.Data)
		return nil
	}
	if r.timed && n == r.acked+1 {
		r.rtt.sample(time.Since(r.ackAt))
	}
	r.timed = false
	r.rtt.answered()
	r.moveAt = time.Now()
	r.deliver(p.Data)
	for !r.final && r.next <= r.acked+int64(r.window) {
		slot := r.next % int64(r.window)
		data := r.early[slot]
		if data == nil {
			break
		}
		r.early[slot] = nil
		r.deliver(data)
	}
	if r.final || r.next > r.acked+int64(r.window) {
		r.gapAt = time.Time{}
		return r.acknowledge(true)
	}
	return nil
}

// deliver puts the next block into the ring. There is room for two windows, and
// a window is asked for only when there is room for it.
func (r *tftpReceiver) deliver(data []byte) {
	r.ring.write(data)
	r.next++
	r.final = len(data) < r.block
}

// keep stores a block that came before its turn.
func (r *tftpReceiver) keep(n int64, data []byte) {
	slot := n % int64(r.window)
	if r.early[slot] != nil {
		return
	}
	at := int(slot) * r.block
	r.early[slot] = append(r.store[at:at:at+r.block], data...)
	if r.gapAt.IsZero() {
		// Datagrams overtake one another: wait a little before the server is
		// made to send again.
		r.gapAt = time.Now().Add(r.rtt.share(1, 8, 2*time.Millisecond))
	}
}

// acknowledge acknowledges all that was received in order.
func (r *tftpReceiver) acknowledge(timed bool) error {
	r.ring.flush()
	r.acked, r.ackAt, r.timed = r.next-1, time.Now(), timed
	return r.sock.ack(r.acked)
}

// repeat acknowledges again because the server repeats itself; but once a round
// trip, or both sides would answer each repetition for ever (RFC 1123 section
// 4.2.3.1, the Sorcerer's Apprentice).
func (r *tftpReceiver) repeat() error {
	if time.Since(r.ackAt) < r.rtt.share(3, 2, 20*time.Millisecond) {
		return nil
	}
	return r.acknowledge(false)
}

// waitForRoom holds the window back while the reader is busy, and tells the
// server now and then that we are still here. That time is no stall.
func (r *tftpReceiver) waitForRoom() error {
	if r.next != r.acked+1 {
		return nil // within a window: it has its room
	}
	n, reading := r.ring.room()
	if n >= r.block*r.window && reading {
		return nil
	}
	r.ring.flush()
	waiting := time.NewTicker(serverInterval)
	defer waiting.Stop()
	for n < r.block*r.window || !reading {
		if !reading {
			return errCancelled
		}
		select {
		case <-r.ring.emptied:
		case <-waiting.C:
			if r.sock.cancelled.Load() {
				return errCancelled
			}
			if err := r.sock.ack(r.acked); err != nil {
				return err
			}
		}
		n, reading = r.ring.room()
	}
	r.moveAt = time.Now()
	return nil
}

// dally answers a repeated last block (RFC 1350 section 6) until the server has
// had the time to repeat it, or the client is closed.
func (r *tftpReceiver) dally() {
	until := time.Now().Add(max(2*serverInterval, 2*r.rtt.timeout()))
	for {
		p, _, err := r.sock.receive(until)
		if err != nil {
			return
		}
		if p.Op == tftp.OpData && r.repeat() != nil {
			return
		}
	}
}

// Read returns the file's octets in order.
func (r *tftpReceiver) Read(p []byte) (int, error) { return r.ring.Read(p) }

// Close ends the transfer if it has not ended.
func (r *tftpReceiver) Close() error {
	if !r.ring.ended() {
		r.sock.cancel()
	}
	return r.ring.Close()
}

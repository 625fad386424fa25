package tftp

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// aliveInterval is how often a receiver whose sink is full says that it is still there.
const aliveInterval = time.Second

// Sink takes a file in order.
type Sink interface {
	io.Writer
	// Room is asked for before each window: nil if n bytes fit, else a channel that says
	// when to ask again. Its error ends the transfer.
	Room(n int) (<-chan struct{}, error)
	// End is called when the whole file has come, before its last block is acknowledged.
	End() error
}

// Receiver receives a file: blocks come in windows, each window is acknowledged by
// its last block (RFC 7440). After a gap, or after silence, the last block received
// in order is acknowledged, and the sender goes on from there; anything else would
// deadlock when an acknowledgement is lost.
//
// Block numbers are of full width here, from 1; block 0 is the answer to a request.
type Receiver struct {
	// KeepEarly keeps a block that comes before its turn, which costs a window of memory.
	KeepEarly bool

	link          *Link
	sink          Sink
	answer        []byte
	block, window int64

	next  int64 // the block that continues the file
	acked int64 // the last block acknowledged; the window is the blocks after it
	final bool  // the sink has the last block
	early [][]byte
	store []byte
	most  int64     // the largest block seen
	ackAt time.Time // when the last acknowledgement was sent
	timed bool      // it was not a repetition: what it brings is a round trip
	gapAt time.Time // when to speak up about a gap, zero for no gap
	moved time.Time // when something new came last
}

// NewReceiver makes the receiver of one file under the options agreed on. The answer is
// the option acknowledgement that a server begins with, nil for a plain one of block 0.
func NewReceiver(link *Link, sink Sink, o Options, answer []byte) *Receiver {
	r := &Receiver{link: link, sink: sink, answer: answer, next: 1, moved: time.Now()}
	r.block, r.window = o.Terms()
	if link.client != nil {
		link.client.readAhead(int(r.window), datagramSize(int(r.block)))
	}
	return r
}

// Begin takes a server's answer to the request and waits for the first block: until then
// the sink has got nothing.
func (r *Receiver) Begin(p Packet) error {
	if p.Op == OpData { // the server ignores options
		r.ackAt = r.moved
		return r.take(p)
	}
	if err := r.acknowledge(true); err != nil {
		return err
	}
	return r.until(func() bool { return r.next > 1 })
}

// Narrowest is the least window that Probe recommends: on a line that needs less, repetitions
// cost little, and one that a busy server held up for a moment remains fast.
const Narrowest = 16

// Probe watches the first window, for a quarter of the time after which the sender repeats
// one, and returns the window that suits the line: a narrower one where this one would be
// repeated while it is still on its way, or where much of it is lost, as in a queue that is
// shorter. A transfer cannot change its window: the request has to be repeated.
func (r *Receiver) Probe(repeats time.Duration) (window int64, err error) {
	begun, gap := r.moved, false
	until := begun.Add(repeats / 4)
	for r.acked == 0 && !r.final {
		gap = !r.gapAt.IsZero()
		if err := r.step(until); err != nil {
			return 0, err
		}
		if r.acked == 0 && !time.Now().Before(until) {
			return r.windowFor(time.Since(begun), repeats), nil
		}
	}
	expected, few := r.window, int64(4)
	if gap { // the rest may still come
		expected = max(r.most, 1)
		few = max(few, expected/8)
	}
	if !r.final && r.acked < r.window && expected-r.held() > few {
		return max(r.window/2, min(r.window, Narrowest)), nil
	}
	return r.window, nil
}

// windowFor is the window that a line carries in half the time after which it is repeated,
// given how long what has come took.
func (r *Receiver) windowFor(took, repeats time.Duration) int64 {
	trip := r.link.RoundTrip.smoothed
	if took*time.Duration(r.window)/time.Duration(r.held())+trip < repeats*3/4 {
		return r.window
	}
	n := r.held() * int64(max(repeats/2-trip, 0)) / int64(took)
	return min(max(n, Narrowest), r.window)
}

// held is the number of blocks that have come.
func (r *Receiver) held() int64 {
	n := r.next - 1
	for _, b := range r.early {
		if b != nil {
			n++
		}
	}
	return n
}

// Run receives the rest of the file, or all of it after answering the request.
func (r *Receiver) Run() error {
	if r.ackAt.IsZero() {
		if err := r.acknowledge(true); err != nil {
			return err
		}
	}
	if err := r.until(func() bool { return r.final }); err != nil {
		return err
	}
	r.early, r.store = nil, nil
	if err := r.sink.End(); err != nil {
		return err
	}
	return r.acknowledge(false)
}

// until receives packets until done.
func (r *Receiver) until(done func() bool) error {
	for !done() {
		if err := r.waitForRoom(); err != nil {
			return err
		}
		if err := r.step(time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// step waits for one packet, or for the time to speak up, or until a time that is not zero.
func (r *Receiver) step(until time.Time) error {
	giveUp, why := r.link.giveUp(r.moved, r.next > 1)
	at := r.ackAt
	if r.moved.After(at) {
		at = r.moved
	}
	at = at.Add(r.link.RoundTrip.Timeout())
	if !r.gapAt.IsZero() {
		at = earlier(at, r.gapAt)
	}
	deadline := earlier(at, giveUp)
	if !until.IsZero() {
		deadline = earlier(deadline, until)
	}
	p, err := r.link.receive(deadline)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		now := time.Now()
		switch {
		case !now.Before(giveUp):
			return why
		case !r.gapAt.IsZero() && !now.Before(r.gapAt):
			r.gapAt = time.Time{}
		case now.Before(at):
			return nil // the caller's time
		default:
			r.link.RoundTrip.silent()
		}
		return r.acknowledge(false)
	}
	switch {
	case err != nil:
		return err
	case p.Op == OpData:
		return r.take(p)
	case p.Op == OpOptionAck && r.next == 1: // our ACK 0 was lost
		return r.repeat()
	}
	return nil
}

// take handles one block.
func (r *Receiver) take(p Packet) error {
	if int64(len(p.Data)) > r.block {
		return ErrBlockTooLong
	}
	pace := &r.link.RoundTrip
	switch n := Unwrap(r.next, p.Block); {
	case n <= r.acked:
		return r.repeat() // the sender did not get our acknowledgement
	case n < r.next || n > r.acked+r.window:
		return nil
	case n > r.next:
		r.keep(n, p.Data)
		return nil
	}
	if r.timed && r.next == r.acked+1 {
		pace.sample(r.link.arrived.Sub(r.ackAt))
	}
	r.timed = false
	pace.answered()
	r.moved = r.link.arrived
	if err := r.deliver(p.Data); err != nil {
		return err
	}
	for r.early != nil && !r.final && r.next <= r.acked+r.window {
		slot := &r.early[r.next%r.window]
		if *slot == nil {
			break
		}
		data := *slot
		*slot = nil
		if err := r.deliver(data); err != nil {
			return err
		}
	}
	if r.next > r.acked+r.window && !r.final {
		r.gapAt = time.Time{}
		return r.acknowledge(true)
	}
	return nil
}

// deliver gives the sink the next block.
func (r *Receiver) deliver(data []byte) error {
	_, err := r.sink.Write(data)
	r.link.Octets += int64(len(data))
	r.next++
	r.final = int64(len(data)) < r.block
	return err
}

// keep stores a block that came before its turn, if it may.
func (r *Receiver) keep(n int64, data []byte) {
	r.most = max(r.most, n)
	if r.gapAt.IsZero() {
		// Datagrams overtake one another: wait a little before the sender is made
		// to send again.
		r.gapAt = r.link.arrived.Add(r.link.RoundTrip.share(1, 8, 2*time.Millisecond))
	}
	if !r.KeepEarly {
		return
	}
	if r.early == nil {
		r.early, r.store = make([][]byte, r.window), make([]byte, r.window*r.block)
	}
	if slot := n % r.window; r.early[slot] == nil {
		at := slot * r.block
		r.early[slot] = append(r.store[at:at:at+r.block], data...)
	}
}

// acknowledge acknowledges all that was received in order.
func (r *Receiver) acknowledge(timed bool) error {
	r.acked, r.ackAt, r.timed = r.next-1, time.Now(), timed
	if r.acked == 0 && r.answer != nil {
		return r.link.send(r.answer)
	}
	return r.link.ack(r.acked)
}

// repeat acknowledges again because the sender repeats itself; but once a round
// trip, or both ends would answer each repetition for ever (RFC 1123 section
// 4.2.3.1, the Sorcerer's Apprentice).
func (r *Receiver) repeat() error {
	if time.Since(r.ackAt) < r.link.RoundTrip.share(3, 2, 20*time.Millisecond) {
		return nil
	}
	return r.acknowledge(false)
}

// waitForRoom holds the window back while the sink is full, and repeats the last
// acknowledgement now and then. That time does not count as silence.
func (r *Receiver) waitForRoom() error {
	if r.next != r.acked+1 {
		return nil // within a window: it has its room
	}
	n := int(r.block * r.window)
	more, err := r.sink.Room(n)
	if more == nil || err != nil {
		return err
	}
	alive := time.NewTicker(aliveInterval)
	defer alive.Stop()
	for more != nil {
		select {
		case <-more:
		case <-r.link.ctx.Done():
			return context.Cause(r.link.ctx)
		case <-alive.C:
			if err := r.link.ack(r.acked); err != nil {
				return err
			}
		}
		if more, err = r.sink.Room(n); err != nil {
			return err
		}
	}
	r.moved = time.Now()
	return nil
}

// Dally answers a repeated last block (RFC 1350 section 6) until the sender has had
// the time to repeat it, or the link is cancelled.
func (r *Receiver) Dally() {
	until := time.Now().Add(2 * max(firstTimeout, r.link.RoundTrip.Timeout()))
	for {
		p, err := r.link.receive(until)
		if err != nil || p.Op == OpData && r.repeat() != nil {
			return
		}
	}
}

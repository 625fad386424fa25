package transfer

import (
	"io"
	"sync"
)

// ring carries bytes from the goroutine that receives to the one that reads: it is
// the client's tftp.Sink. It never grows: who receives asks for room first. The reader
// is woken when a window is complete, so that it does not run once a block.
type ring struct {
	mu     sync.Mutex
	buf    []byte
	start  int   // of the oldest byte
	used   int   // bytes held
	err    error // after the last byte; io.EOF when the file is complete
	closed bool  // nobody reads any more

	filled  chan struct{} // wakes the reader
	emptied chan struct{} // wakes the writer
}

func newRing(size int) *ring {
	return &ring{buf: make([]byte, size), filled: make(chan struct{}, 1), emptied: make(chan struct{}, 1)}
}

// Room hands out what was written and asks for room for n bytes more.
func (r *ring) Room(n int) (<-chan struct{}, error) {
	wake(r.filled)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return nil, errCancelled
	case len(r.buf)-r.used < n:
		return r.emptied, nil
	}
	return nil, nil
}

// Write takes p, for which there must be room.
func (r *ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := (r.start + r.used) % len(r.buf)
	n := copy(r.buf[at:], p)
	copy(r.buf, p[n:])
	r.used += len(p)
	return len(p), nil
}

// End says that the file is complete.
func (r *ring) End() error {
	r.end(io.EOF)
	return nil
}

// end says what comes after the bytes written.
func (r *ring) end(err error) {
	r.mu.Lock()
	if r.err == nil {
		r.err = err
	}
	r.mu.Unlock()
	wake(r.filled)
}

func (r *ring) ended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err != nil
}

func (r *ring) Read(p []byte) (int, error) {
	for len(p) > 0 {
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			return 0, io.ErrClosedPipe
		}
		if r.used > 0 {
			n := copy(p, r.buf[r.start:min(r.start+r.used, len(r.buf))])
			if n == len(r.buf)-r.start {
				n += copy(p[n:], r.buf[:r.used-n])
			}
			r.start = (r.start + n) % len(r.buf)
			r.used -= n
			r.mu.Unlock()
			wake(r.emptied)
			return n, nil
		}
		if r.err != nil {
			defer r.mu.Unlock()
			return 0, r.err
		}
		r.mu.Unlock()
		<-r.filled
	}
	return 0, nil
}

// Close says that nobody reads any more.
func (r *ring) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	wake(r.emptied)
	wake(r.filled)
	return nil
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

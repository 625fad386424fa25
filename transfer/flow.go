package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/time/rate"

	"example.com/iad/mib"
)

// copyBuffer is large enough that the number of reads does not count
// (256 KiB were measured 1.4 times faster than 32 KiB over FTP) and small enough
// for a board of 32 MB.
const copyBuffer = 128 << 10

// limitBurst is the least burst of a rate limit: smaller portions would cost
// more in timers than they smooth.
const limitBurst = 4 << 10

func newLimiter(octetsPerSecond int) *rate.Limiter {
	if octetsPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(octetsPerSecond), max(octetsPerSecond/10, limitBurst))
}

// portion cuts p to what the limiter can grant at once.
func portion(l *rate.Limiter, p []byte) []byte {
	if l != nil && len(p) > l.Burst() {
		return p[:l.Burst()]
	}
	return p
}

// pace waits until n bytes may pass.
func pace(ctx context.Context, l *rate.Limiter, n int) error {
	if l == nil || n <= 0 {
		return nil
	}
	return l.WaitN(ctx, n)
}

// download is the reader that Get hands out: it counts, limits and makes errors
// into *Error.
type download struct {
	ctx    context.Context
	client *Client
	name   string
	inner  io.ReadCloser
	limit  *rate.Limiter
	at     int64 // bytes of the file before the next one to read
	size   int64 // of the whole file, -1 unknown
	most   int64 // largest file to accept, 0 any
	err    error // what every further Read returns
	closed bool
}

func (d *download) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := 0, d.ctx.Err()
	if err == nil {
		n, err = d.inner.Read(portion(d.limit, p))
	}
	d.at += int64(n)
	switch {
	case d.size >= 0 && d.at > d.size:
		err = &causeError{mib.FailCauseSizeMismatch, fmt.Errorf("more than the %d bytes announced", d.size)}
	case d.most > 0 && d.at > d.most:
		err = d.tooLarge(d.at)
	case err == io.EOF && d.size >= 0 && d.at < d.size:
		err = &causeError{mib.FailCauseSizeMismatch, fmt.Errorf("%d bytes of the %d announced", d.at, d.size)}
	case err == nil:
		err = pace(d.ctx, d.limit, n)
	}
	if err == nil {
		return n, nil
	}
	d.err = err
	if err != io.EOF {
		d.err = d.client.fail("get", d.name, contextFirst(d.ctx, err))
		d.Close()
	}
	return n, d.err
}

func (d *download) tooLarge(size int64) error {
	return &causeError{mib.FailCauseFileTooLarge, fmt.Errorf("%d bytes, at most %d fit", size, d.most)}
}

func (d *download) Close() error {
	if d.err == nil {
		d.err = d.client.fail("get", d.name, &causeError{mib.FailCauseAbortedByManager, errors.New("closed before its end")})
	}
	if d.closed {
		return nil // what is below may serve the next file already
	}
	d.closed = true
	return d.inner.Close()
}

// upload is the reader that the protocols are given: it limits, counts and marks
// errors of the caller's reader as such.
type upload struct {
	ctx   context.Context
	inner io.ReadSeeker
	limit *rate.Limiter
	start int64 // position of inner at the beginning
	fixed bool  // inner cannot go back
	read  int64 // bytes read since the beginning
	size  int64 // -1 unknown
}

func newUpload(ctx context.Context, r io.ReadSeeker, size int64, octetsPerSecond int) *upload {
	u := &upload{ctx: ctx, inner: r, limit: newLimiter(octetsPerSecond), size: size}
	var err error
	u.start, err = r.Seek(0, io.SeekCurrent)
	u.fixed = err != nil // a pipe, for instance
	return u
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.inner.Read(portion(u.limit, p))
	u.read += int64(n)
	switch {
	case err != nil && err != io.EOF:
		return n, &sourceError{err}
	case u.size >= 0 && (u.read > u.size || err == io.EOF && u.read < u.size):
		return n, &causeError{mib.FailCauseSizeMismatch, fmt.Errorf("the source has %d bytes, %d were announced", u.read, u.size)}
	case err == nil:
		err = pace(u.ctx, u.limit, n)
	}
	return n, err
}

// WriteTo is what io.Copy uses: larger portions than its own.
func (u *upload) WriteTo(w io.Writer) (n int64, err error) {
	buf := make([]byte, copyBuffer)
	for {
		k, err := u.Read(buf)
		if k > 0 {
			written, werr := w.Write(buf[:k])
			n += int64(written)
			if werr != nil {
				return n, werr
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// seek goes back (or on) to an offset; it reports whether the source can.
func (u *upload) seek(offset int64) bool {
	if u.fixed {
		return false
	}
	if _, err := u.inner.Seek(u.start+offset, io.SeekStart); err != nil {
		return false
	}
	u.read = offset
	return true
}

// sourceError is an error of the reader given to Put. If it brings no cause of
// its own it is not the network's fault, whatever it wraps.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "reading the source: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

func (e *sourceError) Cause() mib.FailCause { return mib.CauseOf(e.err, mib.FailCauseOther) }

// onEnd runs f when the context ends. The returned function gives that up; once
// it has returned f is not running and will not run.
func onEnd(ctx context.Context, f func()) (forget func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		f()
	})
	return sync.OnceFunc(func() {
		if !stop() {
			<-done
		}
	})
}

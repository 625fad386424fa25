package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Lease is a key in Leases that one process holds at a time. It lasts LeaseTime after the
// last renewal, which happens by itself.
type Lease struct {
	bucket *Bucket
	key    string
	cancel context.CancelFunc
	ctx    context.Context
	ended  chan struct{}

	mu       sync.Mutex
	value    []byte
	revision uint64
	until    atomic.Int64 // nanoseconds since start
}

// start is where Lease.until counts from, by the monotonic clock.
var start = time.Now()

// Acquire waits until nobody holds the lease and takes it. Others see value as long as it
// is held. The lease lasts until Release, whatever becomes of ctx.
func (e *Engine) Acquire(ctx context.Context, key string, value []byte) (*Lease, error) {
	b, err := e.Bucket(ctx, Leases)
	if err != nil {
		return nil, err
	}
	l := &Lease{bucket: b, key: key, value: value, ended: make(chan struct{})}
	for {
		asked := time.Since(start)
		l.revision, err = b.Create(ctx, key, value)
		if err == nil {
			l.until.Store(int64(asked + LeaseTime))
			break
		}
		if !errors.Is(err, ErrConflict) {
			return nil, err
		}
		if pause(ctx) != nil {
			return nil, ctx.Err()
		}
	}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go l.keep()
	return l, nil
}

// Context returns a context that ends when the lease is lost or released.
func (l *Lease) Context() context.Context { return l.ctx }

// Held reports whether the lease is certainly held now. It asks nobody: the last renewal
// was less than LeaseTime ago. A process that was stopped for a while learns from it that
// it may have lost the lease.
func (l *Lease) Held() bool {
	return l.ctx.Err() == nil && int64(time.Since(start)) < l.until.Load()
}

// SetValue changes what others see. It is stored with the next renewal.
func (l *Lease) SetValue(value []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.value = value
}

// Release gives the lease up.
func (l *Lease) Release() {
	l.cancel()
	<-l.ended
}

// keep renews the lease until it is lost or its context ends.
func (l *Lease) keep() {
	defer close(l.ended)
	defer l.cancel()
	ticker := time.NewTicker(LeaseTime / 4)
	defer ticker.Stop()
	for {
		select {
		case <-l.ctx.Done():
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := l.bucket.Delete(ctx, l.key, l.revision); err != nil {
				l.bucket.engine.log.Debug("lease not released; it expires", "lease", l.key, "err", err)
			}
			return
		case <-ticker.C:
		}
		asked := time.Since(start)
		left := time.Duration(l.until.Load()) - asked
		if left <= 0 {
			return
		}
		l.mu.Lock()
		value := l.value
		l.mu.Unlock()
		ctx, cancel := context.WithTimeout(l.ctx, left)
		revision, err := l.bucket.Update(ctx, l.key, value, l.revision)
		cancel()
		switch {
		case err == nil:
			l.revision = revision
			l.until.Store(int64(asked + LeaseTime))
		case l.ctx.Err() != nil:
		default:
			l.bucket.engine.log.Warn("lease lost", "lease", l.key, "err", err)
			return
		}
	}
}

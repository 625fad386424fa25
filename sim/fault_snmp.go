package sim

import (
	"context"
	"net"
	"sync"
	"time"
)

// spoil applies the faults of SNMP to an answer.
func (d *Device) spoil(reply []byte) []byte {
	if reply == nil || !d.faults.has(Slow, Silent, Wrong) {
		return reply
	}
	if f, ok := d.occasion(Slow); ok {
		d.pause(f.delay())
	}
	if _, ok := d.occasion(Silent); ok {
		return nil
	}
	if _, ok := d.occasion(Wrong); ok {
		reply[len(reply)-1] ^= 0x55
	}
	return reply
}

// pause waits, but not longer than the device runs.
func (d *Device) pause(t time.Duration) {
	timer := d.cfg.Clock.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-d.stopped:
	}
}

// dialer opens sockets as agent/snmp.Config.Dial does.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// faultyTraps is a dialer whose sockets apply the faults of notifications, and send nothing
// after the end of a lifetime.
func (d *Device) faultyTraps(dial dialer, life *lifetime) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &faultyConn{Conn: &linkTraps{conn, &d.link}, device: d, life: life}, nil
	}
}

// faultyConn sends notifications, one in each Write.
type faultyConn struct {
	net.Conn
	device *Device
	life   *lifetime

	mu   sync.Mutex
	held []byte // is overtaken by the next one
}

func (c *faultyConn) Write(msg []byte) (int, error) {
	d := c.device
	if c.life.over.Load() {
		return 0, errPower
	}
	if !d.faults.has(LostTraps, DoubleTraps, LateTraps, ReorderTraps) {
		return c.Conn.Write(msg)
	}
	if _, ok := d.occasion(LostTraps); ok {
		return len(msg), nil
	}
	if f, ok := d.occasion(LateTraps); ok {
		c.later(f.delay(), func() []byte { return msg })
		return len(msg), nil
	}
	c.mu.Lock()
	held := c.held
	c.held = nil
	c.mu.Unlock()
	if held == nil {
		if f, ok := d.occasion(ReorderTraps); ok {
			c.mu.Lock()
			c.held = msg
			c.mu.Unlock()
			c.later(f.delay(), func() []byte {
				c.mu.Lock()
				defer c.mu.Unlock()
				held := c.held
				c.held = nil
				return held
			})
			return len(msg), nil
		}
	}
	n, err := c.Conn.Write(msg)
	if _, ok := d.occasion(DoubleTraps); ok && err == nil {
		_, _ = c.Conn.Write(msg) // the first one counts
	}
	if held != nil {
		_, _ = c.Conn.Write(held)
	}
	return n, err
}

// later sends a message after a time; what cannot be sent is lost, as on the way.
func (c *faultyConn) later(delay time.Duration, msg func() []byte) {
	go func() {
		c.device.pause(delay)
		if m := msg(); m != nil {
			_, _ = c.Conn.Write(m)
		}
	}()
}

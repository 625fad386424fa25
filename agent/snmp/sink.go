package snmp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// redial is how long a socket is used. The device's own address, which a
// connected socket keeps, and the receiver's name may change meanwhile, and
// the sender of a trap gets no answer that would show it.
const redial = time.Minute

// sink sends notifications to one receiver. All but the queue belongs to the
// goroutine of run, or does not change, or is for the goroutine that answers.
type sink struct {
	Sink
	engine *Engine
	queue  chan delivery
	user   *user // nil: SNMPv2c
	notify View  // of the user

	index      mib.OID                  // of the row
	nth        int                      // of several with the same address
	configured endpoint                 // Sink.Address
	at         atomic.Pointer[endpoint] // where the receiver is; it differs after a manager has moved it
	pending    *endpoint                // see held, for the goroutine that answers
	since      time.Time

	to     string // what conn was dialed to
	conn   net.Conn
	dialed time.Time
	buf    []byte
	// silent is true after an inform was given up: until the receiver answers
	// again each inform is sent once, so that the queue moves on.
	silent bool
	remote *remote // the receiver's engine; nil until discovered
}

func newSink(e *Engine, cfg Sink) *sink {
	s := &sink{Sink: cfg, engine: e, queue: make(chan delivery, maxQueue), configured: endpointOf(cfg.Address)}
	s.at.Store(&s.configured)
	for _, b := range fmt.Appendf(nil, "target%d", len(e.sinks)+1) {
		s.index = append(s.index, uint32(b))
	}
	for _, other := range e.sinks {
		if other.Address == cfg.Address {
			s.nth++
		}
	}
	if cfg.User != "" {
		s.user = e.users[cfg.User]
		s.notify = accessFor(s.user.Access, s.user.level(), netip.Addr{}).Notify
	}
	return s
}

func (s *sink) failure(err error) error {
	return fmt.Errorf("snmp: notification receiver %s: %w", s.at.Load().address, err)
}

func (s *sink) run(ctx context.Context) {
	defer s.hangUp()
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-s.queue:
			err := s.deliver(ctx, d)
			if err != nil {
				err = s.failure(err)
				if ctx.Err() == nil {
					s.engine.log.Warn("notification not delivered", "err", err)
				}
			}
			d.result <- err
		}
	}
}

func (s *sink) deliver(ctx context.Context, d delivery) error {
	if s.user != nil && !d.inView(s.notify) {
		return nil
	}
	for {
		err := s.send(ctx, d)
		if err != nil {
			s.hangUp()
			s.remote = nil
		}
		// A receiver that was moved meanwhile gets it where it is now.
		if err == nil || ctx.Err() != nil || s.to == s.at.Load().address {
			return err
		}
	}
}

// send sends a notification to where the receiver is.
func (s *sink) send(ctx context.Context, d delivery) error {
	if at := s.at.Load().address; at != s.to {
		s.hangUp()
		s.to, s.remote, s.silent = at, nil, false
	}
	if now := s.engine.now(); s.conn == nil || now.Sub(s.dialed) >= redial {
		s.hangUp()
		ctx, cancel := context.WithTimeout(ctx, s.Timeout)
		defer cancel()
		conn, err := s.engine.cfg.Dial(ctx, "udp", s.to)
		if err != nil {
			return err
		}
		s.conn, s.dialed = conn, now
	}
	// Waiting for an answer ends at once when the engine stops.
	conn := s.conn
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	if s.Inform {
		return s.inform(ctx, snmp.EncodeVars(d.vars))
	}
	return s.trap(snmp.EncodeVars(d.vars))
}

func (s *sink) hangUp() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

func (s *sink) trap(vars []byte) error {
	e := s.engine
	p := snmp.PDU{Kind: snmp.PDUTrap, RequestID: e.nextID()}
	if s.user == nil {
		return s.write(snmp.AppendCommunityMessage(nil, snmp.Version2c, s.Community, p, vars))
	}
	// The sender of a trap is the authoritative engine (RFC 3411 section
	// 3.4.3).
	h := snmp.Header{
		MsgID: e.nextID(), MaxSize: int32(e.cfg.MaxSize), Flags: s.user.level().Flags(),
		EngineID: e.cfg.EngineID, Boots: int32(e.cfg.Boots), Time: e.engineTime(), User: s.user.Name,
	}
	msg, err := snmp.SealV3(h, s.user.own.keys.Load(), e.salt.Add(1), snmp.AppendScoped(nil, e.cfg.EngineID, nil, p, vars))
	if err != nil {
		return err
	}
	return s.write(msg)
}

// write sends a datagram. A refusal that it meets is that of the one before
// (Linux reports it once), so it is sent again.
func (s *sink) write(msg []byte) error {
	_, err := s.conn.Write(msg)
	if errors.Is(err, syscall.ECONNREFUSED) {
		_, err = s.conn.Write(msg)
	}
	return err
}

// inform sends an InformRequest until it is acknowledged.
func (s *sink) inform(ctx context.Context, vars []byte) error {
	p := snmp.PDU{Kind: snmp.PDUInform, RequestID: s.engine.nextID()}
	tries := 1 + s.Retries
	if s.silent {
		tries = 1
	}
	err := ErrNoAnswer
	for range tries {
		deadline := time.Now().Add(s.Timeout)
		if s.user == nil {
			err = s.informV2(ctx, deadline, p, vars)
		} else {
			err = s.informV3(ctx, deadline, p, vars)
		}
		if err == nil {
			s.silent = false
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s.to != s.at.Load().address {
			return err
		}
	}
	s.silent = true
	return err
}

// informV2 sends an InformRequest of SNMPv2c once.
func (s *sink) informV2(ctx context.Context, deadline time.Time, p snmp.PDU, vars []byte) error {
	if err := s.write(snmp.AppendCommunityMessage(nil, snmp.Version2c, s.Community, p, vars)); err != nil {
		return s.pause(ctx, deadline, err)
	}
	for {
		msg, err := s.read(ctx, deadline)
		if err != nil {
			return err
		}
		if version, err := snmp.ReadVersion(msg); err != nil || version != snmp.Version2c {
			continue
		}
		community, answer, err := snmp.ReadCommunityMessage(msg)
		if err == nil && string(community) == s.Community && acknowledges(answer, p) {
			return nil
		}
	}
}

// acknowledges reports whether p is the Response to a request. Its error-status
// does not matter: it was received.
func acknowledges(p, request snmp.PDU) bool {
	return p.Kind == snmp.PDUResponse && p.RequestID == request.RequestID
}

// read waits for a datagram until the deadline, which gives ErrNoAnswer.
func (s *sink) read(ctx context.Context, deadline time.Time) ([]byte, error) {
	if s.buf == nil {
		s.buf = make([]byte, s.engine.cfg.MaxSize)
	}
	s.conn.SetReadDeadline(deadline)
	if ctx.Err() != nil {
		// The deadline just set may have undone that of the engine's stop.
		return nil, ctx.Err()
	}
	n, err := s.conn.Read(s.buf)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, ErrNoAnswer
	case err != nil:
		return nil, s.pause(ctx, deadline, fmt.Errorf("%w: %w", ErrNoAnswer, err))
	}
	return s.buf[:n], nil
}

// pause waits for the deadline after an error, since a receiver that refuses
// may just be starting.
func (s *sink) pause(ctx context.Context, deadline time.Time, err error) error {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return err
}

// varbindOf returns the object that a Report names, nil if none.
func varbindOf(p snmp.PDU) mib.OID {
	if len(p.Vars) == 0 {
		return nil
	}
	return p.Vars[0].OID
}

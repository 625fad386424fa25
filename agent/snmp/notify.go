package snmp

import (
	"context"
	"errors"
	"fmt"

	"example.com/iad/mib"
)

// maxQueue is how many notifications wait for one sink.
const maxQueue = 128

// Errors of Notify, each with the sink's address around it.
var (
	// ErrNoAnswer says that an inform was not acknowledged in time.
	ErrNoAnswer = errors.New("inform not acknowledged")
	// ErrQueueFull says that too many notifications wait for the sink.
	ErrQueueFull = errors.New("too many notifications wait for it")
	// ErrStopped says that the engine does not run any more.
	ErrStopped = errors.New("snmp engine stopped")
)

// Notify sends a notification to every sink and waits until each has it: nil
// means that every trap was sent and every inform acknowledged. Otherwise the
// error names each sink that has not got it; the others have. Sinks are served
// independently of each other, each in the order of the calls; Notify may be
// called from many goroutines. ctx limits the waiting only: what is in a
// sink's queue is sent all the same.
//
// Whoever repeats what was not delivered should rather use Receivers, so that
// a dead receiver holds up nothing for the others and they get nothing twice.
func (e *Engine) Notify(ctx context.Context, n mib.Notice) error {
	return e.notify(ctx, n, e.sinks)
}

// Receiver is one of the engine's sinks.
type Receiver struct{ sink *sink }

// Receivers returns the sinks in the order of the configuration, for sending to
// each of them separately.
func (e *Engine) Receivers() []Receiver {
	var list []Receiver
	for _, s := range e.sinks {
		list = append(list, Receiver{s})
	}
	return list
}

// Address returns the receiver's address, HOST:PORT.
func (r Receiver) Address() string { return r.sink.at.Load().address }

// Notify is Engine.Notify for this receiver alone.
func (r Receiver) Notify(ctx context.Context, n mib.Notice) error {
	return r.sink.engine.notify(ctx, n, []*sink{r.sink})
}

func (e *Engine) notify(ctx context.Context, n mib.Notice, sinks []*sink) error {
	d := delivery{
		vars: []mib.Varbind{
			{OID: oidSysUpTime, Value: mib.Ticks(e.upTime())},
			{OID: oidSnmpTrapOID, Value: mib.ID(e.tree.Module().NotificationOID(n.Notification))},
		},
	}
	d.vars = append(d.vars, n.Varbinds...)

	// Each sink sends one result; the channel never blocks it.
	results := make(chan error, len(sinks))
	d.result = results
	var errs []error
	waiting := 0
	for _, s := range sinks {
		select {
		case s.queue <- d:
			waiting++
		default:
			errs = append(errs, s.failure(ErrQueueFull))
		}
	}
	for range waiting {
		select {
		case err := <-results:
			errs = append(errs, err)
		case <-ctx.Done():
			return errors.Join(append(errs, fmt.Errorf("snmp: waiting for notification receivers: %w", ctx.Err()))...)
		case <-e.stopped:
			return errors.Join(append(errs, ErrStopped)...)
		}
	}
	return errors.Join(errs...)
}

// delivery is one notification for one sink.
type delivery struct {
	vars   []mib.Varbind // sysUpTime.0 and snmpTrapOID.0 first
	result chan<- error
}

// inView reports whether the notification may be sent: RFC 3413 section 3.3
// asks for its name and each of its objects.
func (d *delivery) inView(v View) bool {
	if !v.Contains(d.vars[1].Value.OID) {
		return false
	}
	for _, vb := range d.vars[2:] {
		if !v.Contains(vb.OID) {
			return false
		}
	}
	return true
}

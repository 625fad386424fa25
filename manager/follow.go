package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/iad/internal/clock"
	"example.com/iad/manager/device"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

// follower watches one operation until it ends. It polls the device when a notification
// says that something happened, and at intervals in case notifications are lost.
type follower struct {
	client   *device.Client
	sub      *trap.Subscription // nil: polling alone
	clock    clock.Clock
	poll     time.Duration // the longest pause between looks
	reserve  time.Duration
	limit    time.Duration // time limit; 0: the device's own
	used     time.Duration // of limit, by the command
	reqID    uint32
	owner    string
	events   *eventLog
	progress func(*device.Operation)
	note     func(text string)
	warn     func(text string)
}

// firstLook is the interval before the first poll; short operations have ended by then.
// It doubles up to follower.poll.
const firstLook = 250 * time.Millisecond

// longest is the longest time limit of an operation. A device can extend the deadline to
// at most twice what it announced first.
const longest = 24 * time.Hour

// errTimeLimit: the time limit passed without a result.
var errTimeLimit = errors.New("the time limit has passed")

// look is the result of one poll.
type look struct {
	op  *device.Operation
	err error
}

// follow returns the operation once its state is final, or errTimeLimit.
func (f *follower) follow(ctx context.Context, op *device.Operation) (*device.Operation, error) {
	if op.Final() {
		return op, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.progress(op)
	wait := max(f.limit-f.used, time.Second)
	if f.limit == 0 {
		wait = min(op.TimeLeft, longest)
	}
	began, most := f.clock.Now(), time.Duration(0)
	deadline := f.clock.NewTimer(wait + f.reserve)
	defer deadline.Stop()
	pause := min(firstLook, f.poll)
	next := f.clock.NewTimer(pause)
	defer next.Stop()
	looks := make(chan look, 1)
	looking, lookAgain, silent := false, false, false
	lookNow := func() {
		if looking {
			lookAgain = true
			return
		}
		looking, lookAgain = true, false
		go func() {
			op, err := f.client.FindOperation(ctx, f.reqID, f.owner)
			looks <- look{op, err}
		}()
	}
	var notifications <-chan *trap.Notification
	if f.sub != nil {
		notifications = f.sub.C()
	}
	for {
		select {
		case n, ok := <-notifications:
			if !ok {
				notifications = nil
				continue
			}
			if f.heard(n, op) {
				lookNow()
			}
		case <-next.C():
			lookNow()
		case l := <-looks:
			looking = false
			pause = min(2*pause, f.poll)
			next.Reset(pause)
			switch {
			case l.err == nil && l.op.Final():
				return l.op, nil
			case l.err == nil:
				if silent {
					f.note("the device answers again")
				}
				silent = false
				f.progress(l.op)
				if f.limit == 0 && l.op.TimeLeft > 0 {
					if most == 0 {
						most = min(2*min(l.op.TimeLeft, longest), longest)
					}
					if left := most - f.clock.Now().Sub(began); left > 0 {
						deadline.Reset(min(l.op.TimeLeft, left) + f.reserve)
					}
				}
			default:
				// A device does not answer while it restarts, and its agent may run before
				// the objects are there: only the deadline ends this.
				if !silent {
					f.note(trouble(l.err))
				}
				silent = true
			}
			if lookAgain {
				lookNow()
			}
		case <-deadline.C():
			return nil, errTimeLimit
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// heard handles a notification and reports whether to poll the device now. The result
// itself always comes from the device: a notification may be late or forged.
func (f *follower) heard(n *trap.Notification, op *device.Operation) bool {
	if !n.Is(mib.NotifyOpProgress) && !f.events.hear(n.Seq) {
		return false // of the time before, sent once more
	}
	if n.Missed > 0 {
		f.warn(fmt.Sprintf("%d notifications lost", n.Missed))
	}
	ours := n.Op.ReqID == f.reqID && (n.Op.ID == op.ID || op.ID == 0)
	switch {
	case n.Is(mib.NotifyOpProgress) && ours:
		n.Op.Owner = f.owner
		f.progress(&n.Op)
		return n.Missed > 0
	case n.Is(mib.NotifyRestarting):
		f.note("the device restarts")
	case n.Is(mib.NotifyRestarted):
		f.note(fmt.Sprintf("the device has restarted (%s) and %s", n.RestartReason, RunsText(n.Version)))
		return true
	case n.Is(mib.NotifyBankSwitched):
		f.note(fmt.Sprintf("%s: %s", n.Bank, bankRoles(n.Bank)))
	case n.Is(mib.NotifyRolledBack):
		f.warn(fmt.Sprintf("the device gave up %s in bank %d (%s) and %s again",
			n.Bank.Version, n.Bank.Number, n.Bank.Error.Explain().What, RunsText(n.Version)))
		return true
	}
	return n.Missed > 0 || ours && (n.Is(mib.NotifyOpCompleted) || n.Is(mib.NotifyOpFailed))
}

func trouble(err error) string {
	if errors.Is(err, device.ErrNoAnswer) {
		return "the device does not answer; it may be restarting"
	}
	return "the device does not report the state of the operation: " + err.Error()
}

func bankRoles(b device.Bank) string {
	switch {
	case b.Running && b.Next:
		return "running, and next to boot"
	case b.Next:
		return "next to boot"
	case b.Running:
		return "running, another one boots next"
	}
	return "not next to boot"
}

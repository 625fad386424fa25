package agent

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// FrontEnd serves the object tree to managers and sends notifications to them.
type FrontEnd interface {
	// Run serves until ctx ends.
	Run(ctx context.Context) error
	notifier
}

// notifier is a receiver of notifications, or a way to several.
type notifier interface {
	// Notify hands a notification over; nil means that it is out of the
	// agent's hands.
	Notify(ctx context.Context, n mib.Notice) error
}

// readier is a notifier whose channel signals when it is worth trying again.
type readier interface{ Ready() <-chan struct{} }

// pump hands the events that a receiver has not got yet to it, in their order,
// and progress as it comes. The event table is its queue; progress that cannot
// be handed over yet is replaced by what the operation has got to when it can.
func (a *Agent) pump(ctx context.Context, f notifier, slot int) error {
	changed, stop := a.engine.WatchNotices()
	defer stop()
	var ready <-chan struct{}
	if r, ok := f.(readier); ok {
		ready = r.Ready()
	}
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = 200*time.Millisecond, 30*time.Second
	retry := a.cfg.Clock.NewTimer(time.Hour)
	defer retry.Stop()
	sent := a.engine.Snapshot().Sent
	var progress uint64 // of this start: what was due before the receiver was there counts too
	failing := false
	for {
		s := a.engine.Snapshot()
		err := a.sendEvents(ctx, f, s, &sent)
		if ctx.Err() != nil {
			return nil
		}
		a.sent(slot, sent)
		switch {
		case err != nil:
			if !failing {
				a.log.Warn("notifications are not accepted; they are sent again later", "behind", sent, "err", err)
			}
			failing = true
			retry.Reset(pause.NextBackOff())
		default:
			if failing {
				a.log.Info("notifications are accepted again")
			}
			failing = false
			pause.Reset()
			if s.Progress != progress {
				if err := a.sendProgress(ctx, f, s); err == nil {
					progress = s.Progress
				} else if ctx.Err() == nil {
					a.log.Debug("progress is sent later", "err", err)
					retry.Reset(progressRetry)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-ready:
		case <-retry.C():
		}
	}
}

// sendEvents sends the events behind *sent. A number that the ring no longer
// holds is lost for notifications; the manager sees the gap.
func (a *Agent) sendEvents(ctx context.Context, f notifier, s *procedure.Snapshot, sent *uint32) error {
	for i := range s.Events {
		ev := &s.Events[i]
		if int32(ev.Seq-*sent) <= 0 {
			continue
		}
		if s.Settings.Notify.Enable&(1<<(ev.Type-1)) != 0 {
			if err := f.Notify(ctx, a.notice(ev)); err != nil {
				return err
			}
		}
		*sent = ev.Seq
	}
	return nil
}

// sent reports to the engine which events every receiver has got.
func (a *Agent) sent(slot int, seq uint32) {
	a.sentMu.Lock()
	defer a.sentMu.Unlock()
	a.sentBy[slot] = seq
	least := a.sentBy[0]
	for _, s := range a.sentBy[1:] {
		if int32(s-least) < 0 {
			least = s
		}
	}
	if least != a.sentAll {
		a.sentAll = least
		a.engine.Sent(least)
	}
}

var notifications = map[mib.EventTypeEnum]*mib.Notification{
	mib.EventTypeStarted: mib.NotifyOpAccepted, mib.EventTypeCompleted: mib.NotifyOpCompleted,
	mib.EventTypeFailed: mib.NotifyOpFailed, mib.EventTypeBankSwitched: mib.NotifyBankSwitched,
	mib.EventTypeRolledBack: mib.NotifyRolledBack, mib.EventTypeRestarting: mib.NotifyRestarting,
	mib.EventTypeRestarted: mib.NotifyRestarted,
}

// notice makes the notification of an event from what was journaled with it.
func (a *Agent) notice(ev *procedure.Event) mib.Notice {
	return a.build(notifications[ev.Type], uint32(ev.Bank), func(o *mib.Object) (mib.Value, bool) {
		switch o {
		case mib.EventSeq:
			return mib.Uint32(ev.Seq), true
		case mib.OpTimeLeft:
			return mib.Uint32(ev.TimeLeft), true
		case mib.OpElapsed:
			return mib.Uint32(ev.Op.Elapsed), true
		case mib.ResetRequired:
			return mib.Bool(ev.ResetRequired), true
		case mib.BankRoles:
			return mib.Octets(roles(ev.BankInfo.Running, ev.BankInfo.Next, ev.BankInfo.Fallback)), true
		case mib.BankState:
			return enum(ev.BankInfo.State), true
		case mib.BankVersion:
			return mib.Str(ev.BankInfo.Version), true
		case mib.BankError:
			return enum(ev.BankInfo.Cause), true
		case mib.BankErrorText:
			return mib.Str(ev.BankInfo.Text), true
		case mib.SoftwareVersion:
			return mib.Str(ev.Software), true
		case mib.ConfigFormat:
			return mib.Uint32(ev.ConfigFormat), true
		case mib.RestartReason:
			return enum(ev.Reason), true
		case mib.RestartCount:
			return mib.Uint32(ev.Restarts), true
		}
		return opValue(o, &ev.Op)
	})
}

// progressRetry is the pause before progress is sent again to a receiver that does not
// report when it is ready.
const progressRetry = 2 * time.Second

// sendProgress sends the state of the operation, unless it has ended.
func (a *Agent) sendProgress(ctx context.Context, f notifier, s *procedure.Snapshot) error {
	if s.Op.State.Final() || s.Settings.Notify.Enable&(1<<mib.NotifyEnableProgress) == 0 {
		return nil
	}
	v := &view{a: a, s: s}
	n := a.build(mib.NotifyOpProgress, 0, func(o *mib.Object) (mib.Value, bool) {
		if o == mib.EventSeq {
			return mib.Uint32(s.Seq), true
		}
		return v.operationValue(o)
	})
	return f.Notify(ctx, n)
}

// build collects the varbinds of a notification.
func (a *Agent) build(n *mib.Notification, row uint32, value func(*mib.Object) (mib.Value, bool)) mib.Notice {
	notice := mib.Notice{Notification: n}
	for _, o := range n.Objects {
		v, ok := value(o)
		if o == mib.DeviceId {
			v, ok = mib.Str(a.cfg.DeviceID), true
		}
		if !ok {
			a.log.Error("no value for an object of a notification", "notification", n.Name, "object", o.Name)
			continue
		}
		index := uint32(0)
		if o.Kind == mib.Column {
			index = row
		}
		notice.Varbinds = append(notice.Varbinds, mib.Varbind{OID: a.tree.Module().OID(o, index), Value: v})
	}
	return notice
}

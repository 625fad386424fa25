package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/store"
)

// giveUpAfter is how old an event is when it is not sent any more.
const giveUpAfter = 24 * time.Hour

// Notifier sends events.
type Notifier struct {
	store *store.Store
	log   *slog.Logger
	// pause is the one after the first failure; it doubles up to maxPause.
	pause, maxPause time.Duration
	targets         []target
}

// target is who gets events.
type target struct {
	name   string // in the engine
	events []fleet.EventKind
	gather time.Duration // 0: each event is sent alone
	sender interface {
		// send sends messages. A *refused error is not retried.
		send(ctx context.Context, list []Message) error
	}
}

// New returns a notifier for a configuration from Read.
func New(c *Config, s *store.Store, log *slog.Logger) *Notifier {
	n := &Notifier{store: s, log: log, pause: time.Second, maxPause: 5 * time.Minute}
	hooks := client(c.networks)
	kinds := func(events []fleet.EventKind) []fleet.EventKind {
		if len(events) == 0 {
			return defaultEvents
		}
		return events
	}
	for _, w := range c.Webhooks {
		n.targets = append(n.targets, target{name: "webhook/" + w.Name, events: kinds(w.Events), sender: &hook{Webhook: w, client: hooks, now: time.Now}})
	}
	if c.Mail != nil {
		n.targets = append(n.targets, target{name: "mail", events: kinds(c.Mail.Events), gather: time.Duration(c.Mail.Gather), sender: &mailer{c.Mail, c.networks}})
	}
	return n
}

// Run sends until ctx ends, as long as no other node does.
func (n *Notifier) Run(ctx context.Context) error {
	if len(n.targets) == 0 {
		return nil
	}
	for ctx.Err() == nil {
		lease, err := n.store.Engine.Acquire(ctx, "notify", nil)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		leading, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(lease.Context(), cancel)
		group, groupCtx := errgroup.WithContext(leading)
		for _, t := range n.targets {
			group.Go(func() error { return n.follow(groupCtx, &t) })
		}
		err = group.Wait()
		stop()
		cancel()
		lease.Release()
		if err != nil && ctx.Err() == nil {
			n.log.Warn("notify: begun again", "err", err)
			select {
			case <-time.After(n.pause):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// position is how far a target is.
type position struct {
	bucket   *engine.Bucket
	key      string
	revision uint64 // 0: not stored yet
	Sequence uint64 `json:"sequence"`
}

func (n *Notifier) position(ctx context.Context, name string) (*position, error) {
	bucket, err := n.store.Engine.Bucket(ctx, engine.Settings)
	if err != nil {
		return nil, err
	}
	p := &position{bucket: bucket, key: engine.Key("notify", name)}
	entry, err := bucket.Get(ctx, p.key)
	if errors.Is(err, engine.ErrNotFound) { // new: it gets what happens from now on
		if p.Sequence, err = n.store.Engine.Log(engine.Events).LastSequence(ctx); err != nil {
			return nil, err
		}
		return p, p.save(ctx)
	}
	if err != nil {
		return nil, err
	}
	p.revision = entry.Revision
	if err := json.Unmarshal(entry.Value, p); err != nil { // as for a new target
		_ = bucket.Damaged(entry, err) // which reports it
		if p.Sequence, err = n.store.Engine.Log(engine.Events).LastSequence(ctx); err != nil {
			return nil, err
		}
		if err := p.save(ctx); err != nil {
			return nil, err
		}
	}
	bucket.Sound(entry.Key, p.revision)
	return p, nil
}

// save stores the position. It fails if another node has stored it.
func (p *position) save(ctx context.Context) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if p.revision == 0 {
		p.revision, err = p.bucket.Create(ctx, p.key, text)
	} else {
		p.revision, err = p.bucket.Update(ctx, p.key, text, p.revision)
	}
	return err
}

// follow sends the events of one target, until ctx ends.
func (n *Notifier) follow(ctx context.Context, t *target) error {
	at, err := n.position(ctx, t.name)
	if err != nil {
		return err
	}
	events := make(chan Message, 100)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return n.store.Events(ctx, at.Sequence+1, func(sequence uint64, e *fleet.Event) error {
			if !slices.Contains(t.events, e.Kind) {
				return nil
			}
			select {
			case events <- Message{ID: sequence, Event: *e}:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	group.Go(func() error {
		for {
			list, err := t.next(ctx, events)
			if err != nil {
				return err
			}
			if err := n.deliver(ctx, t, list); err != nil {
				return err
			}
			at.Sequence = list[len(list)-1].ID
			if err := at.save(ctx); err != nil {
				return fmt.Errorf("notify %s: %w", t.name, err)
			}
		}
	})
	return group.Wait()
}

// next returns what to send next.
func (t *target) next(ctx context.Context, events <-chan Message) ([]Message, error) {
	var list []Message
	select {
	case first := <-events:
		list = append(list, first)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if t.gather == 0 {
		return list, nil
	}
	timer := time.NewTimer(t.gather)
	defer timer.Stop()
	for len(list) < 100*maxLines {
		select {
		case one := <-events:
			list = append(list, one)
		case <-timer.C:
			return list, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return list, nil
}

// deliver sends until it succeeds, is refused, or the events are too old.
func (n *Notifier) deliver(ctx context.Context, t *target, list []Message) error {
	for pause := n.pause; ; pause = min(2*pause, n.maxPause) {
		attempt, cancel := context.WithTimeout(ctx, 2*sendLimit)
		err := t.sender.send(attempt, list)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log := n.log.With("to", t.name, "event", list[0].ID, "events", len(list), "err", err)
		var not *refused
		if errors.As(err, &not) || time.Since(list[len(list)-1].Event.Time) > giveUpAfter {
			log.Error("notification dropped")
			return nil
		}
		log.Warn("notification not sent yet", "retry_in", pause.String())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

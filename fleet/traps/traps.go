// Package traps receives the notifications of all devices and passes them on to the worker
// that is in charge of the device. Losing one costs a poll.
package traps

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"

	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/store"
	"example.com/iad/manager/trap"
)

// Config configures the receiver.
type Config struct {
	// Store has the users and communities that are accepted. Required.
	Store *store.Store
	// Listener configures the socket; Users and Communities come from the store.
	Listener trap.ListenerConfig
	// Log gets what happens; nil: nothing is logged.
	Log *slog.Logger
}

// Run receives until ctx ends. It opens the socket again when credentials change.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	changed := make(chan struct{}, 1)
	watching := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		watching <- cfg.Store.Secrets.Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	var stop func() error
	defer func() {
		if stop != nil {
			if err := stop(); err != nil {
				cfg.Log.Warn("notification listener", "err", err)
			}
		}
	}()
	for {
		select {
		case <-changed:
		case err := <-watching:
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if stop != nil {
			if err := stop(); err != nil {
				cfg.Log.Warn("notification listener", "err", err)
			}
			stop = nil
		}
		var err error
		if stop, err = listen(ctx, cfg); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// listen opens the socket and passes notifications on until stop is called.
func listen(ctx context.Context, cfg Config) (stop func() error, err error) {
	secrets, err := cfg.Store.Secrets.All(ctx)
	if err != nil {
		return nil, err
	}
	c := cfg.Listener
	c.Log = cfg.Log
	for _, s := range secrets {
		a := s.Credentials()
		if a.User != nil {
			if !slices.Contains(c.Users, *a.User) {
				c.Users = append(c.Users, *a.User)
			}
			continue
		}
		for _, community := range []string{a.Read, a.Write} {
			if community != "" && !slices.Contains(c.Communities, community) {
				c.Communities = append(c.Communities, community)
			}
		}
	}
	c.AnyCommunity = len(c.Communities) > 0 // snmpd may have one of its own for traps
	l, err := trap.Listen(c)
	if err != nil {
		return nil, err
	}
	subscription := l.Subscribe(trap.Filter{}, 4096)
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		for n := range subscription.C() {
			if err := pass(cfg.Store.Engine, n); err != nil {
				cfg.Log.Debug("notification not passed on", "notification", n, "err", err)
			}
		}
	}()
	cfg.Log.Info("receives notifications", "address", l.Addr(), "users", len(c.Users), "communities", len(c.Communities))
	return func() error {
		err := l.Close()
		<-passed
		return err
	}, nil
}

func pass(e *engine.Engine, n *trap.Notification) error {
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return e.Notify(engine.Key(n.DeviceID), data)
}

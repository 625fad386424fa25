package service

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/store"
)

// Damage implements operations.Service.
func (s *Service) Damage(ctx context.Context, by operations.Caller) ([]operations.Damage, error) {
	if err := s.permit(ctx, by, operations.Read, "damage"); err != nil {
		return nil, err
	}
	list := []operations.Damage{}
	for _, d := range s.store.Engine.Damage() {
		one := operations.Damage{Place: d.Place, Key: d.Key, Revision: d.Revision, Problem: d.Problem, Noticed: d.Noticed, Removable: store.Removable(d)}
		if one.Parts, _ = engine.ParseKey(d.Key); one.Parts == nil { // a key of other origin
			one.Parts = []string{d.Key}
		}
		list = append(list, one)
	}
	return list, nil
}

// RemoveDamage implements operations.Service.
func (s *Service) RemoveDamage(ctx context.Context, by operations.Caller, place, key string, revision uint64) error {
	object := place + "/" + key
	return s.change(ctx, by, operations.RemoveDamage, object, func() (effect, error) {
		for _, d := range s.store.Engine.Damage() {
			if d.Place == place && d.Key == key && d.Revision == revision && store.Removable(d) {
				return effect{before: d}, failed(s.store.RemoveDamaged(ctx, d), "damaged object", object)
			}
		}
		return effect{}, notFound("damaged object", object)
	})
}

// inspect reads what nothing else reads all the time, so that damage is noticed.
func (s *Service) inspect(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	inspect(ctx, group, s, "campaigns", s.store.Campaigns)
	inspect(ctx, group, s, "images", s.store.Images)
	inspect(ctx, group, s, "backups", s.store.Backups)
	inspect(ctx, group, s, "sites", s.store.Sites)
	inspect(ctx, group, s, "groups", s.store.Groups)
	inspect(ctx, group, s, "schedules", s.store.Schedules)
	group.Go(func() error {
		return s.follow(ctx, "access", func() error { return s.store.WatchAccess(ctx) })
	})
	group.Go(func() error {
		return s.follow(ctx, "credentials", func() error {
			var failed error
			err := s.store.Secrets.Watch(ctx, func() { _, failed = s.store.Secrets.All(ctx) })
			return errors.Join(err, failed)
		})
	})
	return group.Wait()
}

func inspect[T any](ctx context.Context, group *errgroup.Group, s *Service, what string, table *store.Table[T]) {
	group.Go(func() error {
		return s.follow(ctx, what, func() error { return table.Watch(ctx, func(store.Change[T]) error { return nil }) })
	})
}

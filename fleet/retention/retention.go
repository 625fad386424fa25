// Package retention removes old backups, by number and age. It never removes the last good
// backup of a device, one that a person has pinned, or one of a campaign that has not
// ended.
package retention

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/store"
)

// Rule says which backups are kept. A backup is removed once neither Number nor Age keeps
// it; the zero Rule removes nothing.
type Rule struct {
	// Number is how many of the newest good backups of each device are kept.
	Number int
	// Age is how long backups are kept, edited copies and incomplete ones included.
	Age time.Duration
}

// Expired returns the backups of one device that are to be removed. running reports
// whether a campaign has not ended.
func Expired(backups []*fleet.Backup, rule Rule, running func(campaign string) bool, now time.Time) []*fleet.Backup {
	if rule == (Rule{}) {
		return nil
	}
	sorted := slices.Clone(backups)
	slices.SortFunc(sorted, func(a, b *fleet.Backup) int { return cmp.Or(b.Time.Compare(a.Time), strings.Compare(b.ID, a.ID)) })
	var expired []*fleet.Backup
	good := 0
	anyGood := slices.ContainsFunc(sorted, original)
	for _, b := range sorted {
		counted := original(b)
		if counted {
			good++
		}
		switch {
		case b.Pinned, b.Campaign != "" && running(b.Campaign), rule.Age > 0 && now.Sub(b.Time) < rule.Age:
		case counted && good <= max(rule.Number, 1):
		case !anyGood: // incomplete is better than nothing
		default:
			expired = append(expired, b)
		}
	}
	return expired
}

// original reports whether a backup is good and as the device sent it.
func original(b *fleet.Backup) bool { return b.Good && b.EditOf == "" }

// interval is the time between two looks at all backups.
const interval = 6 * time.Hour

// Run removes what has expired, now and then, until ctx ends. One node at a time does.
func Run(ctx context.Context, s *store.Store, rule Rule, log *slog.Logger) error {
	if rule == (Rule{}) {
		return nil
	}
	for {
		err := once(ctx, s, rule, log)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			log.Warn("old backups are removed later", "err", err)
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return nil
		}
	}
}

func once(ctx context.Context, s *store.Store, rule Rule, log *slog.Logger) error {
	lease, err := s.Engine.Acquire(ctx, "retention", nil)
	if err != nil {
		return err
	}
	defer lease.Release()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(lease.Context(), cancel)()
	removed, err := Remove(ctx, s, rule, time.Now())
	if removed > 0 {
		log.Info("old backups removed", "number", removed)
	}
	return err
}

// errSynced ends a watch.
var errSynced = errors.New("complete")

// Remove removes what has expired at a time, and returns how many backups.
func Remove(ctx context.Context, s *store.Store, rule Rule, now time.Time) (removed int, err error) {
	campaigns, err := s.Campaigns.List(ctx)
	if err != nil {
		return 0, err
	}
	running := map[string]bool{}
	for _, c := range campaigns {
		running[c.ID] = !c.State.Final()
	}
	devices := map[string][]*fleet.Backup{}
	err = s.Backups.Watch(ctx, func(c store.Change[fleet.Backup]) error {
		if c.Synced {
			return errSynced
		}
		if b := c.Value; b != nil { // without the files, which take most of the memory
			devices[b.Device] = append(devices[b.Device], &fleet.Backup{ID: b.ID, Device: b.Device, Campaign: b.Campaign, Good: b.Good, EditOf: b.EditOf, Time: b.Time, Pinned: b.Pinned})
		}
		return nil
	})
	if !errors.Is(err, errSynced) {
		return 0, err
	}
	for device, list := range devices {
		for _, b := range Expired(list, rule, func(id string) bool { return running[id] }, now) {
			// It may have been pinned since.
			current, _, err := s.Backups.Get(ctx, device, b.ID)
			if errors.Is(err, engine.ErrNotFound) || err == nil && current.Pinned {
				continue
			}
			if err == nil {
				err = s.RemoveBackup(ctx, device, b.ID)
			}
			if err != nil {
				return removed, fmt.Errorf("backup %s/%s: %w", device, b.ID, err)
			}
			removed++
		}
	}
	return removed, nil
}

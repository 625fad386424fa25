// Package retention removes old backups, by number and age. It never removes the last good
// backup of a device, one that a person has pinned, one of a campaign that has not ended,
// or one that a run which has not ended needs.
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

// EditLife is how long an edited copy is kept at least, whatever the rule: an answer to a
// question may name it later.
const EditLife = 30 * 24 * time.Hour

// Expired returns the backups of one device that are to be removed. held reports whether a
// campaign or run that has not ended needs a backup. An edited copy is kept for EditLife,
// and as long as the backup that it is a copy of.
func Expired(backups []*fleet.Backup, rule Rule, held func(*fleet.Backup) bool, now time.Time) []*fleet.Backup {
	if rule == (Rule{}) || !slices.ContainsFunc(backups, original) { // incomplete is better than nothing
		return nil
	}
	sorted := slices.Clone(backups)
	slices.SortFunc(sorted, func(a, b *fleet.Backup) int { return cmp.Or(b.Time.Compare(a.Time), strings.Compare(b.ID, a.ID)) })
	kept := map[string]bool{}
	byID := map[string]*fleet.Backup{}
	good := 0
	for _, b := range sorted {
		byID[b.ID] = b
		age := now.Sub(b.Time)
		kept[b.ID] = b.Pinned || held(b) || rule.Age > 0 && age < rule.Age || b.EditOf != "" && age < EditLife
		if original(b) {
			good++
			kept[b.ID] = kept[b.ID] || good <= max(rule.Number, 1)
		}
	}
	var expired []*fleet.Backup
	for _, b := range sorted {
		keep := kept[b.ID]
		source := b
		for range sorted { // an edited copy may be one of another edited copy
			if source = byID[source.EditOf]; source == nil {
				break
			}
			keep = keep || kept[source.ID]
		}
		if !keep {
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
	devices := map[string][]*fleet.Backup{}
	// What is damaged may need any backup of its device or campaign, and may be a backup that
	// others are copies of.
	damagedDevices, damagedCampaigns := map[string]bool{}, map[string]bool{}
	err = each(ctx, s.Backups, func(key []string) { damagedDevices[key[0]] = true }, func(b *fleet.Backup) { // without the files, which take most of the memory
		devices[b.Device] = append(devices[b.Device], &fleet.Backup{ID: b.ID, Device: b.Device, Campaign: b.Campaign, Good: b.Good, EditOf: b.EditOf, Time: b.Time, Pinned: b.Pinned})
	})
	if err != nil {
		return 0, err
	}
	// After the backups, so that the campaigns and runs of all of them are there.
	running := map[string]bool{}
	if err := each(ctx, s.Campaigns, func(key []string) { damagedCampaigns[key[0]] = true }, func(c *fleet.Campaign) { running[c.ID] = !c.State.Final() }); err != nil {
		return 0, err
	}
	runs := map[string][]*fleet.Run{} // by device
	err = each(ctx, s.Runs, func(key []string) { damagedDevices[key[1]] = true }, func(r *fleet.Run) {
		if !r.State.Final() && devices[r.Device] != nil {
			runs[r.Device] = append(runs[r.Device], r)
		}
	})
	if err != nil {
		return 0, err
	}
	for device, list := range devices {
		if damagedDevices[device] {
			continue
		}
		held := func(b *fleet.Backup) bool {
			return running[b.Campaign] || damagedCampaigns[b.Campaign] || slices.ContainsFunc(runs[device], func(r *fleet.Run) bool { return needs(r, b) })
		}
		for _, b := range Expired(list, rule, held, now) {
			// It may have been pinned since, or been named by an answer.
			inUse, err := usedNow(ctx, s, b)
			if err == nil && inUse {
				continue
			}
			if err == nil {
				err = s.RemoveBackup(ctx, device, b.ID)
			}
			if errors.Is(err, engine.ErrDamaged) { // since it was listed
				continue
			}
			if err != nil && !errors.Is(err, engine.ErrNotFound) {
				return removed, fmt.Errorf("backup %s/%s: %w", device, b.ID, err)
			}
			if err == nil {
				removed++
			}
		}
	}
	return removed, nil
}

// each calls handle with all objects of a table, and damaged with the keys of those that
// cannot be decoded.
func each[T any](ctx context.Context, table *store.Table[T], damaged func(key []string), handle func(*T)) error {
	err := table.Watch(ctx, func(c store.Change[T]) error {
		switch {
		case c.Synced:
			return errSynced
		case c.Damaged:
			if key, ok := table.Parts(c.Key); ok {
				damaged(key)
			}
		case c.Value != nil:
			handle(c.Value)
		}
		return nil
	})
	if errors.Is(err, errSynced) {
		return nil
	}
	return err
}

// needs reports whether a run that has not ended needs a backup of its device.
func needs(r *fleet.Run, b *fleet.Backup) bool {
	return r.Campaign == b.Campaign || r.Backup == b.ID || r.Question != nil && r.Question.Backup == b.ID || r.Answer != nil && r.Answer.Backup == b.ID
}

// usedNow reports whether a backup is pinned or needed by the run that its device has.
func usedNow(ctx context.Context, s *store.Store, b *fleet.Backup) (bool, error) {
	current, _, err := s.Backups.Get(ctx, b.Device, b.ID)
	if err != nil || current.Pinned {
		return err == nil, err
	}
	d, _, err := s.Devices.Get(ctx, b.Device)
	if errors.Is(err, engine.ErrNotFound) || err == nil && d.ActiveRun == "" {
		return false, nil
	} else if err != nil {
		return false, err
	}
	r, _, err := s.Runs.Get(ctx, d.ActiveRun, b.Device)
	if errors.Is(err, engine.ErrNotFound) {
		return false, nil
	}
	return err == nil && !r.State.Final() && needs(r, current), err
}

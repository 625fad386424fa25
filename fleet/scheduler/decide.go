package scheduler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/campaign"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/inventory"
	"example.com/iad/fleet/store"
)

// longest is the maximum pause between two decisions.
const longest = time.Minute

// decideAll decides about all campaigns for which it is time, and returns when to do so
// again.
func (l *leader) decideAll(ctx context.Context) (wake time.Duration, err error) {
	l.state.mu.Lock()
	now := time.Now()
	var due []string
	for id, c := range l.state.campaigns {
		if c.campaign != nil && !now.Before(c.decideAt) && c.campaign.State != fleet.CampaignDraft && c.campaign.State != fleet.CampaignAwaiting {
			due = append(due, id)
		}
	}
	l.state.mu.Unlock()
	// The campaigns that are more important, and then the older ones, take places first.
	slices.Sort(due)
	situations := make([]situation, 0, len(due))
	for _, id := range due {
		situations = append(situations, l.look(id, now))
	}
	slices.SortStableFunc(situations, func(a, b situation) int {
		x, y := &a.Campaign, &b.Campaign
		return cmp.Or(cmp.Compare(y.Spec.Priority, x.Spec.Priority), x.Started.Compare(y.Started))
	})
	for i, s := range situations {
		if i > 0 {
			s = l.look(s.Campaign.ID, now) // the others have taken places
		}
		if err := l.decide(ctx, s); err != nil {
			return 0, err
		}
	}
	l.state.mu.Lock()
	defer l.state.mu.Unlock()
	next := now.Add(longest)
	for _, c := range l.state.campaigns {
		if c.campaign != nil && c.decideAt.Before(next) && c.campaign.State != fleet.CampaignDraft && c.campaign.State != fleet.CampaignAwaiting {
			next = c.decideAt
		}
	}
	return max(time.Until(next), 0), nil
}

// situation is what a decision is made from, with the runs that may be started.
type situation struct {
	campaign.Situation
	// revision is that of the campaign.
	revision uint64
	// ready and urgent are the runs that Group.Ready and Group.Urgent count, by site and
	// pool.
	ready, urgent map[place][]*entry
	// cancelable are those that Decision.Cancel is about.
	cancelable []*entry
}

type place struct{ site, pool string }

// look describes a campaign.
func (l *leader) look(id string, now time.Time) situation {
	began := time.Now()
	defer func() { l.looked += time.Since(began) }()
	st := l.state
	st.mu.Lock()
	defer st.mu.Unlock()
	c := st.campaigns[id]
	s := situation{ready: make(map[place][]*entry), urgent: make(map[place][]*entry)}
	s.Campaign, s.revision, s.Now = *c.campaign, c.revision, now
	c.decideAt = now.Add(longest)
	groups := make(map[place]*campaign.Group)
	s.Sites, s.Pools = make(map[string]campaign.Load), make(map[string]campaign.Load)
	for _, e := range c.runs {
		s.All.Add(e.state, 1)
		if e.wave == c.campaign.Wave {
			s.Wave.Add(e.state, 1)
			if (e.state == fleet.RunQueued || e.state == fleet.RunRunning) && e.attempt <= 1 {
				s.FirstAttempts++
			}
		}
		waits := e.state == fleet.RunPending || e.state == fleet.RunRetrying
		if e.state == fleet.RunRetrying && e.halfDone {
			s.HalfDone++
		} else if waits {
			s.cancelable = append(s.cancelable, e)
		}
		if e.wave > c.campaign.Wave && !e.halfDone {
			continue
		}
		p := place{e.site, e.pool}
		g := groups[p]
		if g == nil {
			g = &campaign.Group{Site: e.site, Pool: e.pool}
			if site := st.sites[e.site]; site != nil {
				g.TimeZone = site.TimeZone
				s.Sites[e.site] = campaign.Load{Limit: site.Parallel, InFlight: st.inSite[e.site]}
			}
			groups[p] = g
		}
		switch {
		case e.state == fleet.RunQueued || e.state == fleet.RunRunning:
			g.InFlight++
		case !waits:
		case e.state == fleet.RunRetrying && now.Before(e.retryAt):
			if g.NextRetry.IsZero() || e.retryAt.Before(g.NextRetry) {
				g.NextRetry = e.retryAt
			}
		case e.halfDone:
			g.Urgent++
			s.urgent[p] = append(s.urgent[p], e)
		default:
			g.Ready++
			s.ready[p] = append(s.ready[p], e)
		}
	}
	for _, g := range groups {
		s.Groups = append(s.Groups, *g)
	}
	slices.SortFunc(s.Groups, func(a, b campaign.Group) int { return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Pool, b.Pool)) })
	for pool, slots := range st.slots(now) {
		s.Pools[pool] = campaign.Load{Limit: slots, InFlight: st.inPool[pool]}
	}
	return s
}

// decide applies a decision.
func (l *leader) decide(ctx context.Context, s situation) error {
	d := campaign.Decide(s.Situation)
	if d.Changed && d.Campaign.State == fleet.CampaignDone && s.All.Total == 0 { // perhaps its runs are yet to be seen
		if err := l.readRuns(ctx, s.Campaign.ID); err != nil {
			return err
		}
		s = l.look(s.Campaign.ID, s.Now)
		d = campaign.Decide(s.Situation)
	}
	if d.Changed {
		stored, err := l.storeCampaign(ctx, s, &d)
		if err != nil || !stored {
			return err
		}
	}
	switch {
	case d.Plan:
		if err := l.plan(ctx, &d.Campaign); err != nil {
			return err
		}
	case d.Cancel:
		if err := each(ctx, s.cancelable, l.cancel); err != nil {
			return err
		}
	}
	var start []*entry
	for _, st := range d.Start {
		runs := s.ready
		if st.Urgent {
			runs = s.urgent
		}
		list := runs[place{st.Site, st.Pool}]
		slices.SortFunc(list, func(a, b *entry) int { // first those of earlier waves, then those that wait longest
			return cmp.Or(cmp.Compare(a.wave, b.wave), a.retryAt.Compare(b.retryAt), cmp.Compare(a.device, b.device))
		})
		start = append(start, list[:min(st.Count, len(list))]...)
	}
	if err := each(ctx, start, func(ctx context.Context, e *entry) error { return l.start(ctx, &s.Campaign, e) }); err != nil {
		return err
	}
	l.state.mu.Lock()
	defer l.state.mu.Unlock()
	if c := l.state.campaigns[s.Campaign.ID]; !d.WakeAt.IsZero() && d.WakeAt.Before(c.decideAt) {
		c.decideAt = d.WakeAt
	}
	return nil
}

// storeCampaign stores what was decided, and reports whether the campaign still was what it
// was decided from: somebody may have paused or stopped it.
func (l *leader) storeCampaign(ctx context.Context, s situation, d *campaign.Decision) (bool, error) {
	if !l.lease.Held() {
		return false, context.Canceled
	}
	c := d.Campaign
	revision, err := l.cfg.Store.Campaigns.Update(ctx, &c, s.revision)
	if errors.Is(err, engine.ErrConflict) || errors.Is(err, engine.ErrNotFound) {
		return false, nil // the watch reports what it is
	}
	if err != nil {
		return false, err
	}
	l.state.noteCampaign(&c, revision)
	if c.State == s.Campaign.State && c.Wave == s.Campaign.Wave {
		return true, nil
	}
	l.cfg.Log.Info("campaign", "campaign", c.ID, "state", c.State, "wave", c.Wave, "reason", c.Reason)
	kind := fleet.EventCampaign
	if d.Threshold {
		kind = fleet.EventThreshold
	}
	return true, l.cfg.Store.Record(ctx, &fleet.Event{Time: time.Now().UTC(), Kind: kind, Campaign: c.ID, State: string(c.State), Text: c.Reason})
}

// plan creates the runs of a campaign. If it is interrupted, the next scheduler creates
// those that are missing.
func (l *leader) plan(ctx context.Context, c *fleet.Campaign) error {
	filter, err := inventory.Compile(c.Spec.Filter)
	if err != nil {
		return l.fail(ctx, c, fmt.Errorf("its filter: %w", err))
	}
	waves := make([]*inventory.Filter, len(c.Spec.Waves))
	for i, w := range c.Spec.Waves {
		if w.Filter != "" {
			if waves[i], err = inventory.Compile(w.Filter); err != nil {
				return l.fail(ctx, c, fmt.Errorf("the filter of wave %d: %w", i+1, err))
			}
		}
	}
	all, err := l.cfg.Store.Devices.List(ctx)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	devices := slices.DeleteFunc(all, func(d *fleet.Device) bool { return !filter.Match(d, now) })
	if c.Spec.Back != "" {
		changed, err := l.changedBy(ctx, c.Spec.Back)
		if err != nil {
			return err
		}
		devices = slices.DeleteFunc(devices, func(d *fleet.Device) bool { return !changed[d.Name] })
	}
	names := make([]string, len(devices))
	for i, d := range devices {
		names[i] = d.Name
	}
	assigned := campaign.Assign(c.ID, &c.Spec, names, func(device, wave int) bool { return waves[wave].Match(devices[device], now) })
	runs := make([]*fleet.Run, len(devices))
	for i, d := range devices {
		runs[i] = &fleet.Run{Campaign: c.ID, Device: d.Name, Site: d.Site, Pool: d.PoolName(), Wave: assigned[i], State: fleet.RunPending, Created: now}
	}
	revisions, err := l.cfg.Store.Runs.CreateAll(ctx, runs)
	if err != nil {
		return err
	}
	// Nothing is decided about a planned campaign whose runs have not been seen: the watches of
	// campaigns and runs do not wait for each other.
	for i, r := range runs {
		if revisions[i] != 0 {
			l.state.noteRun(r, revisions[i])
		}
	}
	if slices.Contains(revisions, 0) { // of an earlier scheduler that was interrupted
		if err := l.readRuns(ctx, c.ID); err != nil {
			return err
		}
	}
	l.cfg.Log.Info("campaign planned", "campaign", c.ID, "devices", len(runs))
	return l.changeCampaign(ctx, c.ID, func(c *fleet.Campaign) { c.Planned = true })
}

// readRuns notes what the runs of a campaign are now.
func (l *leader) readRuns(ctx context.Context, id string) error {
	err := l.cfg.Store.Runs.Watch(ctx, func(c store.Change[fleet.Run]) error {
		if c.Synced {
			return errSynced
		}
		l.state.runChanged(c)
		return nil
	}, id)
	if errors.Is(err, errSynced) {
		return nil
	}
	return err
}

// changedBy returns the devices that a campaign has changed, or may have changed.
func (l *leader) changedBy(ctx context.Context, id string) (map[string]bool, error) {
	runs, err := l.cfg.Store.Runs.List(ctx, id)
	changed := make(map[string]bool)
	for _, r := range runs {
		if r.Change != nil {
			changed[r.Device] = true
		}
	}
	return changed, err
}

// fail stops a campaign that cannot be planned.
func (l *leader) fail(ctx context.Context, c *fleet.Campaign, err error) error {
	return l.changeCampaign(ctx, c.ID, func(c *fleet.Campaign) {
		c.State, c.Reason, c.Ended = fleet.CampaignStopped, "it could not be planned: "+err.Error(), time.Now().UTC()
	})
}

func (l *leader) changeCampaign(ctx context.Context, id string, change func(*fleet.Campaign)) error {
	_, err := l.cfg.Store.Campaigns.Change(ctx, func(c *fleet.Campaign) error {
		change(c)
		return nil
	}, id)
	if gone(err) {
		return nil
	}
	return err
}

func (l *leader) cancel(ctx context.Context, e *entry) error {
	_, err := l.change(ctx, e, func(r *fleet.Run) {
		r.State, r.RetryAt, r.Ended = fleet.RunCanceled, time.Time{}, time.Now().UTC()
	})
	return err
}

// start queues a run.
func (l *leader) start(ctx context.Context, c *fleet.Campaign, e *entry) error {
	run, err := l.change(ctx, e, func(r *fleet.Run) {
		r.State, r.RetryAt, r.Queued = fleet.RunQueued, time.Time{}, time.Now().UTC()
		r.Attempt++
	})
	if err != nil || run == nil {
		return err
	}
	return l.publish(ctx, c, run)
}

// publish tells the workers. If the node ends before that, the next scheduler does so.
func (l *leader) publish(ctx context.Context, c *fleet.Campaign, run *fleet.Run) error {
	priority := engine.Normal
	if run.HalfDone() || run.Answer != nil || c.Spec.Priority >= urgentPriority {
		priority = engine.Urgent
	}
	if err := l.cfg.Store.Queue(ctx, run, priority); err != nil {
		return err
	}
	l.state.mu.Lock()
	defer l.state.mu.Unlock()
	l.state.published(run)
	return nil
}

// urgentPriority is the priority from which the tasks of a campaign precede others.
const urgentPriority = 5

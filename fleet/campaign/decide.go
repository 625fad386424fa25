package campaign

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/iad/fleet"
)

// Situation is what Decide decides from.
type Situation struct {
	Campaign fleet.Campaign
	Now      time.Time
	// All counts the runs of all waves, Wave those of the current one.
	All, Wave fleet.Counts
	// FirstAttempts is the number of the wave's runs in flight that are not repetitions.
	FirstAttempts int
	// HalfDone is the number of runs of all waves that are retrying and HalfDone.
	HalfDone int
	// Groups are the runs of the current and earlier waves by site and pool; groups without
	// any that could be started may be left out.
	Groups []Group
	// Sites has the loads of sites by name. A site that is missing has no limit.
	Sites map[string]Load
	// Pools has the loads of pools by name. A pool that is missing has no workers.
	Pools map[string]Load
}

// Group is the runs of one site and pool.
type Group struct {
	Site, Pool string
	// TimeZone is that of the site; empty: that of the campaign.
	TimeZone string
	// Ready is the number of runs that are pending, or retrying and due, and not HalfDone.
	Ready int
	// Urgent is the number of retrying runs that are due and HalfDone: they are started
	// whatever state the campaign is in.
	Urgent int
	// NextRetry is when the next run that is retrying and not yet due is; zero: there is
	// none.
	NextRetry time.Time
	// InFlight is the number of the campaign's runs that are queued or running.
	InFlight int
}

// Load is how many runs a site or pool has at the same time.
type Load struct {
	Limit    int // the maximum; of a site, 0: no limit
	InFlight int // queued and running, of all campaigns
}

// Decision is what to do.
type Decision struct {
	// Campaign is the campaign as it has to be stored first, if Changed.
	Campaign fleet.Campaign
	Changed  bool
	// Threshold: a threshold or MinSuccess was the reason.
	Threshold bool
	// Plan: the runs have to be created, and Campaign.Planned set.
	Plan bool
	// Cancel: runs that are pending or retrying and not HalfDone are to be canceled.
	Cancel bool
	// Start are the runs to queue.
	Start []Start
	// WakeAt is when to decide again even if nothing changes; zero: never.
	WakeAt time.Time
}

// Start is a number of runs to queue.
type Start struct {
	Site, Pool string
	// Urgent: those that Group.Urgent counts; otherwise those that Group.Ready counts.
	Urgent bool
	Count  int
}

// Decide decides what to do next.
func Decide(s Situation) Decision {
	d := &decider{Situation: s, out: Decision{Campaign: s.Campaign}}
	d.decide()
	if text := strings.Join(d.waiting, "; "); text != d.out.Campaign.WaitingFor {
		d.out.Campaign.WaitingFor, d.out.Changed = text, true
	}
	return d.out
}

type decider struct {
	Situation
	out     Decision
	waiting []string
}

// wait notes what the campaign waits for until a time; zero: it is not known until when.
func (d *decider) wait(until time.Time, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !until.IsZero() {
		text += ", " + until.UTC().Format("2006-01-02 15:04 UTC")
	}
	d.waiting = append(d.waiting, text)
	d.wake(until)
}

// enter changes the state of the campaign.
func (d *decider) enter(state fleet.CampaignState, format string, args ...any) {
	c := &d.out.Campaign
	c.State, c.Reason = state, fmt.Sprintf(format, args...)
	if state.Final() {
		c.Ended = d.Now
	}
	d.out.Changed = true
}

// wake asks to be called at a time, unless that is zero or an earlier one is asked for.
func (d *decider) wake(at time.Time) {
	if !at.IsZero() && (d.out.WakeAt.IsZero() || at.Before(d.out.WakeAt)) {
		d.out.WakeAt = at
	}
}

// cancelable reports whether there are runs that Cancel cancels.
func (d *decider) cancelable() bool { return d.All.Pending+d.All.Retrying > d.HalfDone }

func (d *decider) decide() {
	c := &d.out.Campaign
	spec := &c.Spec
	late := !spec.Deadline.IsZero() && !d.Now.Before(spec.Deadline)
	switch c.State {
	case fleet.CampaignDraft, fleet.CampaignAwaiting:
		return
	case fleet.CampaignStopped:
		d.out.Cancel = d.cancelable()
	case fleet.CampaignScheduled:
		switch {
		case late:
			d.enter(fleet.CampaignDone, "nothing was started before the deadline")
			return
		case d.Now.Before(spec.NotBefore):
			d.wake(spec.NotBefore)
			return
		}
		d.enter(fleet.CampaignRunning, "started")
		c.Started, c.WaveStarted = d.Now, d.Now
	case fleet.CampaignPaused:
		if late {
			d.out.Cancel = d.cancelable()
		} else {
			d.wake(spec.Deadline)
		}
		d.endIfNothingIsLeft(late)
	}
	if c.State == fleet.CampaignRunning {
		if !c.Planned {
			d.out.Plan = !late
			if late {
				d.enter(fleet.CampaignDone, "nothing was started before the deadline")
			}
			return
		}
		d.run(late)
	}
	d.start(c.State == fleet.CampaignRunning && !late)
}

// run decides for a campaign that is running and planned.
func (d *decider) run(late bool) {
	c := &d.out.Campaign
	if d.endIfNothingIsLeft(late); c.State != fleet.CampaignRunning {
		return
	}
	if late {
		d.out.Cancel = d.cancelable()
		return
	}
	d.wake(c.Spec.Deadline)
	for i := range c.Spec.Thresholds {
		if text := d.reached(&c.Spec.Thresholds[i]); text != "" {
			d.out.Threshold = true
			if c.Spec.Thresholds[i].Action == fleet.ActionStop {
				d.enter(fleet.CampaignStopped, "%s", text)
				d.out.Cancel = d.cancelable()
			} else {
				d.enter(fleet.CampaignPaused, "%s", text)
			}
			return
		}
	}
	if c.Wave < len(c.Spec.Waves) {
		d.wave(&c.Spec.Waves[c.Wave])
	}
}

// endIfNothingIsLeft ends a campaign whose runs have all ended.
func (d *decider) endIfNothingIsLeft(late bool) {
	c := &d.out.Campaign
	if !c.Planned || d.All.Ended() < d.All.Total {
		return
	}
	switch {
	case d.All.Total == 0:
		d.enter(fleet.CampaignDone, "no device matches the filter")
	case late && d.All.Canceled > 0:
		d.enter(fleet.CampaignDone, "%d of %d devices were not done before the deadline", d.All.Canceled, d.All.Total)
	default:
		d.enter(fleet.CampaignDone, "all devices ended")
	}
}

// wave decides whether the current wave has ended and the next one may begin.
func (d *decider) wave(w *fleet.Wave) {
	c := &d.out.Campaign
	released := c.Released > c.Wave
	name := cmp.Or(w.Name, fmt.Sprint(c.Wave+1)) // people count from 1
	if !released && missed(w, d.Wave) {
		d.out.Threshold = true
		d.enter(fleet.CampaignPaused, "wave %s: %.4g %% of %d devices must succeed, and %d failed", name, w.MinSuccess, d.Wave.Total, d.Wave.Failed+d.Wave.Canceled)
		return
	}
	last := c.Wave >= len(c.Spec.Waves)-1
	if last || c.WaveEnded.IsZero() && !d.finished(w) {
		return
	}
	if c.WaveEnded.IsZero() {
		c.WaveEnded, d.out.Changed = d.Now, true
		c.Reason = fmt.Sprintf("wave %s ended", name)
	}
	if end := c.WaveEnded.Add(time.Duration(w.Soak)); d.Now.Before(end) {
		d.wait(end, "the end of the observation of wave %s", name)
		return
	}
	if w.Hold && !released {
		d.enter(fleet.CampaignPaused, "wave %s ended; resume the campaign to start the next one", name)
		return
	}
	c.Wave++
	c.WaveStarted, c.WaveEnded, d.out.Changed = d.Now, time.Time{}, true
	c.Reason = fmt.Sprintf("wave %s began", cmp.Or(c.Spec.Waves[c.Wave].Name, fmt.Sprint(c.Wave)))
	// The numbers are those of the wave before: decide again with those of the new one.
	d.wake(d.Now)
}

// missed reports whether a wave cannot reach its MinSuccess any more.
func missed(w *fleet.Wave, n fleet.Counts) bool {
	return float64(n.Total-n.Failed-n.Canceled)*100 < w.MinSuccess*float64(n.Total)
}

// finished reports whether the current wave is over. It stays so: what has succeeded stays
// that way.
func (d *decider) finished(w *fleet.Wave) bool {
	n := &d.Wave
	if w.MinSuccess > 0 && float64(n.Succeeded+n.Unchanged)*100 >= w.MinSuccess*float64(n.Total) {
		return n.Pending+d.FirstAttempts == 0
	}
	return n.Ended() == n.Total
}

// reached says that a threshold is reached; it returns "" if it is not.
func (d *decider) reached(t *fleet.Threshold) string {
	counts, forgiven, where := d.All, fleet.Counts{}, "the campaign"
	if f := d.Campaign.Forgiven; f != nil {
		forgiven = f.Campaign
	}
	if t.Scope == fleet.ScopeWave {
		counts, forgiven, where = d.Wave, fleet.Counts{}, fmt.Sprintf("wave %d", d.Campaign.Wave+1)
		if f := d.Campaign.Forgiven; f != nil && f.Wave == d.Campaign.Wave {
			forgiven = f.InWave
		}
	}
	failed := counts.Failed - forgiven.Failed
	ended := failed + counts.Succeeded + counts.Unchanged - forgiven.Succeeded - forgiven.Unchanged
	since := ""
	if forgiven != (fleet.Counts{}) {
		since = " since it was resumed"
	}
	switch waiting := counts.Waiting - forgiven.Waiting; {
	case t.Failed > 0 && failed >= t.Failed:
		return fmt.Sprintf("threshold: %d devices of %s failed%s, the limit is %d", failed, where, since, t.Failed)
	case t.FailedPercent > 0 && failed > 0 && ended >= max(t.MinSample, 1) && float64(failed)*100 >= t.FailedPercent*float64(ended):
		return fmt.Sprintf("threshold: %d of %d devices of %s failed%s, the limit is %.4g %%", failed, ended, where, since, t.FailedPercent)
	case t.Waiting > 0 && waiting >= t.Waiting:
		return fmt.Sprintf("threshold: %d devices of %s wait for an answer%s, the limit is %d", waiting, where, since, t.Waiting)
	}
	return ""
}

// start decides which runs are queued, the urgent ones first. All that limits them is
// shared evenly: the next run is one of the group with the fewest in flight.
func (d *decider) start(ready bool) {
	free := newBudget(&d.Situation)
	d.share(free, true, func(g *Group) int { return g.Urgent })
	for i := range d.Groups {
		d.wake(d.Groups[i].NextRetry)
	}
	if !ready {
		return
	}
	spec := &d.Campaign.Spec
	type window struct {
		open bool
		next time.Time
	}
	windows := map[string]window{} // by zone: sites are many, their zones few
	var unattended []string
	closed := false
	var next time.Time
	d.share(free, false, func(g *Group) int {
		if g.Ready == 0 {
			return 0
		}
		w, known := windows[g.TimeZone]
		if !known {
			w.open, w.next = Open(spec.Windows, time.Duration(spec.Reserve), Zone(spec, g.TimeZone), d.Now)
			windows[g.TimeZone] = w
			d.wake(w.next)
		}
		switch {
		case !w.open:
			closed = true
			if next.IsZero() || !w.next.IsZero() && w.next.Before(next) {
				next = w.next
			}
			return 0
		case d.Pools[g.Pool].Limit == 0:
			unattended = append(unattended, g.Pool)
		}
		return g.Ready
	})
	if closed && len(d.out.Start) == 0 {
		d.wait(next, "the next window")
	}
	if len(unattended) > 0 {
		slices.Sort(unattended)
		d.wait(time.Time{}, "workers in %s", strings.Join(slices.Compact(unattended), ", "))
	}
}

// budget is what may still be queued; a limit that is missing does not exist.
type budget struct {
	campaign      int
	limited       bool
	sites, pools  map[string]int // free places, of all campaigns
	perSite       map[string]int // free places of this campaign
	perPool       map[string]int
	capSite, capP bool
}

func newBudget(s *Situation) *budget {
	caps := &s.Campaign.Spec.Caps
	b := &budget{
		limited: caps.Parallel > 0, capSite: caps.ParallelPerSite > 0, capP: caps.ParallelPerPool > 0,
		sites: map[string]int{}, pools: map[string]int{}, perSite: map[string]int{}, perPool: map[string]int{},
	}
	b.campaign = caps.Parallel
	for i := range s.Groups {
		g := &s.Groups[i]
		if _, known := b.perSite[g.Site]; !known {
			b.perSite[g.Site] = caps.ParallelPerSite
		}
		if _, known := b.perPool[g.Pool]; !known {
			b.perPool[g.Pool] = caps.ParallelPerPool
		}
		b.campaign -= g.InFlight
		b.perSite[g.Site] -= g.InFlight
		b.perPool[g.Pool] -= g.InFlight
	}
	for name, load := range s.Sites {
		if load.Limit > 0 {
			b.sites[name] = load.Limit - load.InFlight
		}
	}
	for name, load := range s.Pools {
		b.pools[name] = load.Limit - load.InFlight
	}
	return b
}

// take takes a place for a run, if there is one.
func (b *budget) take(g *Group) bool {
	site, limited := b.sites[g.Site]
	if b.limited && b.campaign <= 0 || b.capSite && b.perSite[g.Site] <= 0 || b.capP && b.perPool[g.Pool] <= 0 ||
		limited && site <= 0 || b.pools[g.Pool] <= 0 {
		return false
	}
	b.campaign--
	b.perSite[g.Site]--
	b.perPool[g.Pool]--
	if limited {
		b.sites[g.Site]--
	}
	b.pools[g.Pool]--
	return true
}

// share takes places for the runs of all groups.
func (d *decider) share(free *budget, urgent bool, wanted func(*Group) int) {
	var queue claimants
	for i := range d.Groups {
		if n := wanted(&d.Groups[i]); n > 0 {
			queue = append(queue, &claimant{group: &d.Groups[i], wanted: n})
		}
	}
	heap.Init(&queue)
	var served []*claimant
	for len(queue) > 0 {
		c := queue[0]
		if !free.take(c.group) {
			heap.Pop(&queue) // what it lacks comes back only with the next decision
			continue
		}
		if c.given++; c.given == 1 {
			served = append(served, c)
		}
		if c.given == c.wanted {
			heap.Pop(&queue)
		} else {
			heap.Fix(&queue, 0)
		}
	}
	slices.SortFunc(served, compareClaimants)
	for _, c := range served {
		d.out.Start = append(d.out.Start, Start{Site: c.group.Site, Pool: c.group.Pool, Urgent: urgent, Count: c.given})
	}
}

// A claimant is a group that gets places.
type claimant struct {
	group         *Group
	wanted, given int
}

func compareClaimants(a, b *claimant) int {
	return cmp.Or(strings.Compare(a.group.Site, b.group.Site), strings.Compare(a.group.Pool, b.group.Pool))
}

// claimants is a heap with the group that has the fewest runs in flight first.
type claimants []*claimant

func (q claimants) Len() int { return len(q) }
func (q claimants) Less(i, j int) bool {
	a, b := q[i], q[j]
	return cmp.Or(cmp.Compare(a.group.InFlight+a.given, b.group.InFlight+b.given), compareClaimants(a, b)) < 0
}
func (q claimants) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *claimants) Push(x any)   { *q = append(*q, x.(*claimant)) }
func (q *claimants) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

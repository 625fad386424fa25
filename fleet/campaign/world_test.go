package campaign_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.com/iad/fleet"
	"example.com/iad/fleet/campaign"
)

// world is a campaign with devices that succeed, fail, are offline and ask, drawn at
// random. It does what the scheduler does, and checks the promises of each start.
type world struct {
	t     *rapid.T
	now   time.Time
	c     fleet.Campaign
	runs  []*run
	zones map[string]string // by site
	limit map[string]int    // of sites
	slots map[string]int    // of pools

	resumes int
	ended   map[int]time.Time // when waves ended
	held    map[int]bool      // waves that a person has released
}

type run struct {
	fleet.Run
	until  time.Time
	script []fleet.RunState // what comes of each attempt
	half   bool             // after its first attempt it is half-done
}

var zones = []string{"", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"}

func drawWorld(t *rapid.T) *world {
	w := &world{t: t, zones: map[string]string{}, limit: map[string]int{}, slots: map[string]int{}, ended: map[int]time.Time{}, held: map[int]bool{}}
	// Near a change of the clocks in Berlin, or not.
	w.now = rapid.SampledFrom([]time.Time{
		time.Date(2026, 3, 28, 20, 0, 0, 0, time.UTC), time.Date(2026, 10, 24, 20, 0, 0, 0, time.UTC), time.Date(2026, 6, 1, 9, 0, 0, 0, time.UTC),
	}).Draw(t, "now")
	spec := fleet.CampaignSpec{
		Title: "x", Operation: fleet.OperationBackup, Filter: "true",
		Caps: fleet.Caps{Parallel: rapid.IntRange(0, 5).Draw(t, "parallel"), ParallelPerSite: rapid.IntRange(0, 3).Draw(t, "perSite"), ParallelPerPool: rapid.IntRange(0, 3).Draw(t, "perPool")},
		Retry: fleet.RetryRule{
			Attempts: rapid.IntRange(0, 3).Draw(t, "attempts"), Pause: fleet.Duration(10 * time.Minute), MaxPause: fleet.Duration(time.Hour),
		},
	}
	for range rapid.IntRange(0, 3).Draw(t, "waves") {
		wave := fleet.Wave{Soak: fleet.Duration(rapid.IntRange(0, 3).Draw(t, "soak")) * fleet.Duration(time.Hour), Hold: rapid.Bool().Draw(t, "hold")}
		wave.MinSuccess = float64(rapid.IntRange(0, 4).Draw(t, "min") * 25)
		if rapid.Bool().Draw(t, "byCount") {
			wave.Count = rapid.IntRange(1, 5).Draw(t, "count")
		} else {
			wave.Percent = float64(rapid.IntRange(1, 60).Draw(t, "percent"))
		}
		spec.Waves = append(spec.Waves, wave)
	}
	for range rapid.IntRange(0, 2).Draw(t, "thresholds") {
		spec.Thresholds = append(spec.Thresholds, fleet.Threshold{
			Failed: rapid.IntRange(1, 4).Draw(t, "failed"), Scope: rapid.SampledFrom([]fleet.Scope{"", fleet.ScopeWave}).Draw(t, "scope"),
			Action: rapid.SampledFrom([]fleet.Action{"", "", "", fleet.ActionStop}).Draw(t, "action"),
		})
	}
	for range rapid.IntRange(0, 2).Draw(t, "windows") {
		from := rapid.IntRange(0, 23).Draw(t, "from")
		window := fleet.Window{From: fmt.Sprintf("%02d:00", from), To: fmt.Sprintf("%02d:00", (from+rapid.IntRange(1, 12).Draw(t, "hours"))%24)}
		if rapid.Bool().Draw(t, "days") {
			window.Days = []string{"sun", rapid.SampledFrom([]string{"mon", "wed", "sat"}).Draw(t, "day")}
		}
		spec.Windows = append(spec.Windows, window)
	}
	if len(spec.Windows) > 0 {
		spec.Reserve = fleet.Duration(rapid.IntRange(0, 45).Draw(t, "reserve")) * fleet.Duration(time.Minute)
	}
	if rapid.IntRange(0, 3).Draw(t, "deadline") == 0 {
		spec.Deadline = w.now.Add(time.Duration(rapid.IntRange(1, 72).Draw(t, "deadlineHours")) * time.Hour)
	}
	if err := spec.Validate(); err != nil {
		t.Fatal(err)
	}
	w.c = fleet.Campaign{ID: "spring", Spec: spec, State: fleet.CampaignScheduled, CreatedBy: "ann"}
	for i, site := range []string{"a", "b", "c"} {
		w.zones[site] = zones[rapid.IntRange(0, 3).Draw(t, "zone")]
		w.limit[site] = rapid.IntRange(0, 2).Draw(t, "limit")
		w.slots[fmt.Sprint("p", i)] = rapid.IntRange(1, 4).Draw(t, "slots")
	}
	for i := range rapid.IntRange(0, 25).Draw(t, "devices") {
		r := &run{Run: fleet.Run{
			Campaign: w.c.ID, Device: fmt.Sprintf("d%02d", i), State: fleet.RunPending,
			Site: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "site"), Pool: rapid.SampledFrom([]string{"p0", "p1"}).Draw(t, "pool"),
		}}
		r.script = rapid.SliceOfN(rapid.SampledFrom([]fleet.RunState{
			fleet.RunSucceeded, fleet.RunSucceeded, fleet.RunUnchanged, fleet.RunFailed, fleet.RunRetrying, fleet.RunWaiting,
		}), 1, 3).Draw(t, "script")
		r.half = rapid.Bool().Draw(t, "half")
		w.runs = append(w.runs, r)
	}
	return w
}

// halfDone stands for Run.HalfDone, which reads the record.
func (w *world) halfDone(r *run) bool {
	return r.half && r.Attempt > 0 && !r.State.Final()
}

func (w *world) counts(wave int) (n fleet.Counts) {
	for _, r := range w.runs {
		if wave < 0 || r.Wave == wave {
			n.Add(r.State, 1)
		}
	}
	return n
}

func (w *world) situation() campaign.Situation {
	s := campaign.Situation{Campaign: w.c, Now: w.now, Sites: map[string]campaign.Load{}, Pools: map[string]campaign.Load{}}
	for pool, slots := range w.slots {
		s.Pools[pool] = campaign.Load{Limit: slots}
	}
	for site, limit := range w.limit {
		s.Sites[site] = campaign.Load{Limit: limit}
	}
	if !w.c.Planned {
		return s
	}
	s.All, s.Wave = w.counts(-1), w.counts(w.c.Wave)
	groups := map[[2]string]*campaign.Group{}
	for _, r := range w.runs {
		key := [2]string{r.Site, r.Pool}
		g := groups[key]
		if g == nil {
			g = &campaign.Group{Site: r.Site, Pool: r.Pool, TimeZone: w.zones[r.Site]}
			groups[key] = g
		}
		if r.State == fleet.RunRetrying && w.halfDone(r) {
			s.HalfDone++
		}
		switch due := !r.RetryAt.After(w.now); {
		case r.State == fleet.RunQueued || r.State == fleet.RunRunning:
			g.InFlight++
			if r.Wave == w.c.Wave && r.Attempt == 1 {
				s.FirstAttempts++
			}
			site, pool := s.Sites[r.Site], s.Pools[r.Pool]
			site.InFlight++
			pool.InFlight++
			s.Sites[r.Site], s.Pools[r.Pool] = site, pool
		case r.Wave > w.c.Wave:
		case r.State == fleet.RunRetrying && !due:
			if g.NextRetry.IsZero() || r.RetryAt.Before(g.NextRetry) {
				g.NextRetry = r.RetryAt
			}
		case r.State == fleet.RunRetrying && w.halfDone(r):
			g.Urgent++
		case r.State == fleet.RunRetrying, r.State == fleet.RunPending:
			g.Ready++
		}
	}
	for _, g := range groups {
		s.Groups = append(s.Groups, *g)
	}
	return s
}

// step decides once and does it. It returns when to decide again.
func (w *world) step() (wake time.Time) {
	before := w.c
	d := campaign.Decide(w.situation())
	if d.Changed {
		w.c = d.Campaign
	} else if d.Campaign.State != before.State || d.Campaign.Wave != before.Wave {
		w.t.Fatalf("a change is not reported: %+v", d)
	}
	if w.c.Wave != before.Wave {
		w.nextWave(before)
	}
	if d.Plan {
		names := make([]string, len(w.runs))
		for i, r := range w.runs {
			names[i] = r.Device
		}
		for i, wave := range campaign.Assign(w.c.ID, &w.c.Spec, names, nil) {
			w.runs[i].Wave = wave
		}
		w.c.Planned = true
		return w.now
	}
	if d.Cancel {
		for _, r := range w.runs {
			if (r.State == fleet.RunPending || r.State == fleet.RunRetrying) && !w.halfDone(r) {
				r.State = fleet.RunCanceled
			}
		}
	}
	for _, start := range d.Start {
		w.start(start)
	}
	if d.Changed || d.Cancel {
		return w.now
	}
	return d.WakeAt
}

// nextWave checks that the wave before may be left.
func (w *world) nextWave(before fleet.Campaign) {
	wave := before.Spec.Waves[before.Wave]
	n := w.counts(before.Wave)
	if w.c.Wave != before.Wave+1 || n.Pending > 0 {
		w.t.Fatalf("wave %d after wave %d with %+v", w.c.Wave, before.Wave, n)
	}
	if soaked := w.now.Sub(before.WaveEnded); before.WaveEnded.IsZero() && wave.Soak > 0 || soaked < time.Duration(wave.Soak) {
		w.t.Fatalf("wave %d was observed for %v, want %v", before.Wave, soaked, wave.Soak)
	}
	if wave.Hold && before.Released <= before.Wave {
		w.t.Fatalf("nobody has released wave %d", before.Wave)
	}
	if good := float64(n.Succeeded + n.Unchanged); good*100 < wave.MinSuccess*float64(n.Total) && before.Released <= before.Wave {
		w.t.Fatalf("wave %d with %+v is left, which needs %v %%", before.Wave, n, wave.MinSuccess)
	}
}

// start queues runs, and checks that they may be.
func (w *world) start(s campaign.Start) {
	for range s.Count {
		i := slices.IndexFunc(w.runs, func(r *run) bool {
			ready := r.State == fleet.RunPending || r.State == fleet.RunRetrying && !r.RetryAt.After(w.now)
			return ready && r.Site == s.Site && r.Pool == s.Pool && r.Wave <= w.c.Wave && w.halfDone(r) == s.Urgent
		})
		if i < 0 {
			w.t.Fatalf("%+v: there are not so many", s)
		}
		r := w.runs[i]
		if !s.Urgent {
			w.mayStart(r)
		}
		w.queue(r)
	}
	total, site, pool := 0, 0, 0
	for _, r := range w.runs {
		if r.State == fleet.RunRunning {
			total++
			if r.Site == s.Site {
				site++
			}
			if r.Pool == s.Pool {
				pool++
			}
		}
	}
	most := func(name string, n int, limits ...int) {
		for _, limit := range limits {
			if limit > 0 && n > limit {
				w.t.Fatalf("%d runs in flight in %s, the limit is %d", n, name, limit)
			}
		}
	}
	// A run whose question was answered continues at once, whatever the limits.
	if w.resumes == 0 {
		caps := w.c.Spec.Caps
		most("the campaign", total, caps.Parallel)
		most(s.Site, site, caps.ParallelPerSite, w.limit[s.Site])
		most(s.Pool, pool, caps.ParallelPerPool, w.slots[s.Pool])
	}
}

func (w *world) queue(r *run) {
	r.State, r.until = fleet.RunRunning, w.now.Add(20*time.Minute)
	r.Attempt++
	if r.Started.IsZero() {
		r.Started = w.now
	}
}

// mayStart checks state, deadline, thresholds and the window, by the clock on the wall.
func (w *world) mayStart(r *run) {
	spec := &w.c.Spec
	if w.c.State != fleet.CampaignRunning {
		w.t.Fatalf("%s is started while the campaign is %s", r.Device, w.c.State)
	}
	if !spec.Deadline.IsZero() && !w.now.Before(spec.Deadline) {
		w.t.Fatalf("%s is started after the deadline", r.Device)
	}
	all, wave := w.counts(-1), w.counts(w.c.Wave)
	for _, threshold := range spec.Thresholds {
		failed := all.Failed
		if f := w.c.Forgiven; f != nil && threshold.Scope != fleet.ScopeWave {
			failed -= f.Campaign.Failed
		}
		if threshold.Scope == fleet.ScopeWave {
			failed = wave.Failed
			if f := w.c.Forgiven; f != nil && f.Wave == w.c.Wave {
				failed -= f.InWave.Failed
			}
		}
		if failed >= threshold.Failed {
			w.t.Fatalf("%s is started although a threshold is reached: %+v, %+v", r.Device, threshold, all)
		}
	}
	if len(spec.Windows) == 0 {
		return
	}
	zone := campaign.Zone(spec, w.zones[r.Site])
	for minute := time.Duration(0); minute < max(time.Duration(spec.Reserve), time.Minute); minute += time.Minute {
		if at := w.now.Add(minute).In(zone); !onTheWall(spec.Windows, at) {
			w.t.Fatalf("%s is started at %v, and at %v no window is open", r.Device, w.now.In(zone), at)
		}
	}
}

// onTheWall reports whether what a clock shows is in a window.
func onTheWall(windows []fleet.Window, at time.Time) bool {
	names := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	now := at.Format("15:04")
	for _, w := range windows {
		today := len(w.Days) == 0 || slices.Contains(w.Days, names[at.Weekday()])
		yesterday := len(w.Days) == 0 || slices.Contains(w.Days, names[(at.Weekday()+6)%7])
		switch {
		case w.From < w.To && today && w.From <= now && now < w.To,
			w.From >= w.To && today && w.From <= now,
			w.From >= w.To && yesterday && now < w.To:
			return true
		}
	}
	return false
}

// finish ends the attempts that are over, as their scripts say.
func (w *world) finish() {
	for _, r := range w.runs {
		if r.State != fleet.RunRunning || r.until.After(w.now) {
			continue
		}
		r.State = r.script[min(r.Attempt, len(r.script))-1]
		if r.Attempt > 5 {
			r.State = fleet.RunSucceeded
		}
		if r.State == fleet.RunRetrying {
			r.Failure = &fleet.RunFailure{Cause: "busy", Passing: true}
			at, retry := w.c.Spec.Retry.Next(&r.Run, w.c.Spec.Deadline, w.now)
			if r.RetryAt = at; !retry {
				r.State = fleet.RunFailed
			}
		}
	}
}

// next returns when something happens without a decision.
func (w *world) next() (at time.Time) {
	for _, r := range w.runs {
		if r.State == fleet.RunRunning && (at.IsZero() || r.until.Before(at)) {
			at = r.until
		}
	}
	return at
}

// Every campaign, whatever its waves, limits and windows, ends by itself once a person
// answers and resumes, and starts nothing that it must not.
func TestCampaignsEndAndKeepTheirPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		for range 3000 {
			w.finish()
			wake := w.step()
			if event := w.next(); wake.IsZero() || !event.IsZero() && event.Before(wake) {
				wake = event
			}
			if !wake.IsZero() && wake.Before(w.now) {
				t.Fatalf("at %v it is to be decided again at %v", w.now, wake)
			}
			if !wake.IsZero() {
				w.now = wake
				continue
			}
			if w.person() {
				continue
			}
			w.over()
			return
		}
		t.Fatalf("the campaign does not end: %s (%s), waits for %q; %+v", w.c.State, w.c.Reason, w.c.WaitingFor, w.counts(-1))
	})
}

// person does what the campaign waits for: answers, or resumes. It reports whether there
// was anything to do.
func (w *world) person() bool {
	acted := false
	for _, r := range w.runs {
		if r.State == fleet.RunWaiting {
			w.resumes++
			w.queue(r)
			acted = true
		}
	}
	if !acted && w.c.State == fleet.CampaignPaused {
		w.resumes++
		if err := campaign.Resume(&w.c, "bob", w.counts(-1), w.counts(w.c.Wave)); err != nil {
			w.t.Fatal(err)
		}
		acted = true
	}
	w.now = w.now.Add(time.Hour)
	return acted
}

// over checks the end.
func (w *world) over() {
	n := w.counts(-1)
	never := false // a reserve that no window has
	for _, site := range []string{"a", "b", "c"} {
		open, next := campaign.Open(w.c.Spec.Windows, time.Duration(w.c.Spec.Reserve), campaign.Zone(&w.c.Spec, w.zones[site]), w.now)
		never = never || !open && next.IsZero()
	}
	if !w.c.State.Final() && !never || n.Ended() != n.Total && !never {
		w.t.Fatalf("nothing happens any more: %s (%s), waits for %q; %+v", w.c.State, w.c.Reason, w.c.WaitingFor, n)
	}
	if w.c.State == fleet.CampaignDone && n.Canceled > 0 && w.c.Spec.Deadline.IsZero() {
		w.t.Fatalf("canceled without a deadline: %+v", n)
	}
}

// Percentages that are rounded never leave a device out or put one into two waves.
func TestAssignProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,8}`), 0, 60, rapid.ID[string]).Draw(t, "names")
		percent := rapid.Float64Range(0.01, 100).Draw(t, "percent")
		spec := &fleet.CampaignSpec{Waves: []fleet.Wave{{Percent: percent}, {}}}
		first := 0
		for _, wave := range campaign.Assign("c", spec, names, nil) {
			if wave == 0 {
				first++
			}
		}
		if want := math.Ceil(percent * float64(len(names)) / 100); float64(first) != want {
			t.Fatalf("%d of %d devices in a wave of %v %%, want %v", first, len(names), percent, want)
		}
	})
}

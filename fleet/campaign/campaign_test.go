package campaign_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/campaign"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func TestWindows(t *testing.T) {
	night := fleet.Window{From: "22:00", To: "04:00"}
	weekend := fleet.Window{Days: []string{"sat", "sun"}, From: "22:00", To: "04:00"}
	gap := fleet.Window{From: "02:00", To: "03:00"}
	half := fleet.Window{From: "02:30", To: "04:00"}
	for _, c := range []struct {
		name    string
		windows []fleet.Window
		reserve time.Duration
		zone    string
		now     string // local time with offset
		open    bool
		next    string // empty: never, or open
	}{
		{"no window", nil, 0, "UTC", "2026-06-01T12:00:00Z", true, ""},
		{"before", []fleet.Window{night}, 0, "Europe/Berlin", "2026-06-01T21:59:59+02:00", false, "2026-06-01T22:00:00+02:00"},
		{"begin", []fleet.Window{night}, 0, "Europe/Berlin", "2026-06-01T22:00:00+02:00", true, ""},
		{"after midnight", []fleet.Window{night}, 0, "Europe/Berlin", "2026-06-02T03:59:59+02:00", true, ""},
		{"end", []fleet.Window{night}, 0, "Europe/Berlin", "2026-06-02T04:00:00+02:00", false, "2026-06-02T22:00:00+02:00"},
		{"another zone", []fleet.Window{night}, 0, "America/New_York", "2026-06-01T22:00:00+02:00", false, "2026-06-01T22:00:00-04:00"},
		{"reserve is left", []fleet.Window{night}, time.Hour, "Europe/Berlin", "2026-06-02T03:00:00+02:00", true, ""},
		{"reserve is not left", []fleet.Window{night}, time.Hour, "Europe/Berlin", "2026-06-02T03:00:01+02:00", false, "2026-06-02T22:00:00+02:00"},
		{"reserve longer than the window", []fleet.Window{night}, 7 * time.Hour, "Europe/Berlin", "2026-06-01T22:00:00+02:00", false, ""},
		{"the window of Sunday lasts into Monday", []fleet.Window{weekend}, 0, "Europe/Berlin", "2026-06-08T03:00:00+02:00", true, ""}, // a Monday
		{"not on Friday", []fleet.Window{weekend}, 0, "Europe/Berlin", "2026-06-05T23:00:00+02:00", false, "2026-06-06T22:00:00+02:00"},
		{"touching windows are one", []fleet.Window{{From: "01:00", To: "02:00"}, {From: "02:00", To: "03:00"}}, 90 * time.Minute, "UTC", "2026-06-01T01:15:00Z", true, ""},
		{"all day", []fleet.Window{{From: "00:00", To: "00:00"}}, 24 * time.Hour, "UTC", "2026-06-01T13:00:00Z", true, ""},
		// In Berlin clocks go from 02:00 to 03:00 on 2026-03-29 and from 03:00 to 02:00 on 2026-10-25.
		{"the missing hour", []fleet.Window{gap}, 0, "Europe/Berlin", "2026-03-29T01:59:00+01:00", false, "2026-03-30T02:00:00+02:00"},
		{"begins in the missing hour", []fleet.Window{half}, 0, "Europe/Berlin", "2026-03-29T01:59:00+01:00", false, "2026-03-29T03:00:00+02:00"},
		{"the repeated hour, first", []fleet.Window{gap}, 0, "Europe/Berlin", "2026-10-25T02:30:00+02:00", true, ""},
		{"the repeated hour, again", []fleet.Window{gap}, 0, "Europe/Berlin", "2026-10-25T02:30:00+01:00", true, ""},
		{"the night of the repeated hour is longer", []fleet.Window{night}, 6*time.Hour + 30*time.Minute, "Europe/Berlin", "2026-10-24T22:15:00+02:00", true, ""},
		{"the night of the missing hour is shorter", []fleet.Window{night}, 5*time.Hour + time.Minute, "Europe/Berlin", "2026-03-28T22:00:00+01:00", false, "2026-03-29T22:00:00+02:00"},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		open, next := campaign.Open(c.windows, c.reserve, zone(t, c.zone), now)
		want := time.Time{}
		if c.next != "" {
			if want, err = time.Parse(time.RFC3339, c.next); err != nil {
				t.Fatal(err)
			}
		}
		if open != c.open || !next.Equal(want) {
			t.Errorf("%s: open %v, next %v; want %v, %v", c.name, open, next, c.open, want)
		}
	}
}

func TestAssign(t *testing.T) {
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("iad-%04d", i)
	}
	spec := &fleet.CampaignSpec{Waves: []fleet.Wave{{Count: 7}, {Filter: "pilot"}, {Percent: 9.95}, {Percent: 50}, {}}}
	pilot := func(i, wave int) bool { return wave == 1 && i < 20 }
	waves := campaign.Assign("spring", spec, names, pilot)
	counts := make([]int, len(spec.Waves))
	for i, w := range waves {
		counts[w]++
		if i < 20 && w > 1 {
			t.Errorf("%s matches the filter of wave 1 and is in wave %d", names[i], w)
		}
	}
	pilots := counts[1]
	if want := []int{7, pilots, 100, 500, 393 - pilots}; !slices.Equal(counts, want) || pilots < 13 || pilots > 20 {
		t.Errorf("devices by wave: %v, want %v", counts, want)
	}
	if !slices.Equal(waves, campaign.Assign("spring", spec, names, pilot)) {
		t.Error("planned again, devices are in other waves")
	}
	if slices.Equal(waves, campaign.Assign("autumn", spec, names, pilot)) {
		t.Error("another campaign has the same canary")
	}
	// Neighbours in the list are not together: of the devices of wave 3 about half are in
	// the first half.
	early := 0
	for _, w := range waves[:500] {
		if w == 3 {
			early++
		}
	}
	if early < 200 || early > 300 {
		t.Errorf("%d of 500 devices of wave 3 are in the first half of the list", early)
	}
	if one := campaign.Assign("x", &fleet.CampaignSpec{}, names, nil); slices.Max(one) != 0 {
		t.Error("without waves there is more than one")
	}
}

func draft() *fleet.Campaign {
	return &fleet.Campaign{ID: "spring", State: fleet.CampaignDraft, CreatedBy: "ann", Spec: fleet.CampaignSpec{Title: "x", ApprovalRequired: true}}
}

func TestApproval(t *testing.T) {
	now := time.Unix(1e9, 0)
	c := draft()
	if err := campaign.Submit(c, "ann"); err != nil || c.State != fleet.CampaignAwaiting {
		t.Fatal(c.State, err)
	}
	if err := campaign.Approve(c, "Ann", "", c.Spec.Digest(), now); err == nil {
		t.Error("the creator approves")
	}
	digest := c.Spec.Digest()
	changed := c.Spec
	changed.Title = "y"
	if err := campaign.Edit(c, changed, "bob"); err != nil || c.State != fleet.CampaignDraft {
		t.Fatal(c.State, err)
	}
	if err := campaign.Submit(c, "bob"); err != nil {
		t.Fatal(err)
	}
	if err := campaign.Approve(c, "eve", "", digest, now); err == nil {
		t.Error("what was edited since is approved")
	}
	if err := campaign.Approve(c, "bob", "", c.Spec.Digest(), now); err == nil {
		t.Error("the editor approves")
	}
	if err := campaign.Approve(c, "eve", "fine", c.Spec.Digest(), now); err != nil || c.State != fleet.CampaignScheduled || c.Approval.By != "eve" {
		t.Fatal(c.State, err)
	}
	var state *campaign.StateError
	if err := campaign.Edit(c, changed, "ann"); !errors.As(err, &state) || !strings.Contains(err.Error(), "cannot edit campaign spring: it is scheduled; copy") {
		t.Errorf("edited after its approval: %v", err)
	}
	d := draft()
	d.Spec.ApprovalRequired = false
	if err := campaign.Submit(d, "ann"); err != nil || d.State != fleet.CampaignScheduled {
		t.Error(d.State, err)
	}
}

// Every command fails in every state in which it makes no sense, and changes nothing.
func TestCommandsByState(t *testing.T) {
	commands := map[string]func(*fleet.Campaign) error{
		"edit":    func(c *fleet.Campaign) error { return campaign.Edit(c, fleet.CampaignSpec{}, "bob") },
		"submit":  func(c *fleet.Campaign) error { return campaign.Submit(c, "bob") },
		"approve": func(c *fleet.Campaign) error { return campaign.Approve(c, "bob", "", c.Spec.Digest(), time.Unix(1, 0)) },
		"pause":   func(c *fleet.Campaign) error { return campaign.Pause(c, "bob") },
		"resume":  func(c *fleet.Campaign) error { return campaign.Resume(c, "bob", fleet.Counts{}, fleet.Counts{}) },
		"stop":    func(c *fleet.Campaign) error { return campaign.Stop(c, "bob", time.Unix(1, 0)) },
	}
	allowed := map[string][]fleet.CampaignState{
		"edit":    {fleet.CampaignDraft, fleet.CampaignAwaiting},
		"submit":  {fleet.CampaignDraft},
		"approve": {fleet.CampaignAwaiting},
		"pause":   {fleet.CampaignScheduled, fleet.CampaignRunning},
		"resume":  {fleet.CampaignPaused},
		"stop":    {fleet.CampaignDraft, fleet.CampaignAwaiting, fleet.CampaignScheduled, fleet.CampaignRunning, fleet.CampaignPaused},
	}
	for name, command := range commands {
		for _, state := range fleet.CampaignStates() {
			c := draft()
			c.State = state
			err := command(c)
			if (err == nil) != slices.Contains(allowed[name], state) {
				t.Errorf("%s a campaign that is %s: %v", name, state, err)
			}
			if err != nil && (c.State != state || c.Reason != "" || c.Approval != nil) {
				t.Errorf("%s a campaign that is %s fails and changes it to %s", name, state, c.State)
			}
		}
	}
}

func running(spec fleet.CampaignSpec) fleet.Campaign {
	return fleet.Campaign{ID: "spring", State: fleet.CampaignRunning, Planned: true, Started: time.Unix(1, 0), Spec: spec}
}

func TestThresholds(t *testing.T) {
	now := time.Unix(1e9, 0)
	counts := func(succeeded, failed, pending int) fleet.Counts {
		return fleet.Counts{Total: succeeded + failed + pending, Succeeded: succeeded, Failed: failed, Pending: pending}
	}
	for _, c := range []struct {
		name      string
		threshold fleet.Threshold
		all, wave fleet.Counts
		state     fleet.CampaignState
	}{
		{"below", fleet.Threshold{Failed: 3}, counts(0, 2, 9), counts(0, 2, 9), fleet.CampaignRunning},
		{"number", fleet.Threshold{Failed: 3}, counts(0, 3, 9), counts(0, 3, 9), fleet.CampaignPaused},
		{"stop", fleet.Threshold{Failed: 3, Action: fleet.ActionStop}, counts(0, 3, 9), counts(0, 3, 9), fleet.CampaignStopped},
		{"percent", fleet.Threshold{FailedPercent: 5}, counts(95, 5, 9), counts(9, 0, 9), fleet.CampaignPaused},
		{"percent, below", fleet.Threshold{FailedPercent: 5}, counts(96, 5, 9), counts(9, 0, 9), fleet.CampaignRunning},
		{"sample too small", fleet.Threshold{FailedPercent: 5, MinSample: 20}, counts(9, 10, 9), counts(9, 0, 9), fleet.CampaignRunning},
		{"sample", fleet.Threshold{FailedPercent: 5, MinSample: 20}, counts(10, 10, 9), counts(9, 0, 9), fleet.CampaignPaused},
		{"wave only", fleet.Threshold{Failed: 3, Scope: fleet.ScopeWave}, counts(0, 3, 9), counts(0, 2, 9), fleet.CampaignRunning},
		{"wave", fleet.Threshold{Failed: 3, Scope: fleet.ScopeWave}, counts(0, 3, 9), counts(0, 3, 9), fleet.CampaignPaused},
		{"waiting", fleet.Threshold{Waiting: 2}, fleet.Counts{Total: 9, Waiting: 2, Pending: 7}, counts(0, 0, 9), fleet.CampaignPaused},
	} {
		s := campaign.Situation{
			Campaign: running(fleet.CampaignSpec{Thresholds: []fleet.Threshold{c.threshold}}), Now: now, All: c.all, Wave: c.wave,
			Groups: []campaign.Group{{Pool: "p", Ready: 1}}, Pools: map[string]campaign.Load{"p": {Limit: 1}},
		}
		d := campaign.Decide(s)
		if d.Campaign.State != c.state || d.Threshold != (c.state != fleet.CampaignRunning) || (len(d.Start) > 0) != (c.state == fleet.CampaignRunning) {
			t.Errorf("%s: %s (%s), started %v; want %s", c.name, d.Campaign.State, d.Campaign.Reason, d.Start, c.state)
			continue
		}
		if d.Campaign.State != fleet.CampaignPaused {
			continue
		}
		// Resumed, the same failures do not count again, and as many further ones do.
		s.Campaign = d.Campaign
		if err := campaign.Resume(&s.Campaign, "ann", c.all, c.wave); err != nil {
			t.Fatal(err)
		}
		if d := campaign.Decide(s); d.Campaign.State != fleet.CampaignRunning {
			t.Errorf("%s, resumed: %s (%s)", c.name, d.Campaign.State, d.Campaign.Reason)
		}
		s.All, s.Wave = s.All.Plus(c.all), s.Wave.Plus(c.wave)
		if d := campaign.Decide(s); d.Campaign.State != fleet.CampaignPaused || !strings.Contains(d.Campaign.Reason, "since it was resumed") {
			t.Errorf("%s, resumed and failed again: %s (%s)", c.name, d.Campaign.State, d.Campaign.Reason)
		}
	}
}

// Places are shared evenly between sites and pools, and no limit is exceeded.
func TestShares(t *testing.T) {
	s := campaign.Situation{
		Campaign: running(fleet.CampaignSpec{Caps: fleet.Caps{Parallel: 20, ParallelPerSite: 6}}), Now: time.Unix(1e9, 0),
		All: fleet.Counts{Total: 2000, Pending: 2000}, Wave: fleet.Counts{Total: 2000, Pending: 2000},
		Groups: []campaign.Group{
			{Site: "a", Pool: "p", Ready: 1000, InFlight: 2}, {Site: "b", Pool: "p", Ready: 1000}, {Site: "c", Pool: "p", Ready: 3},
			{Site: "d", Pool: "p", Ready: 1000}, {Site: "a", Pool: "q", Ready: 9}, {Site: "e", Pool: "none", Ready: 5},
		},
		Sites: map[string]campaign.Load{"d": {Limit: 4, InFlight: 3}},
		Pools: map[string]campaign.Load{"p": {Limit: 15, InFlight: 2}, "q": {Limit: 2}},
	}
	want := []campaign.Start{{Site: "a", Pool: "p", Count: 2}, {Site: "a", Pool: "q", Count: 2}, {Site: "b", Pool: "p", Count: 6}, {Site: "c", Pool: "p", Count: 3}, {Site: "d", Pool: "p", Count: 1}}
	d := campaign.Decide(s)
	if !slices.Equal(d.Start, want) {
		t.Errorf("started %+v, want %+v", d.Start, want)
	}
	if d.Campaign.WaitingFor != "workers in none" {
		t.Errorf("waits for %q", d.Campaign.WaitingFor)
	}
}

// A device that is half-done is finished even in a campaign that was stopped, at noon.
func TestHalfDoneIsFinished(t *testing.T) {
	s := campaign.Situation{
		Campaign: running(fleet.CampaignSpec{Windows: []fleet.Window{{From: "01:00", To: "02:00"}}}), Now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC),
		All: fleet.Counts{Total: 9, Pending: 7, Retrying: 2}, Groups: []campaign.Group{{Pool: "p", Ready: 8, Urgent: 1}}, Pools: map[string]campaign.Load{"p": {Limit: 9}},
	}
	want := []campaign.Start{{Pool: "p", Urgent: true, Count: 1}}
	if d := campaign.Decide(s); !slices.Equal(d.Start, want) {
		t.Errorf("outside the window: started %+v, want %+v", d.Start, want)
	}
	if err := campaign.Stop(&s.Campaign, "ann", s.Now); err != nil {
		t.Fatal(err)
	}
	d := campaign.Decide(s)
	if !slices.Equal(d.Start, want) || !d.Cancel || d.Campaign.State != fleet.CampaignStopped {
		t.Errorf("stopped: started %+v, canceled %v, %s", d.Start, d.Cancel, d.Campaign.State)
	}
}

// The next wave does not wait for devices that are offline once enough have succeeded, and
// waits if it is not known yet whether enough will.
func TestStragglers(t *testing.T) {
	spec := fleet.CampaignSpec{Waves: []fleet.Wave{{Count: 10, MinSuccess: 80, Hold: true}, {}}}
	for _, c := range []struct {
		wave  fleet.Counts
		first int
		want  fleet.CampaignState
		ended bool
	}{
		{fleet.Counts{Total: 10, Succeeded: 8, Retrying: 2}, 0, fleet.CampaignPaused, true},
		{fleet.Counts{Total: 10, Succeeded: 8, Running: 2}, 0, fleet.CampaignPaused, true}, // repetitions
		{fleet.Counts{Total: 10, Succeeded: 8, Running: 2}, 1, fleet.CampaignRunning, false},
		{fleet.Counts{Total: 10, Succeeded: 7, Unchanged: 1, Failed: 1, Waiting: 1}, 0, fleet.CampaignPaused, true},
		{fleet.Counts{Total: 10, Succeeded: 7, Failed: 2, Waiting: 1}, 0, fleet.CampaignRunning, false},
		{fleet.Counts{Total: 10, Succeeded: 1, Failed: 3, Pending: 6}, 0, fleet.CampaignPaused, false},
	} {
		d := campaign.Decide(campaign.Situation{Campaign: running(spec), Now: time.Unix(1e9, 0), All: c.wave.Plus(fleet.Counts{Total: 50, Pending: 50}), Wave: c.wave, FirstAttempts: c.first})
		if d.Campaign.State != c.want || d.Campaign.WaveEnded.IsZero() == c.ended {
			t.Errorf("%+v: %s (%s), ended %v", c.wave, d.Campaign.State, d.Campaign.Reason, d.Campaign.WaveEnded)
		}
	}
}

func TestSchedules(t *testing.T) {
	s := &fleet.Schedule{Name: "nightly", At: "02:30", TimeZone: "Europe/Berlin", CreatedBy: "ann", Spec: fleet.CampaignSpec{Title: "Backup"}}
	at := time.Date(2026, 3, 27, 12, 0, 0, 0, time.UTC)
	var got []string
	for range 4 {
		at = campaign.NextStart(s, at)
		got = append(got, at.UTC().Format("02 15:04"))
	}
	if want := []string{"28 01:30", "29 01:00", "30 00:30", "31 00:30"}; !slices.Equal(got, want) { // 02:30 is missing on the 29th
		t.Errorf("starts %q, want %q", got, want)
	}
	c := campaign.FromSchedule(s, at)
	if c.ID != "nightly-20260331-0030" || fleet.CheckID(c.ID) != nil || c.State != fleet.CampaignScheduled || !c.Spec.Deadline.Equal(at.Add(24*time.Hour)) {
		t.Errorf("%+v", c)
	}
	s.Spec.ApprovalRequired = true
	if c := campaign.FromSchedule(s, at); c.State != fleet.CampaignAwaiting {
		t.Errorf("without an approval: %s", c.State)
	}
	s.Days = []string{"sun"}
	if next := campaign.NextStart(s, at); next.UTC().Format("02 15:04") != "05 00:30" {
		t.Errorf("next Sunday: %v", next)
	}
	s.Disabled = true
	if next := campaign.NextStart(s, at); !next.IsZero() {
		t.Errorf("disabled, it starts at %v", next)
	}
}

// Decide says when to decide again, whatever else goes on.
func TestWakeAt(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	deadline := now.Add(30 * time.Hour)
	night := []fleet.Window{{From: "22:00", To: "04:00"}}
	busy := fleet.Counts{Total: 9, Pending: 8, Running: 1}
	for _, c := range []struct {
		name string
		s    campaign.Situation
		want time.Time
	}{
		{"before its time", campaign.Situation{Campaign: fleet.Campaign{State: fleet.CampaignScheduled, Spec: fleet.CampaignSpec{NotBefore: now.Add(time.Hour)}}}, now.Add(time.Hour)},
		{"window of another zone", campaign.Situation{
			Campaign: running(fleet.CampaignSpec{Windows: night, Deadline: deadline}), All: busy, Wave: busy,
			Groups: []campaign.Group{{Site: "a", Pool: "p", Ready: 4}, {Site: "b", Pool: "p", Ready: 4, TimeZone: "Pacific/Auckland"}},
			Pools:  map[string]campaign.Load{"p": {Limit: 9}}}, now.Add(10 * time.Hour)},
		{"retry", campaign.Situation{Campaign: running(fleet.CampaignSpec{Deadline: deadline}), All: busy, Wave: busy, Groups: []campaign.Group{{NextRetry: now.Add(time.Minute)}}}, now.Add(time.Minute)},
		{"deadline", campaign.Situation{Campaign: running(fleet.CampaignSpec{Deadline: deadline}), All: busy, Wave: busy}, deadline},
		{"the next wave", campaign.Situation{
			Campaign: running(fleet.CampaignSpec{Waves: []fleet.Wave{{Count: 1}, {}}}), All: fleet.Counts{Total: 2, Pending: 1, Succeeded: 1}, Wave: fleet.Counts{Total: 1, Succeeded: 1}}, now},
	} {
		c.s.Now = now
		if d := campaign.Decide(c.s); !d.WakeAt.Equal(c.want) {
			t.Errorf("%s: decide again at %v, want %v", c.name, d.WakeAt, c.want)
		}
	}
}

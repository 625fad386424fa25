package campaign

import (
	"slices"
	"time"

	"example.com/iad/fleet"
)

// An interval begins at from and ends before to.
type interval struct{ from, to time.Time }

// Open reports whether the windows are open at a time in a zone for at least reserve, and
// otherwise when they are next. next is zero if that is never, or while they are open.
// Without windows it is always open.
func Open(windows []fleet.Window, reserve time.Duration, zone *time.Location, now time.Time) (open bool, next time.Time) {
	if len(windows) == 0 {
		return true, time.Time{}
	}
	for _, i := range intervals(windows, zone, now) {
		// The last moment at which a device may be started is reserve before the end.
		switch last := i.to.Add(-reserve); {
		case now.Before(i.from) && !last.Before(i.from):
			return false, i.from
		case !now.Before(i.from) && now.Before(i.to) && !now.After(last):
			return true, time.Time{}
		}
	}
	return false, time.Time{}
}

// intervals returns the times at which windows are open, from the day before now until 8
// days after it, sorted and joined where they touch.
func intervals(windows []fleet.Window, zone *time.Location, now time.Time) []interval {
	var all []interval
	year, month, day := now.In(zone).Date()
	for _, w := range windows {
		from, errFrom := fleet.ParseClock(w.From)
		to, errTo := fleet.ParseClock(w.To)
		if errFrom != nil || errTo != nil {
			continue // Validate refuses it
		}
		for d := -1; d <= 8; d++ {
			// Noon exists on every day but those that a country skips by changing to the other
			// side of the date line; the weekday is right even then.
			if !onDay(w.Days, time.Date(year, month, day+d, 12, 0, 0, 0, time.UTC).Weekday()) {
				continue
			}
			end := d
			if to <= from {
				end++
			}
			begin, until := instant(year, month, day+d, from, zone), instant(year, month, day+end, to, zone)
			if begin.Before(until) {
				all = append(all, interval{begin, until})
			}
		}
	}
	slices.SortFunc(all, func(a, b interval) int { return a.from.Compare(b.from) })
	var joined []interval
	for _, i := range all {
		if n := len(joined); n > 0 && !i.from.After(joined[n-1].to) {
			if i.to.After(joined[n-1].to) {
				joined[n-1].to = i.to
			}
			continue
		}
		joined = append(joined, i)
	}
	return joined
}

func onDay(days []string, day time.Weekday) bool {
	return len(days) == 0 || slices.ContainsFunc(days, func(s string) bool {
		d, err := fleet.ParseWeekday(s)
		return err == nil && d == day
	})
}

// instant returns the first instant at which clocks in a zone show a time: there are two
// where clocks are set back. A time that is skipped where clocks are set forward counts as
// the instant at which they are.
func instant(year int, month time.Month, day, minutes int, zone *time.Location) time.Time {
	shown := time.Date(year, month, day, 0, minutes, 0, 0, time.UTC)
	_, before := shown.Add(-24 * time.Hour).In(zone).Zone()
	_, after := shown.Add(24 * time.Hour).In(zone).Zone()
	// With the larger offset, an instant is earlier.
	for _, offset := range []int{max(before, after), min(before, after)} {
		at := shown.Add(-time.Duration(offset) * time.Second)
		if _, actual := at.In(zone).Zone(); actual == offset {
			return at
		}
	}
	change, _ := shown.Add(-time.Duration(before) * time.Second).In(zone).ZoneBounds()
	return change.UTC()
}

// Zone returns the time zone of a site for a campaign: that of the site, or else that of
// the campaign, or else UTC.
func Zone(spec *fleet.CampaignSpec, site string) *time.Location {
	for _, name := range []string{site, spec.TimeZone} {
		if name != "" {
			if zone, err := time.LoadLocation(name); err == nil {
				return zone
			}
		}
	}
	return time.UTC
}

// NextStart returns when a schedule starts a campaign next, later than after; zero: never.
func NextStart(s *fleet.Schedule, after time.Time) time.Time {
	zone := Zone(&s.Spec, s.TimeZone)
	if s.TimeZone == "" {
		zone = time.UTC
	}
	minutes, err := fleet.ParseClock(s.At)
	if err != nil || s.Disabled {
		return time.Time{}
	}
	year, month, day := after.In(zone).Date()
	for d := -1; d <= 8; d++ {
		if onDay(s.Days, time.Date(year, month, day+d, 12, 0, 0, 0, time.UTC).Weekday()) {
			if at := instant(year, month, day+d, minutes, zone); at.After(after) {
				return at
			}
		}
	}
	return time.Time{}
}

// FromSchedule returns the campaign that a schedule starts at a time. Its ID depends on
// the schedule's name and the time alone, so it is created once, however many try. It
// awaits approval if the specification requires that.
func FromSchedule(s *fleet.Schedule, at time.Time) *fleet.Campaign {
	c := &fleet.Campaign{
		ID: s.Name + "-" + at.UTC().Format("20060102-1504"), Spec: s.Spec, State: fleet.CampaignScheduled,
		Reason: "created by the schedule " + s.Name, Created: at, CreatedBy: s.CreatedBy, Schedule: s.Name,
	}
	if c.Spec.ApprovalRequired {
		c.State = fleet.CampaignAwaiting
	}
	c.Spec.NotBefore = at
	c.Spec.Deadline = at.Add(time.Duration(s.For))
	if s.For == 0 {
		c.Spec.Deadline = NextStart(s, at)
	}
	return c
}

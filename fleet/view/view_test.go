package view_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"example.com/iad/fleet"
	"example.com/iad/fleet/inventory"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/view"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// source is a bucket of which a test says what changes.
type source[T any] struct {
	changes  chan store.Change[T]
	revision uint64
}

func (s *source[T]) Watch(ctx context.Context, handle func(store.Change[T]) error, _ ...string) error {
	for {
		select {
		case c, ok := <-s.changes:
			if !ok {
				return errors.New("the connection is gone")
			}
			if err := handle(c); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lab is a view with both feeds.
type lab struct {
	t testing.TB
	*view.View
	devices *source[fleet.Device]
	runs    *source[fleet.Run]
	ended   chan error
}

func newLab(t testing.TB) *lab {
	v, err := view.Open(filepath.Join(t.TempDir(), "view?#% .db"))
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, View: v, ended: make(chan error, 2)}
	l.feed()
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// feed begins both feeds, again if need be.
func (l *lab) feed() {
	before, beforeRuns := l.devices, l.runs
	l.devices = &source[fleet.Device]{changes: make(chan store.Change[fleet.Device])}
	l.runs = &source[fleet.Run]{changes: make(chan store.Change[fleet.Run])}
	if before != nil {
		l.devices.revision, l.runs.revision = before.revision, beforeRuns.revision
	}
	devices, runs := l.devices, l.runs
	go func() { l.ended <- l.FeedDevices(context.Background(), devices) }()
	go func() { l.ended <- l.FeedRuns(context.Background(), runs) }()
}

// disconnect ends both feeds.
func (l *lab) disconnect() {
	close(l.devices.changes)
	close(l.runs.changes)
	<-l.ended
	<-l.ended
}

func (l *lab) synced() {
	l.t.Helper()
	l.devices.changes <- store.Change[fleet.Device]{Synced: true}
	l.runs.changes <- store.Change[fleet.Run]{Synced: true}
	if err := l.WaitSynced(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	l.wait()
}

// wait waits until everything is applied.
func (l *lab) wait() {
	l.t.Helper()
	for table, revision := range map[view.Table]uint64{view.Devices: l.devices.revision, view.Runs: l.runs.revision} {
		if err := l.Wait(l.t.Context(), table, revision); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *lab) device(list ...*fleet.Device) {
	for _, d := range list {
		l.devices.revision++
		l.devices.changes <- store.Change[fleet.Device]{Key: "k" + d.Name, Value: d, Revision: l.devices.revision}
	}
}

func (l *lab) removeDevice(name string) {
	l.devices.revision++
	l.devices.changes <- store.Change[fleet.Device]{Key: "k" + name, Revision: l.devices.revision}
}

func (l *lab) run(list ...*fleet.Run) {
	for _, r := range list {
		l.runs.revision++
		l.runs.changes <- store.Change[fleet.Run]{Key: r.Campaign + "." + r.Device, Value: r, Revision: l.runs.revision}
	}
}

func (l *lab) names(q view.DeviceQuery) []string {
	l.t.Helper()
	names := []string{}
	if err := l.Devices(l.t.Context(), q, func(d *fleet.Device) error { names = append(names, d.Name); return nil }); err != nil {
		l.t.Fatal(err)
	}
	return names
}

func compile(t testing.TB, text string) *inventory.Filter {
	t.Helper()
	f, err := inventory.Compile(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return f
}

func TestPages(t *testing.T) {
	l := newLab(t)
	for i := range 30 {
		l.device(&fleet.Device{Name: fmt.Sprintf("d%02d", i), Address: "192.0.2.1", Site: string("ab"[i%2]), Facts: &fleet.Facts{Version: fmt.Sprintf("%d.0.0", 30-i), Model: "m"}})
	}
	l.synced()
	if got := l.names(view.DeviceQuery{Offset: 3, Limit: 3}); !slices.Equal(got, []string{"d03", "d04", "d05"}) {
		t.Error(got)
	}
	if got := l.names(view.DeviceQuery{Sort: "-name", Limit: 2}); !slices.Equal(got, []string{"d29", "d28"}) {
		t.Error(got)
	}
	if got := l.names(view.DeviceQuery{Sort: "version", Limit: 2}); !slices.Equal(got, []string{"d29", "d28"}) { // 1.0.0, 2.0.0: not 1.0.0, 10.0.0
		t.Error(got)
	}
	if got := l.names(view.DeviceQuery{Sort: "-site", Limit: 2}); !slices.Equal(got, []string{"d29", "d27"}) {
		t.Error(got)
	}
	if got := l.names(view.DeviceQuery{Text: "D1", Limit: 2, Offset: 9}); !slices.Equal(got, []string{"d19"}) {
		t.Error(got)
	}
	if err := l.Devices(t.Context(), view.DeviceQuery{Sort: "name; DROP TABLE device"}, nil); len(fleet.FieldErrors(err)) != 1 {
		t.Error(err)
	}
	q := view.DeviceQuery{Filter: compile(t, `version >= "21.0.0"`)}
	if n, err := l.Count(t.Context(), q); n != 10 || err != nil {
		t.Error(n, err)
	}
	by, err := l.By(t.Context(), "site", q, 9)
	if want := []view.Number{{Value: "a", Count: 5}, {Value: "b", Count: 5}}; !slices.Equal(by, want) || err != nil {
		t.Error(by, err)
	}
	if _, err := l.By(t.Context(), "json", q, 9); err == nil {
		t.Error("numbers by any column")
	}
	if _, err := l.Device(t.Context(), "d31"); !errors.Is(err, view.ErrNotFound) {
		t.Error(err)
	}
}

// A device is shown as it was stored, changes replace it, and what is removed is gone,
// also if it was removed while the view was not fed.
func TestFeed(t *testing.T) {
	l := newLab(t)
	d := &fleet.Device{
		Name: "attic", Address: "192.0.2.1", Tags: []string{"a", "b"}, Identity: &device.Identity{Device: "IAD-1", EngineID: "80", Time: now},
		Facts: &fleet.Facts{Version: "1.0.0", Time: now}, Contact: fleet.Contact{Time: now, Problem: "x", Since: now}, Created: now,
	}
	l.device(d, &fleet.Device{Name: "cellar"}, &fleet.Device{Name: "roof"})
	if l.Synced() {
		t.Error("complete before everything was reported")
	}
	l.synced()
	got, err := l.Device(t.Context(), "attic")
	if err != nil || cmp.Diff(d, got) != "" {
		t.Error(err, cmp.Diff(d, got))
	}
	d.Tags, d.Site = []string{"c"}, "north"
	l.device(d)
	l.removeDevice("roof")
	l.wait()
	for filter, want := range map[string][]string{`"a" in tags`: {}, `"c" in tags`: {"attic"}, `site == "north"`: {"attic"}, `true`: {"attic", "cellar"}} {
		if got := l.names(view.DeviceQuery{Filter: compile(t, filter)}); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", filter, got, want)
		}
	}
	l.run(&fleet.Run{Campaign: "c", Device: "attic", State: fleet.RunPending}, &fleet.Run{Campaign: "c", Device: "cellar", State: fleet.RunPending})
	l.wait()
	l.disconnect()
	l.feed()
	l.device(d)
	l.run(&fleet.Run{Campaign: "c", Device: "cellar", State: fleet.RunPending})
	l.synced()
	l.device(d)
	l.run(&fleet.Run{Campaign: "c", Device: "cellar", State: fleet.RunFailed})
	l.wait()
	if got := l.names(view.DeviceQuery{}); !slices.Equal(got, []string{"attic"}) {
		t.Errorf("after another feed: %q", got)
	}
	all, _, err := l.Counts(t.Context(), "c")
	if all != (fleet.Counts{Total: 1, Failed: 1}) || err != nil {
		t.Errorf("after another feed: %+v, %v", all, err)
	}
}

func TestClose(t *testing.T) {
	v, err := view.Open(filepath.Join(t.TempDir(), "view.db"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	s := &source[fleet.Device]{changes: make(chan store.Change[fleet.Device])}
	go func() { ended <- v.FeedDevices(t.Context(), s) }()
	go func() { ended <- v.Wait(t.Context(), view.Runs, 9) }()
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, view.ErrClosed) {
		t.Error(err)
	}
	s.changes <- store.Change[fleet.Device]{Key: "k", Value: &fleet.Device{Name: "a"}}
	close(s.changes)
	<-ended
}

// The view selects the same devices by SQL as the filter does by itself.
func TestFiltersAgree(t *testing.T) {
	l := newLab(t)
	texts := []string{"", "a", "b", "ab", "a%_b", "ä\x00b", "A", "2.0.0", "2.0.0-rc.1", "10.0.0", "default", "'\"; --"}
	text := rapid.SampledFrom(texts)
	var devices []*fleet.Device
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(0, 2).Draw(rt, "new") {
			d := &fleet.Device{Name: fmt.Sprintf("d%03d", len(devices)), Address: text.Draw(rt, "address"), Site: text.Draw(rt, "site"), Pool: text.Draw(rt, "pool"), Note: text.Draw(rt, "note"), Credentials: text.Draw(rt, "credentials")}
			d.Tags = rapid.SliceOfNDistinct(text, 0, 2, rapid.ID[string]).Draw(rt, "tags")
			if rapid.Bool().Draw(rt, "known") {
				d.Facts = &fleet.Facts{Model: text.Draw(rt, "model"), Hardware: text.Draw(rt, "hardware"), Version: text.Draw(rt, "version"), Generation: rapid.Uint32Range(0, 3).Draw(rt, "generation")}
				d.Identity = &device.Identity{Device: text.Draw(rt, "id")}
				d.Contact.Time = now.Add(-time.Duration(rapid.IntRange(0, 3).Draw(rt, "hours")) * time.Hour)
				d.Contact.Problem = rapid.SampledFrom([]string{"", "no answer"}).Draw(rt, "problem")
				d.Contact.Since = rapid.SampledFrom([]time.Time{{}, now.Add(-5 * time.Hour)}).Draw(rt, "since")
			}
			d.ActiveRun, d.LastOutcome, d.LastCampaign = rapid.SampledFrom([]string{"", "c"}).Draw(rt, "run"), fleet.RunState(text.Draw(rt, "outcome")), text.Draw(rt, "campaign")
			devices = append(devices, d)
			l.device(d)
		}
		l.wait()
		filter := drawFilter(rt, text, 3)
		f, err := inventory.Compile(filter)
		if err != nil {
			rt.Fatalf("%s: %v", filter, err)
		}
		want := []string{}
		for _, d := range devices {
			if f.Match(d, now) {
				want = append(want, d.Name)
			}
		}
		if got := l.names(view.DeviceQuery{Filter: f, Now: now}); !slices.Equal(got, want) {
			rt.Fatalf("%s selects %q, want %q", filter, got, want)
		}
	})
}

func drawFilter(t *rapid.T, text *rapid.Generator[string], depth int) string {
	if depth > 0 && rapid.IntRange(0, 2).Draw(t, "more") > 0 {
		left := drawFilter(t, text, depth-1)
		switch rapid.SampledFrom([]string{"and", "or", "not"}).Draw(t, "operator") {
		case "and":
			return "(" + left + ") and (" + drawFilter(t, text, depth-1) + ")"
		case "or":
			return "(" + left + ") or (" + drawFilter(t, text, depth-1) + ")"
		}
		return "not (" + left + ")"
	}
	f := rapid.SampledFrom(inventory.Fields()).Draw(t, "field")
	value := func() string { return fmt.Sprintf("%q", text.Draw(t, "value")) }
	operators := []string{"==", "!=", "<", "<=", ">", ">="}
	switch f.Kind {
	case inventory.Tags:
		return value() + rapid.SampledFrom([]string{" in ", " not in "}).Draw(t, "in") + f.Name
	case inventory.Bool:
		return f.Name
	case inventory.Number:
		return fmt.Sprint(f.Name, rapid.SampledFrom(operators).Draw(t, "op"), rapid.IntRange(0, 3).Draw(t, "value"))
	case inventory.Duration:
		return fmt.Sprintf("%s %s %q", f.Name, rapid.SampledFrom(operators).Draw(t, "op"), time.Duration(rapid.IntRange(0, 6).Draw(t, "value"))*time.Hour)
	case inventory.Text:
		operators = operators[:2]
	}
	operators = append(slices.Clone(operators), "in", "contains", "startsWith", "endsWith")
	op := rapid.SampledFrom(operators).Draw(t, "op")
	if op == "in" {
		return f.Name + " in [" + value() + ", " + value() + "]"
	}
	return strings.Join([]string{f.Name, op, value()}, " ")
}

// The numbers that the view keeps are those of all runs, whatever changed in between.
func TestNumbersOfRuns(t *testing.T) {
	l := newLab(t)
	runs := map[string]*fleet.Run{}
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 8).Draw(rt, "changes") {
			r := &fleet.Run{
				Campaign: rapid.SampledFrom([]string{"c", "other"}).Draw(rt, "campaign"), Device: fmt.Sprint("d", rapid.IntRange(0, 9).Draw(rt, "device")),
				Wave: rapid.IntRange(0, 2).Draw(rt, "wave"), State: rapid.SampledFrom(fleet.RunStates()).Draw(rt, "state"),
			}
			if rapid.IntRange(0, 5).Draw(rt, "remove") == 0 {
				delete(runs, r.Campaign+r.Device)
				l.runs.revision++
				l.runs.changes <- store.Change[fleet.Run]{Key: r.Campaign + "." + r.Device, Revision: l.runs.revision}
				continue
			}
			runs[r.Campaign+r.Device] = r
			l.run(r)
		}
		l.wait()
		var want fleet.Counts
		wantWaves := make([]fleet.Counts, 3)
		for _, r := range runs {
			if r.Campaign == "c" {
				want.Add(r.State, 1)
				wantWaves[r.Wave].Add(r.State, 1)
			}
		}
		all, waves, err := l.Counts(context.Background(), "c")
		for len(waves) < 3 {
			waves = append(waves, fleet.Counts{})
		}
		if err != nil || all != want || !slices.Equal(waves, wantWaves) {
			rt.Fatalf("%+v %+v, want %+v %+v (%v)", all, waves, want, wantWaves, err)
		}
	})
}

func TestRunsAndQuestions(t *testing.T) {
	l := newLab(t)
	question := func(device, cause string, minute int) *fleet.Run {
		return &fleet.Run{Campaign: "c", Device: device, State: fleet.RunWaiting, Wave: 1, Question: &fleet.Question{
			ID: "1", Campaign: "c", Device: device, Cause: cause, Time: now.Add(time.Duration(minute) * time.Minute), Choices: []fleet.Choice{fleet.ChoiceRetry},
		}}
	}
	failed := func(device, cause string) *fleet.Run {
		return &fleet.Run{Campaign: "c", Device: device, State: fleet.RunFailed, Failure: &fleet.RunFailure{Cause: cause}}
	}
	running := func(device string, minute int) *fleet.Run {
		return &fleet.Run{Campaign: "c", Device: device, State: fleet.RunRunning, Wave: 2, Started: now.Add(time.Duration(minute) * time.Minute), Record: &manager.Record{Device: "secret"}}
	}
	l.run(question("q1", "busy", 3), question("q2", "busy", 2), question("q3", "other", 1), failed("f1", "no-answer"), failed("f2", "no-answer"), failed("f3", "busy"),
		running("r1", 5), running("r2", 4), &fleet.Run{Campaign: "d", Device: "f1", State: fleet.RunSucceeded, Created: now})
	l.synced()
	groups, err := l.QuestionGroups(t.Context())
	if err != nil || len(groups) != 2 || groups[0].Count != 2 {
		t.Fatal(groups, err)
	}
	list := func(call func(handle func(*fleet.Run) error) error) (names []string) {
		t.Helper()
		if err := call(func(r *fleet.Run) error {
			names = append(names, r.Campaign+"/"+r.Device)
			if r.Record != nil {
				t.Error("the record is in the view")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		return names
	}
	if got := list(func(h func(*fleet.Run) error) error { return l.Questions(t.Context(), groups[0].Group, 0, h) }); !slices.Equal(got, []string{"c/q2", "c/q1"}) {
		t.Error(got)
	}
	if got := list(func(h func(*fleet.Run) error) error { return l.Slowest(t.Context(), "c", 1, h) }); !slices.Equal(got, []string{"c/r2"}) {
		t.Error(got)
	}
	if got := list(func(h func(*fleet.Run) error) error { return l.RunsOf(t.Context(), "f1", 9, h) }); !slices.Equal(got, []string{"d/f1", "c/f1"}) {
		t.Error(got)
	}
	total := 0
	if got := list(func(h func(*fleet.Run) error) (err error) {
		total, err = l.Runs(t.Context(), view.RunQuery{Campaign: "c", State: fleet.RunFailed, Wave: -1, Offset: 1, Limit: 1}, h)
		return err
	}); !slices.Equal(got, []string{"c/f2"}) || total != 3 {
		t.Error(total, got)
	}
	failures, err := l.Failures(t.Context(), "c")
	if want := []view.Number{{Value: "no-answer", Count: 2}, {Value: "busy", Count: 1}}; err != nil || !slices.Equal(failures, want) {
		t.Error(failures, err)
	}
	all, waves, err := l.Counts(t.Context(), "c")
	want := []fleet.Counts{{Total: 3, Failed: 3}, {Total: 3, Waiting: 3}, {Total: 2, Running: 2}}
	if err != nil || all.Total != 8 || !slices.Equal(waves, want) {
		t.Error(all, waves, err)
	}
	// Once it is answered, there is no question.
	l.run(&fleet.Run{Campaign: "c", Device: "q3", State: fleet.RunQueued, Question: question("q3", "other", 1).Question})
	l.wait()
	if groups, err := l.QuestionGroups(t.Context()); err != nil || len(groups) != 1 {
		t.Error(groups, err)
	}
}

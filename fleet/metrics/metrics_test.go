package metrics_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/metrics"
	"example.com/iad/fleet/seal"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/view"
)

type lab struct {
	*metrics.Metrics
	t     *testing.T
	store *store.Store
	view  *view.View
}

func newLab(t *testing.T) *lab {
	t.Helper()
	e, err := engine.Start(t.Context(), engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), e, key)
	if err != nil {
		t.Fatal(err)
	}
	v, err := view.Open(filepath.Join(t.TempDir(), "view.db"))
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{Metrics: metrics.New(metrics.Config{Store: s, View: v, Version: "1.2.3"}), t: t, store: s, view: v}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	go func() { ended <- v.FeedDevices(ctx, s.Devices) }()
	go func() { ended <- v.FeedRuns(ctx, s.Runs) }()
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		for range 3 {
			<-ended
		}
		v.Close()
	})
	return l
}

// scrape returns the lines of our metrics.
func (l *lab) scrape() []string {
	l.t.Helper()
	answer := httptest.NewRecorder()
	l.Handler().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if answer.Code != 200 {
		l.t.Fatalf("%d %s", answer.Code, answer.Body)
	}
	return strings.Split(answer.Body.String(), "\n")
}

func (l *lab) must(revision uint64, err error) uint64 {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
	return revision
}

func TestMetrics(t *testing.T) {
	l, ctx := newLab(t), t.Context()
	now := time.Unix(1e9, 0)
	if err := l.view.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	var devices, runs uint64
	for i := range 60 { // more versions than labels
		d := &fleet.Device{Name: fmt.Sprint("d", i), Facts: &fleet.Facts{Version: fmt.Sprintf("1.0.%d", i), Model: "m\n\"\\"}, Contact: fleet.Contact{Time: now}}
		if i < 3 {
			d.Facts.Version, d.ActiveRun = "2.0.0", "spring"
		}
		if i >= 58 {
			d.Facts.Version = "(other)"
			d.Contact.Problem = "no answer"
		}
		devices = l.must(l.store.Devices.Create(ctx, d))
	}
	l.must(l.store.Devices.Create(ctx, &fleet.Device{Name: "new"}))
	l.must(l.store.Campaigns.Create(ctx, &fleet.Campaign{ID: "spring", State: fleet.CampaignRunning, Spec: fleet.CampaignSpec{Operation: fleet.OperationUpgrade}}))
	l.must(l.store.Campaigns.Create(ctx, &fleet.Campaign{ID: "winter", State: fleet.CampaignDone}))
	for device, r := range map[string]fleet.Run{
		"d1": {State: fleet.RunWaiting, Question: &fleet.Question{ID: "q"}}, "d2": {State: fleet.RunSucceeded, Started: now, Ended: now.Add(90 * time.Second)},
		"d3": {State: fleet.RunFailed, Started: now, Ended: now.Add(time.Hour), Failure: &fleet.RunFailure{Cause: "busy"}},
	} {
		r.Campaign, r.Device = "spring", device
		runs = max(runs, l.must(l.store.Runs.Create(ctx, &r)))
	}
	lease, err := l.store.Attend(ctx, &fleet.Worker{ID: "w", Pool: "p", Slots: 7, Running: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	for table, revision := range map[view.Table]uint64{view.Devices: devices + 1, view.Runs: runs} {
		if err := l.view.Wait(ctx, table, revision); err != nil {
			t.Fatal(err)
		}
	}
	// Events are counted from the next one on: the first ones may be missed.
	counted := func(lines []string, want ...string) bool {
		return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(lines, w) })
	}
	for !slices.ContainsFunc(l.scrape(), func(s string) bool { return strings.HasPrefix(s, `iad_fleet_events_total{kind="worker"}`) }) {
		if err := l.store.Record(ctx, &fleet.Event{Kind: fleet.EventWorker}); err != nil {
			t.Fatal(err)
		}
	}
	for device, state := range map[string]fleet.RunState{"d1": fleet.RunRunning, "d2": fleet.RunSucceeded, "d3": fleet.RunFailed} {
		if err := l.store.Record(ctx, &fleet.Event{Kind: fleet.EventRun, Campaign: "spring", Device: device, State: string(state)}); err != nil {
			t.Fatal(err)
		}
	}
	for !counted(l.scrape(), `iad_fleet_events_total{kind="run"} 3`) {
		if ctx.Err() != nil {
			t.Fatal(ctx.Err())
		}
	}
	lines := l.scrape()
	for _, want := range []string{
		`iad_fleet_build_info{version="1.2.3"} 1`, `iad_fleet_devices 61`, `iad_fleet_devices_unreachable 2`, `iad_fleet_devices_unknown 1`, `iad_fleet_devices_busy 3`,
		`iad_fleet_devices_by_version{version="2.0.0"} 3`, `iad_fleet_devices_by_version{version="1.0.10"} 1`, `iad_fleet_devices_by_version{version="(other)"} 10`,
		`iad_fleet_devices_by_model{model="m\n\"\\"} 60`, `iad_fleet_campaigns{state="running"} 1`, `iad_fleet_campaigns{state="paused"} 0`, `iad_fleet_campaigns{state="done"} 1`,
		`iad_fleet_campaign_runs{campaign="spring",state="waiting"} 1`, `iad_fleet_campaign_runs{campaign="spring",state="pending"} 0`, `iad_fleet_questions 1`,
		`iad_fleet_workers{pool="p"} 1`, `iad_fleet_worker_slots{pool="p"} 7`, `iad_fleet_worker_runs{pool="p"} 2`, `iad_fleet_nodes{state="current"} 1`,
		`iad_fleet_engine_ready 1`, `iad_fleet_view_complete 1`, `iad_fleet_scrape_errors_total 0`,
		`iad_fleet_runs_ended_total{operation="upgrade",outcome="succeeded"} 1`, `iad_fleet_runs_ended_total{operation="upgrade",outcome="failed"} 1`,
		`iad_fleet_run_failures_total{cause="busy",operation="upgrade"} 1`, `iad_fleet_run_duration_seconds_sum{operation="upgrade"} 3690`,
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("missing: %s", want)
		}
	}
	if t.Failed() {
		t.Log(strings.Join(slices.DeleteFunc(lines, func(s string) bool { return !strings.HasPrefix(s, "iad_") }), "\n"))
	}
	documented(t, lines)
}

// documented checks that the dashboard and the alert rules use metrics that exist.
func documented(t *testing.T, lines []string) {
	t.Helper()
	for _, file := range []string{"dashboard.json", "alerts.yaml"} {
		text, err := os.ReadFile(filepath.Join("../../deploy/monitoring", file))
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`\biad_fleet_[a-z_]+`).FindAllString(string(text), -1)
		if len(names) == 0 {
			t.Errorf("%s uses no metrics", file)
		}
		for _, name := range names {
			if !slices.ContainsFunc(lines, func(s string) bool { return strings.HasPrefix(s, name+" ") || strings.HasPrefix(s, name+"{") }) {
				t.Errorf("%s uses %s, which does not exist", file, name)
			}
		}
	}
}

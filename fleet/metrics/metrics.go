package metrics

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"example.com/iad/fleet"
	"example.com/iad/fleet/inventory"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/view"
)

// Config is what the metrics are about.
type Config struct {
	Store *store.Store
	View  *view.View
	// Version is that of the program.
	Version string
	Log     *slog.Logger // nil: nothing is logged
}

// Metrics are the metrics of one node.
type Metrics struct {
	cfg      Config
	registry *prometheus.Registry
	ended    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	failures *prometheus.CounterVec
	events   *prometheus.CounterVec
	problems prometheus.Counter
}

// scrapeLimit is how long one scrape may take.
const scrapeLimit = 10 * time.Second

// maxValues is the number of values of labels that come from devices, such as versions.
// Further ones are counted as other.
const (
	maxValues = 50
	other     = "(other)"
)

// New returns the metrics. Run counts what ends.
func New(cfg Config) *Metrics {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		cfg: cfg, registry: prometheus.NewRegistry(),
		ended:    counter("iad_fleet_runs_ended_total", "Runs that ended, by operation and outcome.", "operation", "outcome"),
		failures: counter("iad_fleet_run_failures_total", "Runs that failed, by operation and cause.", "operation", "cause"),
		events:   counter("iad_fleet_events_total", "Events, by kind.", "kind"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "iad_fleet_run_duration_seconds", Help: "Time from the first attempt of a run to its end, by operation.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 16), // 1 s to 9 h
		}, []string{"operation"}),
		problems: prometheus.NewCounter(prometheus.CounterOpts{Name: "iad_fleet_scrape_errors_total", Help: "Scrapes that could not read all numbers."}),
	}
	version := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "iad_fleet_build_info", Help: "1, with the version of the program.", ConstLabels: prometheus.Labels{"version": cfg.Version},
	}, func() float64 { return 1 })
	m.registry.MustRegister(m.ended, m.failures, m.events, m.duration, m.problems, version, &state{m},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Register adds the metrics of another part of the program.
func (m *Metrics) Register(c ...prometheus.Collector) error {
	var all error
	for _, one := range c {
		all = errors.Join(all, m.registry.Register(one))
	}
	return all
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 2 * scrapeLimit, EnableOpenMetrics: true})
}

// Run counts what happens until ctx ends.
func (m *Metrics) Run(ctx context.Context) error {
	from := uint64(0)
	for {
		err := m.cfg.Store.Events(ctx, from, func(sequence uint64, e *fleet.Event) error {
			from = sequence + 1
			m.count(ctx, e)
			return nil
		})
		if ctx.Err() != nil {
			return nil
		}
		m.cfg.Log.Warn("metrics: events are read again", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// count counts an event.
func (m *Metrics) count(ctx context.Context, e *fleet.Event) {
	m.events.WithLabelValues(string(e.Kind)).Inc()
	if e.Kind != fleet.EventRun || !fleet.RunState(e.State).Final() {
		return
	}
	operation := "unknown"
	if c, _, err := m.cfg.Store.Campaigns.Get(ctx, e.Campaign); err == nil {
		operation = string(c.Spec.Operation)
	}
	m.ended.WithLabelValues(operation, e.State).Inc()
	r, _, err := m.cfg.Store.Runs.Get(ctx, e.Campaign, e.Device)
	if err != nil {
		return // removed in the meantime
	}
	if !r.Started.IsZero() && r.Ended.After(r.Started) {
		m.duration.WithLabelValues(operation).Observe(r.Ended.Sub(r.Started).Seconds())
	}
	if r.Failure != nil && r.State == fleet.RunFailed {
		m.failures.WithLabelValues(operation, r.Failure.Cause).Inc()
	}
}

// state is read at each scrape.
type state struct{ m *Metrics }

var _ prometheus.Collector = (*state)(nil)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	devices      = desc("iad_fleet_devices", "Devices in the inventory.")
	versions     = desc("iad_fleet_devices_by_version", "Devices by the version of their software.", "version")
	models       = desc("iad_fleet_devices_by_model", "Devices by model.", "model")
	unreachable  = desc("iad_fleet_devices_unreachable", "Devices that did not answer the last time.")
	unknown      = desc("iad_fleet_devices_unknown", "Devices that never answered.")
	busy         = desc("iad_fleet_devices_busy", "Devices that a campaign works on.")
	campaigns    = desc("iad_fleet_campaigns", "Campaigns by state.", "state")
	campaignRuns = desc("iad_fleet_campaign_runs", "Runs of campaigns that have not ended, by state.", "campaign", "state")
	questions    = desc("iad_fleet_questions", "Questions that wait for an answer.")
	workers      = desc("iad_fleet_workers", "Workers by pool.", "pool")
	slots        = desc("iad_fleet_worker_slots", "Runs that the workers of a pool can have at the same time.", "pool")
	working      = desc("iad_fleet_worker_runs", "Runs that the workers of a pool have.", "pool")
	nodes        = desc("iad_fleet_nodes", "Nodes that store, by state: current, behind or offline.", "state")
	ready        = desc("iad_fleet_engine_ready", "1 if this node can store now.")
	damaged      = desc("iad_fleet_damaged_objects", "Stored objects that this node has read and could not decode, by place.", "place")
	complete     = desc("iad_fleet_view_complete", "1 if this node's view of devices and runs is complete.")
)

// Describe implements prometheus.Collector.
func (s *state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{devices, versions, models, unreachable, unknown, busy, campaigns, campaignRuns, questions, workers, slots, working, nodes, ready, damaged, complete} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *state) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeLimit)
	defer cancel()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	truth := func(d *prometheus.Desc, ok bool) {
		value := 0.0
		if ok {
			value = 1
		}
		gauge(d, value)
	}
	truth(ready, s.m.cfg.Store.Engine.Ready(ctx) == nil)
	truth(complete, s.m.cfg.View.Synced())
	for place, n := range s.m.cfg.Store.Damaged() {
		gauge(damaged, float64(n), place)
	}
	var problems []error
	for _, part := range []func(context.Context, func(*prometheus.Desc, float64, ...string)) error{s.devices, s.campaigns, s.workers, s.nodes} {
		problems = append(problems, part(ctx, gauge))
	}
	if err := errors.Join(problems...); err != nil {
		s.m.problems.Inc()
		s.m.cfg.Log.Warn("metrics: some numbers are missing", "err", err)
	}
}

func (s *state) devices(ctx context.Context, gauge func(*prometheus.Desc, float64, ...string)) error {
	for d, text := range map[*prometheus.Desc]string{devices: "true", unreachable: "known and not reachable", unknown: "not known", busy: "busy"} {
		f, err := inventory.Compile(text)
		if err != nil {
			return err
		}
		n, err := s.m.cfg.View.Count(ctx, view.DeviceQuery{Filter: f})
		if err != nil {
			return err
		}
		gauge(d, float64(n))
	}
	for d, name := range map[*prometheus.Desc]string{versions: "version", models: "model"} {
		total, err := s.m.cfg.View.Count(ctx, view.DeviceQuery{})
		if err != nil {
			return err
		}
		numbers, err := s.m.cfg.View.By(ctx, name, view.DeviceQuery{}, maxValues)
		if err != nil {
			return err
		}
		for _, n := range numbers {
			if n.Value != other { // a device may report anything
				gauge(d, float64(n.Count), n.Value)
				total -= n.Count
			}
		}
		if total > 0 {
			gauge(d, float64(total), other)
		}
	}
	return nil
}

func (s *state) campaigns(ctx context.Context, gauge func(*prometheus.Desc, float64, ...string)) error {
	list, err := s.m.cfg.Store.Campaigns.List(ctx)
	if err != nil {
		return err
	}
	byState := map[fleet.CampaignState]int{}
	for _, c := range list {
		byState[c.State]++
		if c.State.Final() {
			continue
		}
		n, _, err := s.m.cfg.View.Counts(ctx, c.ID)
		if err != nil {
			return err
		}
		for state, value := range map[fleet.RunState]int{
			fleet.RunPending: n.Pending, fleet.RunQueued: n.Queued, fleet.RunRunning: n.Running, fleet.RunRetrying: n.Retrying, fleet.RunWaiting: n.Waiting,
			fleet.RunSucceeded: n.Succeeded, fleet.RunUnchanged: n.Unchanged, fleet.RunFailed: n.Failed, fleet.RunCanceled: n.Canceled,
		} {
			gauge(campaignRuns, float64(value), c.ID, string(state))
		}
	}
	for _, state := range fleet.CampaignStates() {
		gauge(campaigns, float64(byState[state]), string(state))
	}
	groups, err := s.m.cfg.View.QuestionGroups(ctx)
	open := 0
	for _, g := range groups {
		open += g.Count
	}
	gauge(questions, float64(open))
	return err
}

func (s *state) workers(ctx context.Context, gauge func(*prometheus.Desc, float64, ...string)) error {
	list, err := s.m.cfg.Store.Workers(ctx)
	if err != nil {
		return err
	}
	type pool struct{ workers, slots, running int }
	pools := map[string]pool{}
	for _, w := range list {
		p := pools[w.Pool]
		pools[w.Pool] = pool{p.workers + 1, p.slots + w.Slots, p.running + w.Running}
	}
	for name, p := range pools {
		gauge(workers, float64(p.workers), name)
		gauge(slots, float64(p.slots), name)
		gauge(working, float64(p.running), name)
	}
	return nil
}

func (s *state) nodes(ctx context.Context, gauge func(*prometheus.Desc, float64, ...string)) error {
	list, err := s.m.cfg.Store.Engine.Nodes(ctx)
	if err != nil {
		return err
	}
	byState := map[string]int{"current": 0, "behind": 0, "offline": 0}
	for _, n := range list {
		switch {
		case n.Offline:
			byState["offline"]++
		case n.Current:
			byState["current"]++
		default:
			byState["behind"]++
		}
	}
	for state, n := range byState {
		gauge(nodes, float64(n), state)
	}
	return nil
}

package worker

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/afero"
	"golang.org/x/sync/singleflight"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/store"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/manager/trap"
)

// Config configures a worker.
type Config struct {
	// Store is where runs are. Required.
	Store *store.Store
	// ID is the worker's name, different from that of any other worker and of any earlier
	// process. Required.
	ID string
	// Pool is the name of the devices that the worker reaches; empty: fleet.DefaultPool.
	Pool string
	// Slots is the maximum number of runs at the same time; 0: 100.
	Slots int
	// Dir is a directory for copies of images and for backups that devices send. Required.
	Dir string
	// Servers configures the file servers; Files, Now and Log are set by the worker.
	Servers files.ServersConfig
	// Notifications is where devices have to send notifications for them to be passed on to
	// workers; zero: devices are only polled.
	Notifications netip.AddrPort
	// Poll is the maximum polling interval of devices; 0: 2 s.
	Poll time.Duration
	// Timeout and Retries are those of SNMP requests; see device.Target.
	Timeout time.Duration
	Retries int
	// Programs are the commands that campaigns name in VerifyWith and ConvertWith.
	Programs map[string]string
	// Version is that of this program.
	Version string
	// Log gets what happens; nil: nothing is logged.
	Log *slog.Logger
}

// Worker carries out runs.
type Worker struct {
	cfg     Config
	servers *files.Servers
	local   cacheFs // Config.Dir
	hub     trap.Hub
	opening singleflight.Group // of images, by digest
	images  sync.Map           // *files.Image by digest
	slots   chan struct{}
	running atomic.Int64
	// limits are those of campaigns, by ID.
	limitsMu sync.Mutex
	limits   map[string]*files.Limit
	lease    string // see fleet.Worker.Lease; changes only while nothing runs
	// draining: no further runs are taken. resumed says that this may have changed.
	draining atomic.Bool
	resumed  chan struct{}
	events   chan *fleet.Event
}

// New returns a worker whose file servers run, until Close.
func New(cfg Config) (*Worker, error) {
	if cfg.Store == nil || cfg.ID == "" || cfg.Dir == "" {
		return nil, errors.New("worker: Store, ID and Dir are required")
	}
	cfg.Pool, cfg.Slots = cmp.Or(cfg.Pool, fleet.DefaultPool), cmp.Or(cfg.Slots, 100)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	w := &Worker{
		cfg: cfg, local: cacheFs{afero.NewBasePathFs(afero.NewOsFs(), cfg.Dir)}, slots: make(chan struct{}, cfg.Slots), events: make(chan *fleet.Event, 1000), resumed: make(chan struct{}, 1),
		limits: make(map[string]*files.Limit),
	}
	servers := cfg.Servers
	servers.Files, servers.Log = w.local, cfg.Log
	if servers.TFTP == "" && servers.FTP == "" {
		servers.TFTP = ":0"
	}
	var err error
	if w.servers, err = files.StartServers(servers); err != nil {
		return nil, err
	}
	return w, nil
}

// Close stops the file servers.
func (w *Worker) Close() error { return w.servers.Close() }

// Addr returns the address of a file server; see files.Servers.Addr.
func (w *Worker) Addr(p device.Protocol) string {
	if a := w.servers.Addr(p); a != nil {
		return a.String()
	}
	return ""
}

// Run takes tasks until ctx ends. Runs that are in progress then are given back to the
// queue.
func (w *Worker) Run(ctx context.Context) error {
	queue, err := w.cfg.Store.Engine.Queue(ctx, w.cfg.Pool, engine.Urgent, engine.Normal)
	if err != nil {
		return err
	}
	reading, stopReading := context.WithCancel(ctx)
	var reader sync.WaitGroup
	reader.Go(func() {
		if err := w.refresh(reading); err != nil && reading.Err() == nil {
			w.cfg.Log.Error("devices are no longer read between campaigns", "err", err)
		}
	})
	defer reader.Wait()
	defer stopReading()
	recording, stopRecording := context.WithCancel(context.WithoutCancel(ctx))
	var recorder sync.WaitGroup
	recorder.Go(func() { w.record(recording) })
	defer recorder.Wait()
	defer stopRecording()
	stopDraining, err := w.cfg.Store.OnDrain(w.cfg.ID, func(drain bool) {
		w.draining.Store(drain)
		select {
		case w.resumed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	defer stopDraining()
	for ctx.Err() == nil {
		if err := w.attend(ctx, queue); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// attend takes tasks as long as the worker's lease lasts.
func (w *Worker) attend(ctx context.Context, queue *engine.Queue) error {
	w.lease = rand.Text()
	lease, err := w.cfg.Store.Attend(ctx, w.describe())
	if err != nil {
		return err
	}
	defer lease.Release() // after the runs have been given back
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(lease.Context(), cancel)()
	var working sync.WaitGroup
	defer working.Wait()
	defer cancel()
	w.cfg.Log.Info("worker ready", "worker", w.cfg.ID, "pool", w.cfg.Pool, "slots", w.cfg.Slots)
	working.Go(func() { w.report(ctx, lease) })
	for {
		for w.draining.Load() {
			select {
			case <-w.resumed:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case w.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		task, err := queue.Next(ctx)
		if err != nil {
			<-w.slots
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if w.draining.Load() { // since it was waited for
			<-w.slots
			if err := task.Retry(0); err != nil {
				w.cfg.Log.Debug("task not returned; it is delivered again", "err", err)
			}
			continue
		}
		w.running.Add(1)
		working.Go(func() {
			defer func() { w.running.Add(-1); <-w.slots }()
			w.handle(ctx, lease, task)
		})
	}
}

// describe is what others see of the worker.
func (w *Worker) describe() *fleet.Worker {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	d := &fleet.Worker{
		ID: w.cfg.ID, Lease: w.lease, Host: host, Pool: w.cfg.Pool, Version: w.cfg.Version, Slots: w.cfg.Slots,
		Running: int(w.running.Load()), Started: started, Seen: time.Now().UTC(), Drain: w.draining.Load(),
	}
	for name := range w.cfg.Programs {
		d.Programs = append(d.Programs, name)
	}
	return d
}

var started = time.Now().UTC()

// report keeps what others see current.
func (w *Worker) report(ctx context.Context, lease *engine.Lease) {
	ticker := time.NewTicker(engine.LeaseTime / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			data, err := json.Marshal(w.describe())
			if err == nil {
				lease.SetValue(data)
			}
		case <-ctx.Done():
			return
		}
	}
}

// handle does what a task says.
func (w *Worker) handle(ctx context.Context, lease *engine.Lease, task *engine.Task) {
	var t store.Task
	if err := json.Unmarshal(task.Data, &t); err != nil {
		w.cfg.Log.Error("task dropped: it is damaged", "err", err)
		w.done(ctx, task)
		return
	}
	log := w.cfg.Log.With("campaign", t.Campaign, "device", t.Device)
	r, err := w.claim(ctx, lease, t, log)
	if err != nil {
		log.Warn("run not claimed", "err", err)
		if err := task.Retry(time.Second); err != nil {
			log.Debug("task not returned; it is delivered again", "err", err)
		}
		return
	}
	// The claim is stored. If this worker ends, the scheduler queues the run again.
	w.done(ctx, task)
	if r != nil {
		r.perform()
		if r.isLost() {
			r.giveBackLost(ctx)
		}
	}
}

func (w *Worker) done(ctx context.Context, task *engine.Task) {
	if err := task.Done(ctx); err != nil {
		w.cfg.Log.Debug("task not acknowledged; it is delivered again", "err", err)
	}
}

// emit records an event for people. Progress is dropped if events come faster than they
// are stored.
func (w *Worker) emit(ctx context.Context, e *fleet.Event) {
	e.Time = time.Now().UTC()
	if e.Kind == fleet.EventStep {
		select {
		case w.events <- e:
		default:
		}
		return
	}
	select {
	case w.events <- e:
	case <-ctx.Done():
	}
}

// record stores events.
func (w *Worker) record(ctx context.Context) {
	for {
		select {
		case e := <-w.events:
			if err := w.cfg.Store.Record(ctx, e); err != nil {
				w.cfg.Log.Debug("event not recorded", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// image opens an image by its digest, from a local copy.
func (w *Worker) image(ctx context.Context, digest string) (*files.Image, error) {
	if img, ok := w.images.Load(digest); ok {
		return img.(*files.Image), nil
	}
	img, err, _ := w.opening.Do(digest, func() (any, error) {
		name, err := w.cfg.Store.ImageFile(ctx, digest, filepath.Join(w.cfg.Dir, "image-files"))
		if err != nil {
			return nil, err
		}
		img, err := files.OpenImage(afero.NewOsFs(), name)
		if err != nil {
			return nil, err
		}
		if got := hex.EncodeToString(img.Digest); got != digest {
			return nil, fmt.Errorf("%s is damaged: its SHA-256 is %s; remove it", name, got)
		}
		w.images.Store(digest, img)
		return img, nil
	})
	if err != nil {
		return nil, err
	}
	return img.(*files.Image), nil
}

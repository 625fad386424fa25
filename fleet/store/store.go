package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/seal"
)

// Store is access to all objects. It is safe for concurrent use.
type Store struct {
	Engine    *engine.Engine
	Devices   *Table[fleet.Device]   // by name
	Campaigns *Table[fleet.Campaign] // by ID
	Runs      *Table[fleet.Run]      // by campaign and device
	Images    *Table[fleet.Image]    // by digest
	Backups   *Table[fleet.Backup]   // by device and ID
	Sites     *Table[fleet.Site]     // by name
	Groups    *Table[fleet.Group]    // by name
	Schedules *Table[fleet.Schedule] // by name
	Secrets   *Secrets

	imageFiles, backupFiles *engine.Store
	workers                 *Table[fleet.Worker]
}

// Open returns access to the objects in an engine, with the key for secrets. The error wraps
// seal.ErrOtherKey if that is not the key that the engine's secrets are sealed with.
func Open(ctx context.Context, e *engine.Engine, key *seal.Key) (*Store, error) {
	s := &Store{Engine: e}
	buckets := make(map[engine.BucketName]*engine.Bucket)
	for _, name := range []engine.BucketName{
		engine.Devices, engine.Secrets, engine.Campaigns, engine.Runs, engine.Images, engine.Backups, engine.Settings, engine.Leases,
	} {
		b, err := e.Bucket(ctx, name)
		if err != nil {
			return nil, err
		}
		buckets[name] = b
	}
	s.Devices = &Table[fleet.Device]{bucket: buckets[engine.Devices], parts: 1, key: func(d *fleet.Device) []string { return []string{d.Name} }}
	s.Campaigns = &Table[fleet.Campaign]{bucket: buckets[engine.Campaigns], parts: 1, key: func(c *fleet.Campaign) []string { return []string{c.ID} }, check: (*fleet.Campaign).Check}
	s.Runs = &Table[fleet.Run]{bucket: buckets[engine.Runs], parts: 2, key: func(r *fleet.Run) []string { return []string{r.Campaign, r.Device} }, check: (*fleet.Run).Check}
	s.Images = &Table[fleet.Image]{bucket: buckets[engine.Images], parts: 1, key: func(i *fleet.Image) []string { return []string{i.Digest} }}
	s.Backups = &Table[fleet.Backup]{bucket: buckets[engine.Backups], parts: 2, key: func(b *fleet.Backup) []string { return []string{b.Device, b.ID} }}
	settings := buckets[engine.Settings]
	s.Sites = &Table[fleet.Site]{bucket: settings, prefix: []string{"site"}, parts: 1, key: func(v *fleet.Site) []string { return []string{v.Name} }}
	s.Groups = &Table[fleet.Group]{bucket: settings, prefix: []string{"group"}, parts: 1, key: func(v *fleet.Group) []string { return []string{v.Name} }}
	s.Schedules = &Table[fleet.Schedule]{bucket: settings, prefix: []string{"schedule"}, parts: 1, key: func(v *fleet.Schedule) []string { return []string{v.Name} }}
	s.workers = &Table[fleet.Worker]{bucket: buckets[engine.Leases], prefix: []string{workerLease}, parts: 1, key: func(w *fleet.Worker) []string { return []string{w.ID} }}
	s.Secrets = &Secrets{bucket: buckets[engine.Secrets], key: key}
	if err := s.Secrets.checkKey(ctx, settings); err != nil {
		return nil, err
	}
	var err error
	if s.imageFiles, err = e.Store(ctx, engine.ImageFiles); err != nil {
		return nil, err
	}
	if s.backupFiles, err = e.Store(ctx, engine.BackupFiles); err != nil {
		return nil, err
	}
	return s, nil
}

// Leases: one for the scheduler, one for each worker, and one for each image that is added
// or removed.
const (
	imageLease     = "image"
	schedulerLease = "scheduler"
	workerLease    = "worker"
)

// Lead waits until this process is the only one that schedules.
func (s *Store) Lead(ctx context.Context, name string) (*engine.Lease, error) {
	return s.Engine.Acquire(ctx, schedulerLease, []byte(name))
}

// Attend makes a worker known for as long as the lease lasts.
func (s *Store) Attend(ctx context.Context, w *fleet.Worker) (*engine.Lease, error) {
	data, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	return s.Engine.Acquire(ctx, engine.Key(workerLease, w.ID), data)
}

// Workers returns the workers that are there.
func (s *Store) Workers(ctx context.Context) ([]*fleet.Worker, error) { return s.workers.List(ctx) }

// WatchWorkers reports workers like Table.Watch. A worker that ends without giving up its
// lease is not reported: its renewals stop.
func (s *Store) WatchWorkers(ctx context.Context, handle func(Change[fleet.Worker]) error, parts ...string) error {
	return s.workers.Watch(ctx, handle, parts...)
}

// Drain asks a worker to take no further runs, or to take runs again. The worker may not
// get it; what it does is in its lease (fleet.Worker.Drain).
func (s *Store) Drain(worker string, drain bool) error {
	return s.Engine.Notify(engine.Key("drain", worker), strconv.AppendBool(nil, drain))
}

// OnDrain calls handle when Drain is called for a worker, until stop is called.
func (s *Store) OnDrain(worker string, handle func(drain bool)) (stop func(), err error) {
	return s.Engine.OnNotify(engine.Key("drain", worker), func(_ string, data []byte) {
		if drain, err := strconv.ParseBool(string(data)); err == nil {
			handle(drain)
		}
	})
}

// Damaged returns how much this process has found damaged, by place; see engine.Damage.
func (s *Store) Damaged() map[string]int {
	byPlace := make(map[string]int)
	for _, place := range engine.Places() {
		byPlace[place] = 0
	}
	for _, d := range s.Engine.Damage() {
		byPlace[d.Place]++
	}
	return byPlace
}

// Removable reports whether RemoveDamaged can remove what is damaged. Entries of streams stay,
// and so do secrets, which another key may open: they are replaced or removed by their names.
func Removable(d engine.Damage) bool {
	return engine.IsBucket(d.Place) && d.Place != string(engine.Secrets)
}

// RemoveDamaged removes what is damaged and Removable. The error wraps engine.ErrConflict if it was replaced
// in the meantime.
func (s *Store) RemoveDamaged(ctx context.Context, d engine.Damage) error {
	if !Removable(d) {
		return fmt.Errorf("%s %s cannot be removed as damaged", d.Place, d.Key)
	}
	b, err := s.Engine.Bucket(ctx, engine.BucketName(d.Place))
	if err != nil {
		return err
	}
	if err := b.Delete(ctx, d.Key, d.Revision); err != nil {
		return err
	}
	b.Sound(d.Key, d.Revision+1)
	return nil
}

// WatchAccess withdraws reports of damaged users, tokens and sessions that are replaced or
// removed by any process, until ctx ends.
func (s *Store) WatchAccess(ctx context.Context) error {
	b, err := s.Engine.Bucket(ctx, engine.Access)
	if err != nil {
		return err
	}
	return b.Watch(ctx, ">", func(c engine.Change) error {
		if !c.Synced {
			b.Sound(c.Key, c.Revision)
		}
		return nil
	})
}

// Task names the run that a worker is to continue.
type Task struct {
	Campaign string `json:"campaign"`
	Device   string `json:"device"`
}

// Queue tells the workers of a run's pool about the run, which must be queued.
func (s *Store) Queue(ctx context.Context, r *fleet.Run, priority engine.Priority) error {
	data, err := json.Marshal(Task{Campaign: r.Campaign, Device: r.Device})
	if err != nil {
		return err
	}
	id := fmt.Sprintf("%s/%s/%d.%d", r.Campaign, r.Device, r.Attempt, r.Epoch)
	return s.Engine.Publish(ctx, r.Pool, priority, id, data)
}

// Refresh names a device that a worker is to read.
type Refresh struct {
	Device string `json:"device"`
	// Due is since when: a contact after it is enough. After Until nobody needs it any more.
	Due   time.Time `json:"due"`
	Until time.Time `json:"until"`
}

// QueueRefresh asks the workers of a pool to read a device.
func (s *Store) QueueRefresh(ctx context.Context, pool string, r Refresh) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.Engine.Publish(ctx, pool, engine.Idle, fmt.Sprintf("refresh/%s/%d", r.Device, r.Due.UnixNano()), data)
}

// Record stores an event.
func (s *Store) Record(ctx context.Context, e *fleet.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = s.Engine.Log(engine.Events).Append(ctx, engine.Key(string(e.Kind), e.Campaign, e.Device), data)
	return err
}

// Events calls handle with the events from a sequence number on, and with those that
// follow, until ctx ends or handle returns an error. With a sequence number of 0 it begins
// with the next event. Damaged events are skipped.
func (s *Store) Events(ctx context.Context, from uint64, handle func(sequence uint64, e *fleet.Event) error) error {
	log := s.Engine.Log(engine.Events)
	if from == 0 {
		last, err := log.LastSequence(ctx)
		if err != nil {
			return err
		}
		from = last + 1
	}
	return log.Read(ctx, from, ">", true, func(m engine.Message) error {
		e := new(fleet.Event)
		if err := json.Unmarshal(m.Data, e); err != nil {
			_ = log.Damaged(m, err) // which reports it
			return nil
		}
		return handle(m.Sequence, e)
	})
}

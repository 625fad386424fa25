package scheduler

import (
	"sync"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/store"
)

// state is what the scheduler knows, from watches. Its lock is held for short times only.
type state struct {
	changed chan struct{} // has an element after a change

	mu        sync.Mutex
	campaigns map[string]*campaignState
	sites     map[string]*fleet.Site
	schedules map[string]*fleet.Schedule
	workers   map[string]*workerState
	keys      map[string]func() // by key in the bucket: removes the object
	// toldAt is when the workers were told of queued runs.
	toldAt map[task]time.Time
	// ended are runs that have ended, until it is certain that their devices are released.
	ended map[task]time.Time
	// damaged are runs that cannot be decoded. Their devices are released when the runs have
	// been removed.
	damaged map[task]bool
	// inSite and inPool count queued and running runs.
	inSite, inPool map[string]int
}

type campaignState struct {
	campaign *fleet.Campaign // nil: runs are known, the campaign is not yet
	revision uint64
	runs     map[string]*entry // by device
	// decideAt is when to decide again; zero: now.
	decideAt time.Time
}

// entry is what matters of a run. It is replaced and never changed.
type entry struct {
	campaign, device, site, pool string
	wave                         int
	state                        fleet.RunState
	retryAt                      time.Time
	halfDone                     bool
	attempt                      int
	epoch                        uint64
	worker, lease                string // of the claim
	claimed, queued              time.Time
	revision                     uint64
}

type workerState struct {
	worker *fleet.Worker
	heard  time.Time
}

func newState() *state {
	return &state{
		changed: make(chan struct{}, 1), campaigns: make(map[string]*campaignState), sites: make(map[string]*fleet.Site),
		schedules: make(map[string]*fleet.Schedule), workers: make(map[string]*workerState), keys: make(map[string]func()),
		toldAt: make(map[task]time.Time), ended: make(map[task]time.Time), damaged: make(map[task]bool), inSite: make(map[string]int), inPool: make(map[string]int),
	}
}

// signal has the scheduler decide.
func (s *state) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// removed handles the deletion of an object.
func (s *state) removed(key string) {
	if remove := s.keys[key]; remove != nil {
		remove()
		delete(s.keys, key)
	}
}

func (s *state) campaign(id string) *campaignState {
	c := s.campaigns[id]
	if c == nil {
		c = &campaignState{runs: make(map[string]*entry)}
		s.campaigns[id] = c
	}
	return c
}

func (s *state) campaignChanged(c store.Change[fleet.Campaign]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.signal()
	if c.Value == nil {
		s.removed(c.Key)
		return
	}
	id := c.Value.ID
	known := s.campaign(id)
	if c.Revision > known.revision {
		known.campaign, known.revision, known.decideAt = c.Value, c.Revision, time.Time{}
	}
	s.keys[c.Key] = func() { s.campaign(id).campaign = nil }
}

// noteCampaign notes what was stored.
func (s *state) noteCampaign(c *fleet.Campaign, revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.campaign(c.ID)
	if revision > known.revision {
		known.campaign, known.revision, known.decideAt = c, revision, time.Time{}
	}
	s.signal()
}

func (s *state) runChanged(c store.Change[fleet.Run]) {
	if c.Value != nil {
		s.noteRun(c.Value, c.Revision)
		campaign, device := c.Value.Campaign, c.Value.Device
		s.mu.Lock()
		defer s.mu.Unlock()
		s.keys[c.Key] = func() {
			s.count(s.campaign(campaign).runs[device], -1)
			delete(s.campaign(campaign).runs, device)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed(c.Key)
	if parts, ok := engine.ParseKey(c.Key); ok && len(parts) == 2 {
		t := task{campaign: parts[0], device: parts[1]}
		if c.Damaged {
			s.damaged[t] = true
		} else if s.damaged[t] {
			delete(s.damaged, t)
			s.ended[t] = time.Now()
		}
	}
	s.signal()
}

// noteRun notes what a run is.
func (s *state) noteRun(r *fleet.Run, revision uint64) {
	e := &entry{
		campaign: r.Campaign, device: r.Device, site: r.Site, pool: r.Pool, wave: r.Wave, state: r.State, retryAt: r.RetryAt, halfDone: r.HalfDone(),
		attempt: r.Attempt, epoch: r.Epoch, queued: r.Queued, revision: revision,
	}
	if r.Claim != nil {
		e.worker, e.lease, e.claimed = r.Claim.Worker, r.Claim.Lease, r.Claim.Time
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.damaged, task{campaign: r.Campaign, device: r.Device})
	c := s.campaign(r.Campaign)
	old := c.runs[r.Device]
	if old != nil && old.revision >= revision {
		return
	}
	s.count(old, -1)
	s.count(e, 1)
	c.runs[r.Device] = e
	if old != nil && !old.state.Final() && e.state.Final() {
		s.ended[task{campaign: e.campaign, device: e.device}] = time.Now()
	}
	if old != nil && old.state == fleet.RunQueued && e.state != fleet.RunQueued {
		delete(s.toldAt, task{old.campaign, old.device, old.attempt, old.epoch})
	}
	if old != nil && old.state == e.state && old.halfDone == e.halfDone && old.epoch == e.epoch {
		return // the journal has progressed: nothing to decide
	}
	c.decideAt = time.Time{}
	s.signal()
}

// count adds a run to the numbers of runs in flight, or takes it away.
func (s *state) count(e *entry, n int) {
	if e != nil && (e.state == fleet.RunQueued || e.state == fleet.RunRunning) {
		s.inSite[e.site] += n
		s.inPool[e.pool] += n
		for id := range s.campaigns { // a place that became free may be for any campaign
			if n < 0 {
				s.campaigns[id].decideAt = time.Time{}
			}
		}
	}
}

func (s *state) siteChanged(c store.Change[fleet.Site]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.signal()
	if c.Value == nil {
		s.removed(c.Key)
		return
	}
	s.sites[c.Value.Name] = c.Value
	s.keys[c.Key] = func() { delete(s.sites, c.Value.Name) }
	s.decideEverything()
}

func (s *state) scheduleChanged(c store.Change[fleet.Schedule]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Value == nil {
		s.removed(c.Key)
		return
	}
	s.schedules[c.Value.Name] = c.Value
	s.keys[c.Key] = func() { delete(s.schedules, c.Value.Name) }
}

func (s *state) workerChanged(c store.Change[fleet.Worker]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Value == nil {
		s.removed(c.Key)
		return
	}
	id := c.Value.ID
	known := s.workers[id]
	s.workers[id] = &workerState{c.Value, time.Now()}
	s.keys[c.Key] = func() { delete(s.workers, id) }
	if known == nil || known.worker.Slots != c.Value.Slots || known.worker.Drain != c.Value.Drain {
		s.decideEverything()
	}
}

// decideEverything has all campaigns decided about.
func (s *state) decideEverything() {
	for _, c := range s.campaigns {
		c.decideAt = time.Time{}
	}
	s.signal()
}

// lapse is how long after its last renewal a worker's lease has expired even if clocks and
// watches are late.
const lapse = engine.LeaseTime + 2*time.Second

// slots returns the number of slots of each pool.
func (s *state) slots(now time.Time) map[string]int {
	slots := make(map[string]int)
	for _, w := range s.workers {
		if now.Sub(w.heard) < lapse && !w.worker.Drain {
			slots[w.worker.Pool] += w.worker.Slots
		}
	}
	return slots
}

// task is a run as it was queued once.
type task struct {
	campaign, device string
	attempt          int
	epoch            uint64
}

// published notes that the workers were told of a queued run.
func (s *state) published(r *fleet.Run) {
	s.toldAt[task{r.Campaign, r.Device, r.Attempt, r.Epoch}] = time.Now()
}

// told reports whether the workers were told of a queued run, and not too long ago.
func (s *state) told(e *entry, now time.Time) bool {
	at, told := s.toldAt[task{e.campaign, e.device, e.attempt, e.epoch}]
	return told && now.Sub(at) < requeueAfter
}

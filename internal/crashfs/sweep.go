package crashfs

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"strings"
	"sync"
)

// A Sweep cuts the power at every operation of a piece of work, starts every disk
// that could be found, and checks whether the work can be done from there. T is what
// was reported to the outside world, which outlives the device: which steps are done.
type Sweep[T any] struct {
	// Start is the disk before the work, and Reported what was reported before it.
	Start    *Disk
	Reported T
	// Life is a life of the device from power on: it starts, checks the invariants
	// against what was reported, does the rest of the work, adds to reported what
	// it reports, checks the outcome, and returns nil if all is well. It must do the
	// same each time it gets the same disk and reports. Its error is ignored if the
	// power failed meanwhile.
	Life func(m *Machine, reported *T) error
	// Clone copies what was reported; nil where assignment suffices.
	Clone func(T) T
	// Key identifies what was reported, so that equal situations are tried once. Nil for
	// fmt's %v.
	Key func(T) string
	// Depth is the number of cuts in a row, one in each life: 1 if zero.
	Depth int
	// Limit, if not 0, is the number of situations that get a further cut, drawn by
	// Seed from those there are at each depth after the first.
	Limit int
	// Sample, if not 0, is the number of operations of the first life at which the
	// power is cut, evenly spread from a start drawn by Seed.
	Sample int
	// Enough, if not 0, ends the sweep after that number of bad disks.
	Enough int
	// Mixtures is the number of random mixtures for each cut, 3 if zero.
	Mixtures int
	// Seed of everything random.
	Seed uint64
	// Workers run at the same time, GOMAXPROCS if zero. Life must bear that.
	Workers int
}

// A Result counts what a sweep did.
type Result struct {
	Cuts   int // cuts of the power
	Disks  int // disks that could be found after them
	Tried  int // of those, started: the ones that differ, in what lies on them or what was reported
	Bad    int // of the tried, those on which something was wrong
	Faults []Failure
}

// String returns the counts.
func (r Result) String() string {
	return fmt.Sprintf("%d cuts, %d disks (%d different), %d bad", r.Cuts, r.Disks, r.Tried, r.Bad)
}

// A Failure is a bad disk and how it came about. At most maxFailures are kept.
type Failure struct {
	Path []string // the cuts that led there
	Err  error
	Disk *Disk
}

// Error returns the cuts and the error.
func (f Failure) Error() string { return strings.Join(f.Path, "; then ") + ": " + f.Err.Error() }

const maxFailures = 10

// situation is a disk and what had been reported when the power failed.
type situation[T any] struct {
	disk     *Disk
	reported T
	path     []string
}

// run is a sweep under way.
type run[T any] struct {
	Sweep[T]
	mu     sync.Mutex
	seen   map[[sha256.Size]byte]bool
	result Result
	step   int // from one operation that is cut to the next
}

// Run sweeps. It returns an error only if the work fails without any cut; bad disks
// are counted in the result.
func (s Sweep[T]) Run() (Result, error) {
	if s.Clone == nil {
		s.Clone = func(t T) T { return t }
	}
	if s.Key == nil {
		s.Key = func(t T) string { return fmt.Sprintf("%v", t) }
	}
	s.Depth, s.Mixtures = max(s.Depth, 1), max(s.Mixtures, 3)
	if s.Workers == 0 {
		s.Workers = runtime.GOMAXPROCS(0)
	}
	r := &run[T]{Sweep: s, seen: make(map[[sha256.Size]byte]bool)}
	reported, whole := s.Clone(s.Reported), s.Start.Start()
	if err := s.Life(whole, &reported); err != nil {
		return Result{}, fmt.Errorf("without any cut: %w", err)
	}
	r.step = 1
	if s.Sample > 0 {
		r.step = max(1, len(whole.Ops())/s.Sample)
	}
	level := []situation[T]{{disk: s.Start, reported: s.Reported}}
	for depth := 1; depth <= s.Depth; depth++ {
		if depth > 1 {
			level = r.sample(level)
		}
		level = r.level(level)
		r.step = 1
	}
	return r.result, nil
}

// sample draws Limit situations, evenly spread over the list from a seeded start.
func (r *run[T]) sample(level []situation[T]) []situation[T] {
	if r.Limit == 0 || len(level) <= r.Limit {
		return level
	}
	picked := make([]situation[T], 0, r.Limit)
	shift := int(r.Seed % uint64(len(level)))
	for i := range r.Limit {
		picked = append(picked, level[(shift+i*len(level)/r.Limit)%len(level)])
	}
	return picked
}

// level cuts the life from each situation at every operation and returns the new
// situations.
func (r *run[T]) level(from []situation[T]) []situation[T] {
	if len(from) < r.Workers {
		var all []situation[T]
		for _, s := range from {
			all = append(all, r.cuts(s, r.Workers)...)
		}
		return all
	}
	next := make([][]situation[T], len(from))
	jobs := make(chan int)
	var workers sync.WaitGroup
	for range r.Workers {
		workers.Go(func() {
			for i := range jobs {
				next[i] = r.cuts(from[i], 1)
			}
		})
	}
	for i := range from {
		jobs <- i
	}
	close(jobs)
	workers.Wait()
	var all []situation[T]
	for _, n := range next {
		all = append(all, n...)
	}
	return all
}

// cuts tries every cut of one life, Workers of them at the same time.
func (r *run[T]) cuts(from situation[T], workers int) (found []situation[T]) {
	for op := 1 + int(r.Seed%uint64(r.step)); ; op += workers * r.step {
		next, done := make([][]situation[T], workers), make([]bool, workers)
		var group sync.WaitGroup
		for i := range workers {
			group.Go(func() { next[i], done[i] = r.cutAt(from, op+i*r.step) })
		}
		group.Wait()
		for i := range workers {
			if found = append(found, next[i]...); done[i] {
				return found
			}
		}
	}
}

// cutAt tries the cuts at one operation of a life. done is true if the life ends
// before it.
func (r *run[T]) cutAt(from situation[T], op int) (found []situation[T], done bool) {
	instants := []When{Before, Middle, After}
	for len(instants) > 0 {
		if r.enough() {
			return found, true
		}
		when := instants[0]
		instants = instants[1:]
		m, reported := from.disk.Start(), r.Clone(from.reported)
		m.CutAt(op, when)
		// The error of a life without power means nothing.
		_ = r.Life(m, &reported)
		if !m.Down() {
			return found, true
		}
		cut := m.Ops()[op-1]
		found = append(found, r.after(m, reported, from.path, fmt.Sprintf("%s %d %s", when, op, cut))...)
		if when == Before && cut.Kind != OpWrite {
			instants = instants[1:] // only writes have a middle
		}
	}
	return found, false
}

// after starts the disks that one cut leaves.
func (r *run[T]) after(m *Machine, reported T, path []string, cut string) (fresh []situation[T]) {
	disks := m.Disks(r.Mixtures, r.Seed)
	r.count(func(c *Result) { c.Cuts++; c.Disks += len(disks) })
	for _, d := range disks {
		s := situation[T]{disk: d.Disk, reported: reported, path: append(append([]string(nil), path...), cut+", "+d.How)}
		if r.enough() || !r.isNew(s) {
			continue
		}
		again := r.Clone(reported)
		err := r.Life(d.Disk.Start(), &again)
		r.count(func(c *Result) {
			c.Tried++
			if err == nil {
				return
			}
			if c.Bad++; len(c.Faults) < maxFailures {
				c.Faults = append(c.Faults, Failure{s.path, err, s.disk})
			}
		})
		if err == nil {
			fresh = append(fresh, s)
		}
	}
	return fresh
}

func (r *run[T]) enough() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Enough > 0 && r.result.Bad >= r.Enough
}

func (r *run[T]) count(f func(*Result)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.result)
}

// isNew reports whether no equal situation was met before.
func (r *run[T]) isNew(s situation[T]) bool {
	disk := s.disk.Key()
	key := sha256.Sum256(append(disk[:], r.Key(s.reported)...))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen[key] {
		return false
	}
	r.seen[key] = true
	return true
}

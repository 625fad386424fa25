package procedure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/iad/internal/clock"
	"example.com/iad/mib"
)

// Config is what an Engine works with. Banks, Store, Fetcher, Device, Journal
// and Settings are required.
type Config struct {
	Banks   Banks
	Store   ConfigStore
	Fetcher Fetcher
	Device  Device
	// Journal and Settings are written to; JournalData and SettingsData are
	// what was found in them, empty at the first start.
	Journal, Settings         Record
	JournalData, SettingsData []byte
	// JournalUnsaved says that JournalData was not read from the record, but is what
	// Unsaved of the previous engine returned.
	JournalUnsaved bool
	// Clock is the system's if nil.
	Clock clock.Clock
	// Findings are damages found at this start; they become part of the
	// event restarted.
	Findings []string
	// BootReason is the reason for this start as reported by the hardware, 0
	// if unknown.
	BootReason mib.RestartReasonEnum
	// Grace is how long a restart waits at most for events to leave; 3 s if
	// 0.
	Grace time.Duration
	// Entered is called when the work has begun a phase, which a snapshot shows, before
	// it does anything in it. Nil is for nobody.
	Entered func()
	// Log gets what happens; nil discards it.
	Log *slog.Logger
}

// RestartError is what Run returns when the device must restart.
type RestartError struct{ Reason mib.RestartReasonEnum }

func (e *RestartError) Error() string { return "restart: " + e.Reason.String() }

// ErrStopped is returned by calls to an engine whose Run has ended.
var ErrStopped = errors.New("procedure: the engine has stopped")

// Engine carries out operations, one at a time.
type Engine struct {
	cfg   Config
	clock clock.Clock
	log   *slog.Logger
	// turn has a value in it while somebody works on what is below: Run, or whoever is in
	// call. It is a channel, not a mutex, because those who wait may have to give up.
	turn chan struct{}
	wake chan struct{} // has Run look what is due
	poke chan struct{}
	done chan struct{}
	snap atomic.Pointer[Snapshot]

	watchMu  sync.Mutex
	watchers map[chan struct{}]bool // true: for what notifications are sent for alone

	// What follows belongs to the one whose turn it is.
	fresh          bool            // snap shows what is
	armed          time.Time       // when Run looks what is due
	ctx            context.Context // ends with Run
	j              journal
	s              Settings
	lock           int32
	refusal        Failure
	reserved       *Reservation
	inUse          int           // calls in progress when the present SET came
	zone           string        // interface that the request of the operation came in by, see Server.Zone
	work           *task         // the running work, nil for none
	pause          time.Time     // end of state waiting
	base           time.Time     // when the operation would have started had it gone on ever since
	changed        time.Time     // of phase or state, see iadUpgOpLastChange
	unknown        bool          // the percentage is not known
	progress       progressState // see progress.go
	tested         bool          // the running software on trial has passed its self-test
	retryConfirmAt time.Time     // when to try again to confirm it, zero for never
	retest         time.Time     // when to try again to record that it passed its self-test, zero for never
	recordPause    time.Duration // the last pause before such a try, 0 for none
	window         time.Time     // end of the trial, zero for none
	opened         time.Time     // when the window was opened at this start
	noted          time.Time     // when what is left of the window was last journaled
	pendingGiveUp  *Failure      // the trial is given up once the work has stopped
	handover       bool          // the device is switching to the fallback without a restart
	pendingRestart *RestartError // a restart is under way
	restartBy      time.Time     // at the latest
	stored         uint32        // the Sent of the journal on the disk
	behind         bool          // the journal on the disk is behind j
	rewrite        time.Time     // when to try again to write it or the boot record, zero for never
	workers        sync.WaitGroup
}

// Open reads the journal and the settings, and decides what became of the
// operation that was under way. Findings name contents that could not be
// used; the engine then starts with empty ones, and the caller keeps a copy.
func Open(cfg Config) (e *Engine, findings []error) {
	if cfg.Clock == nil {
		cfg.Clock = clock.System{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Grace == 0 {
		cfg.Grace = 3 * time.Second
	}
	e = &Engine{
		cfg: cfg, clock: cfg.Clock, log: cfg.Log,
		turn: make(chan struct{}, 1), wake: make(chan struct{}, 1), poke: make(chan struct{}, 1), done: make(chan struct{}),
		watchers: map[chan struct{}]bool{},
		lock:     int32(rand.IntN(1 << 30)),
		refusal:  Failure{Code: mib.FailCauseNone},
	}
	var err error
	if e.j, err = decodeJournal(cfg.JournalData); err != nil {
		findings = append(findings, err)
	}
	if e.s, err = decodeSettings(cfg.SettingsData); err != nil {
		findings = append(findings, err)
	}
	e.cfg.JournalData, e.cfg.SettingsData = nil, nil // their memory is free from here on
	e.boot()
	e.turn <- struct{}{} // Run's
	return e, findings
}

// Run carries out operations until ctx ends, then returns nil, or until the
// device must restart, then returns a *RestartError. It is called once.
func (e *Engine) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer e.workers.Wait()
	defer close(e.done)
	defer cancel()
	e.ctx = ctx
	e.startTrial()
	timer := e.clock.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now := e.settle()
		if e.leaving(now) {
			if e.j.Sent != e.stored {
				_ = e.persist() // or they would be sent again
			}
			return e.pendingRestart
		}
		e.armed = e.nextDue(now)
		timer.Reset(max(0, e.armed.Sub(now)))
		<-e.turn
		poked := false
		select {
		case <-ctx.Done():
			e.turn <- struct{}{}
			return nil
		case <-e.wake:
			e.turn <- struct{}{}
			continue
		case <-e.poke:
			poked = true
		case <-timer.C():
		}
		e.turn <- struct{}{}
		e.fresh = false
		if poked {
			e.takeProgress()
		}
	}
}

// leaving reports whether nothing keeps the device from restarting any more.
func (e *Engine) leaving(now time.Time) bool {
	return e.pendingRestart != nil && (e.j.Sent == e.j.Seq || !now.Before(e.restartBy))
}

// settle does what is due and shows the state that there is then, but for the last one before a
// restart: nobody is to think that the device has come to rest.
func (e *Engine) settle() (now time.Time) {
	now = e.clock.Now()
	if e.tick(now) {
		e.fresh = false
	}
	if !e.fresh && !e.leaving(now) {
		e.publish()
	}
	return now
}

// call runs f while nobody else works on the engine. It does so in its own goroutine: to have Run do it would cost two
// switches between goroutines, which is most of the time of a SET. It blocks until Run has been called.
func (e *Engine) call(f func()) error {
	select {
	case <-e.done: // it may be Run's turn for ever
		return ErrStopped
	case e.turn <- struct{}{}:
	}
	if e.ctx.Err() != nil || e.leaving(e.clock.Now()) {
		<-e.turn
		<-e.done // Run is about to return
		return ErrStopped
	}
	e.settle() // what is due comes first
	e.fresh = false
	f()
	now := e.settle()
	if e.pendingRestart != nil || e.nextDue(now).Before(e.armed) {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
	<-e.turn
	return nil
}

// alarm is something that becomes due.
type alarm struct {
	at time.Time // zero for never
	do func()
}

// alarms are what time can bring now. An alarm that was carried out is not
// among them any more, or it has moved on.
func (e *Engine) alarms() (list []alarm) {
	if e.pendingRestart != nil {
		return nil
	}
	if r := e.reserved; r != nil && !r.committed {
		list = append(list, alarm{r.until, r.expire})
	}
	if e.handover || e.starting() {
		return list
	}
	list = append(list,
		alarm{e.window, func() { e.giveUp(e.windowOver()) }},
		alarm{e.retryConfirmAt, e.confirm}, alarm{e.retest, e.passed}, alarm{e.tenth(), func() { _ = e.persist() }},
		alarm{e.rewrite, func() { _ = e.persist() }})
	if !e.j.Op.State.Final() {
		if e.stoppable() {
			list = append(list, alarm{e.deadline(), e.expire})
		}
		if e.j.Op.State == mib.OperationStateWaiting {
			list = append(list, alarm{e.pause, e.resumeWaiting})
		}
		list = append(list, alarm{e.progress.due(e), e.progressDue})
	}
	return list
}

// tick does what has become due, and reports whether anything has.
func (e *Engine) tick(now time.Time) (did bool) {
	due := func(a alarm) bool { return !a.at.IsZero() && !now.Before(a.at) }
	list := e.alarms()
	for range len(list) {
		i := slices.IndexFunc(list, due)
		if i < 0 {
			break
		}
		list[i].do()
		did = true
		list = e.alarms() // others may have moved
	}
	return did
}

// nextDue is when tick has something to do next.
func (e *Engine) nextDue(now time.Time) time.Time {
	if e.pendingRestart != nil {
		return e.restartBy
	}
	due := now.Add(time.Hour)
	for _, a := range e.alarms() {
		if !a.at.IsZero() && a.at.Before(due) {
			due = a.at
		}
	}
	return due
}

// rewritePause is between two tries to write what could not be written.
const rewritePause = time.Minute

// persist writes the journal, and the boot record first, because the journal may refer to it.
func (e *Engine) persist() error {
	e.rewrite = time.Time{}
	if e.cfg.Banks.Status().Unsaved && e.cfg.Banks.RewriteRecord() != nil {
		e.rewrite = e.clock.Now().Add(rewritePause)
	}
	if !e.j.Op.State.Final() {
		e.j.Op.Elapsed = e.elapsed()
	}
	if !e.window.IsZero() {
		e.noted = e.clock.Now()
		e.j.Trial.Left = max(1, seconds(e.window.Sub(e.charged(e.noted))))
	}
	sent := e.j.Sent
	err := e.writeJournal(&e.j)
	// Where there is no room for it to grow, what happens now counts for more than
	// what happened long ago.
	for j := e.j; errors.Is(err, syscall.ENOSPC) && j.shorten(); {
		err = e.writeJournal(&j)
	}
	again := e.behind
	e.behind = err != nil
	if err == nil {
		e.stored = sent
		return nil
	}
	e.rewrite = e.clock.Now().Add(rewritePause)
	if !again {
		e.log.Error("the journal could not be written; continuing without it", "err", err)
	}
	return fmt.Errorf("journal: %w", err)
}

func (e *Engine) writeJournal(j *journal) error {
	data, err := json.Marshal(j)
	if err == nil {
		err = e.cfg.Journal.Write(data)
	}
	return err
}

func (e *Engine) persistSettings(s *Settings) error {
	data, err := json.Marshal(s)
	if err == nil {
		err = e.cfg.Settings.Write(data)
	}
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	return nil
}

// fire changes the state of the operation by the table. A change that is not
// in it is a mistake in this package: it is logged, and nothing changes.
func (e *Engine) fire(on Trigger) bool {
	to, ok := follow(e.j.Op.State, on)
	if !ok {
		e.log.Error("state change not in the table", "state", e.j.Op.State, "on", on)
		return false
	}
	e.log.Info("operation", "id", e.j.Op.ID, "kind", e.j.Op.Kind, "from", e.j.Op.State, "on", on, "to", to)
	e.j.Op.State = to
	e.changed = e.clock.Now()
	return true
}

// Watch returns a channel that gets a value after each change of the snapshot;
// changes that come before it is read give one value. stop ends it.
func (e *Engine) Watch() (ch <-chan struct{}, stop func()) { return e.watch(false) }

// WatchNotices is Watch for changes that notifications are sent for: of Seq and Progress.
func (e *Engine) WatchNotices() (ch <-chan struct{}, stop func()) { return e.watch(true) }

func (e *Engine) watch(notices bool) (ch <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	e.watchMu.Lock()
	defer e.watchMu.Unlock()
	e.watchers[c] = notices
	return c, func() {
		e.watchMu.Lock()
		defer e.watchMu.Unlock()
		delete(e.watchers, c)
	}
}

func (e *Engine) publish() {
	now := e.snapshot()
	before := e.snap.Swap(now)
	e.fresh = true
	notice := before == nil || before.Seq != now.Seq || before.Progress != now.Progress
	e.watchMu.Lock()
	defer e.watchMu.Unlock()
	for c, notices := range e.watchers {
		if notices && !notice {
			continue
		}
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Sync returns once everything that was called before it is done and shown, or Run has
// ended.
func (e *Engine) Sync() { _ = e.call(func() {}) }

// Sent records that all events up to seq were handed over to every
// front end.
func (e *Engine) Sent(seq uint32) {
	_ = e.call(func() { e.j.Sent = seq })
}

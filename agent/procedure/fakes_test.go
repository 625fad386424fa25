package procedure_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// coded is a failure of a port, as other packages have them.
type coded mib.FailCause

func (c coded) Error() string        { return "cause " + mib.FailCause(c).String() }
func (c coded) Cause() mib.FailCause { return mib.FailCause(c) }

// lab is a device made of fakes around an engine. It lives in a bubble of
// package synctest: time passes only when everybody waits.
type lab struct {
	t *testing.T

	mu    sync.Mutex
	gates map[string]chan struct{} // of steps that are held
	fails map[string][]error       // what the next calls of a step return
	calls map[string]int           // of each step

	banks   procedure.BankStatus
	config  procedure.ConfigStatus
	other   bool              // there are data in another format
	remote  map[string][]byte // files on the server
	chunk   int               // bytes of a Read
	pace    time.Duration     // of Reads
	sizes   bool              // the server reports sizes
	deaf    bool              // work does not notice that it should stop
	inUse   int               // calls in progress
	over    bool              // the device takes over without a restart
	cfg     procedure.Config  // for the next start
	journal memory
	setting memory
	taken   map[procedure.Transition]bool

	e      *procedure.Engine
	cancel context.CancelFunc
	off    chan struct{} // closed when the power goes
	ended  chan error
}

// memory is a Record that can be full.
type memory struct {
	mu     sync.Mutex
	data   []byte
	full   bool
	writes int
}

var errFull = errors.New("no space left on device")

func (m *memory) Write(p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return errFull
	}
	m.data = bytes.Clone(p)
	m.writes++
	return nil
}

func (m *memory) read() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.data
}

// run makes a device with good software 1.0.0 in bank 1 and ready software
// 2.0.0 in bank 2, starts it and calls f.
func run(t *testing.T, f func(l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)))
		l := &lab{
			t: t, gates: map[string]chan struct{}{}, fails: map[string][]error{}, calls: map[string]int{},
			remote: map[string][]byte{}, chunk: 100, sizes: true, taken: map[procedure.Transition]bool{},
			config: procedure.ConfigStatus{Generation: 1, Format: 1},
		}
		l.banks = procedure.BankStatus{Running: 1, Next: 1, Fallback: 1, Banks: [2]procedure.Bank{
			{State: mib.BankStateGood, Version: "1.0.0", NeedsReset: true, Cause: mib.FailCauseNone},
			{State: mib.BankStateReady, Version: "2.0.0", NeedsReset: true, Cause: mib.FailCauseNone},
		}}
		s := procedure.DefaultSettings()
		s.Servers[0].AddressType, s.Servers[0].Address = 1, []byte{127, 0, 0, 1}
		for k := mib.FileTypeSoftware; k <= mib.FileTypeOtherData; k++ {
			s.Files[k-1].Name = k.String()
			l.remote[k.String()] = configFile(k, 1)
		}
		s.Notify.MinInterval = 0
		l.start()
		l.settings(func(now *procedure.Settings) { *now = s })
		defer l.stop()
		f(l)
	})
}

func configFile(k mib.FileType, format int) []byte {
	return []byte(k.String() + " " + string(rune('0'+format)) + strings.Repeat(".", 300))
}

// start starts the engine on what the records hold.
func (l *lab) start() {
	l.t.Helper()
	cfg := l.cfg
	cfg.Banks, cfg.Store, cfg.Fetcher, cfg.Device = fakeBanks{l}, fakeStore{l}, fakeFetcher{l}, fakeDevice{l}
	cfg.Journal, cfg.Settings = &l.journal, &l.setting
	cfg.JournalData, cfg.SettingsData = l.journal.data, l.setting.data
	cfg.Log = slog.New(recorder{l})
	e, findings := procedure.Open(cfg)
	if len(findings) > 0 {
		l.t.Errorf("findings: %v", findings)
	}
	l.off = make(chan struct{})
	ctx, cancel := context.WithCancel(l.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	l.e, l.cancel, l.ended = e, cancel, ended
	synctest.Wait()
}

// stop takes the power away.
func (l *lab) stop() {
	if l.cancel == nil {
		return
	}
	l.cancel()
	l.cancel = nil
	close(l.off)
	<-l.ended
}

// restart waits for a commanded restart and starts the device again, with the
// bank that boot leaves running.
func (l *lab) restart(boot func(*procedure.BankStatus)) mib.RestartReasonEnum {
	l.t.Helper()
	err := <-l.ended
	l.cancel()
	l.cancel = nil
	var r *procedure.RestartError
	if !errors.As(err, &r) {
		l.t.Fatalf("the engine ended with %v, not with a restart", err)
	}
	l.boot(boot)
	return r.Reason
}

// cut takes the power away and starts the device again.
func (l *lab) cut(boot func(*procedure.BankStatus)) {
	l.t.Helper()
	l.stop()
	l.boot(boot)
}

func (l *lab) boot(boot func(*procedure.BankStatus)) {
	l.t.Helper()
	synctest.Wait()
	b := &l.banks
	b.Running = b.Next
	if boot != nil {
		boot(b)
	}
	l.gates = map[string]chan struct{}{}
	l.start()
}

// fellBack is what a boot leaves that gave software on trial up.
func fellBack(b *procedure.BankStatus) {
	b.Banks[1].State, b.Banks[1].Cause, b.Banks[1].Text = mib.BankStateFailed, mib.FailCauseBootFailed, "did not start"
	b.Running, b.Next, b.Fallback = 1, 1, 1
}

// hold makes a step wait until release or until its work is stopped.
func (l *lab) hold(step string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gates[step] = make(chan struct{})
}

func (l *lab) release(step string) {
	l.mu.Lock()
	close(l.gates[step])
	delete(l.gates, step)
	l.mu.Unlock()
	synctest.Wait()
}

// failing makes the next calls of a step fail.
func (l *lab) failing(step string, errs ...error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fails[step] = append(l.fails[step], errs...)
}

// set changes what the fakes do.
func (l *lab) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// called returns how often the fakes were called at a step.
func (l *lab) called(step string) int {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[step]
}

// at is called by the fakes at each step.
func (l *lab) at(ctx context.Context, step string) error {
	l.mu.Lock()
	l.calls[step]++
	gate, off := l.gates[step], l.off
	l.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-l.hears(ctx):
			return context.Cause(ctx)
		case <-off:
			return errors.New("no power")
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.fails[step]; len(f) > 0 {
		l.fails[step] = f[1:]
		return f[0]
	}
	return nil
}

func (l *lab) hears(ctx context.Context) <-chan struct{} {
	if l.deaf {
		return nil
	}
	return ctx.Done()
}

// do makes a SET: it tests, commits and ends it.
func (l *lab) do(c procedure.Change) error {
	r, err := l.e.Test(c)
	if err != nil {
		return err
	}
	if err := r.Commit(); err != nil {
		return errors.Join(err, r.Undo())
	}
	r.Done()
	synctest.Wait()
	return nil
}

// settings makes a SET without a command.
func (l *lab) settings(edit func(*procedure.Settings)) {
	l.t.Helper()
	if err := l.do(procedure.Change{Edit: func(s *procedure.Settings) error { edit(s); return nil }}); err != nil {
		l.t.Fatal(err)
	}
}

// request makes a SET with a command.
func (l *lab) request(k mib.OperationKind, params func(*procedure.Params)) error {
	return l.do(procedure.Change{Command: k, Edit: func(s *procedure.Settings) error {
		if params != nil {
			params(&s.Params)
		}
		return nil
	}})
}

// begin is request, which has to be accepted.
func (l *lab) begin(k mib.OperationKind, options procedure.Options) {
	l.t.Helper()
	if err := l.request(k, func(p *procedure.Params) { p.Options = options }); err != nil {
		l.t.Fatalf("%s: %v", k, err)
	}
}

// now waits until everybody waits and returns the snapshot.
func (l *lab) now() *procedure.Snapshot {
	synctest.Wait()
	return l.e.Snapshot()
}

// expect checks the operation.
func (l *lab) expect(s mib.OperationState, p mib.OperationPhase, c mib.FailCause) procedure.Operation {
	l.t.Helper()
	op := l.now().Op
	if op.State != s || op.Phase != p || op.Cause != c {
		l.t.Fatalf("operation %d is %s in phase %s, cause %s (%s); want %s, %s, %s", op.ID, op.State, op.Phase, op.Cause, op.Text, s, p, c)
	}
	return op
}

// refused checks a refusal.
func (l *lab) refused(err error, v procedure.Verdict, c mib.FailCause) *procedure.Refusal {
	l.t.Helper()
	var r *procedure.Refusal
	if !errors.As(err, &r) {
		l.t.Fatalf("error %v is no refusal", err)
	}
	if r.Verdict != v || r.Code != c || r.Text == "" {
		l.t.Errorf("refused with verdict %d, cause %s (%s); want %d, %s", r.Verdict, r.Code, r.Text, v, c)
	}
	return r
}

// events are the types of the events from number seq on.
func (l *lab) events(from uint32) (types []mib.EventTypeEnum) {
	for _, ev := range l.now().Events {
		if ev.Seq >= from {
			types = append(types, ev.Type)
		}
	}
	return types
}

func (l *lab) wantEvents(from uint32, want ...mib.EventTypeEnum) {
	l.t.Helper()
	if got := l.events(from); !slices.Equal(got, want) {
		l.t.Errorf("events from %d on are %v, want %v", from, got, want)
	}
}

// recorder notes the changes of state, which the engine logs.
type recorder struct{ l *lab }

func (r recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r recorder) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r recorder) WithGroup(string) slog.Handler            { return r }
func (r recorder) Handle(_ context.Context, rec slog.Record) error {
	if strings.HasPrefix(rec.Message, "state change not in the table") {
		r.l.t.Error(rec.Message)
	}
	if rec.Message != "operation" {
		return nil
	}
	var tr procedure.Transition
	rec.Attrs(func(a slog.Attr) bool {
		switch v := a.Value.Any().(type) {
		case mib.OperationState:
			if a.Key == "from" {
				tr.From = v
			} else {
				tr.To = v
			}
		case procedure.Trigger:
			tr.On = v
		}
		return true
	})
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	r.l.taken[tr] = true
	return nil
}

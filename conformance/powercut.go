package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// Power switches the supply of a device. Package bench has drivers.
type Power interface {
	// On supplies power.
	On(ctx context.Context) error
	// Off cuts the power.
	Off(ctx context.Context) error
}

// PowerCuts says how often, when and with what to cut the power.
type PowerCuts struct {
	Power Power
	// Cuts is how many there are in total.
	Cuts int
	// Seed decides when they happen: the same seed and device give the same plan.
	Seed uint64
	// OffTime is how long the power stays off; 0: 1 s.
	OffTime time.Duration
	// Done are the results of an earlier, interrupted campaign with the same seed: the
	// campaign continues after them.
	Done []*TestResult
	// Saved, if not nil, is called after each cut with the run so far.
	Saved func(*Run) error
}

// cutOperations are what the power is cut in.
var cutOperations = []mib.OperationKind{
	mib.OperationKindDownloadSoftware, mib.OperationKindRestoreOldSoftware, mib.OperationKindRecoverConfig, mib.OperationKindBackupConfig,
}

// span is when a phase of an operation takes place, from the acceptance of the request.
type span struct {
	phase      string
	begin, end time.Duration
}

// afterEnd is the phase after an operation has ended.
const afterEnd = "after the end"

// campaign is PowerCuts in progress.
type campaign struct {
	*session
	p        PowerCuts
	broken   error         // of the power switch: no cut can be judged
	patience time.Duration // a device that does not answer for so long is restarting
	spans    map[mib.OperationKind][]span
	backup   map[mib.FileType][]byte
	configs  map[string][][]byte // the legal digests, by version of the software
}

// Execute learns how long each phase of some operations takes, spreads power cuts over
// them, and checks after each that the device answers, runs complete software with legal
// configuration data, has ended the interrupted operation once, has continued its event
// numbers, and carries out the same command. The tests of the Run are the cuts. A power
// switch that does not work ends the campaign: that is an error before the first cut, and
// later the Run's Problem.
func (p PowerCuts) Execute(ctx context.Context, cfg Config) (*Run, error) {
	if p.Cuts < 1 || p.Power == nil {
		return nil, errors.New("a campaign needs a power switch and one cut at least")
	}
	if p.OffTime <= 0 {
		p.OffTime = time.Second
	}
	if err := p.Power.On(ctx); err != nil { // better now than after learning
		return nil, fmt.Errorf("the power switch does not work: %w", err)
	}
	s, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if s.software.newer == nil {
		return nil, errors.New("a campaign needs newer software: an image or a key")
	}
	c := &campaign{session: s, p: p, spans: map[mib.OperationKind][]span{}, configs: map[string][][]byte{}}
	run := s.report("powercut")
	run.Tests = append(run.Tests, p.Done...)
	learn := &Test{Name: "learn", Title: "Each operation works without a power cut, and how long its phases take", run: c.learn}
	result := s.step(learn)
	if result.Verdict != Passed {
		run.Tests = append(run.Tests, result)
		run.Problem = "the operations fail without a power cut"
		s.finish(run)
		return run, nil
	}
	random := rand.New(rand.NewPCG(p.Seed, 0))
	for n := range p.Cuts {
		kind := cutOperations[n%len(cutOperations)]
		spans := c.spans[kind]
		of, at := span{phase: afterEnd}, random.Float64()
		if len(spans) > 0 {
			of = spans[n/len(cutOperations)%len(spans)]
		}
		if n < len(p.Done) {
			continue
		}
		result := s.step(&Test{
			Name: fmt.Sprintf("cut-%03d", n+1), Title: fmt.Sprintf("Power cut in %s, %s", kind, of.phase),
			run: func(t *T) { c.cut(t, kind, of, at) },
		})
		if ctx.Err() != nil {
			run.Problem = fmt.Sprintf("interrupted after %d of %d cuts", n, p.Cuts)
			break
		}
		if c.broken != nil { // which says nothing about the device
			run.Problem = fmt.Sprintf("cut %d of %d: %v", n+1, p.Cuts, c.broken)
			break
		}
		run.Tests = append(run.Tests, result)
		if p.Saved != nil {
			run.complete()
			if err := p.Saved(run); err != nil {
				return run, err
			}
		}
		if result.fatal() {
			run.Problem = fmt.Sprintf("the device does not answer any more after cut %d", n+1)
			break
		}
	}
	s.finish(run)
	return run, nil
}

// request returns the request of a kind of operation, and prepares the device for it.
func (c *campaign) request(t *T, kind mib.OperationKind) request {
	t.useServer(t.protocol(), 5*time.Second)
	rate := max(len(t.software.newer), 1<<16) // a download takes a second
	switch kind {
	case mib.OperationKindDownloadSoftware:
		t.servers.put("fw.iad", t.software.newer, behaviour{rate: rate})
		return t.fetch("fw.iad", mib.ReqOptionsForce, mib.ReqOptionsThenActivate, mib.ReqOptionsThenReset)
	case mib.OperationKindRestoreOldSoftware:
		if t.device().Version == t.first.Version {
			t.servers.put("fw.iad", t.software.newer, behaviour{})
			t.succeed("UPGRADE", t.fetch("fw.iad", mib.ReqOptionsForce, mib.ReqOptionsThenActivate, mib.ReqOptionsThenReset))
			t.confirmed()
		}
		return request{kind: kind}
	case mib.OperationKindRecoverConfig:
		for k, data := range c.backup {
			t.servers.put("cut-"+k.String(), data, behaviour{rate: 10_000})
		}
	}
	return request{kind: kind, before: t.configNames("cut-")}
}

// learn carries out each operation and records when its phases take place.
func (c *campaign) learn(t *T) {
	asked := time.Now()
	_, err := t.client.Operation(t.ctx)
	t.answered(err)
	c.patience = max(250*time.Millisecond, 8*time.Since(asked)) // which SNMPv3 needs after a restart
	c.backup = t.takeBackup(t.protocol())
	for _, kind := range cutOperations {
		if kind == mib.OperationKindRecoverConfig && t.first.Generation == 0 {
			continue // nothing to recover
		}
		r := c.request(t, kind)
		began := time.Now()
		id := t.accepted(&r)
		var spans []span
		for {
			asked := time.Since(began)
			_, phase, err := c.glance(t, began.Add(t.cfg.Limit))
			if err != nil && t.ctx.Err() == nil && !noAnswer(err) && !errors.Is(err, context.DeadlineExceeded) {
				t.answered(err)
			}
			now, n := time.Since(began), len(spans)
			if phase == inRestart {
				now = asked // when the device was down for certain
			} else if n > 0 && spans[n-1].phase != phase && spans[n-1].phase != inRestart {
				spans[n-1].end = asked
			}
			if phase == afterEnd {
				break
			}
			if n > 0 && spans[n-1].phase == phase {
				spans[n-1].end = now
			} else {
				spans = append(spans, span{phase, asked, now})
			}
			if t.ctx.Err() != nil || now > t.cfg.Limit {
				t.must("OP-TIME", false, "%s has not ended after %s", kind, seconds(now))
			}
			t.wait(poll / 4)
		}
		op := t.awaitEnd(id)
		t.must("UPGRADE", op.State == mib.OperationStateSucceeded, "%s ended as %s, %s: %s; want succeeded", kind, op.State, op.Cause, op.Text)
		end := time.Since(began)
		if len(spans) > 0 {
			spans[0].begin = 0
		}
		spans = append(spans, span{afterEnd, end, end + 300*time.Millisecond})
		c.spans[kind] = spans
		for _, s := range spans {
			t.record(EntryNote, "%s: %s from %s to %s", kind, s.phase, seconds(s.begin), seconds(s.end))
		}
		d := t.device()
		c.configs[d.Version] = append(c.configs[d.Version], d.ConfigDigest)
		t.confirmed()
	}
	c.configs[t.first.Version] = append(c.configs[t.first.Version], t.first.ConfigDigest)
}

// inRestart is the phase in which the device does not answer.
const inRestart = "restart"

// glance returns the operation and its phase, at the latest at a time. The phase is empty if
// that came too early to know it.
func (c *campaign) glance(t *T, until time.Time) (op *device.Operation, phase string, err error) {
	patient := time.Now().Add(c.patience)
	if patient.Before(until) {
		until = patient
	}
	ctx, cancel := context.WithDeadline(t.ctx, until)
	defer cancel()
	op, err = t.client.Operation(ctx)
	switch {
	case err != nil && ctx.Err() != nil && time.Now().Before(patient):
		return nil, "", err
	case err != nil:
		return nil, inRestart, err
	}
	t.watch.see(t, op)
	if final(op.State) {
		return op, afterEnd, nil
	}
	return op, op.Phase.String(), nil
}

// cut cuts the power in a phase of an operation, when a part of it from 0 to 1 is over. The
// phase may begin earlier or later than it did before; if it is not seen, the power is cut
// at the end of the operation.
func (c *campaign) cut(t *T, kind mib.OperationKind, of span, part float64) {
	if c.spans[kind] == nil {
		t.skip("there are no configuration data to recover")
	}
	r := c.request(t, kind)
	r.id = device.NewReqID()
	before := t.device()
	seq, err := t.client.EventSeq(t.ctx)
	t.answered(err)
	began := time.Now()
	id := t.accepted(&r)
	within := time.Duration(part * float64(of.end-of.begin))
	due, entered := began.Add(2*of.end+time.Second), false
	phase, last := "none", (*device.Operation)(nil)
	for time.Now().Before(due) && t.ctx.Err() == nil {
		asked := time.Now()
		op, now, _ := c.glance(t, due)
		if op != nil {
			last = op
		}
		if now != "" {
			phase = now
		}
		switch {
		case !entered && phase == of.phase:
			due, entered = asked.Add(within), true
		case !entered && phase == afterEnd:
			due = time.Now()
		}
		t.wait(min(poll/4, max(0, time.Until(due))))
	}
	if phase != inRestart { // it would not answer before the restart is over
		ctx, cancel := context.WithTimeout(t.ctx, c.patience)
		if now, err := t.client.EventSeq(ctx); err == nil {
			seq = now
		}
		cancel()
	}
	t.record(EntryPower, "off, %s after the request, in phase %s", seconds(time.Since(began)), phase)
	t.result.Reason = phase
	c.broken = c.off(t)
	t.watch.forget()
	t.record(EntryPower, "on")
	if err := c.p.Power.On(context.WithoutCancel(t.ctx)); err != nil {
		c.broken = fmt.Errorf("the power could not be switched on: %w", err)
	}
	t.must(reqPower, c.broken == nil, "%v", c.broken)
	c.check(t, r, id, before, last, seq)
}

// off cuts the power and waits for as long as it is to be off. A device that answers then
// still has power.
func (c *campaign) off(t *T) error {
	if err := c.p.Power.Off(t.ctx); err != nil {
		return fmt.Errorf("the power could not be switched off: %w", err)
	}
	t.servers.reset()
	question := min(c.p.OffTime/2, 250*time.Millisecond)
	t.wait(c.p.OffTime - question)
	ctx, cancel := context.WithTimeout(t.ctx, question)
	defer cancel()
	if _, err := t.client.EventSeq(ctx); err == nil {
		return fmt.Errorf("the device still answers %s after its power was switched off; check the switch, or let the power be off for longer", c.p.OffTime)
	}
	<-ctx.Done()
	return nil
}

// reqPower is the requirement of the bench itself.
const reqPower = "POWER"

// check checks a device after a power cut.
func (c *campaign) check(t *T, r request, id uint32, before *device.Device, last *device.Operation, seq uint32) {
	var d *device.Device
	t.until("the device answers", func() bool {
		var err error
		d, err = t.client.Device(t.ctx)
		return err == nil
	})
	t.must(reqAnswers, d != nil, "the device does not answer after the power cut")
	t.check("CUT-SOFTWARE", d.Version == t.first.Version || d.Version == t.software.version, "after the power cut the device runs %q; want %q or %q", d.Version, t.first.Version, t.software.version)
	t.check("RESTART-COUNT", d.RestartCount > before.RestartCount, "iadUpgRestartCount is %d after a power cut; it was %d", d.RestartCount, before.RestartCount)
	now, _ := t.client.EventSeq(t.ctx)
	t.check("CUT-EVENTS", now > seq, "iadUpgEventSeq is %d after the power cut; it was %d", now, seq)
	// The operation ends by itself: failed, or over the restart.
	op := t.awaitEnd(id)
	t.check("CUT-ONCE", op.ReqID == r.id, "after the power cut operation %d is that of request %d; it was %d", op.ID, op.ReqID, r.id)
	if last != nil && last.State == mib.OperationStateSucceeded {
		t.check("CUT-VERDICT", op.State == mib.OperationStateSucceeded, "operation %d had succeeded before the power cut, and is now %s, %s", id, op.State, op.Cause)
	}
	t.check("CUT-CAUSE", op.State != mib.OperationStateFailed || op.Cause == mib.FailCauseInterrupted || op.Cause == mib.FailCauseOther || last != nil && last.Cause == op.Cause,
		"an operation that a power cut interrupted ended with %s: %s; want interrupted", op.Cause, op.Text)
	d = t.device()
	running, other := t.banks()
	t.check("CUT-SOFTWARE", running.Version == d.Version && (running.State == mib.BankStateGood || running.State == mib.BankStateTrial), "the running bank is %v, and iadUpgSoftwareVersion is %q", running, d.Version)
	t.check("CUT-SOFTWARE", other.State != mib.BankStateReady || other.Version == t.software.version || other.Version == t.first.Version, "the other bank is %v", other)
	legal := false
	for _, digests := range c.configs {
		for _, digest := range digests {
			legal = legal || bytes.Equal(digest, d.ConfigDigest)
		}
	}
	t.check("CUT-CONFIG", legal, "iadUpgConfigDigest is %x after the power cut, which is neither the digest before nor after", d.ConfigDigest)
	if op.State == mib.OperationStateSucceeded && r.kind == mib.OperationKindDownloadSoftware {
		t.check("CUT-SOFTWARE", d.Version == t.software.version, "the upgrade succeeded, and %q runs", d.Version)
	}
	// The same command works now.
	again := c.request(t, r.kind)
	for name, data := range c.backup {
		t.servers.put("cut-"+name.String(), data, behaviour{})
	}
	t.servers.put("fw.iad", t.software.newer, behaviour{})
	t.confirmed()
	t.succeed("CUT-AGAIN", again)
	t.confirmed()
}

// Phases counts in which phases the cuts of a campaign took place.
func (r *Run) Phases() map[string]int {
	phases := map[string]int{}
	for _, t := range r.Tests {
		if t.Name != "learn" && t.Reason != "" {
			phases[t.Reason]++
		}
	}
	return phases
}

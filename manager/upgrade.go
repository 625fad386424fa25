package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/iad/mib"
)

// Upgrade takes one device to new software, from step 100 to step 190. The
// error is a *Failure or a *RefusalError if the device did not do what it was
// commanded and the operator gave up.
func Upgrade(ctx context.Context, plan Plan, operator Operator, observe Observer) (Result, error) {
	if plan.Image == nil {
		return Result{}, errors.New("plan: an upgrade needs an image")
	}
	u, err := prepare(ctx, plan, operator, observe)
	if err != nil {
		return Result{}, err
	}
	defer u.close()
	if u.plan.CheckOnly {
		err = u.check(ctx)
	} else {
		err = u.stages(ctx)
	}
	return u.summary(ctx), err
}

// stages carries out what the journal does not know as done.
func (u *upgrade) stages(ctx context.Context) error {
	for _, stage := range []struct {
		name Stage
		do   func(context.Context) error
	}{
		{StageBackup, u.backUp},
		{StageUpdate, u.update},
		{StageRecover, u.recover},
	} {
		if u.finished(stage.name) {
			u.note(0, fmt.Sprintf("%s was done before", stage.name))
			continue
		}
		if err := u.enter(stage.name); err != nil {
			return err
		}
		if err := stage.do(ctx); err != nil {
			return err
		}
	}
	return u.enter(StageDone)
}

// upgrade is one run of the procedure.
type upgrade struct {
	plan     Plan
	operator Operator
	observe  Observer
	device   *Device // as found at the beginning
	session  Session
	sub      *Subscription
	record   *Record
	result   Result
	started  time.Time
	// last is the operation shown last, so that progress does not go back.
	last Operation
}

// prepare finds out what the device is, and refuses what cannot succeed.
func prepare(ctx context.Context, plan Plan, operator Operator, observe Observer) (*upgrade, error) {
	if err := plan.complete(); err != nil {
		return nil, err
	}
	u := &upgrade{plan: plan, operator: operator, observe: observe, started: plan.Clock.Now()}
	var err error
	if u.device, err = plan.Client.Device(ctx); err != nil {
		return nil, err
	}
	u.result.Device, u.result.OldVersion = u.device.ID, u.device.Version
	if err := u.loadRecord(); err != nil {
		return nil, err
	}
	if plan.Image != nil {
		if err := u.suits(plan.Image); err != nil {
			return nil, err
		}
	}
	if u.session, err = plan.Files.Open(plan.Protocol, u.device.ID, plan.Client.Address()); err != nil {
		return nil, err
	}
	if u.record.Folder != "" {
		u.session.Resume(u.record.Folder, u.record.Backup)
	}
	if plan.Listener != nil {
		u.sub = plan.Listener.Subscribe(Filter{DeviceID: u.device.ID}, 256)
	}
	return u, nil
}

func (u *upgrade) close() {
	u.session.Close()
	if u.sub != nil {
		u.sub.Close()
	}
}

// suits tells why an image cannot be meant for the device.
func (u *upgrade) suits(img *Image) error {
	d := u.device
	switch {
	case !img.Fits(d.Model) && !img.Fits(d.Hardware):
		return fmt.Errorf("%s is for %v, and %s is a %s (%s): choose an image for this hardware",
			img.Path, img.Manifest.Hardware, d.ID, d.Model, d.Hardware)
	case !d.Supports(mib.OperationKindDownloadSoftware):
		return fmt.Errorf("%s does not support downloadSoftware", d.ID)
	case !d.Speaks(u.plan.Protocol):
		return fmt.Errorf("%s cannot use %s: choose another protocol", d.ID, u.plan.Protocol)
	}
	return nil
}

// loadRecord takes up the journal's record, or begins a new one.
func (u *upgrade) loadRecord() error {
	u.record = &Record{
		Device: u.device.ID, Address: u.plan.Client.Address(),
		OldVersion: u.device.Version, Stage: StageBackup, Started: u.started,
	}
	if img := u.plan.Image; img != nil {
		u.record.Image, u.record.ImageDigest = img.Path, img.Digest
	}
	if !u.plan.Resume {
		return nil
	}
	if u.plan.Journal == nil {
		return errors.New("plan: to resume takes a journal")
	}
	r, err := u.plan.Journal.Load()
	if err != nil {
		return err
	}
	if r.Device != u.device.ID || string(r.ImageDigest) != string(u.plan.Image.Digest) {
		return fmt.Errorf("the journal is about device %s and image %s: resume with these", r.Device, r.Image)
	}
	u.record = r
	u.result.OldVersion, u.result.Folder, u.result.Backup = r.OldVersion, r.Folder, r.Backup
	return nil
}

// finished tells whether the record is past a stage.
func (u *upgrade) finished(s Stage) bool {
	order := map[Stage]int{StageBackup: 0, StageUpdate: 1, StageRecover: 2, StageDone: 3}
	return order[u.record.Stage] > order[s]
}

// enter records that everything before a stage is done.
func (u *upgrade) enter(s Stage) error {
	u.record.Stage = s
	return u.save()
}

func (u *upgrade) save() error {
	if u.plan.Journal == nil {
		return nil
	}
	return u.plan.Journal.Save(u.record)
}

// summary completes the result with what runs now.
func (u *upgrade) summary(ctx context.Context) Result {
	u.result.NewVersion = u.result.OldVersion
	if d, err := u.plan.Client.Device(ctx); err == nil {
		u.result.NewVersion = d.Version
	}
	u.result.Elapsed = u.plan.Clock.Now().Sub(u.started)
	return u.result
}

// perform commands an operation and follows it to a verdict: the device's
// own, or ours when the scheduled time has passed. A verdict other than
// success is a *Failure.
func (u *upgrade) perform(ctx context.Context, command, watch Step, limit time.Duration, r Request) (*Operation, error) {
	begun := u.plan.Clock.Now()
	r.Owner, r.TimeLimit = u.plan.Owner, limit
	resumed := u.record.ReqID != 0 && u.record.Command == r.Kind
	r.ID = u.record.ReqID
	if !resumed {
		r.ID = NewReqID()
		u.record.ReqID, u.record.Owner, u.record.Command = r.ID, r.Owner, r.Kind
		if err := u.save(); err != nil {
			return nil, err
		}
	}
	op, err := u.command(ctx, r, resumed)
	if err != nil {
		if !errors.Is(err, ErrNoAnswer) && ctx.Err() == nil {
			u.record.ReqID = 0 // refused: the next try is a new request
		}
		return nil, u.asFailure(command, r.Kind, err)
	}
	u.begin(watch, fmt.Sprintf("follow operation %d (%s)", op.ID, r.Kind))
	u.last = Operation{}
	f := follower{
		client: u.plan.Client, sub: u.sub, clock: u.plan.Clock, poll: u.plan.Poll, reserve: u.plan.Reserve,
		limit: limit, reqID: r.ID, owner: r.Owner,
		progress: func(o *Operation) { u.progress(watch, o) },
		note:     func(s string) { u.note(watch, s) },
		warn:     func(s string) { u.warn(watch, s) },
	}
	done, err := f.follow(ctx, op)
	if errors.Is(err, errTimeLimit) {
		u.stop(ctx, watch, op)
		err = &Failure{Device: u.device.ID, Step: watch, Kind: r.Kind, Phase: u.last.Phase, TimedOut: true,
			Cause: mib.FailCauseDeadlineExceeded, Advice: mib.RetryAdviceRetryNow, Text: "no verdict in the scheduled time"}
	}
	if err != nil {
		if ctx.Err() == nil {
			u.record.ReqID = 0
		}
		return nil, err
	}
	u.progress(watch, done)
	u.result.Operations = append(u.result.Operations, StepResult{
		Step: command, Kind: r.Kind, Elapsed: u.plan.Clock.Now().Sub(begun), Octets: done.BytesDone,
	})
	u.record.ReqID = 0
	if err := u.save(); err != nil {
		return nil, err
	}
	if done.State != mib.OperationStateSucceeded {
		return nil, failureOf(u.device.ID, watch, done)
	}
	return done, nil
}

// command starts an operation, or takes up the one that an earlier run of
// the procedure started.
func (u *upgrade) command(ctx context.Context, r Request, resumed bool) (*Operation, error) {
	if resumed {
		op, err := u.plan.Client.ended(ctx, r.ID, r.Owner)
		if err == nil || !errors.Is(err, errUnknownOperation) {
			return op, err
		}
	}
	return u.plan.Client.Start(ctx, r)
}

// stop ends an operation that the manager gave up waiting for, so that it
// cannot take effect later.
func (u *upgrade) stop(ctx context.Context, step Step, op *Operation) {
	err := u.plan.Client.Command(ctx, Request{Kind: mib.OperationKindAbort, ID: NewReqID(), Owner: u.plan.Owner, TargetOpID: op.ID})
	if err != nil {
		u.warn(step, "the operation could not be aborted: "+err.Error())
	}
}

// failureOf describes an operation that ended without success.
func failureOf(device string, step Step, op *Operation) *Failure {
	f := &Failure{
		Device: device, Step: step, Kind: op.Kind, State: op.State, Phase: op.Phase,
		Cause: op.Cause, Text: op.Text, Advice: op.Advice,
	}
	if f.Advice == 0 || f.Advice == mib.RetryAdviceNotApplicable {
		f.Advice = adviceFor(op.Cause)
	}
	return f
}

// asFailure turns a command that was refused or got no answer into a Failure
// that an operator can be asked about.
func (u *upgrade) asFailure(step Step, kind mib.OperationKind, err error) error {
	var refusal *RefusalError
	switch {
	case errors.As(err, &refusal):
		return &Failure{Device: u.device.ID, Step: step, Kind: kind, Cause: refusal.Cause, Text: refusal.Text, Advice: adviceFor(refusal.Cause)}
	case errors.Is(err, ErrNoAnswer):
		return &Failure{Device: u.device.ID, Step: step, Kind: kind, Cause: mib.FailCauseOther,
			Text: err.Error(), Advice: mib.RetryAdviceRetryLater}
	}
	return err
}

// ask tells of a failure and has the operator decide.
func (u *upgrade) ask(ctx context.Context, step Step, attempt int, err error, choices ...Choice) (Answer, error) {
	if ctx.Err() == nil {
		u.fail(step, err)
	}
	return u.decide(ctx, step, attempt, err, choices...)
}

// decide has the operator choose how to go on. Errors that no decision can
// change, and the decision to give up, come back as an error.
func (u *upgrade) decide(ctx context.Context, step Step, attempt int, err error, choices ...Choice) (Answer, error) {
	var failure *Failure
	if ctx.Err() != nil || !errors.As(err, &failure) {
		return Answer{}, err
	}
	answer, askErr := u.operator.Ask(ctx, Question{
		Device: u.device.ID, Step: step, Failure: err, Advice: failure.Advice, Attempt: attempt, Choices: append(choices, GiveUp),
	})
	if askErr != nil {
		return Answer{}, errors.Join(err, askErr)
	}
	if answer.Choice == GiveUp {
		return Answer{}, err
	}
	return answer, nil
}

func (u *upgrade) fail(step Step, err error) {
	u.observe(Update{Kind: StepFails, Time: u.plan.Clock.Now(), Device: u.device.ID, Step: step, Text: err.Error(), Failure: err})
}

func (u *upgrade) tell(kind UpdateKind, step Step, text string) {
	u.observe(Update{Kind: kind, Time: u.plan.Clock.Now(), Device: u.device.ID, Step: step, Text: text})
}

func (u *upgrade) begin(step Step, text string) { u.tell(StepBegins, step, text) }
func (u *upgrade) end(step Step, text string)   { u.tell(StepEnds, step, text) }
func (u *upgrade) note(step Step, text string)  { u.tell(Noted, step, text) }
func (u *upgrade) warn(step Step, text string)  { u.tell(Warned, step, text) }

// progress passes on what is newer than what was shown last: a notification
// may arrive after a poll that saw more.
func (u *upgrade) progress(step Step, op *Operation) {
	if op.Attempt < u.last.Attempt || op.Attempt == u.last.Attempt && op.Percent < u.last.Percent && u.last.Percent <= 100 {
		return
	}
	u.last = *op
	u.observe(Update{Kind: Progressed, Time: u.plan.Clock.Now(), Device: u.device.ID, Step: step, Operation: op})
}

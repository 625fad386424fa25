package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"example.com/iad/internal/clock"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// perform commands an operation and follows it until the device reports its result, or
// until the time limit has passed. A result other than success is a *Failure. An
// operation that an earlier run of the procedure started in the same attempt is adopted,
// not commanded again.
func (u *upgrade) perform(ctx context.Context, command, watch Step, limit time.Duration, r device.Request) (*device.Operation, error) {
	release, err := u.takeSlot(ctx, watch, r)
	if err != nil {
		return nil, err
	}
	defer release()
	begun := u.plan.Clock.Now()
	r.Owner, r.TimeLimit, r.Owns = u.plan.Owner, limit, u.owns
	bounded, cancel := clock.Within(ctx, u.plan.Clock, cmp.Or(limit, device.RestartLimit)+u.plan.Reserve)
	defer cancel()
	op, err := u.startOrAdopt(bounded, watch, &r)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%s: %w within the time limit", u.plan.Client.Address(), device.ErrNoAnswer)
	}
	if err != nil {
		return nil, u.asFailure(command, r.Kind, err)
	}
	task := u.record.task(r.Kind)
	if task.Done {
		u.note(watch, fmt.Sprintf("%s was done before", r.Kind))
		return op, nil
	}
	if op.ID == 0 {
		u.begin(watch, fmt.Sprintf("follow the operation (%s)", r.Kind))
	} else {
		u.begin(watch, fmt.Sprintf("follow operation %d (%s)", op.ID, r.Kind))
	}
	u.last = device.Operation{}
	f := follower{
		client: u.plan.Client, sub: u.sub, clock: u.plan.Clock, poll: u.plan.Poll, reserve: u.plan.Reserve,
		limit: limit, used: u.plan.Clock.Now().Sub(begun), reqID: r.ID, owner: r.Owner, events: &u.events,
		progress: func(o *device.Operation) {
			if !needsServer(o) {
				release()
			}
			u.progress(watch, o)
		},
		note: func(s string) { u.note(watch, s) },
		warn: func(s string) { u.warn(watch, s) },
	}
	done, err := f.follow(ctx, op)
	if errors.Is(err, errTimeLimit) {
		u.stop(ctx, watch, op)
		err = &Failure{Device: u.device.ID, Step: watch, Kind: r.Kind, Phase: u.last.Phase, TimedOut: true,
			Cause: mib.FailCauseDeadlineExceeded, Advice: mib.RetryAdviceRetryNow, Text: "the operation did not end within the time limit"}
	}
	if err != nil {
		return nil, err
	}
	if u.lostItsServer(task, done, r) {
		u.noteServerLost(watch, done)
		u.record.forget(r.Kind)
		release()
		return u.perform(ctx, command, watch, limit, r)
	}
	u.progress(watch, done)
	u.catchUp(ctx, watch)
	result := StepResult{Step: command, Kind: r.Kind, Elapsed: u.plan.Clock.Now().Sub(begun), Bytes: done.BytesDone}
	u.result.Operations = append(u.result.Operations, result)
	u.record.Operations = u.result.Operations
	task.Done = done.State == mib.OperationStateSucceeded
	if !task.Done {
		if err := u.save(); err != nil {
			return nil, err
		}
		return nil, failureOf(u.device.ID, watch, done)
	}
	u.recordLater()
	if done.Text != "" {
		u.warn(watch, done.Text)
	}
	return done, nil
}

// inTime runs a part of a step other than its operation, within the time limit and
// the reserve. A device that answers too slowly fails the step.
func (u *upgrade) inTime(ctx context.Context, step Step, kind mib.OperationKind, limit time.Duration, do func(context.Context) error) error {
	bounded, cancel := clock.Within(ctx, u.plan.Clock, cmp.Or(limit, device.RestartLimit)+u.plan.Reserve)
	defer cancel()
	err := do(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return &Failure{Device: u.device.ID, Step: step, Kind: kind, TimedOut: true, Cause: mib.FailCauseDeadlineExceeded,
			Advice: mib.RetryAdviceRetryLater, Text: "the device answers too slowly for the time limit"}
	}
	return err
}

// owns returns an error if another run of the manager has taken over the procedure.
func (u *upgrade) owns() error {
	if u.plan.Journal == nil {
		return nil
	}
	return u.plan.Journal.Owned()
}

// startOrAdopt returns the operation of a request: started now, or adopted from an
// earlier run.
func (u *upgrade) startOrAdopt(ctx context.Context, watch Step, r *device.Request) (*device.Operation, error) {
	if task := u.record.task(r.Kind); task != nil {
		r.ID = task.ReqID
		if task.Done && !u.backupLost(ctx, task, *r) {
			return &device.Operation{ReqID: r.ID, Owner: r.Owner, Kind: r.Kind, State: mib.OperationStateSucceeded}, nil
		}
		if task.Done {
			u.session.Resume(u.record.Directory, u.record.Backup) // what was sealed is sent again
		} else if op, err := u.adopt(ctx, watch, task, *r); op != nil || err != nil {
			return op, err
		}
		u.record.forget(r.Kind)
	}
	r.ID = device.NewReqID()
	save := u.save
	if r.Kind == mib.OperationKindDownloadSoftware {
		save = u.saveOrEnd // nothing has changed yet
	}
	u.record.Tasks = append(u.record.Tasks, Task{Kind: r.Kind, ReqID: r.ID})
	if err := save(); err != nil {
		u.record.forget(r.Kind) // never commanded
		return nil, err
	}
	return u.plan.Client.Start(ctx, *r)
}

// adopt finds out what became of a command of an earlier run. A nil operation means that
// it has to be started again, because its files were served by that run.
func (u *upgrade) adopt(ctx context.Context, watch Step, task *Task, r device.Request) (*device.Operation, error) {
	op, err := u.plan.Client.FindOperation(ctx, r.ID, r.Owner)
	if errors.Is(err, device.ErrUnknownOperation) {
		task.earlier = false
		return u.plan.Client.Start(ctx, r) // the number keeps it from being done twice
	}
	if err != nil {
		return nil, err
	}
	switch {
	case u.lostItsServer(task, op, r), op.State == mib.OperationStateSucceeded && u.backupLost(ctx, task, r):
	case u.serverGone(task, r) && !op.Final() && needsServer(op):
		task.Abandoned = true
		if err := u.save(); err != nil {
			return nil, err
		}
		ended, err := u.abort(ctx, op)
		if err != nil {
			return op, nil // too late to abort it: it continues without the server
		}
		if ended.State == mib.OperationStateSucceeded {
			return ended, nil // it was faster
		}
	default:
		return op, nil
	}
	u.noteServerLost(watch, op)
	return nil, nil
}

// serverGone reports whether the file server of an operation ended with the run of the
// manager that commanded it.
func (u *upgrade) serverGone(task *Task, r device.Request) bool {
	s, ok := u.plan.Files.(files.ShortLived)
	return ok && s.EndsWithProcess() && task.earlier && r.Server != nil
}

// lostItsServer reports whether an operation failed because its file server has gone.
func (u *upgrade) lostItsServer(task *Task, op *device.Operation, r device.Request) bool {
	// What succeeded was too late to be aborted.
	return u.serverGone(task, r) && op.Final() && op.State != mib.OperationStateSucceeded &&
		(task.Abandoned || op.State == mib.OperationStateFailed && transferFailed(op.Cause))
}

// backupLost reports whether a backup went to a file server that has gone together with
// what it received, because the procedure continues on another machine.
func (u *upgrade) backupLost(ctx context.Context, task *Task, r device.Request) bool {
	if r.Kind != mib.OperationKindBackupConfig || !u.serverGone(task, r) {
		return false
	}
	return slices.ContainsFunc(u.record.Backup, func(f files.BackupFile) bool {
		_, _, err := u.session.Digest(ctx, u.record.Directory, f.Name)
		return errors.Is(err, fs.ErrNotExist)
	})
}

func (u *upgrade) noteServerLost(watch Step, op *device.Operation) {
	u.note(watch, fmt.Sprintf("operation %d (%s) ended when its file server went away; it is started again", op.ID, op.Kind))
}

// needsServer reports whether an operation may still read files from its server or write
// files there.
func needsServer(o *device.Operation) bool {
	if o.Kind == mib.OperationKindBackupConfig {
		return true // it may look at what the server has got
	}
	switch o.Phase {
	case mib.OperationPhaseVerifying, mib.OperationPhaseConverting, mib.OperationPhaseApplying, mib.OperationPhaseSwitching,
		mib.OperationPhaseRestarting, mib.OperationPhaseTrying, mib.OperationPhaseCleaning:
		return o.State == mib.OperationStateWaiting
	}
	return true
}

// transferFailed reports whether a cause is a failed file transfer.
func transferFailed(c mib.FailCause) bool {
	return c >= mib.FailCauseNameNotResolved && c <= mib.FailCauseTlsFailed
}

// stop aborts an operation whose time has passed, so that it cannot take effect later.
func (u *upgrade) stop(ctx context.Context, step Step, op *device.Operation) {
	if _, err := u.abort(ctx, op); err != nil {
		u.warn(step, "the operation could not be aborted: "+err.Error())
	}
}

// abort aborts an operation, waits until it has ended, and returns it as it is then: it
// may have succeeded meanwhile.
func (u *upgrade) abort(ctx context.Context, op *device.Operation) (*device.Operation, error) {
	if err := u.owns(); err != nil {
		return nil, err
	}
	return u.plan.Client.AbortOperation(ctx, u.plan.Clock, u.plan.Owner, op, u.plan.Reserve, u.plan.Poll/4)
}

// failureOf returns the Failure of an operation that ended without success.
func failureOf(deviceID string, step Step, op *device.Operation) *Failure {
	f := &Failure{
		Device: deviceID, Step: step, Kind: op.Kind, State: op.State, Phase: op.Phase,
		Cause: op.Cause, Text: op.Text, Advice: op.Advice,
	}
	if f.Advice == 0 || f.Advice == mib.RetryAdviceNotApplicable {
		f.Advice = op.Cause.Advice()
	}
	return f
}

// asFailure turns a command that was refused or not answered into a Failure that an
// operator can decide about.
func (u *upgrade) asFailure(step Step, kind mib.OperationKind, err error) error {
	var refusal *device.RefusalError
	switch {
	case errors.As(err, &refusal):
		return &Failure{Device: u.device.ID, Step: step, Kind: kind, Cause: refusal.Cause, Text: refusal.Text, Advice: refusal.Cause.Advice(), Refused: len(u.result.Operations) == 0}
	case errors.Is(err, device.ErrNoAnswer):
		return &Failure{Device: u.device.ID, Step: step, Kind: kind, Cause: mib.FailCauseOther,
			Text: err.Error(), Advice: mib.RetryAdviceRetryLater, NoAnswer: true}
	}
	return err
}

// takeSlot waits for a slot of the file server before iadms starts an operation that uses it.
// The slot is given back when progress shows that the device no longer needs it.
func (u *upgrade) takeSlot(ctx context.Context, watch Step, r device.Request) (release func(), err error) {
	s, ok := u.session.(files.SlotTaker)
	if !ok || r.Server == nil {
		return func() {}, nil
	}
	return s.TakeSlot(ctx, func() { u.note(watch, "waiting for the file server: it serves other devices") })
}

package manager

import (
	"context"
	"errors"
	"slices"
	"time"

	"example.com/iad/internal/clock"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// Choice is what an operator can choose after a failure.
type Choice int

// The choices.
const (
	// GiveUp ends the procedure; the device keeps what it runs.
	GiveUp Choice = iota
	// Retry repeats the failed step.
	Retry
	// OtherFile repeats step 130 with another image.
	OtherFile
	// RestoreOld goes back to the old software and ends.
	RestoreOld
	// Modify has the configuration data modified and repeats step 170.
	Modify
	// KeepNewer leaves configuration data that are newer than the backup in force
	// and ends.
	KeepNewer
	// GiveLast recovers the last backup with data on a device that runs on its defaults.
	GiveLast
	// KeepDefaults leaves a device on the defaults of its software, and ends.
	KeepDefaults
	// Overwrite recovers the backup over newer configuration data.
	Overwrite
	// UseAsIs recovers data that should have been modified and were not.
	UseAsIs
)

// Question asks how to continue after a failure.
type Question struct {
	Device  string
	Step    Step
	Failure error
	Advice  mib.RetryAdvice
	Attempt int // how many times the step was tried
	Choices []Choice
}

// Answer is an operator's decision.
type Answer struct {
	Choice Choice
	Image  *files.Image // with OtherFile
}

// Operator decides after failures. An error ends the procedure. With ErrParked it can be
// resumed when the decision is known: the same question is asked again then, and nothing is
// done before it is answered.
type Operator interface {
	Ask(ctx context.Context, q Question) (Answer, error)
}

// ErrParked is wrapped by the error of an [Operator] that decides later.
var ErrParked = errors.New("waits for a decision")

// Automatic is an operator that follows the device's advice: it retries a limited number
// of times where the device advises it, and otherwise gives up.
type Automatic struct {
	// Retries of each step; 0: none.
	Retries int
	// RetrySoftware also retries where the software itself is at fault, although it would
	// usually fail again.
	RetrySoftware bool
	// Pause before a retry for which the advice is retryLater; 0: 10 s.
	Pause time.Duration
	// Clock is the clock; nil: the system's.
	Clock clock.Clock
}

var _ Operator = Automatic{}

// Ask implements Operator.
func (a Automatic) Ask(ctx context.Context, q Question) (Answer, error) {
	if q.Attempt > a.Retries || !slices.Contains(q.Choices, Retry) {
		return Answer{Choice: GiveUp}, nil
	}
	advice := q.Advice
	var f *Failure
	if errors.As(q.Failure, &f) && (f.Decision || softwareFailed(f)) && !(softwareFailed(f) && a.RetrySoftware) {
		return Answer{Choice: GiveUp}, nil
	}
	if advice == mib.RetryAdviceRestoreFirst && q.Step == StepRestore {
		advice = mib.RetryAdviceRetryNow // it was restored: step 130 is next
	}
	switch advice {
	case mib.RetryAdviceRetryNow:
		return Answer{Choice: Retry}, nil
	case mib.RetryAdviceRetryLater, mib.RetryAdviceNotApplicable:
		setDefault(&a.Pause, 10*time.Second)
		if a.Clock == nil {
			a.Clock = clock.System{}
		}
		timer := a.Clock.NewTimer(a.Pause)
		defer timer.Stop()
		select {
		case <-timer.C():
			return Answer{Choice: Retry}, nil
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		}
	}
	return Answer{Choice: GiveUp}, nil
}

// once performs a step, unless an earlier run of the procedure did and asked a question that
// has not been answered: then it returns the failure that the question is about.
func (u *upgrade) once(ctx context.Context, step Step, perform func(context.Context) error) error {
	u.performed = step
	if p := u.record.Parked; p != nil && p.Step == step {
		return p.Failure
	}
	return perform(ctx)
}

// ask reports a failure and has the operator decide.
func (u *upgrade) ask(ctx context.Context, step Step, attempt int, err error, choices ...Choice) (Answer, error) {
	if ctx.Err() == nil {
		u.fail(step, err)
	}
	return u.decide(ctx, step, attempt, err, choices...)
}

// decide has the operator decide how to continue. It returns an error if no decision is
// possible or the operator gives up.
func (u *upgrade) decide(ctx context.Context, step Step, attempt int, err error, choices ...Choice) (Answer, error) {
	var failure *Failure
	if ctx.Err() != nil || !errors.As(err, &failure) {
		return Answer{}, err
	}
	if err := u.flush(); err != nil {
		return Answer{}, err
	}
	answer, askErr := u.operator.Ask(ctx, Question{
		Device: u.device.ID, Step: step, Failure: err, Advice: failure.Advice, Attempt: attempt, Choices: append(choices, GiveUp),
	})
	if errors.Is(askErr, ErrParked) && u.performed != 0 {
		u.record.Parked, u.unsaved = &Parked{Step: u.performed, Failure: failure}, true
	}
	if askErr != nil {
		return Answer{}, errors.Join(err, askErr)
	}
	u.record.Parked = nil
	if answer.Choice == GiveUp {
		if failure.Software {
			return Answer{}, err // resumed later, it is asked again
		}
		// Resumed later, the step is done again.
		return Answer{}, errors.Join(err, u.startNewAttempt(err))
	}
	return answer, nil
}

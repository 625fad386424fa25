package fleet

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/iad/manager"
	"example.com/iad/mib"
)

// Run is what happens to one device in one campaign. Every change is a compare-and-set.
type Run struct {
	Campaign string   `json:"campaign"`
	Device   string   `json:"device"` // Device.Name
	Site     string   `json:"site,omitempty"`
	Pool     string   `json:"pool"`
	Wave     int      `json:"wave"`
	State    RunState `json:"state"`
	// Attempt is how often the run was queued, 0 at first.
	Attempt int `json:"attempt"`
	// RetryAt is when a run in the state RunRetrying is queued again.
	RetryAt time.Time `json:"retry_at,omitzero"`
	// Claim says which worker has the run; nil: none.
	Claim *Claim `json:"claim,omitempty"`
	// Epoch counts the claims: a worker whose epoch is not that of the run has lost it.
	Epoch uint64 `json:"epoch"`
	// Unstored counts how often in a row a worker has given the run back because it could not
	// store it.
	Unstored int `json:"unstored,omitempty"`
	// Lost counts how often in a row the worker that had the run has gone without giving it
	// back, each time at LostStep.
	Lost     int          `json:"lost,omitempty"`
	LostStep manager.Step `json:"lost_step,omitempty"`
	// Record is the manager's journal; nil: nothing was begun.
	Record *manager.Record `json:"record,omitempty"`
	// Question waits for an answer in the state RunWaiting. Answer is for the worker, which
	// removes both when it has acted on it.
	Question *Question `json:"question,omitempty"`
	Answer   *Answer   `json:"answer,omitempty"`
	// Change is what the run changes on the device, for OperationRotate and OperationMove; nil:
	// nothing yet.
	Change *Change `json:"change,omitempty"`
	// Progress is what was last reported, for people.
	Progress Progress `json:"progress,omitzero"`
	// Failure is why the last attempt failed; nil: it did not.
	Failure *RunFailure `json:"failure,omitempty"`
	// OldVersion and NewVersion are what the device ran before and what it runs now.
	OldVersion string `json:"old_version,omitempty"`
	NewVersion string `json:"new_version,omitempty"`
	// Backup is the ID of the backup that the run made; empty: none.
	Backup string `json:"backup,omitempty"`

	Created time.Time `json:"created"`
	Queued  time.Time `json:"queued,omitzero"`
	Started time.Time `json:"started,omitzero"` // the first attempt
	Ended   time.Time `json:"ended,omitzero"`
}

// RunState is the state of a run.
type RunState string

// States of runs. The last four are final.
const (
	RunPending   RunState = "pending"   // not yet started
	RunQueued    RunState = "queued"    // waits for a worker
	RunRunning   RunState = "running"   // a worker has claimed it
	RunRetrying  RunState = "retrying"  // is queued again later
	RunWaiting   RunState = "waiting"   // waits for the answer to a question
	RunSucceeded RunState = "succeeded" // the procedure ended well
	RunUnchanged RunState = "unchanged" // there was nothing to do
	RunFailed    RunState = "failed"
	RunCanceled  RunState = "canceled" // the campaign ended before the run began, or the device was removed
)

// RunStates lists the states.
func RunStates() []RunState {
	return []RunState{RunPending, RunQueued, RunRunning, RunRetrying, RunWaiting, RunSucceeded, RunUnchanged, RunFailed, RunCanceled}
}

// Final reports whether a run in this state has ended.
func (s RunState) Final() bool {
	return s == RunSucceeded || s == RunUnchanged || s == RunFailed || s == RunCanceled
}

// Check returns an error for a run as the service never stores it.
func (r *Run) Check() error {
	switch {
	case !slices.Contains(RunStates(), r.State):
		return fmt.Errorf("unknown state %.40q", string(r.State))
	case r.Wave < 0:
		return fmt.Errorf("wave %d", r.Wave)
	}
	return nil
}

// HalfDone reports whether the procedure has begun to change the device, so that it must
// be finished even if its campaign is paused or stopped or its window is over.
func (r *Run) HalfDone() bool {
	switch {
	case r.State.Final():
		return false
	case r.Change != nil:
		return !r.Change.Done
	case r.Record == nil:
		return false
	}
	return r.Record.Stage == manager.StageRecover || r.Record.Stage == manager.StageUpdate && len(r.Record.Tasks) > 0
}

// Claim is a worker's right to write a run and to command its device.
type Claim struct {
	Worker string    `json:"worker"`
	Lease  string    `json:"lease,omitempty"` // Worker.Lease
	Epoch  uint64    `json:"epoch"`
	Time   time.Time `json:"time"`
}

// Same reports whether this is the other claim, perhaps renewed. A nil claim is not.
func (c *Claim) Same(o *Claim) bool {
	return c != nil && o != nil && c.Worker == o.Worker && c.Lease == o.Lease && c.Epoch == o.Epoch
}

// Progress is how far a run is.
type Progress struct {
	Step    manager.Step `json:"step,omitempty"` // 100 to 190; 0: none
	Phase   string       `json:"phase,omitempty"`
	Percent int          `json:"percent,omitempty"` // 0 to 100
	Text    string       `json:"text,omitempty"`
	Time    time.Time    `json:"time,omitzero"`
}

// RunFailure is why an attempt failed.
type RunFailure struct {
	Step manager.Step `json:"step,omitempty"`
	// Cause is the name of an IadUpgFailCause, or one of the causes below.
	Cause string    `json:"cause"`
	Text  string    `json:"text"`
	Time  time.Time `json:"time"`
	// Passing: the cause may pass, so that the run can be retried.
	Passing bool `json:"passing,omitempty"`
}

// Causes of failures that devices do not report.
const (
	CauseNoAnswer = "no-answer" // the device does not answer
	CauseRefused  = "refused"   // the device refuses the command
	CauseIdentity = "identity"  // another unit answers
	// CauseCredentials: the device does not accept any of the credentials that it may have.
	CauseCredentials = "credentials"
	CauseTimeOut     = "time-out" // the operation did not end in time
	CauseInternal    = "internal" // the service itself failed
	// CauseUnsuitable: the device is not as the campaign expects, so that nothing is changed.
	CauseUnsuitable = "unsuitable"
)

// Backoff returns the pause before attempt number attempt, from 1 on, is repeated.
func (r RetryRule) Backoff(attempt int) time.Duration {
	pause, most := time.Duration(r.Pause), time.Duration(r.MaxPause)
	pause = cmp.Or(pause, time.Minute)
	most = max(cmp.Or(most, time.Hour), pause)
	for i := 1; i < attempt && pause < most; i++ {
		pause *= 2
	}
	return min(pause, most)
}

// Next returns when a run whose attempt has failed is to be retried, and whether at all.
func (r RetryRule) Next(run *Run, deadline, now time.Time) (at time.Time, retry bool) {
	failure := run.Failure
	if failure == nil || !failure.Passing {
		return time.Time{}, false
	}
	at = now.Add(r.Backoff(run.Attempt))
	if failure.Cause == CauseNoAnswer {
		end := deadline
		switch {
		case r.Offline > 0:
			end = run.Started.Add(time.Duration(r.Offline))
		case end.IsZero():
			end = run.Started.Add(24 * time.Hour)
		}
		if !deadline.IsZero() && end.After(deadline) {
			end = deadline
		}
		return at, at.Before(end)
	}
	return at, run.Attempt < max(r.Attempts, 1) && (deadline.IsZero() || at.Before(deadline))
}

// Choice is an answer to a question, by its name in JSON.
type Choice string

// The choices; manager.Choice describes them.
const (
	ChoiceGiveUp       Choice = "give-up"
	ChoiceRetry        Choice = "retry"
	ChoiceOtherImage   Choice = "other-image"
	ChoiceRestore      Choice = "restore"
	ChoiceModify       Choice = "modify"
	ChoiceKeepNewer    Choice = "keep-newer"
	ChoiceGiveLast     Choice = "give-last"
	ChoiceKeepDefaults Choice = "keep-defaults"
	ChoiceOverwrite    Choice = "overwrite"
	ChoiceUseAsIs      Choice = "use-as-is"
)

var choices = map[Choice]manager.Choice{
	ChoiceGiveUp: manager.GiveUp, ChoiceRetry: manager.Retry, ChoiceOtherImage: manager.OtherFile, ChoiceRestore: manager.RestoreOld,
	ChoiceModify: manager.Modify, ChoiceKeepNewer: manager.KeepNewer, ChoiceGiveLast: manager.GiveLast,
	ChoiceKeepDefaults: manager.KeepDefaults, ChoiceOverwrite: manager.Overwrite, ChoiceUseAsIs: manager.UseAsIs,
}

// ChoiceOf returns the name of a choice of package manager.
func ChoiceOf(c manager.Choice) Choice {
	for name, choice := range choices {
		if choice == c {
			return name
		}
	}
	return ""
}

// Manager returns the choice of package manager, and whether c is known.
func (c Choice) Manager() (manager.Choice, bool) {
	choice, ok := choices[c]
	return choice, ok
}

// Question asks a person how to continue after a failure.
type Question struct {
	// ID is unique in the run, so that an answer is not taken for that to another question.
	ID       string       `json:"id"`
	Campaign string       `json:"campaign"`
	Device   string       `json:"device"`
	Step     manager.Step `json:"step"`
	// Cause is as in RunFailure.
	Cause   string   `json:"cause"`
	Text    string   `json:"text"`
	Advice  string   `json:"advice,omitempty"` // the name of an IadUpgRetryAdvice
	Attempt int      `json:"attempt"`
	Choices []Choice `json:"choices"`
	// Backup is what is modified with ChoiceModify: the ID of a Backup of the device.
	Backup string    `json:"backup,omitempty"`
	Time   time.Time `json:"time"`
}

// QuestionOf converts a question of package manager.
func QuestionOf(q manager.Question, campaign, device, id string, now time.Time) *Question {
	question := &Question{
		ID: id, Campaign: campaign, Device: device, Step: q.Step, Text: q.Failure.Error(), Advice: q.Advice.String(), Attempt: q.Attempt, Time: now,
		Cause: CauseOf(q.Failure),
	}
	for _, c := range q.Choices {
		question.Choices = append(question.Choices, ChoiceOf(c))
	}
	return question
}

// CauseOf returns the cause in an error of package manager.
func CauseOf(err error) string {
	var failure *manager.Failure
	if !errors.As(err, &failure) {
		return CauseInternal
	}
	switch {
	case failure.NoAnswer:
		return CauseNoAnswer
	case failure.Cause > mib.FailCauseNone:
		return failure.Cause.String()
	case failure.Refused:
		return CauseRefused
	case failure.TimedOut:
		return CauseTimeOut
	}
	return mib.FailCauseOther.String()
}

// Group returns the key of the questions that have the same cause, so that one answer can
// be given to all of them: campaign, step, cause and choices are equal.
func (q *Question) Group() string {
	names := make([]string, len(q.Choices))
	for i, c := range q.Choices {
		names[i] = string(c)
	}
	slices.Sort(names)
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %d %q %q", q.Campaign, q.Step, q.Cause, strings.Join(names, ",")))
	return hex.EncodeToString(sum[:8])
}

// Answer is a person's decision.
type Answer struct {
	// Question is the ID of the question.
	Question string `json:"question"`
	Choice   Choice `json:"choice"`
	// Image is the digest of an Image, with ChoiceOtherImage.
	Image string `json:"image,omitempty"`
	// Backup is the ID of the modified Backup, with ChoiceModify; empty: the registered
	// program converts.
	Backup string    `json:"backup,omitempty"`
	By     string    `json:"by"`
	Time   time.Time `json:"time"`
	// Group: the answer was given to all questions of a group.
	Group bool `json:"group,omitempty"`
}

// Check returns the errors of an answer to a question, each a *FieldError.
func (a *Answer) Check(q *Question) error {
	p := newProblems()
	p.unless(a.Question == q.ID, "question", "the question has changed since; look at it again")
	p.unless(slices.Contains(q.Choices, a.Choice), "choice", "must be one of %v, and is %.40q", q.Choices, a.Choice)
	if a.Choice == ChoiceOtherImage {
		p.check("image", checkDigest(a.Image))
	} else {
		p.unless(a.Image == "", "image", "is for the choice %s only", ChoiceOtherImage)
	}
	p.unless(a.Backup == "" || a.Choice == ChoiceModify, "backup", "is for the choice %s only", ChoiceModify)
	p.unless(a.Backup == "" || !a.Group, "backup", "an edited backup belongs to one device and cannot answer a group")
	return p.err()
}

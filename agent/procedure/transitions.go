package procedure

import "example.com/iad/mib"

// Trigger is what makes an operation change its state.
type Trigger uint8

// Triggers.
const (
	OnAccept       Trigger = 1 + iota // a request was accepted
	OnDelay                           // an accepted request asks for a delay
	OnDue                             // the delay or the pause between attempts is over
	OnRetry                           // the attempt failed, another one follows
	OnSuccess                         // everything was done
	OnFailure                         // failed, and not retried
	OnAbort                           // the abort command or a local user
	OnStopped                         // the work has stopped after an abort
	OnRestart                         // the device is about to restart
	OnTrial                           // the device is back and tries the software
	OnInterruption                    // found unfinished after an unexpected restart
)

var triggerNames = [...]string{OnAccept: "accept", OnDelay: "accept with delay", OnDue: "due", OnRetry: "retry",
	OnSuccess: "success", OnFailure: "failure", OnAbort: "abort", OnStopped: "stopped", OnRestart: "restart",
	OnTrial: "trial", OnInterruption: "interruption"}

func (t Trigger) String() string { return triggerNames[t] }

// Transition is a row of the table of state changes.
type Transition struct {
	From mib.OperationState
	On   Trigger
	To   mib.OperationState
	Why  string
}

// Transitions returns the table of state changes. What is not in it cannot
// happen.
func Transitions() []Transition { return append([]Transition(nil), transitions...) }

var transitions = []Transition{
	{mib.OperationStateIdle, OnAccept, mib.OperationStateRunning, "the first operation of this device"},
	{mib.OperationStateSucceeded, OnAccept, mib.OperationStateRunning, "the next operation"},
	{mib.OperationStateFailed, OnAccept, mib.OperationStateRunning, "the next operation"},
	{mib.OperationStateAborted, OnAccept, mib.OperationStateRunning, "the next operation"},
	{mib.OperationStateIdle, OnDelay, mib.OperationStateWaiting, "the first operation, to start later"},
	{mib.OperationStateSucceeded, OnDelay, mib.OperationStateWaiting, "the next operation, to start later"},
	{mib.OperationStateFailed, OnDelay, mib.OperationStateWaiting, "the next operation, to start later"},
	{mib.OperationStateAborted, OnDelay, mib.OperationStateWaiting, "the next operation, to start later"},

	{mib.OperationStateWaiting, OnDue, mib.OperationStateRunning, "the delay or the pause between two attempts is over"},
	{mib.OperationStateWaiting, OnAbort, mib.OperationStateAborted, "nothing runs: aborted at once"},
	{mib.OperationStateWaiting, OnFailure, mib.OperationStateFailed, "software on trial is given up meanwhile, or the time limit has passed"},
	{mib.OperationStateWaiting, OnInterruption, mib.OperationStateFailed, "the device restarted while the operation waited"},

	{mib.OperationStateRunning, OnRetry, mib.OperationStateWaiting, "the attempt failed and retries are left"},
	{mib.OperationStateRunning, OnSuccess, mib.OperationStateSucceeded, "done"},
	{mib.OperationStateRunning, OnFailure, mib.OperationStateFailed, "failed, and not retried"},
	{mib.OperationStateRunning, OnAbort, mib.OperationStateAborting, "the work is being stopped"},
	{mib.OperationStateRunning, OnRestart, mib.OperationStateRestarting, "the device restarts as part of the operation"},
	{mib.OperationStateRunning, OnInterruption, mib.OperationStateFailed, "the device restarted in the middle of it"},

	{mib.OperationStateAborting, OnStopped, mib.OperationStateAborted, "the work has stopped"},
	{mib.OperationStateAborting, OnInterruption, mib.OperationStateFailed, "the device restarted before the work had stopped"},

	{mib.OperationStateRestarting, OnSuccess, mib.OperationStateSucceeded, "the device is back, nothing is to be tried"},
	{mib.OperationStateRestarting, OnTrial, mib.OperationStateRunning, "the device is back and the software is tried"},
	{mib.OperationStateRestarting, OnFailure, mib.OperationStateFailed, "the device is back with other software than it was to start"},
}

// follow looks a transition up.
func follow(from mib.OperationState, on Trigger) (mib.OperationState, bool) {
	for _, t := range transitions {
		if t.From == from && t.On == on {
			return t.To, true
		}
	}
	return from, false
}

package procedure

// Trigger is what makes an operation change its state.
type Trigger uint8

// Triggers.
const (
	OnAccept       Trigger = 1 + iota // a request was accepted
	OnDelay                           // an accepted request asks for a delay
	OnDue                             // the delay or the pause between attempts is over
	OnRetry                           // the attempt failed, another one follows
	OnSuccess                         // everything was done
	OnFailure                         // failed for good
	OnAbort                           // the abort command or a local user
	OnStopped                         // the work has stopped after an abort
	OnRestart                         // the device is about to restart
	OnTrial                           // the device is back and tries the software
	OnInterruption                    // found unfinished after an unexpected restart
)

var triggerNames = []string{OnAccept: "accept", OnDelay: "accept with delay", OnDue: "due", OnRetry: "retry",
	OnSuccess: "success", OnFailure: "failure", OnAbort: "abort", OnStopped: "stopped", OnRestart: "restart",
	OnTrial: "trial", OnInterruption: "interruption"}

func (t Trigger) String() string { return name(triggerNames, int(t)) }

// Transition is a row of the table of state changes.
type Transition struct {
	From State
	On   Trigger
	To   State
	Why  string
}

// Transitions returns the table of state changes. What is not in it cannot
// happen.
func Transitions() []Transition { return append([]Transition(nil), transitions...) }

var transitions = []Transition{
	{Idle, OnAccept, Running, "the first operation of this device"},
	{Succeeded, OnAccept, Running, "the next operation"},
	{Failed, OnAccept, Running, "the next operation"},
	{Aborted, OnAccept, Running, "the next operation"},
	{Idle, OnDelay, Waiting, "the first operation, to start later"},
	{Succeeded, OnDelay, Waiting, "the next operation, to start later"},
	{Failed, OnDelay, Waiting, "the next operation, to start later"},
	{Aborted, OnDelay, Waiting, "the next operation, to start later"},

	{Waiting, OnDue, Running, "the delay or the pause between two attempts is over"},
	{Waiting, OnAbort, Aborted, "nothing runs: aborted at once"},
	{Waiting, OnFailure, Failed, "software on trial is given up meanwhile, or the time limit has passed"},
	{Waiting, OnInterruption, Failed, "the device restarted while the operation waited"},

	{Running, OnRetry, Waiting, "the attempt failed and retries are left"},
	{Running, OnSuccess, Succeeded, "done"},
	{Running, OnFailure, Failed, "failed for good"},
	{Running, OnAbort, Aborting, "the work is being stopped"},
	{Running, OnRestart, Restarting, "the device restarts as part of the operation"},
	{Running, OnInterruption, Failed, "the device restarted in the middle of it"},

	{Aborting, OnStopped, Aborted, "the work has stopped"},
	{Aborting, OnInterruption, Failed, "the device restarted before the work had stopped"},

	{Restarting, OnSuccess, Succeeded, "the device is back, nothing is to be tried"},
	{Restarting, OnTrial, Running, "the device is back and the software is tried"},
	{Restarting, OnFailure, Failed, "the device is back with other software than it was to start"},
}

// follow looks a transition up.
func follow(from State, on Trigger) (State, bool) {
	for _, t := range transitions {
		if t.From == from && t.On == on {
			return t.To, true
		}
	}
	return from, false
}

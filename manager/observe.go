package manager

import (
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// UpdateKind says what an Update tells.
type UpdateKind string

// Kinds of updates.
const (
	StepBegins   UpdateKind = "begin"    // Text says what is done
	StepEnds     UpdateKind = "end"      // Text says how it went
	StepFails    UpdateKind = "failed"   // Failure says why
	Progressed   UpdateKind = "progress" // Operation has the numbers
	Noted        UpdateKind = "note"     // Text is of interest
	Warned       UpdateKind = "warning"  // Text deserves attention
	BackupListed UpdateKind = "backup"   // Backup has the digests of both sides
)

// Update tells an Observer what happens.
type Update struct {
	Kind      UpdateKind
	Time      time.Time
	Device    string // iadUpgDeviceId
	Step      Step
	Text      string
	Operation *device.Operation
	Backup    []files.BackupFile
	Failure   error
}

// Observer is told what happens, in order, by the goroutine that runs
// Upgrade; it should not block. Nil: nobody is told.
type Observer func(Update)

func (u *upgrade) fail(step Step, err error) {
	u.failure = err
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
func (u *upgrade) progress(step Step, op *device.Operation) {
	if op.Attempt < u.last.Attempt || op.Attempt == u.last.Attempt && op.Percent < u.last.Percent && u.last.Percent <= 100 {
		return
	}
	u.last = *op
	u.observe(Update{Kind: Progressed, Time: u.plan.Clock.Now(), Device: u.device.ID, Step: step, Operation: op})
}

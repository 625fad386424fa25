package manager

import (
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// UpdateKind is the kind of an Update.
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

// Update describes something that happened, for an Observer.
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

// Observer gets what happens, in order, from the goroutine that runs Upgrade; it should
// not block. Nil: updates are dropped.
type Observer func(Update)

func (u *upgrade) fail(step Step, err error) {
	u.failure = err
	u.observe(Update{Kind: StepFails, Time: u.plan.Clock.Now(), Device: u.device.ID, Step: step, Text: err.Error(), Failure: err})
}

func (u *upgrade) emit(kind UpdateKind, step Step, text string) {
	u.observe(Update{Kind: kind, Time: u.plan.Clock.Now(), Device: u.device.ID, Step: step, Text: text})
}

func (u *upgrade) begin(step Step, text string) { u.emit(StepBegins, step, text) }
func (u *upgrade) end(step Step, text string)   { u.emit(StepEnds, step, text) }
func (u *upgrade) note(step Step, text string)  { u.emit(Noted, step, text) }
func (u *upgrade) warn(step Step, text string)  { u.emit(Warned, step, text) }

// progress reports an operation if it is newer than the one reported last: a notification
// may arrive after a poll that saw more.
func (u *upgrade) progress(step Step, op *device.Operation) {
	if op.Attempt < u.last.Attempt || op.Attempt == u.last.Attempt && op.Percent < u.last.Percent && u.last.Percent <= 100 {
		return
	}
	u.last = *op
	u.observe(Update{Kind: Progressed, Time: u.plan.Clock.Now(), Device: u.device.ID, Step: step, Operation: op})
}

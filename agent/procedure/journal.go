package procedure

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"example.com/iad/mib"
)

// Operation is the running operation or else the last one, as journaled. Times
// are zero if the device did not know the time.
type Operation struct {
	ID      uint32             `json:"id"`
	Kind    mib.OperationKind  `json:"kind"`
	State   mib.OperationState `json:"state"`
	Phase   mib.OperationPhase `json:"phase"`
	Params  Params             `json:"params"`
	Limit   uint32             `json:"limit"` // seconds
	Started time.Time          `json:"started"`
	Ended   time.Time          `json:"ended"`
	// Elapsed is how long it went on until this was written, in seconds.
	Elapsed    uint32        `json:"elapsed"`
	Attempt    uint32        `json:"attempt"` // the last one that began, 0: none
	Percent    uint8         `json:"percent"`
	File       string        `json:"file"`
	Done       uint64        `json:"done"`  // bytes
	Total      uint64        `json:"total"` // bytes, 0: not known
	Bank       int           `json:"bank"`  // 0: none
	Cause      mib.FailCause `json:"cause"`
	Text       string        `json:"text"`
	OldVersion string        `json:"old_version"`
	NewVersion string        `json:"new_version"`
}

// Advice is the advice on trying again.
func (o *Operation) Advice() mib.RetryAdvice {
	if o.State == mib.OperationStateSucceeded {
		return mib.RetryAdviceNotApplicable
	}
	return o.Cause.Advice()
}

// FileResult is the read-only part of a row of iadUpgFileTable.
type FileResult struct {
	OpID   uint32        `json:"op"`
	Result mib.FailCause `json:"result"`
	Size   uint64        `json:"size"`
	Digest []byte        `json:"digest"`
	Format uint32        `json:"format"`
}

// Event is a row of iadUpgEventTable with what its notification carries.
type Event struct {
	Seq  uint32            `json:"seq"`
	Type mib.EventTypeEnum `json:"type"`
	Time time.Time         `json:"time"`
	// Op is the operation as it was then; only Op.ID counts in the table, 0
	// for none.
	Op       Operation     `json:"op"`
	TimeLeft uint32        `json:"time_left,omitempty"`
	Cause    mib.FailCause `json:"cause"`
	Text     string        `json:"text"`
	// Bank is the bank that bankSwitched and rolledBack are about.
	Bank          int                   `json:"bank,omitempty"`
	BankInfo      Bank                  `json:"bank_info"`
	Software      string                `json:"software,omitempty"`
	ConfigFormat  uint32                `json:"config_format,omitempty"`
	ResetRequired bool                  `json:"reset_required,omitempty"`
	Reason        mib.RestartReasonEnum `json:"reason,omitempty"`
	Restarts      uint32                `json:"restarts,omitempty"`
}

// trial is what the journal records about software on trial.
type trial struct {
	Bank int    `json:"bank"`
	OpID uint32 `json:"op"`
	// ReqID and Kind belong to the operation, which may have ended since.
	ReqID uint32            `json:"req_id"`
	Kind  mib.OperationKind `json:"kind"`
	// Left is what is left of the confirm window at the next start in seconds, 1
	// if that is nothing, 0 if the software has not run yet.
	Left uint32 `json:"left,omitempty"`
}

// journal is everything that the engine keeps over a restart but the settings.
type journal struct {
	Op       Operation             `json:"op"`
	History  []Operation           `json:"history"` // oldest first
	Events   []Event               `json:"events"`  // oldest first
	Seq      uint32                `json:"seq"`     // of the last event
	Sent     uint32                `json:"sent"`    // last event known to have been handed over
	Restarts uint32                `json:"restarts"`
	Reason   mib.RestartReasonEnum `json:"reason"`  // of the last start
	Planned  mib.RestartReasonEnum `json:"planned"` // reason of the restart under way, 0: none
	Trial    trial                 `json:"trial"`
	Files    [FileKinds]FileResult `json:"files"`
	// Expected is the bank that the planned restart is to start, 0: not known.
	Expected int `json:"expected,omitempty"`
	// ConfigReset is true while configuration data wait for a restart.
	ConfigReset bool `json:"config_reset"`
}

func newJournal() journal {
	j := journal{Op: Operation{Kind: mib.OperationKindNone, State: mib.OperationStateIdle, Phase: mib.OperationPhaseNone, Cause: mib.FailCauseNone}, Reason: mib.RestartReasonUnknown}
	for i := range j.Files {
		j.Files[i].Result = mib.FailCauseNone
	}
	return j
}

// Bounds of the rings. They make the journal some 60 KiB at most.
const (
	HistoryMax = 32
	EventsMax  = 64
)

func (j *journal) addHistory(op Operation) {
	if len(j.History) >= HistoryMax {
		j.History = slices.Clone(j.History[len(j.History)-HistoryMax+1:])
	}
	j.History = append(j.History, op)
}

// addEvent adds an event under the next number. The oldest one makes room for it; if
// not even that was sent, the oldest of several restarts does: a device that starts
// again and again is not to forget why.
func (j *journal) addEvent(e Event) {
	j.Seq = next(j.Seq)
	e.Seq = j.Seq
	if len(j.Events) >= EventsMax {
		drop := 0
		restarted := func(e Event) bool { return e.Type == mib.EventTypeRestarted }
		if first := slices.IndexFunc(j.Events, restarted); j.unsent(j.Events[0]) && first >= 0 &&
			(restarted(e) || slices.ContainsFunc(j.Events[first+1:], restarted)) {
			drop = first
		}
		j.Events = slices.Delete(slices.Clone(j.Events), drop, drop+1)
	}
	j.Events = append(j.Events, e)
}

// unsent reports whether e is not known to have been delivered.
func (j *journal) unsent(e Event) bool { return int32(e.Seq-j.Sent) > 0 }

// shorten leaves out, of what is written, the events that were sent, then the older
// half of the history. It returns false if there is nothing to leave out.
func (j *journal) shorten() bool {
	unsent := slices.IndexFunc(j.Events, j.unsent)
	if unsent < 0 {
		unsent = len(j.Events)
	}
	if unsent > 0 {
		j.Events = j.Events[unsent:]
		return true
	}
	if len(j.History) == 0 {
		return false
	}
	j.History = j.History[(len(j.History)+1)/2:]
	return true
}

// Record is a durable record of two copies, such as durable.Record.
type Record interface {
	// Write replaces the contents; they last once it has returned nil.
	Write(payload []byte) error
}

func decodeJournal(data []byte) (journal, error) {
	j := newJournal()
	if len(data) == 0 {
		return j, nil
	}
	if err := json.Unmarshal(data, &j); err != nil {
		return newJournal(), fmt.Errorf("journal: %w", err)
	}
	if err := j.validate(); err != nil {
		return newJournal(), fmt.Errorf("journal: %w", err)
	}
	return j, nil
}

// maxUnsaved is what an environment variable holds, with room for the boot record.
const maxUnsaved = 120 << 10

// Unsaved returns the journal if it could not be written, else nil. Call it after Run
// has returned.
func (e *Engine) Unsaved() []byte {
	if !e.behind {
		return nil
	}
	j := e.j
	data, err := json.Marshal(&j)
	for len(data) > maxUnsaved && j.shorten() {
		data, err = json.Marshal(&j)
	}
	if err != nil {
		return nil
	}
	return data
}

// CheckJournal reports whether an engine could use data as the contents of its
// journal.
func CheckJournal(data []byte) error {
	_, err := decodeJournal(data)
	return err
}

// validate refuses what no engine writes, so that nothing read from a damaged
// or foreign file can mislead the state machine.
func (j *journal) validate() error {
	if err := j.Op.validate(); err != nil {
		return err
	}
	if j.Op.State == mib.OperationStateRestarting && !mayRestart(j.Op.Kind) {
		return fmt.Errorf("%s does not restart the device", j.Op.Kind)
	}
	if len(j.History) > HistoryMax || len(j.Events) > EventsMax {
		return fmt.Errorf("%d operations and %d events", len(j.History), len(j.Events))
	}
	for i := range j.History {
		op := &j.History[i]
		if err := op.validate(); err != nil {
			return err
		}
		if op.State < mib.OperationStateSucceeded || op.ID == 0 {
			return fmt.Errorf("operation %d in the history is %s", op.ID, op.State)
		}
	}
	for i := range j.Events {
		ev := &j.Events[i]
		following := j.Seq
		if i+1 < len(j.Events) {
			following = before(j.Events[i+1].Seq)
		}
		// Numbers may be left out, but not the last one, see addEvent.
		if last := i+1 == len(j.Events); ev.Seq == 0 || last && ev.Seq != following || int32(following-ev.Seq) < 0 {
			return fmt.Errorf("event %d where %d or an earlier one belongs", ev.Seq, following)
		}
		if !known(ev.Type) || ev.Bank < 0 || ev.Bank > 2 {
			return fmt.Errorf("event %d of type %d about bank %d", ev.Seq, ev.Type, ev.Bank)
		}
		if err := ev.Op.validate(); err != nil {
			return fmt.Errorf("event %d: %w", ev.Seq, err)
		}
	}
	switch {
	case j.Trial.Bank < 0 || j.Trial.Bank > 2:
		return fmt.Errorf("trial of bank %d", j.Trial.Bank)
	case j.Expected < 0 || j.Expected > 2:
		return fmt.Errorf("a restart with bank %d", j.Expected)
	case int32(j.Seq-j.Sent) < 0:
		return fmt.Errorf("event %d was sent, %d is the last", j.Sent, j.Seq)
	case j.Reason > mib.RestartReasonLocal || j.Planned > mib.RestartReasonLocal:
		return fmt.Errorf("restart reasons %d and %d", j.Reason, j.Planned)
	}
	return nil
}

// known reports whether the module has this type of event.
func known(t mib.EventTypeEnum) bool {
	return slices.ContainsFunc(mib.EventType.Enums, func(n mib.Named) bool { return n.Number == int64(t) })
}

// validate checks what the engine counts on and the module's enumerations.
func (o *Operation) validate() error {
	switch {
	case o.State < mib.OperationStateIdle || o.State > mib.OperationStateAborted:
		return fmt.Errorf("operation state %d", o.State)
	case o.Kind < mib.OperationKindNone || o.Kind > mib.OperationKindConvertConfig || (o.Kind == mib.OperationKindNone) != (o.State == mib.OperationStateIdle):
		return fmt.Errorf("operation kind %d in state %s", o.Kind, o.State)
	case o.Phase < mib.OperationPhaseNone || o.Phase > mib.OperationPhaseCleaning:
		return fmt.Errorf("operation phase %d", o.Phase)
	case o.Bank < 0 || o.Bank > 2 || !o.Params.valid():
		return fmt.Errorf("operation parameters out of range, bank %d", o.Bank)
	case o.Percent > 100:
		return fmt.Errorf("%d percent", o.Percent)
	}
	return nil
}

// mayRestart reports whether a restart can be part of an operation.
func mayRestart(k mib.OperationKind) bool {
	switch k {
	case mib.OperationKindDownloadSoftware, mib.OperationKindActivate, mib.OperationKindReset, mib.OperationKindRestoreOldSoftware, mib.OperationKindRecoverConfig:
		return true
	}
	return false
}

// Last is what the journal says about a device that is not running.
type Last struct {
	Op       Operation
	Seq      uint32 // of the last event
	Restarts uint32
	Reason   mib.RestartReasonEnum
}

// ReadJournal reads the contents of a journal record.
func ReadJournal(data []byte) (Last, error) {
	j, err := decodeJournal(data)
	return Last{Op: j.Op, Seq: j.Seq, Restarts: j.Restarts, Reason: j.Reason}, err
}

package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

// Upgrade updates one device, steps 100 to 190. The error is a *Failure or a
// *RefusalError if the device did not carry out a command and the operator gave up.
func Upgrade(ctx context.Context, plan Plan, operator Operator, observe Observer) (Result, error) {
	if plan.Image == nil {
		return Result{}, errors.New("plan: Image is required")
	}
	u, err := prepare(ctx, plan, operator, observe)
	if err != nil {
		return Result{}, err
	}
	defer u.close()
	if err := u.bind(ctx); err != nil {
		return u.result, err
	}
	if u.nothingToDo(plan.Journal) {
		return u.summary(ctx), nil
	}
	if u.device.Rescue() {
		u.warn(0, "no usable software: the device is in rescue mode")
	}
	if err := u.setPace(ctx); err != nil {
		return u.result, err
	}
	if u.plan.CheckOnly {
		err = u.check(ctx)
	} else {
		err = u.stages(ctx)
	}
	last, cancel := cleanupContext(ctx)
	defer cancel()
	u.restorePace(last)
	if err == nil && !u.plan.CheckOnly {
		// Last: an upgrade that is recorded as done is not resumed.
		u.enterLater(StageDone)
	}
	err = u.recordEnd(ctx, err)
	return u.summary(last), err
}

// stages runs the stages that the journal does not record as done.
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
		if u.record.Stage != stage.name {
			u.enterLater(stage.name)
		} else if err := u.save(); err != nil { // started, or resumed by this run
			return err
		}
		if err := stage.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// upgrade is one run of the procedure.
type upgrade struct {
	plan     Plan
	operator Operator
	observe  Observer
	device   *device.Device // as found at the beginning
	session  files.Session
	sub      *trap.Subscription
	record   *Record
	result   Result
	started  time.Time
	events   eventLog
	// failure is the failure that the operator was last asked about.
	failure error
	// lastDraft is the directory of the last modification, good or not.
	lastDraft string
	// unmodified is a modification that changed nothing, while the operator is asked
	// about it.
	unmodified *Modification
	// newer: configuration data newer than the backup are in force. overwrite: the operator
	// recovers the backup anyway.
	newer, overwrite bool
	// offeredBackup is the last backup with data, while the operator is asked about it.
	offeredBackup string
	// replaced: an upgrade is resumed with another image than it started with.
	replaced bool
	// banks are those found at the start.
	banks [2]device.Bank
	// ranAlready: the software of the image was running already and was not installed.
	ranAlready bool
	// verified: the software passed the operator's own check.
	verified bool
	// unrecorded: the operator was warned that the journal cannot be written.
	unrecorded bool
	// unsaved: the record has changes that recordLater left.
	unsaved bool
	// performed is the step that an unanswered question puts off; 0: it puts nothing off.
	performed Step
	// last is the operation reported last, so that progress does not go backwards.
	last device.Operation
}

// prepare reads what the device is and refuses what cannot succeed.
func prepare(ctx context.Context, plan Plan, operator Operator, observe Observer) (*upgrade, error) {
	if err := plan.complete(); err != nil {
		return nil, err
	}
	if plan.CheckOnly {
		plan.Journal, plan.Resume, plan.Pace = nil, false, nil
	}
	if observe == nil {
		observe = func(Update) {}
	}
	u := &upgrade{plan: plan, operator: operator, observe: observe, started: plan.Clock.Now()}
	var err error
	if u.device, err = plan.Client.Device(ctx); err != nil {
		return nil, err
	}
	u.result.Device, u.result.OldVersion = u.device.ID, u.device.Version
	u.result.NewVersion, u.result.Rescue = u.device.Version, u.device.Rescue() // until more is known
	plan.Client.AcceptEngine(func(ctx context.Context, question string) bool {
		return plan.OtherDevice || plan.Accept != nil && plan.Accept(ctx, question)
	})
	if err := u.loadRecord(ctx); err != nil {
		return nil, err
	}
	if plan.Image != nil {
		if err := u.checkImageFits(plan.Image); err != nil {
			return nil, err
		}
		if err := u.identify(ctx); err != nil {
			return nil, err
		}
	}
	if u.session, err = plan.Files.Open(plan.Protocol, u.device.ID, plan.Client.Address()); err != nil {
		return nil, err
	}
	// A backup that the device has sent completely stays sealed.
	task := u.record.task(mib.OperationKindBackupConfig)
	if u.record.Directory != "" && !u.finished(StageBackup) && (task == nil || !task.Done) {
		u.session.Resume(u.record.Directory, u.record.Backup)
	}
	u.catchUp(ctx, 0) // from here on
	if plan.Listener != nil {
		u.sub = plan.Listener.Subscribe(trap.Filter{DeviceID: u.device.ID}, 256)
	}
	return u, nil
}

func (u *upgrade) close() {
	u.session.Close()
	if u.sub != nil {
		u.sub.Close()
	}
}

// checkImageFits refuses an image that cannot be meant for the device.
func (u *upgrade) checkImageFits(img *files.Image) error {
	d := u.device
	switch {
	case !img.Fits(d.Model) && !img.Fits(d.Hardware):
		return fmt.Errorf("%s is for %v, and %s is a %s (%s): choose an image for this hardware",
			img.Path, img.Manifest.Hardware, d.ID, d.Model, d.Hardware)
	case !d.Supports(mib.OperationKindDownloadSoftware):
		return fmt.Errorf("%s does not support downloadSoftware", d.ID)
	case !d.Speaks(u.plan.Protocol):
		return &device.RefusalError{Device: d.ID, Kind: mib.OperationKindDownloadSoftware, Cause: mib.FailCauseUnsupportedProtocol,
			Text: "the device cannot use " + u.plan.Protocol.String()}
	}
	_, _, err := img.ForFormat(d.ImageFormat)
	return err
}

// loadRecord loads the journal's record, or starts a new one.
func (u *upgrade) loadRecord(ctx context.Context) error {
	u.record = u.newRecord()
	if !u.plan.Resume {
		return nil
	}
	if u.plan.Journal == nil {
		return errors.New("plan: Resume requires a Journal")
	}
	r, err := u.plan.Journal.Load()
	if err != nil {
		return err
	}
	if r.Format != recordFormat {
		return fmt.Errorf("the journal of %s has format %d, and this version reads format %d", r.Device, r.Format, recordFormat)
	}
	for i := range r.Tasks {
		r.Tasks[i].earlier = true
	}
	if r.Device != u.device.ID {
		return fmt.Errorf("the journal belongs to device %s, not %s", r.Device, u.device.ID)
	}
	began := device.Identity{Device: r.Device, EngineID: r.EngineID, Address: r.Address}
	if err := u.permitted(ctx, "the interrupted upgrade", began, "use --other-device if this is the same unit with a new engine ID"); err != nil {
		return err
	}
	if id := u.identity(); id.EngineID != "" {
		r.EngineID = id.EngineID
	}
	u.record, u.plan.Owner = r, r.Owner
	u.record.Ended = false
	if u.plan.Image != nil && !bytes.Equal(r.ImageDigest, u.plan.Image.Digest) {
		u.replaceImage()
	}
	if u.plan.Options != nil {
		r.Options = u.plan.Options
	}
	u.result.OldVersion, u.result.Directory, u.result.Backup, u.result.Operations = r.OldVersion, r.Directory, r.Backup, r.Operations
	return nil
}

func (u *upgrade) newRecord() *Record {
	r := &Record{
		Device: u.device.ID, EngineID: u.identity().EngineID, Address: u.plan.Client.Address(),
		OldVersion: u.device.Version, Owner: u.plan.Owner, Stage: StageBackup, Started: u.started,
		Options: u.plan.Options,
	}
	if img := u.plan.Image; img != nil {
		r.Image, r.ImageDigest = img.Path, img.Digest
	}
	return r
}

// replaceImage continues an upgrade with another image than it started with, for example
// a corrected one after a failed conversion. The backup stays; the old software is what
// runs now.
func (u *upgrade) replaceImage() {
	u.replaced = true
	r, img := u.record, u.plan.Image
	u.note(0, fmt.Sprintf("continues with %s instead of %s", img.FileName(), r.Image))
	r.Image, r.ImageDigest = img.Path, img.Digest
	r.OldVersion, r.OldDigest = u.device.Version, nil
	r.Modified, r.Failed = nil, nil
	if r.Stage != StageBackup {
		r.Stage, r.Tasks = StageUpdate, nil
	}
}

// finished reports whether the record is past a stage.
func (u *upgrade) finished(s Stage) bool {
	order := map[Stage]int{StageBackup: 0, StageUpdate: 1, StageRecover: 2, StageDone: 3}
	return order[u.record.Stage] > order[s]
}

// enter records that everything before a stage is done.
func (u *upgrade) enter(s Stage) error {
	u.enterLater(s)
	return u.save()
}

// enterLater is enter, recorded with the next save.
func (u *upgrade) enterLater(s Stage) {
	if u.record.Stage != s {
		u.record.Stage, u.record.Tasks, u.record.Failed = s, nil, nil
	}
	u.recordLater()
}

// recordLater leaves a change of the record for the next save: at the latest before the
// next command, before the operator is asked, or when the run ends. A run that is killed
// before that has the number of its last request in the journal, and learns the result
// from the device.
func (u *upgrade) recordLater() { u.unsaved = true }

// flush writes what recordLater left.
func (u *upgrade) flush() error {
	if !u.unsaved {
		return nil
	}
	return u.save()
}

// startNewAttempt records that the commands of the failed attempt no longer count. A
// device that did not answer may have received the command: then it is still the same
// attempt.
func (u *upgrade) startNewAttempt(failed error) error {
	if noAnswer(failed) {
		return nil
	}
	u.record.Tasks, u.record.Failed, u.verified = nil, nil, false
	return u.save()
}

// cleanupContext returns a context for restoring things at the end, even if ctx has
// ended.
func cleanupContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
}

// save records how far the procedure has got. From the download on, a journal that cannot
// be written no longer ends the procedure: the device would be left on trial or without
// its configuration data.
func (u *upgrade) save() error {
	err := u.saveOrEnd()
	changing := u.finished(StageUpdate) || u.record.task(mib.OperationKindDownloadSoftware) != nil
	if err == nil || errors.Is(err, ErrNotOwner) || !changing {
		return err
	}
	if !u.unrecorded {
		u.unrecorded = true
		u.warn(0, "the upgrade continues, but how far it gets is not recorded: "+err.Error())
	}
	return nil
}

// saveOrEnd records how far the procedure has got, or the procedure ends.
func (u *upgrade) saveOrEnd() error {
	if u.plan.Journal == nil {
		return nil
	}
	u.record.Format = recordFormat
	err := u.plan.Journal.Save(u.record)
	u.unsaved = u.unsaved && err != nil
	return err
}

// recordEnd records the end of a run that ended with err, and whether it succeeded or gave
// up and was not interrupted. It returns err, or why success could not be recorded.
func (u *upgrade) recordEnd(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrNotOwner):
		return err
	case u.plan.CheckOnly, err != nil && ctx.Err() != nil, errors.Is(err, ErrParked):
		if failed := u.flush(); failed != nil {
			u.plan.Log.Warn("the journal could not be written", "err", failed)
		}
		return err
	}
	u.record.Ended = true
	failed := u.save()
	if err == nil {
		return failed
	}
	if failed != nil {
		u.plan.Log.Warn("the journal could not be written", "err", failed)
	}
	return err
}

// summary completes the result with what the device runs now.
func (u *upgrade) summary(ctx context.Context) Result {
	u.result.NewVersion = ""
	if d, err := u.plan.Client.Device(ctx); err == nil {
		u.result.NewVersion, u.result.Rescue = d.Version, d.Rescue()
		u.result.OnDefaults = d.Generation == 0 && !d.Rescue()
	}
	if op, err := u.plan.Client.Operation(ctx); err == nil && op.ID != 0 && !op.Final() {
		u.result.StillRunning = op
	}
	u.result.Elapsed = u.plan.Clock.Now().Sub(u.started)
	return u.result
}

func noAnswer(err error) bool {
	var f *Failure
	return errors.As(err, &f) && f.NoAnswer
}

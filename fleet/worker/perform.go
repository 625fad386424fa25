package worker

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/store"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// perform takes the device through the procedure and stores how that ended.
func (r *run) perform() {
	defer r.lose()
	r.log.Info("run begins", "attempt", r.run.Attempt, "epoch", r.run.Epoch)
	r.emit(fleet.EventRun, string(fleet.RunRunning), "")
	d, err := r.reserve()
	if err != nil {
		r.end(nil, manager.Result{}, err)
		return
	}
	a, err := r.worker.connect(r.ctx, d, r.log)
	if err != nil {
		r.end(nil, manager.Result{}, err)
		return
	}
	var result manager.Result
	if r.campaign.Spec.Operation.ChangesAccess() {
		a, result, err = r.change(a, d)
	} else {
		result, err = r.procedure(a.client, d)
	}
	defer a.close()
	r.end(a, result, err)
}

// busyError: somebody else has to end first what keeps the run from its work.
type busyError struct{ reason string }

func (e *busyError) Error() string { return e.reason }

// reserve makes this campaign the only one that works on the device.
func (r *run) reserve() (*fleet.Device, error) {
	s := r.worker.cfg.Store
	return s.Devices.Change(r.ctx, func(d *fleet.Device) error {
		switch d.ActiveRun {
		case r.run.Campaign:
			return store.ErrUnchanged
		case "":
		default:
			// A worker that ended between its last two writes has left its name there.
			other, _, err := s.Runs.Get(r.ctx, d.ActiveRun, d.Name)
			if err != nil && !errors.Is(err, engine.ErrNotFound) {
				return err
			}
			if err == nil && !other.State.Final() {
				return &busyError{"campaign " + d.ActiveRun + " works on the device"}
			}
		}
		d.ActiveRun = r.run.Campaign
		return nil
	}, r.run.Device)
}

// procedure performs the operation of the campaign.
func (r *run) procedure(client *device.Client, d *fleet.Device) (manager.Result, error) {
	found, err := client.Device(r.ctx)
	if err != nil {
		return manager.Result{}, err
	}
	if err := r.recognize(d, client); err != nil {
		return manager.Result{}, err
	}
	if record := r.run.Record; record != nil && record.Stage == manager.StageDone {
		return manager.Result{Device: found.ID, OldVersion: record.OldVersion, NewVersion: found.Version}, nil
	}
	plan, operator, err := r.plan(client, d)
	if err != nil {
		return manager.Result{}, err
	}
	if stop, err := r.listen(found.ID, &plan); err != nil {
		return manager.Result{}, err
	} else if stop != nil {
		defer stop()
	}
	if plan.Resume {
		if err := r.fetchBackup(); err != nil {
			return manager.Result{}, err
		}
	}
	switch r.campaign.Spec.Operation {
	case fleet.OperationBackup:
		return manager.Backup(r.ctx, plan, operator, r.observe)
	case fleet.OperationRecover:
		dir, list, err := r.lastBackup(found.ID)
		if err != nil {
			return manager.Result{}, err
		}
		return manager.Recover(r.ctx, plan, dir, list, operator, r.observe)
	case fleet.OperationCheck:
		plan.CheckOnly = true
	}
	return manager.Upgrade(r.ctx, plan, operator, r.observe)
}

// recognize refuses a unit other than the one that the name stands for.
func (r *run) recognize(d *fleet.Device, client *device.Client) error {
	got := client.Identity()
	if r.campaign.Spec.Options.OtherDevice {
		return nil
	}
	return recognize(d, got)
}

// recognize refuses a unit other than the one that the name stands for.
func recognize(d *fleet.Device, got device.Identity) error {
	if d.Identity == nil || d.Identity.Same(got) {
		return nil
	}
	return &device.IdentityError{What: "the name " + device.Quoted(d.Name), Want: *d.Identity, Got: got,
		Remedy: "correct the address, or permit another device in the campaign's options if this is a replacement"}
}

// plan converts the options of the campaign.
func (r *run) plan(client *device.Client, d *fleet.Device) (manager.Plan, manager.Operator, error) {
	o := &r.campaign.Spec.Options
	w := r.worker
	plan := manager.Plan{
		Client: client, Files: fileServer{w.servers, r}, Owner: r.campaign.Owner(),
		SkipBackup: o.SkipBackup, Force: o.Force, AllowDowngrade: o.AllowDowngrade, OtherDevice: o.OtherDevice, DeviceRetries: o.DeviceRetries,
		Limits: manager.Limits{
			Backup: time.Duration(o.BackupLimit), Update: time.Duration(o.UpdateLimit),
			Restore: time.Duration(o.RestoreLimit), Recover: time.Duration(o.RecoverLimit),
		},
		Poll: w.cfg.Poll, Journal: journal{r}, Resume: r.run.Record != nil, Target: files.ConfiguredTarget{Name: d.Name}, Log: r.log,
	}
	var err error
	if plan.Protocol, err = device.ParseProtocol(cmp.Or(o.Protocol, "tftp")); err != nil {
		return plan, nil, err
	}
	if digest := r.campaign.Spec.Image; digest != "" {
		if record := r.run.Record; record != nil && len(record.ImageDigest) > 0 { // a person may have chosen another image
			digest = hex.EncodeToString(record.ImageDigest)
		}
		if plan.Image, err = w.image(r.ctx, digest); err != nil {
			return plan, nil, err
		}
	}
	if o.VerifyWith != "" {
		program, err := w.program(o.VerifyWith)
		if err != nil {
			return plan, nil, err
		}
		plan.Verify = func(ctx context.Context, found *device.Device) error {
			return program.run(ctx, nil, "IADMS_TARGET="+d.Name, "IADMS_DEVICE="+found.ID, "IADMS_SOFTWARE_VERSION="+found.Version)
		}
	}
	m := &modifier{run: r}
	if o.ConvertWith != "" {
		if m.program, err = w.program(o.ConvertWith); err != nil {
			return plan, nil, err
		}
		plan.ModifyFirst = true
	}
	plan.Modifier = m
	policies := &manager.Policies{Automatic: manager.Automatic{Retries: o.Retries}, Human: parking{r, m}}
	names := o.OnFailure
	if len(names) == 0 {
		names = []string{string(manager.PolicyAdvice), string(manager.PolicyAsk)}
	}
	for _, name := range names {
		p, err := manager.ParsePolicy(name, func(digest string) (*files.Image, error) { return w.image(r.ctx, digest) })
		if err != nil {
			return plan, nil, err
		}
		policies.List = append(policies.List, p)
	}
	return plan, answered{parking{r, m}, policies}, nil
}

// observe notes what happens, for people.
func (r *run) observe(u manager.Update) {
	p := fleet.Progress{Step: u.Step, Text: u.Text, Time: u.Time.UTC()}
	if op := u.Operation; op != nil {
		p.Phase = op.Phase.String()
		if op.Percent <= 100 {
			p.Percent = int(op.Percent)
		}
	}
	r.mu.Lock()
	if p.Step == 0 {
		p.Step = r.run.Progress.Step
	}
	r.run.Progress = p // stored with the next change of the journal
	r.mu.Unlock()
	switch u.Kind {
	case manager.Progressed:
		r.showProgress(u.Time)
		return
	case manager.StepBegins, manager.StepFails, manager.Warned:
	default: // of interest for a single device only
		r.log.Debug(string(u.Kind), "step", int(u.Step), "text", u.Text)
		return
	}
	r.worker.emit(r.ctx, &fleet.Event{
		Kind: fleet.EventStep, Campaign: r.run.Campaign, Device: r.run.Device, State: string(u.Kind), Text: u.Text, Progress: p,
	})
}

// progressPause is the minimum pause before progress alone is stored.
const progressPause = 5 * time.Second

// showProgress stores progress if nothing was stored for a while.
func (r *run) showProgress(now time.Time) {
	r.mu.Lock()
	late := now.Sub(r.stored) >= progressPause
	r.mu.Unlock()
	if !late {
		return
	}
	if err := r.update(r.ctx, func(*fleet.Run) {}); err != nil {
		r.log.Warn("run lost", "err", err)
	}
}

func (r *run) emit(kind fleet.EventKind, state, text string) {
	r.worker.emit(r.lease.Context(), &fleet.Event{Kind: kind, Campaign: r.run.Campaign, Device: r.run.Device, State: state, Text: text})
}

// lastBackup returns the newest good backup of the device, copied to this machine. The name
// in the inventory may have stood for another unit, whose data are for this one only if the
// campaign permits it.
func (r *run) lastBackup(deviceID string) (string, []files.BackupFile, error) {
	list, damaged, err := r.worker.cfg.Store.Backups.ListAll(r.ctx, r.run.Device)
	if err != nil {
		return "", nil, err
	}
	list = slices.DeleteFunc(list, func(b *fleet.Backup) bool { return !b.Good || b.EditOf != "" })
	if len(list) == 0 {
		return "", nil, fmt.Errorf("%s has no good backup; run a campaign that backs it up first", r.run.Device)
	}
	if !r.campaign.Spec.Options.OtherDevice {
		other := list[0].DeviceID
		if list = slices.DeleteFunc(list, func(b *fleet.Backup) bool { return b.DeviceID != deviceID }); len(list) == 0 {
			return "", nil, fmt.Errorf("%s has good backups of another device only (%s, this is %s); run a campaign that backs it up first, "+
				"or permit another device in the campaign's options if this is a replacement", r.run.Device, device.Quoted(other), device.Quoted(deviceID))
		}
	}
	last := slices.MaxFunc(list, func(a, b *fleet.Backup) int { return strings.Compare(a.ID, b.ID) })
	for _, key := range damaged {
		if key[1] > last.ID { // it may be the last good one
			return "", nil, fmt.Errorf("backup %s of %s is damaged and newer than the last good one, %s; back up the device again, or have an admin remove the damaged backup", key[1], r.run.Device, last.ID)
		}
	}
	// The manager compares the device with the one that the directory is named after.
	dir := path.Join("backup", device.DirectoryName(last.DeviceID), last.ID)
	if err := r.fetch(last, dir); err != nil {
		return "", nil, err
	}
	backup, err := files.ReadBackup(r.worker.local, dir)
	return dir, backup, err
}

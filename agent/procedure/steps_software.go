package procedure

import (
	"context"
	"fmt"

	"example.com/iad/mib"
)

// checkDownload looks at what may have changed since the request, and whether
// the version asked for is there already (see iadUpgReqVersion).
func (t *task) checkDownload() error {
	st := t.e.cfg.Banks.Status()
	p := &t.op.Params
	if st.OnTrial() {
		return failure(mib.FailCauseBankUnavailable, fmt.Sprintf("the software in bank %d is on trial, the other bank is its fallback", st.Running))
	}
	if p.Version == "" || p.Options.Has(Force) {
		return nil
	}
	if st.Bank(st.Running).Version == p.Version {
		return failure(mib.FailCauseAlreadyInstalled, cut("version "+p.Version+" is running"))
	}
	n := int(p.Bank)
	if n == 0 {
		n = st.Other(false)
	}
	b := st.Bank(n)
	if b.Version != p.Version || b.State != mib.BankStateReady && b.State != mib.BankStateGood {
		return nil
	}
	// What turns out to be damaged, or not acceptable any more, is fetched.
	if err := t.e.cfg.Banks.Check(t.ctx, n, p.Options.Has(AllowDowngrade)); err == nil {
		t.alreadyInBank = true
		t.stored(n, b.Version)
	}
	return nil
}

// mustFetch reports whether there is something to download.
func (t *task) mustFetch() bool { return !t.alreadyInBank }

// stored notes which software the operation is about.
func (t *task) stored(n int, version string) {
	t.op.Bank, t.op.NewVersion = n, version
	t.update(func(j *journal) { j.Op.Bank, j.Op.NewVersion = n, version })
}

// install fetches the software into the other bank.
func (t *task) install() error {
	row := t.rows[mib.FileTypeSoftware-1]
	t.file(row.Name)
	if !t.op.Params.Options.Has(CheckOnly) {
		t.stored(t.other(), "")
	}
	var done uint64
	phase, next := t.op.Phase, t.e.cfg.Banks.Status().Next
	in, err := t.e.cfg.Banks.Install(t.ctx, t.conn, row.Name, Install{
		Bank: int(t.op.Params.Bank), Options: t.op.Params.Options, Version: t.op.Params.Version,
		Size: row.Size, Digest: row.Digest, CheckOnly: t.op.Params.Options.Has(CheckOnly),
		Progress: func(p mib.OperationPhase, d, total uint64) {
			t.phase(p)
			if p != phase {
				phase, next = p, t.noteNext(next)
			}
			switch p {
			case mib.OperationPhaseErasing:
				t.transfers()
			case mib.OperationPhaseTransferring:
				done = d
				t.progress(d, total)
			case mib.OperationPhaseVerifying:
				t.verified(d, total)
			}
		},
	})
	t.noteNext(next)
	if err != nil {
		t.result(mib.FileTypeSoftware, FileResult{Result: classify(err).Code, Size: done, Digest: in.Digest})
		return err
	}
	t.result(mib.FileTypeSoftware, FileResult{Result: mib.FailCauseNone, Size: in.Size, Digest: in.Digest})
	if !t.op.Params.Options.Has(CheckOnly) {
		t.stored(in.Bank, in.Version)
	}
	return nil
}

// other returns the bank that a request means: the one named, or the one that
// does not run, see BankStatus.Other.
func (t *task) other() int {
	if t.op.Bank != 0 {
		return t.op.Bank
	}
	if t.op.Params.Bank != 0 {
		return int(t.op.Params.Bank)
	}
	return t.e.cfg.Banks.Status().Other(t.op.Kind == mib.OperationKindDownloadSoftware)
}

// checkActivate judges the software to activate.
func (t *task) checkActivate() error {
	n := t.other()
	if v := t.e.cfg.Banks.Status().Bank(n).Version; t.op.Params.Version != "" && v != t.op.Params.Version {
		return failure(mib.FailCauseVersionMismatch, fmt.Sprintf("bank %d holds version %s, not %s", n, v, t.op.Params.Version))
	}
	return t.e.cfg.Banks.Check(t.ctx, n, t.op.Params.Options.Has(AllowDowngrade))
}

// checkCalls refuses a restart while calls are in progress.
func (t *task) checkCalls() error {
	if n := t.e.cfg.Device.Calls(); n > 0 && !t.op.Params.Options.Has(Force) {
		return failure(mib.FailCauseServiceInUse, fmt.Sprintf("%d calls in progress", n))
	}
	return nil
}

// activate makes the new bank the next one.
func (t *task) activate() error {
	n := t.other()
	t.op.Bank = n
	if t.op.Params.Options.Has(ThenReset) || t.takesOver() {
		if err := t.checkCalls(); err != nil {
			return err
		}
	}
	b := t.e.cfg.Banks.Status().Bank(n)
	err := t.pointOfNoReturn(mib.OperationPhaseSwitching, func(j *journal) {
		j.Op.Bank, j.Op.NewVersion = n, b.Version
		j.Trial = trial{Bank: n, OpID: j.Op.ID, ReqID: j.Op.Params.ReqID, Kind: j.Op.Kind}
	})
	if err != nil {
		return err
	}
	if err := t.e.cfg.Banks.Activate(n); err != nil {
		return err
	}
	t.switched(n)
	return nil
}

// noteNext reports the next bank if it is another one than before, and returns it: a
// download takes an activation back that no restart has followed yet.
func (t *task) noteNext(before int) int {
	n := t.e.cfg.Banks.Status().Next
	if n != before {
		t.switched(n)
	}
	return n
}

// switched reports another next bank.
func (t *task) switched(n int) {
	_ = t.e.call(func() {
		if n == t.e.cfg.Banks.Status().Running {
			t.e.j.Trial = trial{} // taken back: there is nothing to try
		}
		t.e.event(mib.EventTypeBankSwitched, func(ev *Event) {
			t.e.aboutBank(n)(ev)
			ev.Text = t.e.unrecorded()
		})
		_ = t.e.persist()
	})
}

// takesOver reports whether software and device can do without a restart;
// elsewhere the next restart puts the software to use.
func (t *task) takesOver() bool {
	return !t.e.cfg.Banks.Status().Bank(t.op.Bank).NeedsReset && t.e.cfg.Device.TakesOver()
}

// takeOver puts software to use without a restart.
func (t *task) takeOver() error {
	if err := t.e.cfg.Banks.TakeOver(t.op.Bank); err != nil {
		if t.e.cfg.Banks.Status().Running != t.op.Bank {
			// It never ran: the old software stays, also after a restart.
			before := t.e.cfg.Banks.Status().Next
			if _, back := t.e.cfg.Banks.Restore(); back != nil {
				t.e.log.Error("the activation could not be taken back", "bank", t.op.Bank, "err", back)
			}
			t.noteNext(before)
		}
		return err
	}
	if err := t.e.call(t.e.openWindow); err != nil {
		return err
	}
	return t.try()
}

// restart ends this part of the plan; the device restarts.
func (t *task) restart() error {
	reason := mib.RestartReasonCommanded
	switch t.op.Kind {
	case mib.OperationKindDownloadSoftware, mib.OperationKindActivate:
		reason = mib.RestartReasonActivation
	case mib.OperationKindRestoreOldSoftware:
		reason = mib.RestartReasonRollback
	}
	err := t.pointOfNoReturn(mib.OperationPhaseRestarting, func(j *journal) { j.Expected = t.e.cfg.Banks.Status().Next })
	if err != nil {
		return err
	}
	return &restartWanted{reason}
}

// checkRestore looks for software to go back to.
func (t *task) checkRestore() error {
	n, err := t.e.cfg.Banks.CheckFallback()
	if err != nil {
		return err
	}
	st := t.e.cfg.Banks.Status()
	if v := st.Bank(n).Version; t.op.Params.Version != "" && v != t.op.Params.Version {
		return failure(mib.FailCauseVersionMismatch, fmt.Sprintf("the fallback is version %s, not %s", v, t.op.Params.Version))
	}
	if n == st.Running {
		return nil
	}
	return t.checkCalls()
}

// restore makes the fallback the next one.
func (t *task) restore() error {
	n, err := t.e.cfg.Banks.CheckFallback()
	if err != nil {
		return err
	}
	v := t.e.cfg.Banks.Status().Bank(n).Version
	err = t.pointOfNoReturn(mib.OperationPhaseSwitching, func(j *journal) { j.Op.Bank, j.Op.NewVersion = n, v })
	if err != nil {
		return err
	}
	before := t.e.cfg.Banks.Status().Next
	if n, err = t.e.cfg.Banks.Restore(); err != nil {
		return err
	}
	t.op.Bank = n
	if before != n {
		t.switched(n)
	}
	return nil
}

// switchedBanks reports whether the old software needs a restart to run.
func (t *task) switchedBanks() bool { return t.op.Bank != t.e.cfg.Banks.Status().Running }

// cameBack reports whether the old software was started by the operation; what
// ran all the time was tested long ago.
func (t *task) cameBack() bool { return t.op.Phase == mib.OperationPhaseTrying }

// try runs the self-test of the software that the operation put to use.
func (t *task) try() error {
	if err := t.pointOfNoReturn(mib.OperationPhaseTrying, nil); err != nil {
		return err
	}
	if err := t.e.selfTest(t.ctx); err != nil {
		return err
	}
	return t.e.call(t.e.trialPassed)
}

// selfTest runs the device's test; its error always has a cause.
func (e *Engine) selfTest(ctx context.Context) error {
	err := e.cfg.Device.SelfTest(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if mib.CauseOf(err, 0) != 0 {
		return err
	}
	return failure(mib.FailCauseSelfTestFailed, cut(err.Error()))
}

package procedure

import "example.com/iad/mib"

// checkCommand refuses what can be seen to be impossible before any work (see
// iadUpgReqCommand). What needs the server or the file is found out later.
func (e *Engine) checkCommand(kind mib.OperationKind, s *Settings) *Refusal {
	p := &s.Params
	switch {
	case kind > mib.OperationKindConfirm:
		return refuse(WrongValue, mib.FailCauseUnsupported, "there is no operation %d", kind)
	case kind == mib.OperationKindAbort:
		return e.checkAbort(p)
	case kind == mib.OperationKindConfirm:
		return e.checkConfirm()
	case !e.j.Op.State.Final():
		return refuse(Inconsistent, mib.FailCauseBusy, "operation %d (%s) is %s", e.j.Op.ID, e.j.Op.Kind, e.j.Op.State)
	}
	for _, check := range []func(mib.OperationKind, *Settings) *Refusal{e.checkOptions, e.checkFiles, e.checkServer, e.checkBank} {
		if r := check(kind, s); r != nil {
			return r
		}
	}
	return nil
}

func (e *Engine) checkAbort(p *Params) *Refusal {
	op := &e.j.Op
	switch {
	case p.TargetOp != 0 && p.TargetOp != op.ID:
		return refuse(Inconsistent, mib.FailCauseBadRequest, "the last operation is %d, not %d", op.ID, p.TargetOp)
	case op.State.Final() || op.State == mib.OperationStateAborting:
		return nil
	case !e.stoppable():
		return refuse(Inconsistent, mib.FailCauseNotPermitted, "operation %d is %s: too late to abort", op.ID, op.Phase)
	}
	return nil
}

func (e *Engine) checkConfirm() *Refusal {
	st := e.cfg.Banks.Status()
	switch {
	case st.OnTrial() && !e.tested:
		return refuse(Inconsistent, mib.FailCausePreconditionMissing, "the self-test of the software on trial has not passed yet")
	case !st.OnTrial() && st.Next != st.Running && st.Bank(st.Next).State == mib.BankStateTrial:
		return refuse(Inconsistent, mib.FailCausePreconditionMissing, "the software on trial has not started yet: reset first")
	}
	return nil
}

// allowedOptions are the options that mean something to a kind of operation.
var allowedOptions = map[mib.OperationKind]Options{
	mib.OperationKindBackupConfig:       CheckOnly,
	mib.OperationKindDownloadSoftware:   Force | AllowDowngrade | ThenActivate | ThenReset | CheckOnly,
	mib.OperationKindActivate:           Force | AllowDowngrade | ThenReset | CheckOnly,
	mib.OperationKindReset:              Force | CheckOnly,
	mib.OperationKindRestoreOldSoftware: Force | CheckOnly,
	mib.OperationKindRecoverConfig:      Force | ThenReset | ConvertFirst | CheckOnly,
	mib.OperationKindConvertConfig:      CheckOnly,
}

func (e *Engine) checkOptions(kind mib.OperationKind, s *Settings) *Refusal {
	o := s.Params.Options
	if bad := o &^ allowedOptions[kind]; bad != 0 {
		return refuse(Inconsistent, mib.FailCauseBadRequest, "the option %s does not apply to %s", bad, kind)
	}
	if kind == mib.OperationKindDownloadSoftware && o.Has(ThenReset) && !o.Has(ThenActivate) {
		return refuse(Inconsistent, mib.FailCauseBadRequest, "thenReset needs thenActivate")
	}
	if l := s.Params.TimeLimit; l != 0 && l <= s.Params.Delay {
		return refuse(Inconsistent, mib.FailCauseBadRequest, "the time limit of %d s ends within the delay of %d s", l, s.Params.Delay)
	}
	if e.restartsAtOnce(kind, o) && !o.Has(Force) && s.Params.Delay == 0 {
		if e.inUse > 0 {
			return refuse(Unavailable, mib.FailCauseServiceInUse, "%d calls in progress", e.inUse)
		}
	}
	return nil
}

// restartsAtOnce reports whether an operation restarts the device soon after its
// start.
func (e *Engine) restartsAtOnce(kind mib.OperationKind, o Options) bool {
	switch kind {
	case mib.OperationKindReset:
		return !o.Has(CheckOnly)
	case mib.OperationKindRestoreOldSoftware:
		n, err := e.cfg.Banks.CheckFallback()
		return err == nil && n != e.cfg.Banks.Status().Running && !o.Has(CheckOnly)
	case mib.OperationKindActivate:
		return o.Has(ThenReset) && !o.Has(CheckOnly)
	}
	return false
}

func (e *Engine) checkFiles(kind mib.OperationKind, s *Settings) *Refusal {
	files := s.Params.Files
	switch kind {
	case mib.OperationKindDownloadSoftware:
		if files&^SetOf(mib.FileTypeSoftware) != 0 {
			return refuse(Inconsistent, mib.FailCauseBadRequest, "downloadSoftware is for software only")
		}
	case mib.OperationKindBackupConfig, mib.OperationKindRecoverConfig, mib.OperationKindConvertConfig:
		if files&^AllConfig != 0 {
			return refuse(Inconsistent, mib.FailCauseBadRequest, "%s is for configuration data only", kind)
		}
	}
	_, used := usedRows(kind, &s.Params)
	for _, k := range used.Kinds() {
		if s.Files[k-1].Name == "" {
			return refuse(Inconsistent, mib.FailCauseBadRequest, "iadUpgFileName.%d (%s) is empty", k, k)
		}
	}
	return nil
}

func (e *Engine) checkServer(kind mib.OperationKind, s *Settings) *Refusal {
	switch kind {
	case mib.OperationKindBackupConfig, mib.OperationKindDownloadSoftware, mib.OperationKindRecoverConfig:
	default:
		return nil
	}
	n := s.Params.Server
	if n == 0 {
		return refuse(Inconsistent, mib.FailCauseBadRequest, "iadUpgReqServer is 0: name a server")
	}
	if n > Servers || !s.Servers[n-1].InUse() {
		return refuse(Inconsistent, mib.FailCauseBadRequest, "server %d has no address: write iadUpgServerAddress.%d", n, n)
	}
	if p := s.Servers[n-1].Protocol; !e.cfg.Fetcher.Supports(p) {
		return refuse(Inconsistent, mib.FailCauseUnsupportedProtocol, "%s is not supported", p)
	}
	return nil
}

func (e *Engine) checkBank(kind mib.OperationKind, s *Settings) *Refusal {
	st := e.cfg.Banks.Status()
	n := int(s.Params.Bank)
	if n == 0 {
		n = st.Other(kind == mib.OperationKindDownloadSoftware)
	}
	switch kind {
	case mib.OperationKindRecoverConfig, mib.OperationKindConvertConfig:
		if st.Running == 0 {
			return refuse(Inconsistent, mib.FailCausePreconditionMissing, "rescue mode: no software is running for %s; install software with downloadSoftware first", kind)
		}
	}
	switch kind {
	case mib.OperationKindDownloadSoftware:
		if n == st.Running {
			return refuse(Inconsistent, mib.FailCauseBankUnavailable, "bank %d is running", n)
		}
		if st.OnTrial() {
			return refuse(Inconsistent, mib.FailCauseBankUnavailable, "the software in bank %d is on trial, bank %d is its fallback", st.Running, n)
		}
	case mib.OperationKindActivate:
		if n == st.Running {
			return refuse(Inconsistent, mib.FailCauseBankUnavailable, "bank %d is running already", n)
		}
		if st.OnTrial() {
			return refuse(Inconsistent, mib.FailCauseBankUnavailable, "the software in bank %d is on trial: confirm it first, or restoreOldSoftware", st.Running)
		}
		switch b := st.Bank(n); b.State {
		case mib.BankStateReady, mib.BankStateGood, mib.BankStateTrial:
		default:
			return refuse(Inconsistent, mib.FailCausePreconditionMissing, "bank %d holds no software that is ready to be activated", n)
		}
	case mib.OperationKindRestoreOldSoftware:
		if _, err := e.cfg.Banks.CheckFallback(); err != nil {
			return refuse(Inconsistent, mib.FailCauseNoFallback, "%s", err)
		}
	case mib.OperationKindConvertConfig:
		if !e.cfg.Store.HasOtherFormat() {
			return refuse(Inconsistent, mib.FailCausePreconditionMissing, "the device holds no configuration data in another format")
		}
	}
	return nil
}

package procedure

import "slices"

// planFor returns the phases of an operation. It depends only on what is
// journaled, so that a plan can be taken up again after a restart. A step
// without a function is a phase that another step reports.
func planFor(op *Operation) []step {
	o := op.Params.Options
	var plan []step
	switch op.Kind {
	case BackupConfig:
		plan = []step{
			{Collecting, 5, (*task).collect},
			{Connecting, 5, (*task).connect},
			{Transferring, 75, (*task).upload},
			{Verifying, 15, (*task).readBack},
		}
	case DownloadSoftware:
		plan = []step{
			{Checking, 1, (*task).checkDownload},
			{Connecting, 2, (*task).connect},
			{Erasing, 2, nil}, // a phase within install
			{Transferring, 65, (*task).install},
			{Verifying, 10, nil}, // this, too
		}
		if o.Has(ThenActivate) && !o.Has(CheckOnly) {
			plan = append(plan, switchSteps(o)...)
		}
	case Activate:
		plan = []step{{Checking, 30, (*task).checkActivate}}
		if !o.Has(CheckOnly) {
			plan = append(plan, switchSteps(o)...)
		}
	case Reset:
		plan = []step{{Checking, 10, (*task).checkCalls}}
		if !o.Has(CheckOnly) {
			plan = append(plan, step{PhaseRestarting, 90, (*task).restart})
		}
	case RestoreOldSoftware:
		plan = []step{{Checking, 10, (*task).checkRestore}}
		if !o.Has(CheckOnly) {
			plan = append(plan,
				step{Switching, 20, (*task).restore},
				step{PhaseRestarting, 20, (*task).restart},
				step{Trying, 50, (*task).try})
		}
	case RecoverConfig:
		plan = []step{
			{Connecting, 5, (*task).connect},
			{Transferring, 55, (*task).download},
			{Verifying, 10, (*task).examine},
			{Converting, 15, (*task).convert},
			{Applying, 15, (*task).apply},
		}
		if o.Has(ThenReset) && !o.Has(CheckOnly) {
			plan = append(plan, step{PhaseRestarting, 20, (*task).restart})
		}
	case ConvertConfig:
		plan = []step{
			{Checking, 10, (*task).findOther},
			{Converting, 60, (*task).convert},
			{Applying, 30, (*task).apply},
		}
	}
	return plan
}

// Plan returns the phases of an operation in their order. One that needs nothing
// of a phase goes through it at once.
func Plan(kind Kind, o Options) []Phase {
	var phases []Phase
	for _, s := range planFor(&Operation{Kind: kind, Params: Params{Options: o}}) {
		phases = append(phases, s.phase)
	}
	return phases
}

// switchSteps are the steps from ready software to software in use.
func switchSteps(o Options) []step {
	steps := []step{{Switching, 3, (*task).activate}}
	if o.Has(ThenReset) {
		return append(steps, step{PhaseRestarting, 7, (*task).restart}, step{Trying, 10, (*task).try})
	}
	return append(steps, step{Trying, 10, (*task).takeOver})
}

// indexOf finds a phase in a plan, len(plan) if it is not there.
func indexOf(plan []step, p Phase) int {
	i := slices.IndexFunc(plan, func(s step) bool { return s.phase == p })
	if i < 0 {
		return len(plan)
	}
	return i
}

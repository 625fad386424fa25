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
			{phase: Collecting, weight: 5, do: (*task).collect},
			{phase: Connecting, weight: 5, do: (*task).connect},
			{phase: Transferring, weight: 75, do: (*task).upload},
			{phase: Verifying, weight: 15, do: (*task).readBack},
		}
	case DownloadSoftware:
		plan = []step{
			{phase: Checking, weight: 1, do: (*task).checkDownload},
			{phase: Connecting, weight: 2, do: (*task).connect, needed: (*task).fetches},
			{phase: Erasing, weight: 2}, // a phase within install
			{phase: Transferring, weight: 65, do: (*task).install, needed: (*task).fetches, enters: true},
			{phase: Verifying, weight: 10}, // this, too
		}
		if o.Has(ThenActivate) && !o.Has(CheckOnly) {
			plan = append(plan, switchSteps(o)...)
		}
	case Activate:
		plan = []step{{phase: Checking, weight: 30, do: (*task).checkActivate}}
		if !o.Has(CheckOnly) {
			plan = append(plan, switchSteps(o)...)
		}
	case Reset:
		plan = []step{{phase: Checking, weight: 10, do: (*task).checkCalls}}
		if !o.Has(CheckOnly) {
			plan = append(plan, step{phase: PhaseRestarting, weight: 90, do: (*task).restart})
		}
	case RestoreOldSoftware:
		plan = []step{{phase: Checking, weight: 10, do: (*task).checkRestore}}
		if !o.Has(CheckOnly) {
			plan = append(plan,
				step{phase: Switching, weight: 20, do: (*task).restore},
				step{phase: PhaseRestarting, weight: 20, do: (*task).restart, needed: (*task).switchedBanks},
				step{phase: Trying, weight: 50, do: (*task).try, needed: (*task).cameBack})
		}
	case RecoverConfig:
		plan = []step{
			{phase: Connecting, weight: 5, do: (*task).connect},
			{phase: Transferring, weight: 55, do: (*task).download},
			{phase: Verifying, weight: 10, do: (*task).examine},
			{phase: Converting, weight: 15, do: (*task).convert, needed: (*task).otherFormat},
			{phase: Applying, weight: 15, do: (*task).apply},
		}
		if o.Has(ThenReset) && !o.Has(CheckOnly) {
			plan = append(plan, step{phase: PhaseRestarting, weight: 20, do: (*task).restart})
		}
	case ConvertConfig:
		plan = []step{
			{phase: Checking, weight: 10, do: (*task).findOther},
			{phase: Converting, weight: 60, do: (*task).convert},
			{phase: Applying, weight: 30, do: (*task).apply},
		}
	}
	return plan
}

// Plan returns the phases of an operation in their order. One that has nothing
// to do in a phase leaves it out.
func Plan(kind Kind, o Options) []Phase {
	var phases []Phase
	for _, s := range planFor(&Operation{Kind: kind, Params: Params{Options: o}}) {
		phases = append(phases, s.phase)
	}
	return phases
}

// switchSteps are the steps from ready software to software in use.
func switchSteps(o Options) []step {
	steps := []step{{phase: Switching, weight: 3, do: (*task).activate}}
	if o.Has(ThenReset) {
		return append(steps,
			step{phase: PhaseRestarting, weight: 7, do: (*task).restart},
			step{phase: Trying, weight: 10, do: (*task).try})
	}
	return append(steps, step{phase: Trying, weight: 10, do: (*task).takeOver, needed: (*task).takesOver})
}

// indexOf finds a phase in a plan, len(plan) if it is not there.
func indexOf(plan []step, p Phase) int {
	i := slices.IndexFunc(plan, func(s step) bool { return s.phase == p })
	if i < 0 {
		return len(plan)
	}
	return i
}

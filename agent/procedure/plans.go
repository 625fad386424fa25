package procedure

import (
	"slices"

	"example.com/iad/mib"
)

// planFor returns the phases of an operation. It depends only on what is
// journaled, so that a plan can be taken up again after a restart. A step
// without a function is a phase that another step reports.
func planFor(op *Operation) []step {
	o := op.Params.Options
	var plan []step
	switch op.Kind {
	case mib.OperationKindBackupConfig:
		plan = []step{
			{phase: mib.OperationPhaseCollecting, weight: 5, do: (*task).collect},
			{phase: mib.OperationPhaseConnecting, weight: 5, do: (*task).connect},
			{phase: mib.OperationPhaseTransferring, weight: 75, do: (*task).upload},
			{phase: mib.OperationPhaseVerifying, weight: 15, do: (*task).readBack},
		}
	case mib.OperationKindDownloadSoftware:
		plan = []step{
			{phase: mib.OperationPhaseChecking, weight: 1, do: (*task).checkDownload},
			{phase: mib.OperationPhaseConnecting, weight: 2, do: (*task).connect, needed: (*task).mustFetch},
			{phase: mib.OperationPhaseErasing, weight: 2}, // a phase within install
			{phase: mib.OperationPhaseTransferring, weight: 65, do: (*task).install, needed: (*task).mustFetch, enters: true},
			{phase: mib.OperationPhaseVerifying, weight: 10}, // this, too
		}
		if o.Has(ThenActivate) && !o.Has(CheckOnly) {
			plan = append(plan, switchSteps(o)...)
		}
	case mib.OperationKindActivate:
		plan = []step{{phase: mib.OperationPhaseChecking, weight: 30, do: (*task).checkActivate}}
		if !o.Has(CheckOnly) {
			plan = append(plan, switchSteps(o)...)
		}
	case mib.OperationKindReset:
		plan = []step{{phase: mib.OperationPhaseChecking, weight: 10, do: (*task).checkCalls}}
		if !o.Has(CheckOnly) {
			plan = append(plan, step{phase: mib.OperationPhaseRestarting, weight: 90, do: (*task).restart})
		}
	case mib.OperationKindRestoreOldSoftware:
		plan = []step{{phase: mib.OperationPhaseChecking, weight: 10, do: (*task).checkRestore}}
		if !o.Has(CheckOnly) {
			plan = append(plan,
				step{phase: mib.OperationPhaseSwitching, weight: 20, do: (*task).restore},
				step{phase: mib.OperationPhaseRestarting, weight: 20, do: (*task).restart, needed: (*task).switchedBanks},
				step{phase: mib.OperationPhaseTrying, weight: 50, do: (*task).try, needed: (*task).cameBack})
		}
	case mib.OperationKindRecoverConfig:
		plan = []step{
			{phase: mib.OperationPhaseConnecting, weight: 5, do: (*task).connect},
			{phase: mib.OperationPhaseTransferring, weight: 55, do: (*task).download},
			{phase: mib.OperationPhaseVerifying, weight: 10, do: (*task).examine},
			{phase: mib.OperationPhaseConverting, weight: 15, do: (*task).convert, needed: (*task).otherFormat},
			{phase: mib.OperationPhaseApplying, weight: 15, do: (*task).apply},
		}
		if o.Has(ThenReset) && !o.Has(CheckOnly) {
			plan = append(plan, step{phase: mib.OperationPhaseRestarting, weight: 20, do: (*task).restart})
		}
	case mib.OperationKindConvertConfig:
		plan = []step{
			{phase: mib.OperationPhaseChecking, weight: 10, do: (*task).findOther},
			{phase: mib.OperationPhaseConverting, weight: 60, do: (*task).convert},
			{phase: mib.OperationPhaseApplying, weight: 30, do: (*task).apply},
		}
	}
	return plan
}

// Plan returns the phases of an operation in their order. One that has nothing
// to do in a phase leaves it out.
func Plan(kind mib.OperationKind, o Options) []mib.OperationPhase {
	var phases []mib.OperationPhase
	for _, s := range planFor(&Operation{Kind: kind, Params: Params{Options: o}}) {
		phases = append(phases, s.phase)
	}
	return phases
}

// switchSteps are the steps from ready software to software in use.
func switchSteps(o Options) []step {
	steps := []step{{phase: mib.OperationPhaseSwitching, weight: 3, do: (*task).activate}}
	if o.Has(ThenReset) {
		return append(steps,
			step{phase: mib.OperationPhaseRestarting, weight: 7, do: (*task).restart},
			step{phase: mib.OperationPhaseTrying, weight: 10, do: (*task).try})
	}
	return append(steps, step{phase: mib.OperationPhaseTrying, weight: 10, do: (*task).takeOver, needed: (*task).takesOver})
}

// indexOf finds a phase in a plan, len(plan) if it is not there.
func indexOf(plan []step, p mib.OperationPhase) int {
	i := slices.IndexFunc(plan, func(s step) bool { return s.phase == p })
	if i < 0 {
		return len(plan)
	}
	return i
}

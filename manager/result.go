package manager

import (
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// StepResult sums up one operation of the procedure.
type StepResult struct {
	Step    Step
	Kind    mib.OperationKind
	Elapsed time.Duration
	Bytes   uint32 `json:"Octets"` // the name in journals
}

// Result sums up an upgrade or a part of one, whether it succeeded or not.
type Result struct {
	Device     string
	OldVersion string // empty: rescue mode
	NewVersion string // what runs at the end; empty if the device did not answer, or with Rescue
	Rescue     bool   // no software runs at the end: rescue mode
	Directory  string // of the backup: on this machine, or else on the file server
	Place      string // for people: where the backup is; empty if none was made
	Backup     []files.BackupFile
	Operations []StepResult
	Elapsed    time.Duration
	// OnDefaults: no configuration data are in force at the end; the device runs on
	// defaults.
	OnDefaults bool
	// Unchanged: there was nothing to do.
	Unchanged bool
	// StillRunning is the operation that the device is still carrying out at the end; nil:
	// none.
	StillRunning *device.Operation
}

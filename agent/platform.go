package agent

import (
	"context"
	"errors"

	"github.com/spf13/afero"

	"example.com/iad/agent/config"
	"example.com/iad/mib"
)

// Program names a program that a step runs: a payload of a software bank, or,
// with Payload empty, whatever the board has for it.
type Program struct {
	Bank    int
	Payload string
}

// SelfTest describes a run of a self-test.
type SelfTest struct {
	Program
	Version string
	// Generation is the configuration data in force, 0 for the defaults of
	// the software.
	Generation uint32
}

// Conversion is one run of a conversion program, PROGRAM FROM TO INDIR OUTDIR.
// The directories lie in the file system Config.Work.
type Conversion struct {
	Program
	From, To      uint32
	InDir, OutDir string
}

// ErrNotHandedOver is wrapped by errors of Platform.ApplyConfig if configuration
// data could not be written for the software, which kept the previous ones.
var ErrNotHandedOver = errors.New("configuration data not handed over")

// Platform is what a board provides. Its methods may be called from several
// goroutines.
type Platform interface {
	// SelfTest reports whether the running software is healthy; its error says
	// why not. A test without a payload is passed if the board has no test of
	// its own.
	SelfTest(ctx context.Context, t SelfTest) error
	// Convert runs a conversion program. An error that wraps
	// fs.ErrNotExist says that there is none.
	Convert(ctx context.Context, c Conversion) error
	// CanConvert reports whether the board has a program of its own for it.
	CanConvert(from, to uint32) bool
	// CheckConfig judges configuration data before they are put in force.
	CheckConfig(set config.Set) error
	// ApplyConfig puts them to use; needsReset is true if they take effect
	// only after a restart. The set is empty for the defaults. An error that
	// wraps ErrNotHandedOver means that the software kept the previous data;
	// the agent tries again later where they should be in force.
	ApplyConfig(ctx context.Context, g config.Generation, set config.Set) (needsReset bool, err error)
	// Calls is the number of calls in progress.
	Calls() int
	// TakesOver reports whether new software can be put to use without a
	// restart.
	TakesOver() bool
	// Capacity is the size of bank n in bytes, 0 for unknown.
	Capacity(n int) int64
	// Free is the room left in bank n in bytes.
	Free(n int) (int64, error)
	// DropCache makes the next reading of a synced file come from the medium.
	DropCache(f afero.File) error
	// DropRange waits until n bytes of a file from offset on, which need not be synced,
	// are on the medium, and makes the next reading of them come from there. It returns
	// an error where it cannot.
	DropRange(f afero.File, offset, n int64) error
	// Checkpoint makes what is synced in bank n readable without the journal of its
	// file system, for a boot loader.
	Checkpoint(n int) error
	// Kick resets the timer of the watchdog.
	Kick()
	// BootReason is the reason for the last start as reported by the hardware, 0 if
	// unknown.
	BootReason() mib.RestartReasonEnum
}

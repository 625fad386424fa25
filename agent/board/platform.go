package board

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/config"
	"example.com/iad/mib"
)

// Platform is a device that runs Linux: banks are directories, usually the mounts
// of partitions, and what the board does by itself are programs.
type Platform struct {
	// Banks are the directories of the banks.
	Banks [2]string
	// BankSize is the capacity of a bank in bytes; 0 means all of its
	// partition.
	BankSize int64
	// Work is the directory that is agent.Config.Work.
	Work string
	// Data is the directory that is agent.Config.Data. Where it or another part shares
	// the file system of a bank, an update leaves it room.
	Data string
	// Applied is a directory that holds the files in force, one for each kind,
	// named as their kind; each start and import brings it up to date.
	Applied string
	// State is the directory in which SelfTest keeps the output of the last
	// self-test, as SelfTestLog; "" for nowhere.
	State string
	// Log gets the output of self-tests; nil discards it.
	Log *slog.Logger
	// SelfTestProgram is run for software without a self-test of its own.
	SelfTestProgram string
	// ConverterProgram converts where the software has no program for it.
	ConverterProgram string
	// CheckProgram, run with a directory of files, judges configuration data.
	CheckProgram string
	// ApplyProgram, run with Applied, puts configuration data to use. Exit
	// status 3 says that a restart is needed.
	ApplyProgram string
	// CallsProgram prints the number of calls in progress.
	CallsProgram string
	// Limit is how long each of the programs may take.
	Limit time.Duration
	// As is whom the programs of the software run as; nil for the agent's own.
	As *User
	// NoReset says that new software can be put to use without a restart.
	NoReset bool
	// Dog is kicked while the agent is alive; it may be nil.
	Dog *Watchdog
	// Reason is why the hardware says that the device started.
	Reason mib.RestartReasonEnum

	// absent are the banks that are not mounted, set by Root.Use.
	absent [2]*AbsentError
}

var _ agent.Platform = (*Platform)(nil)

// payload is the path of a program of the software, "" for one of the board's.
func (p *Platform) payload(prog agent.Program) string {
	if prog.Payload == "" {
		return ""
	}
	return filepath.Join(p.Banks[prog.Bank-1], prog.Payload)
}

// Convert runs PROGRAM FROM TO INDIR OUTDIR.
func (p *Platform) Convert(ctx context.Context, c agent.Conversion) error {
	payload := p.payload(c.Program)
	path := cmp.Or(payload, p.ConverterProgram)
	if path == "" {
		return fmt.Errorf("no conversion program: %w", fs.ErrNotExist)
	}
	conv := Converter{Command{Path: path, Temp: p.Work, Limit: p.Limit, User: p.As}}
	err := conv.Convert(ctx, c.From, c.To, filepath.Join(p.Work, c.InDir), filepath.Join(p.Work, c.OutDir))
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return boardFault(err, payload, p.As)
}

// CanConvert reports whether the board has a conversion program of its own.
func (p *Platform) CanConvert(uint32, uint32) bool { return p.ConverterProgram != "" }

// CheckConfig has CheckProgram judge the files.
func (p *Platform) CheckConfig(set config.Set) error {
	if p.CheckProgram == "" {
		return nil
	}
	dir, err := os.MkdirTemp(p.Work, checkPrefix)
	if err != nil {
		return boardFault(err, "", nil)
	}
	defer os.RemoveAll(dir)
	if err := p.layOut(dir, set); err != nil {
		return boardFault(err, "", nil)
	}
	_, err = Run(context.Background(), Command{Path: p.CheckProgram, Args: []string{dir}, Temp: p.Work, Limit: p.Limit})
	return refusedData(boardFault(err, "", nil))
}

// Calls runs CallsProgram. If that fails, no calls are assumed: a broken
// program must not keep a device from being repaired.
func (p *Platform) Calls() int {
	if p.CallsProgram == "" {
		return 0
	}
	out, err := Run(context.Background(), Command{Path: p.CallsProgram, Temp: p.Work, Limit: 2 * time.Second})
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// TakesOver reports whether new software can be used without a restart.
func (p *Platform) TakesOver() bool { return p.NoReset }

// Capacity is BankSize or the size of the partition.
func (p *Platform) Capacity(n int) int64 {
	if p.absent[n-1] != nil {
		return 0
	}
	if p.BankSize != 0 {
		return p.BankSize
	}
	size, err := Capacity(p.Banks[n-1])
	if err != nil {
		return 0
	}
	return size
}

// Free is the room on the partition of bank n.
func (p *Platform) Free(n int) (int64, error) {
	if e := p.absent[n-1]; e != nil {
		return 0, e
	}
	return Free(p.Banks[n-1])
}

// OnBank returns the parts that share the file system of bank n.
func (p *Platform) OnBank(n int) agent.Parts {
	return Root{Banks: p.Banks, State: p.State, Data: p.Data, Work: p.Work, Applied: p.Applied}.OnBank(n)
}

// DropCache makes the kernel forget its copy of a file.
func (p *Platform) DropCache(f afero.File) error { return DropCache(f) }

// DropRange writes a part of a file out and makes the kernel forget its copy.
func (p *Platform) DropRange(f afero.File, offset, n int64) error { return DropRange(f, offset, n) }

// Kick kicks the watchdog.
func (p *Platform) Kick() { _ = p.Dog.Kick() }

// BootReason is Reason.
func (p *Platform) BootReason() mib.RestartReasonEnum { return p.Reason }

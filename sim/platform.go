package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/board"
	"example.com/iad/agent/config"
	"example.com/iad/mib"
)

// Hooks replace what a device does by itself. A nil hook leaves the usual.
type Hooks struct {
	// SelfTest replaces the self-test; bank holds the payloads.
	SelfTest func(ctx context.Context, t agent.SelfTest, bank afero.Fs) error
	// Convert replaces the conversion; work holds the directories.
	Convert func(ctx context.Context, c agent.Conversion, work afero.Fs) error
	// Check replaces the check of configuration data, which wants
	// "key = value" lines.
	Check func(config.Set) error
	// Apply is called with the configuration data in force.
	Apply func(config.Generation, config.Set) (needsReset bool, err error)
	// Free returns the free space of bank n.
	Free func(n int) (int64, error)
}

// platform is a virtual board.
type platform struct {
	device   *Device
	disk     Disk
	hooks    Hooks
	bankSize int64
	noReset  bool
	calls    atomic.Int64
	reason   mib.RestartReasonEnum
}

var _ agent.Platform = (*platform)(nil)

// programLimit is how long a program of the software may take.
const programLimit = 30 * time.Second

func (p *platform) SelfTest(ctx context.Context, t agent.SelfTest) error {
	if _, ok := p.device.occasion(SelfTest); ok {
		return errors.New("no dial tone on port 1 (injected fault)")
	}
	if _, ok := p.device.occasion(SelfTestHangs); ok {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if p.hooks.SelfTest != nil {
		return p.hooks.SelfTest(ctx, t, p.disk.Banks[t.Bank-1])
	}
	if t.Payload == "" {
		return nil
	}
	return p.withProgram(t.Program, func(path, dir string) error {
		settings := "none"
		if t.Generation != 0 {
			settings = fmt.Sprint(t.Generation)
		}
		_, err := board.Run(ctx, board.Command{Path: path, Dir: dir, Limit: programLimit, Env: []string{
			"IAD_BANK=" + filepath.Dir(path), "IAD_VERSION=" + t.Version, "IAD_CONFIG=" + settings,
		}})
		return err
	})
}

// withProgram calls run with a path of the operating system for a payload.
func (p *platform) withProgram(prog agent.Program, run func(path, dir string) error) error {
	dir, err := os.MkdirTemp("", "iadsim-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if p.disk.root != nil {
		return run(filepath.Join(p.disk.root.Banks[prog.Bank-1], prog.Payload), dir)
	}
	path := filepath.Join(dir, prog.Payload)
	if err := copyFile(afero.NewOsFs(), path, p.disk.Banks[prog.Bank-1], prog.Payload, 0o755); err != nil {
		return err
	}
	return run(path, dir)
}

func copyFile(to afero.Fs, toName string, from afero.Fs, fromName string, mode os.FileMode) (err error) {
	in, err := from.Open(fromName)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := to.OpenFile(toName, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if e := out.Close(); err == nil {
		err = e
	}
	return err
}

func (p *platform) Convert(ctx context.Context, c agent.Conversion) error {
	if _, ok := p.device.occasion(Convert); ok {
		return errors.New("the conversion program ended with exit status 1 (injected fault)")
	}
	if err := p.convert(ctx, c); err != nil {
		return err
	}
	if _, ok := p.device.occasion(ConvertHalf); ok {
		list, err := afero.ReadDir(p.disk.Work, c.OutDir)
		if err != nil || len(list) == 0 {
			return err
		}
		return p.disk.Work.Remove(filepath.Join(c.OutDir, list[len(list)-1].Name()))
	}
	return nil
}

func (p *platform) convert(ctx context.Context, c agent.Conversion) error {
	if p.hooks.Convert != nil {
		return p.hooks.Convert(ctx, c, p.disk.Work)
	}
	if c.Payload == "" {
		return fmt.Errorf("no conversion program: %w", fs.ErrNotExist)
	}
	return p.withProgram(c.Program, func(path, dir string) error {
		in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
		for _, d := range []string{in, out} {
			if err := os.Mkdir(d, 0o755); err != nil {
				return err
			}
		}
		if err := copyFiles(afero.NewOsFs(), in, p.disk.Work, c.InDir); err != nil {
			return err
		}
		conv := board.Converter{Command: board.Command{Path: path, Limit: programLimit}}
		if err := conv.Convert(ctx, c.From, c.To, in, out); err != nil {
			return err
		}
		return copyFiles(p.disk.Work, c.OutDir, afero.NewOsFs(), out)
	})
}

func copyFiles(to afero.Fs, toDir string, from afero.Fs, fromDir string) error {
	list, err := afero.ReadDir(from, fromDir)
	if err != nil {
		return err
	}
	for _, f := range list {
		if err := copyFile(to, filepath.Join(toDir, f.Name()), from, filepath.Join(fromDir, f.Name()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (p *platform) CanConvert(uint32, uint32) bool { return p.hooks.Convert != nil }

// CheckConfig wants "key = value" lines, as a device would refuse what it cannot
// read.
func (p *platform) CheckConfig(set config.Set) error {
	if p.hooks.Check != nil {
		return p.hooks.Check(set)
	}
	return checkLines(set)
}

func (p *platform) ApplyConfig(_ context.Context, g config.Generation, set config.Set) (bool, error) {
	if p.hooks.Apply != nil {
		return p.hooks.Apply(g, set)
	}
	return false, nil
}

func (p *platform) Calls() int           { return int(p.calls.Load()) }
func (p *platform) TakesOver() bool      { return p.noReset }
func (p *platform) Capacity(n int) int64 { return p.bankSize }

func (p *platform) Free(n int) (int64, error) {
	switch {
	case p.hooks.Free != nil:
		return p.hooks.Free(n)
	case p.disk.root != nil:
		return board.Free(p.disk.root.Banks[n-1])
	}
	return 1 << 40, nil // memory grows
}

// OnBank reports which parts share the file system of bank n: all of a directory, none
// in memory.
func (p *platform) OnBank(n int) agent.Parts {
	if p.disk.root == nil {
		return agent.Parts{}
	}
	return p.disk.root.OnBank(n)
}

func (p *platform) DropCache(f afero.File) error {
	if wrapped, ok := f.(*faultyFile); ok {
		f = wrapped.File
	}
	return board.DropCache(f)
}

func (p *platform) DropRange(f afero.File, offset, n int64) error {
	return board.DropRange(f, offset, n)
}
func (p *platform) Checkpoint(int) error              { return nil }
func (p *platform) Kick()                             {}
func (p *platform) BootReason() mib.RestartReasonEnum { return p.reason }

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"example.com/iad/agent/procedure"
	"example.com/iad/bank"
	"example.com/iad/bank/image"
	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// banks is the software of the device as the procedure sees it.
type banks struct {
	*bank.Banks
	device *device
}

var _ procedure.Banks = banks{}

func (b banks) Status() procedure.BankStatus { return forProcedure(b.Banks.Status()) }
func (b banks) Known() procedure.BankStatus  { return forProcedure(b.Banks.Known()) }

func forProcedure(st bank.Status) procedure.BankStatus {
	p := procedure.BankStatus{Running: st.Running, Next: st.Next, Fallback: st.Fallback, Spare: st.Spare,
		Recorded: st.Recorded, Unsaved: st.Unsaved}
	for i, in := range st.Banks {
		p.Banks[i] = procedure.Bank{
			State: in.State, Running: in.Running, Next: in.Next, Fallback: in.Fallback,
			Version: in.Version, NeedsReset: in.NeedsReset, Cause: in.Cause, Text: in.Text,
		}
	}
	return p
}

// source makes a file server a source of images.
type source struct{ procedure.Files }

func (s source) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	r, size, err := s.Get(ctx, name, offset)
	if errors.Is(err, transfer.ErrNoResume) {
		err = fmt.Errorf("%w: %w", image.ErrNoResume, err)
	}
	return r, size, err
}

func (b banks) Install(ctx context.Context, files procedure.Files, name string, opt procedure.Install) (procedure.Installed, error) {
	r, err := b.Banks.Install(ctx, source{files}, name, bank.InstallOptions{
		Bank: opt.Bank, Force: opt.Options.Has(procedure.Force), AllowDowngrade: opt.Options.Has(procedure.AllowDowngrade),
		CheckOnly: opt.CheckOnly, Version: opt.Version, ExpectSize: int64(opt.Size), ExpectDigest: opt.Digest,
		Progress: func(p bank.InstallProgress) {
			// Checking and connecting are steps of the procedure.
			if p.Phase != mib.OperationPhaseChecking && p.Phase != mib.OperationPhaseConnecting {
				opt.Progress(p.Phase, uint64(max(p.Done, 0)), uint64(max(p.Total, 0)))
			}
		},
	})
	size := r.Size
	if r.Already || opt.CheckOnly {
		size = r.Fetched
	}
	return procedure.Installed{Bank: r.Bank, Version: r.Version, Size: uint64(size), Digest: r.Digest, Format: r.ConfigFormat}, err
}

func (b banks) Check(_ context.Context, n int, allowDowngrade bool) error {
	return b.Banks.Check(n, allowDowngrade)
}

func (b banks) GiveUp(cause mib.FailCause, text string) error {
	return b.Banks.GiveUp(cause, text)
}

// TakeOver puts software to use in the running process: its configuration data
// come in force with it.
func (b banks) TakeOver(n int) error {
	if err := b.Banks.TakeOver(n); err != nil {
		return err
	}
	return b.device.chooseGeneration(context.Background())
}

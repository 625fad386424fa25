package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/spf13/afero"

	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/bank"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/clock"
)

// device joins the banks, the configuration data and the platform.
type device struct {
	banks    *bank.Banks
	config   *config.Store
	platform Platform
	work     afero.Fs
	maxFile  int64
	// backupKey decrypts configuration files, nil if there is none.
	backupKey  *agefile.Identity
	encryption Encryption
	clock      clock.Clock
	log        *slog.Logger
	// doubtful: the boot record may have forgotten the last generation that
	// came in force. What the pointer says counts for more then.
	doubtful bool

	// applying is held while the platform puts configuration data to use.
	applying sync.Mutex
	// unused is true while the data in force are not those that the platform
	// uses; needsReset, if it said when it got them at last that it needs a restart.
	unused, needsReset atomic.Bool
	// retry gets a value when the platform must be given the data in force again.
	retry chan struct{}
}

var _ procedure.Device = (*device)(nil)

// format is the configuration data format of the running software; in rescue mode that
// of the data in force, 0 with none.
func (d *device) format() uint32 {
	st := d.banks.Known()
	if st.Running == 0 {
		return d.config.InForce().Format
	}
	return st.Bank(st.Running).ConfigFormat
}

// recordGeneration records which configuration data the running software runs with,
// and deletes what nothing needs any more.
func (d *device) recordGeneration(generation uint32) error {
	if d.config.StandsIn() {
		return nil
	}
	st := d.banks.Known()
	if st.Banks[st.Running-1].Generation != generation {
		if err := d.banks.SetGeneration(st.Running, generation); err != nil {
			return err
		}
		st = d.banks.Known()
	}
	if err := d.config.Prune(st.Banks[0].Generation, st.Banks[1].Generation); err != nil {
		d.log.Warn("old configuration data could not be deleted", "err", err)
	}
	return nil
}

// rebuildGenerations gives each bank whose generation was lost with the boot record the newest
// configuration data that its software understands: going back must find them.
func (d *device) rebuildGenerations() {
	st := d.banks.Known()
	for n, b := range st.Banks {
		g, ok := d.newest(b.ConfigFormat)
		if !ok || b.Generation != 0 {
			continue
		}
		if err := d.banks.SetGeneration(n+1, g.Number); err != nil {
			d.log.Error("configuration data could not be noted with a bank", "bank", n+1, "generation", g.Number, "err", err)
		}
	}
}

func (d *device) newest(format uint32) (config.Generation, bool) {
	return d.config.Newest(func(f uint32) bool { return f == format })
}

// lastGeneration is that of the configuration data that the running software last
// ran with, 0 for none or not known.
func (d *device) lastGeneration() uint32 {
	st := d.banks.Known()
	return st.Bank(st.Running).Generation
}

// chooseGeneration brings the configuration data of the running software in
// force: those that it last ran with, or those in force if it can read them,
// or else its defaults. In rescue mode what is in force stays.
func (d *device) chooseGeneration(ctx context.Context) error {
	st := d.banks.Known()
	if st.Running == 0 {
		return nil
	}
	running := st.Banks[st.Running-1]
	remembered := running.Generation
	if d.doubtful {
		d.doubtful = false
		// But data that the other bank's software ran with are in force because it did.
		others := remembered != 0 && d.config.InForce().Number == st.Banks[2-st.Running].Generation
		if g := d.config.InForce(); g.Number != 0 && g.Format == running.ConfigFormat && !others {
			remembered = g.Number
		} else if g, ok := d.newest(running.ConfigFormat); ok && remembered == 0 {
			remembered = g.Number
		}
	}
	g, err := d.config.Boot(running.ConfigFormat, remembered)
	if err != nil {
		d.log.Error("the choice of configuration data could not be recorded", "generation", g.Number, "err", err)
	}
	set, err := d.config.Read(g.Number)
	if err != nil {
		return err
	}
	d.log.Info("configuration data", "generation", g.Number, "format", running.ConfigFormat, "software", running.Version)
	err = d.use(ctx, g, set)
	if g.Number != 0 {
		err = errors.Join(err, d.recordGeneration(g.Number))
	}
	return err
}

func (d *device) SelfTest(ctx context.Context) error {
	st := d.banks.Known()
	m, err := d.banks.Manifest(st.Running)
	if err != nil {
		return err
	}
	return d.platform.SelfTest(ctx, SelfTest{
		Program: Program{Bank: st.Running, Payload: m.SelfTest},
		Version: m.Version, Generation: d.config.InForce().Number,
	})
}

func (d *device) Calls() int      { return d.platform.Calls() }
func (d *device) TakesOver() bool { return d.platform.TakesOver() }

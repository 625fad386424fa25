package agent

import (
	"errors"
	"fmt"
	"io"
	"time"

	"example.com/iad/agent/config"
	"example.com/iad/bank"
)

// Provision makes a new device: software from image goes into bank 1 as good
// software that is next to start, and set, unless empty, becomes its
// configuration data. Of cfg it uses the file systems, Hardware, Trust and
// Platform.
func Provision(cfg Config, image io.Reader, set config.Set) error {
	opt := bank.Options{
		Banks: cfg.Banks, State: cfg.State, Capacity: cfg.Platform.Capacity, Free: cfg.Platform.Free,
		Trust: cfg.Trust, Hardware: cfg.Hardware, DropCache: cfg.Platform.DropCache, Log: cfg.Log,
	}
	opt.Now = time.Now
	if cfg.Clock != nil {
		opt.Now = cfg.Clock.Now
	}
	if err := bank.Provision(opt, image); err != nil {
		return err
	}
	if len(set) == 0 {
		return nil
	}
	b, _, err := bank.Boot(opt)
	if err != nil {
		return err
	}
	store, _, err := config.Open(cfg.Data, config.Options{Check: cfg.Platform.CheckConfig, MaxFile: cfg.MaxConfigFile})
	if err != nil {
		return fmt.Errorf("configuration data: %w", err)
	}
	m, err := b.Manifest(1)
	if err != nil {
		return err
	}
	if _, err := store.Boot(m.ConfigFormat, 0); err != nil {
		return err
	}
	staged, err := store.Stage(set)
	if err != nil {
		return err
	}
	g, err := staged.Commit(opt.Now())
	if err != nil {
		return errors.Join(err, staged.Discard())
	}
	return b.SetGeneration(1, g.Number)
}

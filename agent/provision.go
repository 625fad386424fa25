package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"example.com/iad/agent/config"
	"example.com/iad/bank"
	"example.com/iad/bank/image"
)

// Provision makes a new device: software from image goes into bank 1 as good
// software that is next to start, and set, unless empty, becomes its
// configuration data; a device that encrypts its backups gets a key of its own. If it fails or is interrupted it may be called again, with
// another image or set too, see bank.Provision. Of cfg it uses the file systems,
// Hardware, Trust, ImageKeys, Encryption and Platform.
func Provision(cfg Config, img io.Reader, set config.Set) error {
	opt := bank.Options{
		Loader: cfg.Loader, Banks: cfg.Banks, Partitions: cfg.Partitions, State: cfg.State, Capacity: cfg.Platform.Capacity, Free: cfg.Platform.Free,
		Trust: cfg.Trust, Keys: cfg.ImageKeys, Hardware: cfg.Hardware, DropCache: cfg.Platform.DropCache, Log: cfg.Log,
		Reserve: reserveOf(cfg.Platform, set),
	}
	opt.Now = time.Now
	if cfg.Clock != nil {
		opt.Now = cfg.Clock.Now
	}
	if _, _, err := openBackupKey(cfg.State, len(cfg.Encryption.Recipients) > 0); err != nil {
		return err
	}
	return bank.Provision(opt, img, func(m *image.Manifest) (uint32, error) {
		if len(set) == 0 {
			return 0, nil
		}
		number, err := provisionData(cfg, m.ConfigFormat, set, opt.Now())
		if err != nil {
			err = fmt.Errorf("configuration data: %w", err)
		}
		return number, err
	})
}

// provisionData puts set in force for software of a format and returns its generation.
func provisionData(cfg Config, format uint32, set config.Set, now time.Time) (uint32, error) {
	store, _, err := config.Open(cfg.Data, config.Options{Check: cfg.Platform.CheckConfig, MaxFile: cfg.MaxConfigFile})
	if err != nil {
		return 0, err
	}
	if _, err := store.Boot(format, 0); err != nil {
		return 0, err
	}
	staged, err := store.Stage(set)
	if err != nil {
		return 0, err
	}
	// An attempt that was interrupted may have put them in force already.
	if g := store.InForce(); bytes.Equal(g.Digest, staged.Generation().Digest) {
		return g.Number, staged.Discard()
	}
	g, err := staged.Commit(now)
	if err != nil {
		return 0, errors.Join(err, staged.Discard())
	}
	return g.Number, nil
}

package command

import (
	"context"
	"fmt"
	"sync"

	"github.com/spf13/afero"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// claims records the device ID of each target of a call: no two may have the same.
type claims struct {
	mu      sync.Mutex
	holders map[string]holder
}

type holder struct {
	target string
	id     device.Identity
}

// claim returns an error for a device ID that another target already has.
func (c *claims) claim(target string, id device.Identity) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	other, taken := c.holders[id.Device]
	switch {
	case !taken:
		if c.holders == nil {
			c.holders = make(map[string]holder)
		}
		c.holders[id.Device] = holder{target, id}
		return nil
	case id.EngineID != "" && id.EngineID == other.id.EngineID:
		return fmt.Errorf("%s and %s are the same device, or copies of it, %s: %w; name it once, or give each unit an identity of its own",
			other.target, target, id, device.ErrIdentity)
	}
	return fmt.Errorf("%s (%s) and %s (%s) have the same device ID: %w; name the device once, or give each unit a device ID of its own",
		other.target, other.id, target, id, device.ErrIdentity)
}

// accept asks at the terminal whether to continue with a device that is not the expected
// one.
func (o *terminalOperator) accept(ctx context.Context, question string) bool {
	o.out.Line("      " + question)
	o.out.Line("      continue with this device? (yes or no)")
	for {
		typed, err := o.read(ctx)
		switch {
		case err != nil || typed == "no" || typed == "n":
			return false
		case typed == "yes":
			return true
		}
		o.out.Line("      type yes or no")
	}
}

// warnOfIdentity logs a warning if a device is not the one that the store records for its
// device ID or its configured name.
func (g *globals) warnOfIdentity(client *device.Client, s *settings, target string) {
	id := client.Identity()
	id.Target = s.configured(target).Name
	text := manager.IdentityWarning(afero.NewBasePathFs(afero.NewOsFs(), g.store), id)
	if log, err := g.logger(); err == nil && text != "" {
		log.Warn(text)
	}
}

// configured is a TARGET in the configuration. Names with the same address are the same
// device.
func (s *settings) configured(target string) files.ConfiguredTarget {
	dev, known := s.Devices[target]
	if !known {
		return files.ConfiguredTarget{}
	}
	return files.ConfiguredTarget{Name: target, StandsFor: func(name string) bool {
		other, known := s.Devices[name]
		return known && !device.SameAddress(other.Address, dev.Address)
	}}
}

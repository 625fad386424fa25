package device

import (
	"context"
	"time"

	"example.com/iad/mib"
)

// Pace is how often a device reports progress.
type Pace struct {
	// Step is iadUpgNotifyStep: a notification is sent after so many percent of progress, 1
	// to 100.
	Step uint32 `json:"step"`
	// MinInterval is iadUpgNotifyMinInterval: the minimum time between two of these
	// notifications, 0 to 1 h, in whole seconds.
	MinInterval time.Duration `json:"min_interval"`
}

// Pace reads how often the device reports progress.
func (c *Client) Pace(ctx context.Context) (Pace, error) {
	var p Pace
	err := c.read(ctx, scalar, []Field{Number(mib.NotifyStep, &p.Step), Seconds(mib.NotifyMinInterval, &p.MinInterval)})
	return p, err
}

// SetPace writes how often the device reports progress.
func (c *Client) SetPace(ctx context.Context, p Pace) error {
	return c.set(ctx, []mib.Varbind{
		{OID: c.module.OID(mib.NotifyStep, 0), Value: mib.Uint32(p.Step)},
		{OID: c.module.OID(mib.NotifyMinInterval, 0), Value: mib.Uint32(uint32(p.MinInterval / time.Second))},
	})
}

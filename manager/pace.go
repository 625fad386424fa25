package manager

import (
	"context"
	"time"

	"example.com/iad/mib"
)

// Pace is how often a device reports progress.
type Pace struct {
	// Step is iadUpgNotifyStep: how many percent of progress are worth a
	// notification, 1 to 100.
	Step uint32 `json:"step"`
	// MinInterval is iadUpgNotifyMinInterval: the least time between two of
	// them, 0 to 1 h, in whole seconds.
	MinInterval time.Duration `json:"min_interval"`
}

// Pace reads how often the device reports progress.
func (c *Client) Pace(ctx context.Context) (Pace, error) {
	var p Pace
	err := c.read(ctx, scalar, []field{number(mib.NotifyStep, &p.Step), seconds(mib.NotifyMinInterval, &p.MinInterval)})
	return p, err
}

// SetPace writes how often the device reports progress.
func (c *Client) SetPace(ctx context.Context, p Pace) error {
	return c.set(ctx, []mib.Varbind{
		{OID: c.module.OID(mib.NotifyStep, 0), Value: mib.Uint32(p.Step)},
		{OID: c.module.OID(mib.NotifyMinInterval, 0), Value: mib.Uint32(uint32(p.MinInterval / time.Second))},
	})
}

// setPace has the device report progress as the plan wants it, and remembers
// how it did so before. A device that does not let itself be told is upgraded
// all the same.
func (u *upgrade) setPace(ctx context.Context) error {
	if u.plan.Pace == nil {
		return nil
	}
	if u.record.Pace == nil {
		before, err := u.plan.Client.Pace(ctx)
		if err != nil {
			u.warn(0, "the device reports progress as it is used to: "+err.Error())
			return nil
		}
		u.record.Pace = &before
		if err := u.save(); err != nil {
			return err
		}
	}
	if err := u.plan.Client.SetPace(ctx, *u.plan.Pace); err != nil {
		u.warn(0, "the device reports progress as it is used to: "+err.Error())
	}
	return nil
}

// restorePace puts back what setPace changed.
func (u *upgrade) restorePace(ctx context.Context) {
	if u.record.Pace == nil {
		return
	}
	if err := u.plan.Client.SetPace(ctx, *u.record.Pace); err != nil {
		u.warn(0, "the device goes on reporting progress as for this upgrade: "+err.Error())
		return
	}
	u.record.Pace = nil
	if err := u.save(); err != nil {
		u.plan.Log.Warn("journal", "cause", err)
	}
}

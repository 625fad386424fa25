package manager

import (
	"context"
)

// setPace has the device report progress as the plan says, and records how it did so
// before. A device that does not permit this is upgraded all the same.
func (u *upgrade) setPace(ctx context.Context) error {
	if u.plan.Pace == nil {
		return nil
	}
	if u.record.Pace == nil {
		before, err := u.plan.Client.Pace(ctx)
		if err != nil {
			u.warn(0, "the device reports progress at its own intervals: "+err.Error())
			return nil
		}
		u.record.Pace = &before
		if err := u.save(); err != nil {
			return err
		}
	}
	if err := u.plan.Client.SetPace(ctx, *u.plan.Pace); err != nil {
		u.warn(0, "the device reports progress at its own intervals: "+err.Error())
	}
	return nil
}

// restorePace restores what setPace changed.
func (u *upgrade) restorePace(ctx context.Context) {
	if u.record.Pace == nil {
		return
	}
	if err := u.plan.Client.SetPace(ctx, *u.record.Pace); err != nil {
		u.warn(0, "the device keeps the progress intervals of this upgrade: "+err.Error())
		return
	}
	u.record.Pace = nil
	u.recordLater()
}

package device

import (
	"context"
	"fmt"
	"time"

	"example.com/iad/internal/clock"
	"example.com/iad/mib"
)

// Confirm accepts the software on trial in a bank, and polls the bank every poll until the device has recorded that, for at
// most patience: a device whose disk takes no writes accepts the command, and tries to record it until the trial ends.
func (c *Client) Confirm(ctx context.Context, clk clock.Clock, r Request, bank Bank, patience, poll time.Duration) error {
	r.Kind = mib.OperationKindConfirm
	if err := c.Command(ctx, r); err != nil {
		return err
	}
	ctx, cancel := clock.Within(ctx, clk, 2*patience)
	defer cancel()
	deadline := clk.NewTimer(patience)
	defer deadline.Stop()
	for {
		banks, err := c.Banks(ctx)
		if err == nil {
			switch now := banks[bank.Number-1]; {
			case !now.Running:
				return fmt.Errorf("%s in bank %d no longer runs", bank.Version, bank.Number)
			case now.State != mib.BankStateTrial:
				return nil
			}
			err = fmt.Errorf("the device has not recorded within %v that %s in bank %d is accepted: it is still on trial; look for a state partition that is read-only or full",
				patience, bank.Version, bank.Number)
		}
		pause := clk.NewTimer(poll)
		select {
		case <-pause.C():
		case <-deadline.C():
			pause.Stop()
			return err
		case <-ctx.Done():
			pause.Stop()
			return ctx.Err()
		}
	}
}

package device

import (
	"context"
	"fmt"
	"time"

	"example.com/iad/internal/clock"
	"example.com/iad/mib"
)

// FindOperation returns the operation of a request, from the history if another one
// followed. The error wraps ErrUnknownOperation if the device does not know the
// operation.
func (c *Client) FindOperation(ctx context.Context, reqID uint32, owner string) (*Operation, error) {
	op, err := c.Operation(ctx)
	if err != nil || op.Is(reqID, owner) {
		return op, err
	}
	return c.ended(ctx, reqID, owner)
}

// AbortOperation aborts an operation, and polls it every poll until it has ended, for at
// most patience.
func (c *Client) AbortOperation(ctx context.Context, clk clock.Clock, owner string, op *Operation, patience, poll time.Duration) (*Operation, error) {
	ctx, cancel := clock.Within(ctx, clk, 2*patience)
	defer cancel()
	if err := c.Command(ctx, Request{Kind: mib.OperationKindAbort, ID: NewReqID(), Owner: owner, TargetOpID: op.ID}); err != nil {
		return nil, err
	}
	deadline := clk.NewTimer(patience)
	defer deadline.Stop()
	for {
		if now, err := c.FindOperation(ctx, op.ReqID, op.Owner); err == nil && now.Final() {
			return now, nil
		}
		pause := clk.NewTimer(poll)
		select {
		case <-pause.C():
		case <-deadline.C():
			return nil, fmt.Errorf("operation %d (%s) was aborted but has not ended", op.ID, op.Kind)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

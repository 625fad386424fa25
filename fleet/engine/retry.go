package engine

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// requestTime is how long one request to the nodes may take before it is repeated.
const requestTime = 5 * time.Second

// retryPause is the pause before a request is repeated.
const retryPause = 100 * time.Millisecond

// persist calls do until it succeeds, fails for good, or ctx ends. What ends a try only is
// that no node answers, or that the nodes have no leader at the moment.
func (e *Engine) persist(ctx context.Context, do func(context.Context) error) error {
	for {
		try, cancel := context.WithTimeout(ctx, requestTime)
		err := do(try)
		cancel()
		if err == nil || !passing(err) {
			return err
		}
		if e.conn.IsClosed() {
			return err
		}
		e.log.Debug("engine: request is repeated", "err", err)
		if pause(ctx) != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
}

func pause(ctx context.Context) error {
	t := time.NewTimer(retryPause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// passing reports whether a request that failed may succeed when it is repeated.
func passing(err error) bool {
	for _, e := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrConnectionReconnecting,
		nats.ErrReconnectBufExceeded, jetstream.ErrNoStreamResponse, jetstream.ErrJetStreamNotEnabled, jetstream.ErrStreamNotFound,
		jetstream.ErrConsumerNotFound, jetstream.ErrConsumerCreate, jetstream.ErrNoHeartbeat, jetstream.ErrServerShutdown,
		jetstream.ErrAsyncPublishTimeout, jetstream.ErrTooManyStalledMsgs, jetstream.ErrBucketNotFound,
		// The library watches buckets by older code, which has errors of its own.
		nats.ErrNoStreamResponse, nats.ErrJetStreamNotEnabled, nats.ErrStreamNotFound, nats.ErrConsumerNotFound, nats.ErrConsumerLeadershipChanged,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	// 5xx: no leader, no quorum, no space on disk for the moment.
	var api *jetstream.APIError
	var older *nats.APIError
	return errors.As(err, &api) && (api.Code >= 500 && api.Code < 600 || api.ErrorCode == writeInProgress || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) ||
		errors.As(err, &older) && older.Code >= 500 && older.Code < 600
}

// writeInProgress: the nodes have not yet agreed on an earlier try of the same write. With
// JSErrCodeStreamWrongLastSequenceConstant they have not yet agreed on an earlier write of
// the same key, perhaps the same one.
const writeInProgress = 10158

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"golang.org/x/sync/errgroup"
)

// maxBatch is the maximum number of entries that are written together; servers take 1,000.
const maxBatch = 500

// parallelBatches is how many batches, or single entries of a batch that was refused, are
// written at the same time. Servers take 50 batches.
const parallelBatches = 8

// CreateAll writes entries that do not exist yet, many at a time, with one sync for all of
// these: with a sync for each, a million entries take a quarter of an hour. It sets their
// revisions; 0: an entry with this key exists already, and was left as it is. After a
// failure some may have been written. A write that had to be repeated because no answer
// came reports its own entries as existing ones.
func (b *Bucket) CreateAll(ctx context.Context, entries []Entry) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelBatches)
	for len(entries) > 0 {
		// Together they must not be larger than what a server holds of a batch in memory.
		n, size := 0, 0
		for n < min(len(entries), maxBatch) && (n == 0 || size+len(entries[n].Value) <= maxValue) {
			size += len(entries[n].Value)
			n++
		}
		batch := entries[:n]
		entries = entries[n:]
		group.Go(func() error { return b.createBatch(ctx, batch) })
	}
	return group.Wait()
}

func (b *Bucket) createBatch(ctx context.Context, batch []Entry) error {
	err := errRefused
	if len(batch) > 1 {
		err = b.engine.persist(ctx, func(ctx context.Context) error { return b.commit(ctx, batch) })
	}
	if !errors.Is(err, errRefused) {
		if err != nil {
			err = b.wrap(batch[0].Key+" ...", err)
		}
		return err
	}
	for i := range batch {
		e := &batch[i]
		if e.Revision, err = b.Create(ctx, e.Key, e.Value); errors.Is(err, ErrConflict) {
			e.Revision, err = 0, nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// errRefused: nothing of a batch was written. One of its entries exists, or the server does
// not know batches.
var errRefused = errors.New("batch refused")

// commit writes all entries or none. See ADR-50 of NATS.
func (b *Bucket) commit(ctx context.Context, batch []Entry) error {
	id := nuid.Next()
	for i, e := range batch {
		msg := nats.NewMsg(bucketSubject(b.name, e.Key))
		msg.Data = e.Value
		msg.Header.Set("Nats-Batch-Id", id)
		msg.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
		msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, "0")
		if i < len(batch)-1 {
			if err := b.engine.conn.PublishMsg(msg); err != nil {
				return err
			}
			continue
		}
		msg.Header.Set("Nats-Batch-Commit", "1")
		reply, err := b.engine.conn.RequestMsgWithContext(ctx, msg)
		if err != nil {
			return err
		}
		var ack struct {
			Error *jetstream.APIError `json:"error"`
			Last  uint64              `json:"seq"`
			Count int                 `json:"count"`
		}
		if err := json.Unmarshal(reply.Data, &ack); err != nil {
			return err
		}
		// Of a batch, this code is for a key that is in it twice, too.
		if ack.Error != nil && ack.Error.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequenceConstant && passing(ack.Error) {
			return ack.Error
		}
		if ack.Error != nil || ack.Count != len(batch) {
			return errRefused
		}
		for k := range batch {
			batch[k].Revision = ack.Last - uint64(len(batch)-1-k)
		}
	}
	return nil
}

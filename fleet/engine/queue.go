package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Priority orders tasks: a Queue of several priorities delivers those of the first one before all
// others.
type Priority string

// The priorities.
const (
	Urgent Priority = "urgent"
	Normal Priority = "normal"
	Idle   Priority = "idle" // what may wait as long as there is anything else
)

// Publish queues a task for a pool of workers. Within two minutes, another task with the
// same id is dropped.
func (e *Engine) Publish(ctx context.Context, pool string, p Priority, id string, data []byte) error {
	msg := nats.NewMsg(taskSubject + "." + Key(pool) + "." + string(p))
	msg.Data = data
	err := e.persist(ctx, func(ctx context.Context) error {
		_, err := e.js.PublishMsg(ctx, msg, jetstream.WithMsgID(id), jetstream.WithRetryAttempts(0))
		return err
	})
	if err != nil {
		return fmt.Errorf("engine: task %s: %w", id, err)
	}
	return nil
}

// Queue delivers the tasks of one pool to this worker and to others.
type Queue struct {
	engine    *Engine
	consumers []jetstream.Consumer // by priority
}

// Queue returns the queue of a pool for tasks of these priorities.
func (e *Engine) Queue(ctx context.Context, pool string, priorities ...Priority) (*Queue, error) {
	q := &Queue{engine: e}
	for _, p := range priorities {
		err := e.persist(ctx, func(ctx context.Context) error {
			c, err := e.js.CreateOrUpdateConsumer(ctx, taskStream, jetstream.ConsumerConfig{
				Durable: Key(pool) + "-" + string(p), FilterSubject: taskSubject + "." + Key(pool) + "." + string(p),
				AckPolicy: jetstream.AckExplicitPolicy, AckWait: AckWait, MaxDeliver: -1, MaxAckPending: -1,
			})
			if err == nil {
				q.consumers = append(q.consumers, c)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("engine: queue of pool %s: %w", pool, err)
		}
	}
	return q, nil
}

// Next waits for a task.
func (q *Queue) Next(ctx context.Context) (*Task, error) {
	for {
		for i, c := range q.consumers {
			// Only the last one is waited for; an urgent task is noticed after that.
			options := []jetstream.FetchOpt{jetstream.FetchMaxWait(time.Second)}
			fetch := c.Fetch
			if i < len(q.consumers)-1 {
				fetch = func(n int, _ ...jetstream.FetchOpt) (jetstream.MessageBatch, error) { return c.FetchNoWait(n) }
			}
			batch, err := fetch(1, options...)
			if err == nil {
				for msg := range batch.Messages() {
					return &Task{engine: q.engine, msg: msg, Data: msg.Data()}, nil
				}
				err = batch.Error()
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err == nil || errors.Is(err, nats.ErrTimeout) {
				continue
			}
			if !passing(err) && !errors.Is(err, jetstream.ErrConsumerDeleted) && !errors.Is(err, jetstream.ErrConsumerLeadershipChanged) {
				return nil, fmt.Errorf("engine: queue: %w", err)
			}
			if pause(ctx) != nil {
				return nil, ctx.Err()
			}
		}
	}
}

// Task is a task that was delivered to this worker. If the worker does nothing about it for
// AckWait, it is delivered again, perhaps to another one.
type Task struct {
	Data   []byte
	engine *Engine
	msg    jetstream.Msg
}

// Extend asks for another AckWait.
func (t *Task) Extend() error { return t.msg.InProgress() }

// Done removes the task from the queue.
func (t *Task) Done(ctx context.Context) error {
	err := t.engine.persist(ctx, t.msg.DoubleAck)
	if errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
		return nil
	}
	return err
}

// Retry has the task delivered again after a delay.
func (t *Task) Retry(delay time.Duration) error { return t.msg.NakWithDelay(delay) }

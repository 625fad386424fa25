package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Message is an entry of a stream. Sequence is its number, from 1 on.
type Message struct {
	Key      string
	Data     []byte
	Sequence uint64
	Time     time.Time
}

// Log is an append-only stream.
type Log struct {
	engine *Engine
	name   LogName
}

// Log returns a stream.
func (e *Engine) Log(name LogName) *Log { return &Log{engine: e, name: name} }

// Append adds an entry and returns its number.
func (l *Log) Append(ctx context.Context, key string, data []byte) (uint64, error) {
	return l.publish(ctx, key, data, nil)
}

// AppendAfter adds an entry after the one with the number last, which must be the newest;
// 0: the stream must be empty. The error wraps ErrConflict if it is not.
func (l *Log) AppendAfter(ctx context.Context, last uint64, key string, data []byte) (uint64, error) {
	return l.publish(ctx, key, data, &last)
}

// publish appends an entry, after the one with the number last unless that is nil.
func (l *Log) publish(ctx context.Context, key string, data []byte, last *uint64) (uint64, error) {
	msg := nats.NewMsg(string(l.name) + "." + key)
	msg.Data = data
	id := nuid.Next()
	options := []jetstream.PublishOpt{jetstream.WithMsgID(id), jetstream.WithRetryAttempts(0)}
	if last != nil {
		options = append(options, jetstream.WithExpectLastSequence(*last))
	}
	var sequence uint64
	repeated := false
	err := l.engine.persist(ctx, func(ctx context.Context) error {
		ack, err := l.engine.js.PublishMsg(ctx, msg, options...)
		switch {
		case err == nil:
			sequence = ack.Sequence
		case wrongSequence(err) && repeated:
			sequence, err = l.writtenAs(ctx, *last+1, id)
		case wrongSequence(err):
			err = ErrConflict
		default:
			repeated = true
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w", l.name, key, err)
	}
	return sequence, nil
}

// writtenAs returns a number if the entry with it was written with this message ID, and
// ErrConflict otherwise.
func (l *Log) writtenAs(ctx context.Context, sequence uint64, id string) (uint64, error) {
	s, err := l.engine.js.Stream(ctx, string(l.name))
	if err != nil {
		return 0, err
	}
	msg, err := s.GetMsg(ctx, sequence)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return 0, ErrConflict
	case err != nil:
		return 0, err
	case msg.Header.Get(jetstream.MsgIDHeader) != id:
		return 0, ErrConflict
	}
	return sequence, nil
}

// LastSequence returns the number of the newest entry there was; 0: there was none.
func (l *Log) LastSequence(ctx context.Context) (uint64, error) {
	var last uint64
	err := l.engine.persist(ctx, func(ctx context.Context) error {
		s, err := l.engine.js.Stream(ctx, string(l.name))
		if err == nil {
			last = s.CachedInfo().State.LastSeq
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", l.name, err)
	}
	return last, nil
}

// Last returns the newest entry. The error wraps ErrNotFound if there is none. An entry that
// cannot be read from the disk any more has nothing but its number.
func (l *Log) Last(ctx context.Context) (Message, error) {
	var m Message
	err := l.engine.persist(ctx, func(ctx context.Context) error {
		s, err := l.engine.js.Stream(ctx, string(l.name))
		if err != nil {
			return err
		}
		last := s.CachedInfo().State.LastSeq
		if last == 0 || s.CachedInfo().State.Msgs == 0 {
			return ErrNotFound
		}
		raw, err := s.GetMsg(ctx, last)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			m = Message{Sequence: last}
			return nil
		}
		if err == nil {
			m = Message{Key: l.key(raw.Subject), Data: raw.Data, Sequence: raw.Sequence, Time: raw.Time}
		}
		return err
	})
	if err != nil {
		return Message{}, fmt.Errorf("%s: %w", l.name, err)
	}
	return m, nil
}

func (l *Log) key(subject string) string { return strings.TrimPrefix(subject, string(l.name)+".") }

// Read calls handle with the entries from a number on whose keys match a pattern, until it
// has seen the newest one. With follow it waits for more, until ctx ends. Entries that have
// expired or cannot be read from the disk any more are left out.
func (l *Log) Read(ctx context.Context, from uint64, pattern string, follow bool, handle func(Message) error) error {
	var c jetstream.Consumer
	var pending uint64
	err := l.engine.persist(ctx, func(ctx context.Context) (err error) {
		c, err = l.engine.js.OrderedConsumer(ctx, string(l.name), jetstream.OrderedConsumerConfig{
			FilterSubjects: []string{string(l.name) + "." + pattern}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(from, 1),
		})
		if err != nil {
			return err
		}
		info, err := c.Info(ctx)
		if err == nil {
			pending = info.NumPending + uint64(info.NumAckPending)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	if pending == 0 && !follow {
		return nil
	}
	messages, err := c.Messages()
	if err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	defer messages.Stop()
	for seen := max(from, 1) - 1; ; {
		msg, err := l.next(ctx, messages, follow)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, context.DeadlineExceeded) { // of silence
				if more, err := l.engine.more(ctx, string(l.name), string(l.name)+"."+pattern, seen); err != nil || !more {
					return err
				}
				continue
			}
			if errors.Is(err, jetstream.ErrNoHeartbeat) || passing(err) {
				continue
			}
			return fmt.Errorf("%s: %w", l.name, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		seen = meta.Sequence.Stream
		if err := handle(Message{Key: l.key(msg.Subject()), Data: msg.Data(), Sequence: meta.Sequence.Stream, Time: meta.Timestamp}); err != nil {
			return err
		}
		if meta.NumPending == 0 && !follow {
			return nil
		}
	}
}

// silence is how long to wait for a message that is said to exist before asking whether it does.
const silence = 500 * time.Millisecond

// next returns the next message. Unless it is to follow, it waits no longer than silence.
func (l *Log) next(ctx context.Context, messages jetstream.MessagesContext, follow bool) (jetstream.Msg, error) {
	if !follow {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, silence)
		defer cancel()
	}
	return messages.Next(jetstream.NextContext(ctx))
}

// more reports whether a stream has a readable message after a number whose subject matches. A
// message that is damaged on the disk is counted, but never delivered.
func (e *Engine) more(ctx context.Context, stream, subject string, after uint64) (bool, error) {
	found := false
	err := e.persist(ctx, func(ctx context.Context) error {
		s, err := e.js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		_, err = s.GetMsg(ctx, after+1, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		found = err == nil
		return err
	})
	return found, err
}

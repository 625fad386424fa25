package engine

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
)

// Notify sends data to whoever listens for this key now. It may be lost.
func (e *Engine) Notify(key string, data []byte) error {
	if err := e.conn.Publish(notifySubject+"."+key, data); err != nil {
		return fmt.Errorf("engine: notification: %w", err)
	}
	return nil
}

// OnNotify calls handle, one at a time, with what Notify sends for keys that match a
// pattern, until stop is called.
func (e *Engine) OnNotify(pattern string, handle func(key string, data []byte)) (stop func(), err error) {
	s, err := e.conn.Subscribe(notifySubject+"."+pattern, func(m *nats.Msg) {
		handle(strings.TrimPrefix(m.Subject, notifySubject+"."), m.Data)
	})
	if err != nil {
		return nil, fmt.Errorf("engine: notifications: %w", err)
	}
	return func() {
		if err := s.Unsubscribe(); err != nil {
			e.log.Debug("engine", "err", err)
		}
	}, nil
}

package trap

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// Hub delivers notifications to subscriptions. A Listener has one; a program that receives
// notifications from other processes has one of its own. The zero value is ready.
type Hub struct {
	mu sync.Mutex
	// subs are the subscriptions by the device that they are for, those for any device under
	// "".
	subs map[string][]*Subscription
}

// Filter selects notifications; if both fields are set, both must match.
type Filter struct {
	// DeviceID is the ID of the device; empty: any.
	DeviceID string
	// From is the sender's address; zero: any.
	From netip.Addr
}

// Subscription is a stream of notifications.
type Subscription struct {
	filter Filter
	hub    *Hub
	queue  chan *Notification
}

// Subscribe starts a stream. Its buffer holds size notifications; when it is full the
// oldest one is dropped, so that a slow reader does not delay others.
func (h *Hub) Subscribe(f Filter, size int) *Subscription {
	s := &Subscription{filter: f, hub: h, queue: make(chan *Notification, max(size, 1))}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs == nil {
		h.subs = make(map[string][]*Subscription)
	}
	h.subs[f.DeviceID] = append(h.subs[f.DeviceID], s)
	return s
}

// Deliver gives a notification to the subscriptions whose filters match.
func (h *Hub) Deliver(n *Notification) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.subs[n.DeviceID] {
		s.offer(n)
	}
	if n.DeviceID == "" {
		return
	}
	for _, s := range h.subs[""] {
		s.offer(n)
	}
}

// Named reports whether a subscription is for this device.
func (h *Hub) Named(deviceID string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return deviceID != "" && len(h.subs[deviceID]) > 0
}

// Close closes the channels of all subscriptions.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, list := range h.subs {
		for _, s := range list {
			close(s.queue)
		}
	}
	h.subs = nil
}

// C returns the channel of the stream. It is closed by Close of the hub or of the
// subscription.
func (s *Subscription) C() <-chan *Notification { return s.queue }

// Next waits for a notification. After Close it returns net.ErrClosed.
func (s *Subscription) Next(ctx context.Context) (*Notification, error) {
	select {
	case n, ok := <-s.queue:
		if !ok {
			return nil, net.ErrClosed
		}
		return n, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends the stream.
func (s *Subscription) Close() {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.subs[s.filter.DeviceID]
	i := slices.Index(list, s)
	if i < 0 {
		return
	}
	close(s.queue)
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(h.subs, s.filter.DeviceID)
		return
	}
	h.subs[s.filter.DeviceID] = list
}

// offer is called with the hub's lock held.
func (s *Subscription) offer(n *Notification) {
	if s.filter.From.IsValid() && s.filter.From != n.From.Addr() {
		return
	}
	for {
		select {
		case s.queue <- n:
			return
		default:
		}
		select {
		case <-s.queue:
		default:
		}
	}
}

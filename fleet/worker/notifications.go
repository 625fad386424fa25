package worker

import (
	"encoding/json"
	"net/netip"

	"example.com/iad/fleet/engine"
	"example.com/iad/manager"
	"example.com/iad/manager/trap"
)

// listener passes on to the manager what package fleet/traps publishes.
type listener struct{ worker *Worker }

var _ manager.Listener = listener{}

// Subscribe implements manager.Listener.
func (l listener) Subscribe(f trap.Filter, size int) *trap.Subscription {
	return l.worker.hub.Subscribe(f, size)
}

// Addr implements manager.Listener.
func (l listener) Addr() netip.AddrPort { return l.worker.cfg.Notifications }

// listen has the notifications of a device delivered until stop is called. stop is nil if
// there are none.
func (r *run) listen(deviceID string, plan *manager.Plan) (stop func(), err error) {
	w := r.worker
	if !w.cfg.Notifications.IsValid() {
		return nil, nil
	}
	plan.Listener = listener{w}
	return w.cfg.Store.Engine.OnNotify(engine.Key(deviceID), func(_ string, data []byte) {
		n := new(trap.Notification)
		if err := json.Unmarshal(data, n); err != nil {
			r.log.Debug("notification dropped", "err", err)
			return
		}
		w.hub.Deliver(n)
	})
}

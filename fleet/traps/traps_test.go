package traps_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/seal"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/traps"
	"example.com/iad/internal/fleetsim"
	"example.com/iad/manager/trap"
)

// TestNotificationsArriveByDevice has a device restart: whoever asks for its notifications
// gets them, also after credentials were added.
func TestNotificationsArriveByDevice(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := engine.Start(ctx, engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(ctx, e, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Secrets.Put(ctx, fleetsim.Secret()); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.%d.%d.1:%d", 1+rand.N(250), rand.N(250), 20000+rand.N(10000))
	running, stop := context.WithCancel(ctx)
	ended := make(chan error)
	go func() {
		ended <- traps.Run(running, traps.Config{Store: s, Listener: trap.ListenerConfig{Listen: address}})
	}()
	d := fleetsim.Start(t, 2, fleetsim.Options{Sink: address})
	got := make(chan *trap.Notification, 64)
	unsubscribe, err := e.OnNotify(engine.Key(d.Names[0]), func(_ string, data []byte) {
		n := new(trap.Notification)
		if err := json.Unmarshal(data, n); err != nil {
			t.Error(err)
		}
		got <- n
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unsubscribe()
	for round := range 2 {
		// The listener may not be open yet: until a notification comes, the devices restart
		// again.
		for arrived := false; !arrived; {
			for _, name := range d.Names {
				d.Sims[name].Restart()
			}
			select {
			case n := <-got:
				if n.DeviceID != d.Names[0] {
					t.Fatalf("got that of %s", n.DeviceID)
				}
				arrived = true
			case <-time.After(500 * time.Millisecond):
			case <-ctx.Done():
				t.Fatal("no notification")
			}
		}
		if round == 0 {
			if err := s.Secrets.Put(ctx, &fleet.Secret{Name: "more", WriteCommunity: "other"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

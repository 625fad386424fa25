package sim_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime/metrics"
	"testing"
	"testing/synctest"
	"time"

	"aead.dev/minisign"

	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/internal/iadtest"
	"example.com/iad/sim"
)

// wakeups is how many times the runtime has let a goroutine run that had waited; it counts
// about one in eight.
func wakeups() (n uint64) {
	s := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(s)
	for _, count := range s[0].Value.Float64Histogram().Counts {
		n += count
	}
	return n
}

// TestIdleDevicesSleep: in most of an hour, devices that nobody asks for anything do not
// even wake up.
func TestIdleDevicesSleep(t *testing.T) {
	key := newKey(t)
	img := iadtest.BuildImage(t, key, image.Manifest{Version: "1.0.0", Hardware: []string{hardware}, ConfigFormat: 1})
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer end()
		const devices = 50
		for i := range devices {
			d := sim.New(sim.Config{
				ID: fmt.Sprint("IAD-", i), Hardware: hardware, Trust: image.TrustKeys(key.Public().(minisign.PublicKey)), Disk: sim.Memory(),
				SNMP: &snmp.Config{Communities: []snmp.Community{{Name: "public"}}},
			})
			if err := d.Provision(bytes.NewReader(img), settings(1)); err != nil {
				t.Fatal(err)
			}
			go func() {
				if err := d.Run(ctx); err != nil {
					t.Error(err)
				}
			}()
		}
		time.Sleep(time.Minute) // what follows the start
		before := wakeups()
		time.Sleep(50 * time.Minute)
		if n := wakeups() - before; n > devices {
			t.Errorf("%d idle devices woke up at least %d times in 50 minutes", devices, n)
		}
	})
}

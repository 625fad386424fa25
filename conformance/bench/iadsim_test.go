package bench_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/google/go-cmp/cmp"

	"example.com/iad/bank/image"
	"example.com/iad/conformance/bench"
	"example.com/iad/sim"
	"example.com/iad/sim/control"
)

// TestIadsim switches a virtual device through the control interface of iadsim, over a socket and over TCP.
func TestIadsim(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			address, token := filepath.Join(t.TempDir(), "control"), ""
			if network == "tcp" {
				address, token = "127.0.0.1:0", "secret"
			}
			l, err := net.Listen(network, address)
			if err != nil {
				t.Fatal(err)
			}
			address = l.Addr().String()
			var got []string
			d := sim.New(sim.Config{ID: "SIM-00001", Disk: sim.Memory(), Trust: image.TrustKeys(minisign.PublicKey{}), OnEvent: func(e sim.Event) {
				got = append(got, fmt.Sprint(e.Kind, " ", e.Power))
			}})
			s := &control.Server{
				Log: &control.Log{}, Token: token,
				Devices: func() []*sim.Device { return []*sim.Device{d} },
				Device: func(id string) *sim.Device {
					if id == d.ID() {
						return d
					}
					return nil
				},
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Serve(ctx, l) }()
			t.Cleanup(func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})

			cycle(t, "iadsim:"+address+"/SIM-00001")
			if diff := cmp.Diff([]string{"power off", "power on"}, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			refused := map[string]bench.Secrets{`no device "SIM-00002"`: {Token: "secret"}}
			if network == "tcp" {
				refused["set IADLAB_IADSIM_TOKEN"] = bench.Secrets{}
			}
			for want, secrets := range refused {
				p, err := bench.OpenPower("iadsim:"+address+"/SIM-00002", secrets)
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Off(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %s", err, want)
				}
			}
		})
	}
	p, err := bench.OpenPower("iadsim:"+t.TempDir()+"/none/SIM-00001", bench.Secrets{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.On(t.Context()); err == nil || !strings.Contains(err.Error(), "start it with iadsim run --control") {
		t.Errorf("%v", err)
	}
}

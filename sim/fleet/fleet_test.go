package fleet_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/sim"
	"example.com/iad/sim/fleet"
)

// run starts the devices of a fleet and calls check when all of them are running.
func run(t *testing.T, cfg fleet.Config, check func(f *fleet.Fleet)) {
	t.Helper()
	f, err := fleet.New(cfg, fleet.Options{Log: slog.New(slog.DiscardHandler), Notes: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ready := false
	err = f.Run(ctx, fleet.Observer{
		Running: func(_ int, d *sim.Device, addr netip.AddrPort) error { return nil },
		Ready: func() {
			ready = true
			check(f)
			stop()
		},
	})
	if err != nil || !ready {
		t.Errorf("ready: %v, %v", ready, err)
	}
}

// configuration is that of devices in memory on free ports, with a maker of the test.
func configuration(t *testing.T) fleet.Config {
	c := fleet.Default()
	c.SNMP, c.Maker = "127.0.0.1:0", filepath.Join(t.TempDir(), "maker")
	return c
}

// Each group has exactly its share of the devices; the seed decides which, and groups
// override what they say.
func TestGroups(t *testing.T) {
	c := configuration(t)
	c.Devices, c.Seed = 20, 5
	c.Groups = []fleet.Group{
		{Percent: 30, Kind: fleet.Kind{Software: []string{"1.1.0"}, Hardware: "IAD-NEW"}},
		{Percent: 5, Kind: fleet.Kind{Software: []string{"0.9.0"}}},
	}
	var first map[string][]string
	for range 2 {
		run(t, c, func(f *fleet.Fleet) {
			got := map[string][]string{}
			for _, d := range f.Devices() {
				got[d.State().Software] = append(got[d.State().Software], d.ID())
			}
			if len(got["1.1.0"]) != 6 || len(got["0.9.0"]) != 1 || len(got["1.0.0"]) != 13 {
				t.Errorf("devices by software: %v", got)
			}
			if first == nil {
				first = got
			} else if !reflect.DeepEqual(first, got) {
				t.Errorf("the same seed gives other devices: %v, then %v", first, got)
			}
		})
	}
}

// What devices say of themselves is what the fleet was given.
func TestSystem(t *testing.T) {
	c := configuration(t)
	c.SysObjectID = "1.3.6.1.4.1.32473.2"
	run(t, c, func(f *fleet.Fleet) {
		to := f.Devices()[0].Place()
		client := &gosnmp.GoSNMP{Target: to.Addr().String(), Port: to.Port(), Community: "public", Version: gosnmp.Version2c, Timeout: gosnmp.Default.Timeout, Retries: 3}
		if err := client.Connect(); err != nil {
			t.Fatal(err)
		}
		defer client.Conn.Close()
		got, err := client.Get([]string{"1.3.6.1.2.1.1.2.0", "1.3.6.1.2.1.1.5.0"})
		if err != nil || got.Variables[0].Value != "."+c.SysObjectID || string(got.Variables[1].Value.([]byte)) != "SIM-00001" {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"devices = 0":      "devices must be",
		"devices = 20001":  "devices must be",
		"fault = ['fire']": "fault \"fire\"",
		"addresses = '127.1.0.0/28'\ndevices = 15":       "room for 14 devices",
		"addresses = '127.1'":                            "not a range",
		"[[group]]\npercent = 0":                         "group 1: percent",
		"[[group]]\npercent = 60\n[[group]]\npercent=50": "add up to 110 percent",
		"[[group]]\npercent = 60\nimage = 'x'":           "needs trust",
		"rate-limit = -1":                                "rate-limit",
		"bank-size = -1":                                 "bank-size",
		"hardware = ''":                                  "hardware",
		"software = ['a:b', 'c:d']":                      "VERSION:PERCENT",
		"software = ['1.0.0:50']":                        "must be 100",
	} {
		c, err := fleet.Parse([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var m *fleet.Mistake
		if err := c.Check(); !errors.As(err, &m) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"x = 1":                    "line 1: unknown setting x",
		"\ndevices = 'x'":          "line 2: devices:",
		"restart-time = '-1s'":     "line 1:",
		"[[group]]\nsoftware = 1":  "line 2: group.software:",
		"devices = 1\ndevices = 2": "line 2:",
		"=":                        "line 1:",
	} {
		if _, err := fleet.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "fleet.") || strings.Contains(err.Error(), "Go ") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("devices = 3\nsoftware = ['1.0.0:70', '1.1.0:30']\n[[group]]\npercent = 5\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := fleet.Parse(text); err == nil {
			_ = c.Check()
		}
	})
}

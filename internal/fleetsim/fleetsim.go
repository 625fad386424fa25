// Package fleetsim runs virtual devices for tests of the fleet service.
package fleetsim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"aead.dev/minisign"

	"example.com/iad/agent"
	"example.com/iad/agent/config"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/fleet"
	"example.com/iad/internal/iadtest"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
	"example.com/iad/sim"

	"github.com/spf13/afero"
)

// Hardware is that of the devices and images.
const Hardware = "IAD-4FXS"

// Community permits everything.
const Community = "private"

// Devices are virtual devices that run until the test ends.
type Devices struct {
	t   testing.TB
	key minisign.PrivateKey
	// Names are those of the devices in the inventory, which are their device IDs too.
	Names   []string
	address map[string]string
	Sims    map[string]*sim.Device

	mu       sync.Mutex
	failTest map[string]bool // names, and "NAME VERSION"
}

// Options change the usual devices.
type Options struct {
	// Sink is the HOST:PORT for notifications; empty: none.
	Sink string
	// Faults are those of a device, by its index; nil: none.
	Faults func(i int) []sim.Fault
	// RestartTime is how long a restart takes.
	RestartTime time.Duration
	// Configure changes what a device is started with; nil: nothing.
	Configure func(i int, c *sim.Config)
	// Payload is the configuration data beside the first lines; empty: a line for each.
	Payload string
}

// Start starts n devices with software 1.0.0 and configuration data of format 1.
func Start(t testing.TB, n int, o Options) *Devices {
	t.Helper()
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &Devices{t: t, key: private, address: make(map[string]string), Sims: make(map[string]*sim.Device), failTest: make(map[string]bool)}
	network, err := sim.OpenNetwork(netip.MustParsePrefix("127.77.0.0/16"), 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	software := d.Image("1.0.0", 1)
	for i := range n {
		name := fmt.Sprintf("iad-%05d", i+1)
		c := sim.Config{
			ID: name, Model: Hardware, Hardware: Hardware, Trust: image.TrustKeys(public), Disk: sim.Memory(),
			Network: network, Address: network.Address(i), RestartTime: o.RestartTime, Grace: 200 * time.Millisecond,
			SNMP: &snmp.Config{Communities: []snmp.Community{{Name: Community, Write: true}}},
			Hooks: sim.Hooks{
				SelfTest: func(_ context.Context, s agent.SelfTest, _ afero.Fs) error { return d.selfTest(name, s.Version) },
				Convert:  convert,
				Free:     func(int) (int64, error) { return 1 << 30, nil },
			},
		}
		if o.Sink != "" {
			c.SNMP.Sinks = []snmp.Sink{{Address: o.Sink, Community: Community}}
		}
		if o.Faults != nil {
			c.Faults = o.Faults(i)
		}
		if o.Configure != nil {
			o.Configure(i, &c)
		}
		s := sim.New(c)
		if err := s.Provision(bytes.NewReader(software), Configuration(name, o.Payload)); err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		d.Names = append(d.Names, name)
		d.Sims[name] = s
		d.address[name] = netip.AddrPortFrom(network.Address(i), network.Port()).String()
	}
	return d
}

// PublicKey returns the key that images are signed with, as a file has it.
func (d *Devices) PublicKey() []byte {
	text, err := d.key.Public().(minisign.PublicKey).MarshalText()
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

// Configuration returns the configuration data of a device.
func Configuration(name, payload string) config.Set {
	set := make(config.Set)
	for _, kind := range config.Kinds() {
		set[kind] = fmt.Appendf(nil, "iad-config %s 1\nname = %s of %s\n%s", kind, kind, name, payload)
	}
	return set
}

// convert changes the first line of each file.
func convert(_ context.Context, c agent.Conversion, work afero.Fs) error {
	list, err := afero.ReadDir(work, c.InDir)
	if err != nil {
		return err
	}
	for _, info := range list {
		data, err := afero.ReadFile(work, c.InDir+"/"+info.Name())
		if err != nil {
			return err
		}
		kind, _, err := config.ParseHeader(data)
		if err != nil {
			return err
		}
		_, body, _ := bytes.Cut(data, []byte("\n"))
		if err := afero.WriteFile(work, c.OutDir+"/"+info.Name(), fmt.Appendf(nil, "iad-config %s %d\n%s", kind, c.To, body), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// FailSelfTest has the self-test of a version fail on a device, or succeed again.
func (d *Devices) FailSelfTest(name, version string, fail bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failTest[name+" "+version] = fail
}

func (d *Devices) selfTest(name, version string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failTest[name+" "+version] {
		return fmt.Errorf("line card 2 does not answer")
	}
	return nil
}

// Image builds an image that the devices accept.
func (d *Devices) Image(version string, format uint32) []byte {
	return iadtest.BuildImage(d.t, d.key, image.Manifest{Version: version, Hardware: []string{Hardware}, ConfigFormat: format})
}

// Describe returns what the inventory has to know of an image, and a function that opens
// it.
func Describe(data []byte, version string, format uint32) (*fleet.Image, func() (io.ReadCloser, error)) {
	sum := sha256.Sum256(data)
	return &fleet.Image{
		Digest: hex.EncodeToString(sum[:]), Version: version, Hardware: []string{Hardware}, Size: int64(len(data)), Format: format,
		File: "fw-" + version + ".iad", Added: time.Now().UTC(), AddedBy: "test",
	}, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

// Device returns what the inventory has to know of a device.
func (d *Devices) Device(name string) *fleet.Device {
	return &fleet.Device{Name: name, Address: d.address[name], Created: time.Now().UTC()}
}

// Secret returns the credentials for all devices.
func Secret() *fleet.Secret {
	return &fleet.Secret{Name: fleet.DefaultSecret, WriteCommunity: Community}
}

// Client returns access to a device.
func (d *Devices) Client(name string) *device.Client {
	d.t.Helper()
	c, err := device.Dial(device.Target{Address: d.address[name], Credentials: Secret().Credentials()})
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// Check compares a device with what a campaign must have left: its history shows that no
// operation was carried out twice, and its configuration data are its own.
func (d *Devices) Check(ctx context.Context, name string) (*device.Device, error) {
	c := d.Client(name)
	defer c.Close()
	found, err := c.Device(ctx)
	if err != nil {
		return nil, err
	}
	history, err := c.History(ctx)
	if err != nil {
		return nil, err
	}
	if problem := Repeated(history); problem != "" {
		return found, fmt.Errorf("%s: %s", name, problem)
	}
	if found.Generation == 0 {
		return found, fmt.Errorf("%s runs on defaults", name)
	}
	return found, nil
}

// Repeated says what a history shows that was carried out twice; empty: nothing. A request
// is there once. Of an owner, software is installed and configuration data are recovered
// successfully once. A backup reads only: it is made again if the worker that received it
// has gone.
func Repeated(history []device.HistoryEntry) string {
	requests, successes := make(map[string]uint32), make(map[string]uint32)
	for _, h := range history {
		request := fmt.Sprintf("request %d of %s, %s", h.ReqID, h.Owner, h.Kind)
		if first, ok := requests[request]; ok {
			return fmt.Sprintf("%s was carried out as operations %d and %d", request, first, h.OpID)
		}
		requests[request] = h.OpID
		if h.State != mib.OperationStateSucceeded || !strings.HasPrefix(h.Owner, "iadms:") ||
			h.Kind != mib.OperationKindDownloadSoftware && h.Kind != mib.OperationKindRecoverConfig {
			continue
		}
		success := fmt.Sprintf("%s of %s", h.Kind, h.Owner)
		if first, ok := successes[success]; ok {
			return fmt.Sprintf("%s succeeded twice, as operations %d and %d", success, first, h.OpID)
		}
		successes[success] = h.OpID
	}
	return ""
}

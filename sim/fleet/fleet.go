package fleet

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/sim"
)

// Options say how a fleet is run.
type Options struct {
	Version string       // of the program, part of sysDescr
	Log     *slog.Logger // of the devices
	Notes   io.Writer    // gets a line for each file written
	// OnEvent, if not nil, is called with what happens to devices. It must not call them.
	OnEvent func(sim.Event)
}

// Fleet are the devices of one run.
type Fleet struct {
	cfg     Config
	options Options
	place   place
	network *sim.Network // nil: ports
	kinds   []Group
	kind    []int // of each device
	disks   []*disks
	faults  [][]sim.Fault
	trust   *image.Trust
	access  access
	close   []func() error

	mu   sync.Mutex
	byID map[string]*sim.Device // those that have started
}

// New prepares a fleet: it reads keys and software, or makes them, and opens the socket of
// a range of addresses. An error is a *Mistake if it is the description's.
func New(cfg Config, o Options) (f *Fleet, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	f = &Fleet{cfg: cfg, options: o, byID: map[string]*sim.Device{}}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	var shares []sim.Share
	for _, s := range cfg.Faults {
		share, err := sim.ParseShare(s)
		if err != nil {
			return f, err
		}
		shares = append(shares, share)
	}
	f.faults = sim.Draw(shares, cfg.Seed, cfg.Devices)
	if f.kinds, err = cfg.kinds(); err != nil {
		return f, err
	}
	f.kind = drawKinds(f.kinds, cfg.Seed, cfg.Devices)
	if cfg.Root != "" {
		release, err := lockRoot(cfg.Root)
		if err != nil {
			return f, err
		}
		f.close = append(f.close, release)
	}
	if err := f.software(); err != nil {
		return f, err
	}
	if f.access, err = cfg.access(o.Notes); err != nil {
		return f, err
	}
	if f.place, err = cfg.place(); err != nil {
		return f, err
	}
	if f.place.prefix.IsValid() {
		if f.network, err = sim.OpenNetwork(f.place.prefix, uint16(f.place.port)); err != nil {
			return f, err
		}
		f.close = append(f.close, f.network.Close)
	}
	return f, nil
}

// drawKinds decides of which kind each device is: exactly the share of each, rounded to
// whole devices.
func drawKinds(kinds []Group, seed uint64, devices int) []int {
	kind := make([]int, devices)
	order := rand.New(rand.NewPCG(seed, 1<<32)).Perm(devices) // apart from those of sim.Draw
	from, percent := 0, 0
	for k, g := range kinds {
		percent += g.Percent
		to := (devices*percent + 50) / 100
		for _, i := range order[from:to] {
			kind[i] = k
		}
		from = to
	}
	return kind
}

// Close frees what New took.
func (f *Fleet) Close() {
	for _, c := range slices.Backward(f.close) {
		_ = c() // sockets and locks end with the process in any case
	}
	f.close = nil
}

// Size is the number of devices.
func (f *Fleet) Size() int { return f.cfg.Devices }

// ID is the identity of device i, counted from 0.
func (f *Fleet) ID(i int) string { return f.cfg.ID(i) }

// ID is the identity of device i, counted from 0.
func (c *Config) ID(i int) string { return fmt.Sprintf("%s%05d", c.DeviceID, i+1) }

// Faults are those that device i has from the beginning.
func (f *Fleet) Faults(i int) []sim.Fault { return f.faults[i] }

// Device returns a device by its ID, nil if there is none or it has not started yet.
func (f *Fleet) Device(id string) *sim.Device {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byID[id]
}

// Devices returns the devices that have started, in the order of their IDs.
func (f *Fleet) Devices() []*sim.Device {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Values(f.byID), func(a, b *sim.Device) int { return strings.Compare(a.ID(), b.ID()) })
}

func (f *Fleet) add(d *sim.Device) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.byID[d.ID()] = d
}

// device makes device i.
func (f *Fleet) device(i int) (*sim.Device, error) {
	c, err := f.config(i)
	if err != nil {
		return nil, err
	}
	if err := f.disks[f.kind[i]].prepare(&c); err != nil {
		return nil, fmt.Errorf("%s: %w", c.ID, err)
	}
	return sim.New(c), nil
}

// config is the configuration of device i.
func (f *Fleet) config(i int) (sim.Config, error) {
	c, kind := &f.cfg, &f.kinds[f.kind[i]].Kind
	id := f.ID(i)
	objectID, err := parseOID(c.SysObjectID)
	if err != nil {
		return sim.Config{}, err
	}
	root, err := parseOID(c.MIBRoot)
	if err != nil {
		return sim.Config{}, err
	}
	protocols, err := c.protocols()
	if err != nil {
		return sim.Config{}, err
	}
	model := kind.Model
	if model == "" {
		model = kind.Hardware
	}
	out := sim.Config{
		ID: id, Model: model, Hardware: kind.Hardware, Trust: f.trust, Root: root, Protocols: protocols, PlainPasswords: c.PlainPasswords,
		BankSize: int64(kind.BankSize), RestartTime: time.Duration(kind.RestartTime), Log: f.options.Log.With("device", id),
		Faults: f.faults[i], OnEvent: f.options.OnEvent,
		SNMP: &snmp.Config{
			System:      snmp.System{Descr: "virtual IAD " + f.options.Version, Name: id, ObjectID: objectID},
			Communities: f.access.communities, Users: f.access.users,
		},
	}
	out.Transfer.RateLimit = kind.RateLimit
	if out.Transfer.Pin, err = hex.DecodeString(c.FTPSPin); err != nil || len(out.Transfer.Pin) == 0 {
		out.Transfer.Pin = nil
	}
	for _, s := range c.TrapSinks {
		out.SNMP.Sinks = append(out.SNMP.Sinks, snmp.Sink{Address: s, Community: c.ReadCommunity})
	}
	if c.Root != "" {
		if out.Disk, err = sim.Directory(filepath.Join(c.Root, id)); err != nil {
			return out, err
		}
	}
	if f.network != nil {
		out.Network, out.Address = f.network, f.network.Address(i)
		return out, nil
	}
	port := f.place.port
	if port != 0 {
		port += i
	}
	out.Listen = net.JoinHostPort(f.place.host, strconv.Itoa(port))
	return out, nil
}

// Observer is notified when devices change state. Functions that are nil are not called.
type Observer struct {
	// Running is called for each device in their order, once it answers. An error ends
	// the run.
	Running func(i int, d *sim.Device, addr netip.AddrPort) error
	// Ready is called after the last one.
	Ready func()
	// Failed is called for a device that ends by itself later.
	Failed func(error)
}

// Run starts the devices, several at a time, and keeps them running until ctx ends. The
// error is that of a device that did not start, or of the last that ended.
func (f *Fleet) Run(ctx context.Context, o Observer) error {
	var alive sync.WaitGroup
	defer alive.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, f.Size())
	type result struct {
		device *sim.Device
		addr   netip.AddrPort
		err    error
	}
	results := make([]chan result, f.Size())
	for i := range results {
		results[i] = make(chan result, 1)
	}
	one := func(i int) (r result) {
		if r.device, r.err = f.device(i); r.err != nil {
			return r
		}
		// Ends when the device does, with its error as the cause.
		started, end := context.WithCancelCause(ctx)
		alive.Go(func() {
			err := named(r.device, r.device.Run(ctx))
			end(err)
			ended <- err
		})
		if r.addr = r.device.Addr(started); !r.addr.IsValid() {
			r.err = context.Cause(started)
		} else {
			f.add(r.device)
		}
		return r
	}
	var next atomic.Int64
	for range 2 * runtime.GOMAXPROCS(0) {
		alive.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(results) {
					return
				}
				results[i] <- one(i)
			}
		})
	}
	for i := range results {
		select {
		case <-ctx.Done():
			return nil
		case r := <-results[i]:
			if r.err == nil && o.Running != nil {
				r.err = o.Running(i, r.device, r.addr)
			}
			if ctx.Err() != nil {
				return nil
			}
			if r.err != nil {
				return r.err
			}
		}
	}
	if o.Ready != nil {
		o.Ready()
	}
	var last error
	for range results {
		if err := <-ended; err != nil {
			last = err
			if o.Failed != nil {
				o.Failed(err)
			}
		}
	}
	return last
}

// named adds a device to an error, if there is one.
func named(d *sim.Device, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", d.ID(), err)
	}
	return err
}

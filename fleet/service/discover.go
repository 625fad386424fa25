package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/inventory"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/view"
)

// discoverParallel is how many addresses are asked at the same time.
const discoverParallel = 256

// Discover implements operations.Service.
func (s *Service) Discover(ctx context.Context, by operations.Caller, d operations.Discovery) (*operations.Discovered, error) {
	found := &operations.Discovered{Devices: []operations.DiscoveredDevice{}}
	err := s.change(ctx, by, operations.DiscoverDevices, "devices", func() (effect, error) {
		sweep, err := s.sweep(ctx, &d)
		if err != nil {
			return effect{}, err
		}
		err = sweep.Run(ctx, func(device *fleet.Device) {
			device.Site, device.Pool, device.Tags, device.Created = d.Site, d.Pool, d.Tags, s.now()
			if device.Credentials == fleet.DefaultSecret {
				device.Credentials = ""
			}
			device.Normalize()
			found.Devices = append(found.Devices, operations.DiscoveredDevice{Device: *device})
		}, func(asked int) { found.Asked = asked })
		if err != nil {
			return effect{}, err
		}
		slices.SortFunc(found.Devices, func(a, b operations.DiscoveredDevice) int {
			return cmp.Or(cmp.Compare(len(a.Device.Address), len(b.Device.Address)), strings.Compare(a.Device.Address, b.Device.Address))
		})
		added, err := s.addDiscovered(ctx, found.Devices, d.Add)
		found.Added = len(added)
		return effect{after: struct {
			Range string   `json:"range"`
			Asked int      `json:"asked"`
			Found int      `json:"found"`
			Added []string `json:"added"`
		}{d.Range, found.Asked, len(found.Devices), added}}, err
	})
	return found, err
}

// sweep checks a search.
func (s *Service) sweep(ctx context.Context, d *operations.Discovery) (*inventory.Sweep, error) {
	if len(s.cfg.Networks) == 0 {
		return nil, conflict("no network may be searched; start iadmsd with --discover NETWORK")
	}
	r, err := inventory.ParseRange(d.Range)
	if err != nil {
		return nil, field("range", "%v", err)
	}
	if r.Size() > operations.MaxDiscovery {
		return nil, field("range", "must have at most %d addresses", operations.MaxDiscovery)
	}
	known, err := s.sites(ctx)
	if err != nil {
		return nil, err
	}
	if !known[d.Site] {
		return nil, unknownSite(d.Site)
	}
	// What all of them get must be right before anything is asked.
	example := fleet.Device{Name: "x", Address: "192.0.2.1", Site: d.Site, Pool: d.Pool, Tags: d.Tags}
	if err := example.Validate(); err != nil {
		return nil, err
	}
	names := d.Secrets
	if len(names) == 0 {
		names = []string{fleet.DefaultSecret}
	}
	sweep := &inventory.Sweep{Range: r, Allowed: s.cfg.Networks, Port: d.Port, Parallel: discoverParallel}
	for i, name := range names {
		secret, err := s.store.Secrets.Get(ctx, name)
		if errors.Is(err, engine.ErrNotFound) {
			return nil, field(fmt.Sprintf("secrets[%d]", i), "there are no credentials %.80q", name)
		}
		if err != nil {
			return nil, err
		}
		sweep.Secrets = append(sweep.Secrets, *secret)
	}
	return sweep, nil
}

// addDiscovered says which devices are known, adds the others if add, and returns their
// names.
func (s *Service) addDiscovered(ctx context.Context, list []operations.DiscoveredDevice, add bool) (added []string, err error) {
	var last uint64
	for i := range list {
		d := &list[i].Device
		if list[i].Known, err = s.known(ctx, d); err != nil || list[i].Known != "" || !add {
			if err != nil {
				return added, err
			}
			continue
		}
		revision, err := s.store.Devices.Create(ctx, d)
		switch {
		case errors.Is(err, engine.ErrConflict):
			list[i].Problem = fmt.Sprintf("another device has the name %s", d.Name)
			continue
		case err != nil:
			return added, err
		}
		added, last = append(added, d.Name), max(last, revision)
	}
	return added, s.view.Wait(ctx, view.Devices, last)
}

// known returns the name of a unit in the inventory; empty: it is not there.
func (s *Service) known(ctx context.Context, d *fleet.Device) (name string, err error) {
	f, err := inventory.Compile(fmt.Sprintf("device_id == %q or address == %q", d.Identity.Device, d.Address))
	if err != nil {
		return "", err
	}
	err = s.view.Devices(ctx, view.DeviceQuery{Filter: f, Limit: 1}, func(d *fleet.Device) error { name = d.Name; return nil })
	return name, err
}

package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"example.com/iad/sim"
	"example.com/iad/sim/control"
)

// fleet are the devices of one run.
type fleet struct {
	devices []*sim.Device
	log     control.Log
	control sync.WaitGroup // the control interface

	mu   sync.Mutex
	byID map[string]*sim.Device // those that have started
}

// add makes a device known to the control interface.
func (f *fleet) add(d *sim.Device) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byID == nil {
		f.byID = make(map[string]*sim.Device)
	}
	f.byID[d.ID()] = d
}

func (f *fleet) device(id string) *sim.Device {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byID[id]
}

// all returns the devices that have started, in the order of their IDs.
func (f *fleet) all() []*sim.Device {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(maps.Values(f.byID), func(a, b *sim.Device) int { return strings.Compare(a.ID(), b.ID()) })
}

// run calls serve, starts the devices, several at a time, and keeps them running until ctx
// ends. The context of serve ends when run does. running
// is called for each in their order, ready after the last one, and failed for each that
// ends by itself later. The error is that of a device that did not start, or of the last
// that ended.
func (f *fleet) run(ctx context.Context, serve func(context.Context) error, start func(int) (*sim.Device, error), running func(int, *sim.Device, netip.AddrPort) error, ready func(), failed func(error)) error {
	var alive sync.WaitGroup
	defer f.control.Wait()
	defer alive.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := serve(ctx); err != nil {
		return err
	}
	ended := make(chan error, len(f.devices))
	type result struct {
		addr netip.AddrPort
		err  error
	}
	results := make([]chan result, len(f.devices))
	for i := range results {
		results[i] = make(chan result, 1)
	}
	one := func(i int) (r result) {
		d, err := start(i)
		if err != nil {
			return result{err: err}
		}
		f.devices[i] = d
		// Ends when the device does, with its error as the cause.
		started, end := context.WithCancelCause(ctx)
		alive.Go(func() {
			err := named(d, d.Run(ctx))
			end(err)
			ended <- err
		})
		if r.addr = d.Addr(started); !r.addr.IsValid() {
			r.err = context.Cause(started)
		} else {
			f.add(d)
		}
		return r
	}
	var next atomic.Int64
	for range 2 * runtime.GOMAXPROCS(0) {
		alive.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(f.devices) {
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
			if r.err == nil {
				r.err = running(i, f.devices[i], r.addr)
			}
			if ctx.Err() != nil {
				return nil
			}
			if r.err != nil {
				return r.err
			}
		}
	}
	ready()
	var last error
	for range f.devices {
		if err := <-ended; err != nil {
			last = err
			failed(err)
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

package view

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/store"
)

// many is a source of devices with long notes.
type many int

func (n many) Watch(ctx context.Context, handle func(store.Change[fleet.Device]) error, _ ...string) error {
	for i := range int(n) {
		name := fmt.Sprintf("d%04d", i)
		d := &fleet.Device{Name: name, Address: "192.0.2.1", Note: strings.Repeat("x", 900)}
		if err := handle(store.Change[fleet.Device]{Value: d, Revision: uint64(i + 1), Key: name}); err != nil {
			return err
		}
	}
	if err := handle(store.Change[fleet.Device]{Synced: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// TestNoRoom: without room the view waits and can be read; with room it has everything. Only
// from inside can the room be limited.
func TestNoRoom(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	v, err := Open(filepath.Join(t.TempDir(), "view.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if _, err := v.write.Exec("PRAGMA max_page_count = 60"); err != nil {
		t.Fatal(err)
	}
	const devices = 2000
	feeding, stop := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- v.FeedDevices(feeding, many(devices)) }()
	short, stopShort := context.WithTimeout(ctx, 2*fullPause)
	if err := v.Wait(short, Devices, devices); err == nil {
		t.Error("everything is there although there was no room")
	}
	stopShort()
	if _, err := v.Count(ctx, DeviceQuery{}); err != nil {
		t.Errorf("it cannot be read: %v", err)
	}
	if _, err := v.write.Exec("PRAGMA max_page_count = 1000000"); err != nil {
		t.Fatal(err)
	}
	if err := v.Wait(ctx, Devices, devices); err != nil {
		t.Fatal(err)
	}
	if n, err := v.Count(ctx, DeviceQuery{}); err != nil || n != devices {
		t.Errorf("%d devices, %v", n, err)
	}
	stop()
	<-ended
}

package view_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/view"
	"example.com/iad/manager/device"
)

// BenchmarkInventory measures an inventory of many devices, 1,000 or what IAD_DEVICES
// says: how long it takes to fill the view, and queries.
func BenchmarkInventory(b *testing.B) {
	size := 1000
	if n, err := strconv.Atoi(os.Getenv("IAD_DEVICES")); err == nil {
		size = n
	}
	file := filepath.Join(b.TempDir(), "view.db")
	v, err := view.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	begin := time.Now()
	source := &source[fleet.Device]{changes: make(chan store.Change[fleet.Device], 100)}
	go func() { _ = v.FeedDevices(b.Context(), source) }()
	for i := range size {
		source.changes <- store.Change[fleet.Device]{Key: "k" + strconv.Itoa(i), Revision: uint64(i + 1), Value: &fleet.Device{
			Name: fmt.Sprintf("iad-%07d", i), Address: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), Site: fmt.Sprintf("site-%03d", i%500), Tags: []string{"voip", "batch-" + strconv.Itoa(i%10)},
			Identity: &device.Identity{Device: fmt.Sprintf("IAD-%07d", i), EngineID: "80001f8804", Address: "10.0.0.1:161", Time: now},
			Facts:    &fleet.Facts{Model: "IAD-4FXS", Hardware: "rev2", Version: fmt.Sprintf("1.%d.0", i%12), ConfigFormat: 2, Generation: 3, ConfigDigest: fmt.Sprintf("%064x", i), Time: now},
			Contact:  fleet.Contact{Time: now.Add(-time.Duration(i%100) * time.Hour)}, Created: now,
		}}
	}
	source.changes <- store.Change[fleet.Device]{Synced: true, Key: "end"}
	source.changes <- store.Change[fleet.Device]{Key: "last", Revision: uint64(size + 1), Value: &fleet.Device{Name: "last"}}
	if err := v.Wait(b.Context(), view.Devices, uint64(size+1)); err != nil {
		b.Fatal(err)
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	info, err := os.Stat(file)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d devices: filled in %v; database %d MiB, heap %d MiB, from the system %d MiB", size, time.Since(begin).Round(time.Millisecond), info.Size()>>20, memory.HeapAlloc>>20, memory.Sys>>20)
	page := view.DeviceQuery{Limit: 50, Now: now}
	filtered := func(text string) view.DeviceQuery {
		q := page
		q.Filter = compile(b, text)
		return q
	}
	last, byVersion, search := page, page, page
	last.Offset, byVersion.Sort, search.Text = size-50, "-version", "99"
	for _, c := range []struct {
		name string
		q    view.DeviceQuery
	}{
		{"all", page}, {"last page", last}, {"by version", byVersion}, {"search", search},
		{"site", filtered(`site == "site-007"`)},
		{"version and tag", filtered(`version < "1.3.0" and "batch-3" in tags`)},
		{"text", filtered(`address contains ".77." or note contains "x"`)},
		{"silent", filtered(`silent > "90h" and not busy`)},
	} {
		b.Run(c.name+"/page", func(b *testing.B) {
			for b.Loop() {
				if err := v.Devices(b.Context(), c.q, func(*fleet.Device) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/count", func(b *testing.B) {
			for b.Loop() {
				if _, err := v.Count(b.Context(), c.q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("versions", func(b *testing.B) {
		for b.Loop() {
			if _, err := v.By(b.Context(), "version", page, 20); err != nil {
				b.Fatal(err)
			}
		}
	})
}

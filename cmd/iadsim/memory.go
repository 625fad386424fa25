package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// garbagePercent is GOGC: idle devices cause little garbage, and memory decides how many
// there can be.
const garbagePercent = 25

func saveMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}

// Whether devices are idle is decided by what the program allocates in a time: they are if
// it is less than idleBytes.
const (
	idlePeriod = 5 * time.Second
	idleBytes  = 1 << 20
)

// trimWhenIdle gives back the memory that only the start of the devices needed, and then
// memory whenever they have become idle, until ctx ends.
func trimWhenIdle(ctx context.Context) {
	trim()
	last, busy := allocated(), false
	tick := time.NewTicker(idlePeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := allocated()
		switch {
		case now-last > idleBytes:
			busy = true
		case busy:
			trim()
			now, busy = allocated(), false
		}
		last = now
	}
}

// allocated is how many bytes the program has allocated since it started.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// trim gives back what is unused, including stacks, which a collection halves at most.
func trim() {
	runtime.GC()
	runtime.GC()
	debug.FreeOSMemory()
}

package main

import (
	"bufio"
	"context"
	"runtime/metrics"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// measured returns how many collections the program has forced, and how many bytes it has
// given back to the system.
func measured() (forced, released uint64) {
	s := []metrics.Sample{{Name: "/gc/cycles/forced:gc-cycles"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Uint64()
}

// TestMemoryIsGivenBack: once after the start, and once after the devices have done
// something. While they are idle, no processor time is spent on it.
func TestMemoryIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer end()
		collections := func(what string, d time.Duration, want bool) {
			t.Helper()
			before, _ := measured()
			time.Sleep(d)
			synctest.Wait()
			if after, _ := measured(); after > before != want {
				t.Errorf("%s: %d forced collections in %v", what, after-before, d)
			}
		}
		before, _ := measured()
		go trimWhenIdle(ctx)
		synctest.Wait()
		if after, _ := measured(); after == before {
			t.Error("no forced collection after the start")
		}
		collections("idle after the start", time.Hour, false)
		const size = 64 << 20
		work := make([]byte, size)
		for i := range work {
			work[i] = 1 // the system has to provide it
		}
		_, during := measured()
		work = nil
		collections("busy", idlePeriod, false)
		collections("after the work", idlePeriod, true)
		if _, after := measured(); after < during+size/2 {
			t.Errorf("%d bytes were given back after the work, want at least %d", int64(after-during), size/2)
		}
		collections("idle after the work", time.Hour, false)
	})
}

// TestStartIsGivenBack: iadsim run does it as soon as the devices run.
func TestStartIsGivenBack(t *testing.T) {
	cmd := simulator(t, "--devices", "2", "--snmp", "127.0.0.1:0")
	cmd.Env = append(cmd.Env, "GODEBUG=gctrace=1")
	trace, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	watch := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer watch.Stop()
	for lines := bufio.NewScanner(trace); lines.Scan(); {
		if strings.Contains(lines.Text(), "(forced)") {
			return
		}
	}
	t.Error("no forced collection after the start")
}

package agent_test

import (
	"bytes"
	"context"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"aead.dev/minisign"

	"example.com/iad/agent"
	"example.com/iad/agent/config"
	"example.com/iad/bank/image"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// slowBoard takes its time to put configuration data to use, and counts the kicks.
type slowBoard struct {
	idleBoard
	takes time.Duration
	kicks atomic.Int32
}

func (b *slowBoard) ApplyConfig(context.Context, config.Generation, config.Set) (bool, error) {
	time.Sleep(b.takes) // of synctest's clock
	return false, nil
}

func (b *slowBoard) Kick() { b.kicks.Add(1) }

// TestKicksWhileStarting: the watchdog does not reset a device that takes long to start, but
// does if the start hangs.
func TestKicksWhileStarting(t *testing.T) {
	for _, c := range []struct {
		takes, interval, limit time.Duration
		least, most            int32
	}{
		{takes: 65 * time.Second, least: 7, most: 7},
		{takes: 20 * time.Second, interval: 3 * time.Second, least: 7, most: 7},
		{takes: 24 * time.Hour, least: 30, most: 31},
		{takes: 24 * time.Hour, interval: 3 * time.Second, limit: time.Minute, least: 20, most: 21},
	} {
		synctest.Test(t, func(t *testing.T) {
			disk, board := sim.Memory(), &slowBoard{}
			cfg := agent.Config{
				DeviceID: "IAD-0001", Hardware: hardware, Trust: image.TrustKeys(maker().Public().(minisign.PublicKey)),
				Banks: disk.Banks, State: disk.State, Data: disk.Data, Work: disk.Work, Platform: board,
				WatchdogInterval: c.interval, StartLimit: c.limit,
			}
			if err := agent.Provision(cfg, bytes.NewReader(factory()), settings(1, "name")); err != nil {
				t.Fatal(err)
			}
			board.takes = c.takes
			board.kicks.Store(0)
			if _, err := agent.New(cfg); err != nil {
				t.Fatal(err)
			}
			at := board.kicks.Load()
			if at < c.least || at > c.most {
				t.Errorf("%+v: %d kicks", c, at)
			}
			time.Sleep(time.Hour)
			if after := board.kicks.Load(); after != at {
				t.Errorf("%+v: kicked %d times after New returned", c, after-at)
			}
		})
	}
}

// TestKicksWhileBankIsRead: the watchdog does not reset a device that reads all of a large bank before it decides.
func TestKicksWhileBankIsRead(t *testing.T) {
	const size = 6 << 20
	var img bytes.Buffer
	m := image.Manifest{Version: "2.0.0", ConfigFormat: 1, Hardware: []string{hardware}}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(make([]byte, size))), nil }
	if err := image.Build(&img, m, []image.PayloadFile{{Name: "firmware", Mode: 0o644, Open: open}}, maker()); err != nil {
		t.Fatal(err)
	}
	board := &slowBoard{}
	a := runAgent(t, func(c *agent.Config) {
		c.Platform, c.WatchdogInterval = board, time.Hour
		c.Fetcher = memServer{&bench{t: t, files: map[string][]byte{"software": img.Bytes()}}}
	})
	if op := operate(t, a, append(server1(mib.ProtocolTftp, 69, 10)[:5], text(mib.FileName, "software", uint32(mib.FileTypeSoftware)), command(downloadSoftware))...); op.State != mib.OperationStateSucceeded {
		t.Fatalf("%+v", op)
	}
	before := board.kicks.Load()
	if op := operate(t, a, num(mib.ReqBank, 2), command(activate)); op.State != mib.OperationStateSucceeded {
		t.Fatalf("%+v", op)
	}
	if n := board.kicks.Load() - before; n < size>>20 {
		t.Errorf("%d kicks while %d bytes were read", n, size)
	}
}

package agent_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/bank/image"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// readOnly makes a file system refuse writes while it is on.
type readOnly struct {
	afero.Fs
	on *atomic.Bool
}

var errReadOnly = errors.New("read-only file system")

func (f readOnly) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	if f.on.Load() && flag != 0 {
		return nil, errReadOnly
	}
	return f.Fs.OpenFile(name, flag, perm)
}

func (f readOnly) Create(name string) (afero.File, error) {
	if f.on.Load() {
		return nil, errReadOnly
	}
	return f.Fs.Create(name)
}

func (f readOnly) Rename(from, to string) error {
	if f.on.Load() {
		return errReadOnly
	}
	return f.Fs.Rename(from, to)
}

// A state partition that cannot be written keeps new work out, with commitFailed
// and the reason; a reset works all the same.
func TestStateCannotBeWritten(t *testing.T) {
	var broken atomic.Bool
	onBench(t, func(c *sim.Config) { c.Disk.State = readOnly{c.Disk.State, &broken} }, func(b *bench) {
		b.server()
		broken.Store(true)
		err := b.set(num(mib.NotifyStep, 3))
		if err == nil || err.Status != mib.CommitFailed {
			t.Errorf("settings: %v", err)
		}
		b.want(mib.NotifyStep, 10)
		err = b.set(command(backupConfig))
		if err == nil || err.Status != mib.CommitFailed {
			t.Errorf("backup: %v", err)
		}
		b.want(mib.ReqRefusal, int64(mib.FailCauseStorageFull))
		b.want(mib.OpId, 0)
		starts := b.device.Starts()
		b.must(command(reset))
		time.Sleep(time.Minute)
		if b.device.Starts() != starts+1 {
			t.Error("no reset")
		}
		broken.Store(false)
		b.must(command(backupConfig))
		b.succeeded()
	})
}

// A device without configuration data runs on the defaults of its software, and
// backs up and recovers them.
func TestNewDeviceWithoutConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, files: map[string][]byte{}, ended: make(chan error, 1)}
		b.cfg = sim.Config{ID: "x", Hardware: hardware, Disk: sim.Memory(), Trust: image.TrustKeys(maker().Public().(minisign.PublicKey)),
			Fetcher: memServer{b}}
		b.cfg.Hooks.SelfTest = b.runSelfTest
		b.device = sim.New(b.cfg)
		if err := b.device.Provision(bytes.NewReader(factory()), nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { b.ended <- b.device.Run(ctx) }()
		defer func() { cancel(); <-b.ended }()
		b.server()
		b.want(mib.ConfigGeneration, 0)
		b.wantText(mib.ConfigDigest, "")
		b.wantText(mib.ConfigApplied, string(make([]byte, 8)))
		b.wantText(mib.OpStarted, string(make([]byte, 8)))
		b.must(command(backupConfig))
		b.succeeded()
		b.wantText(mib.OpStarted, string(make([]byte, 8))) // the clock of this board stands in the year 2000
		b.must(command(recoverConfig))
		b.succeeded()
		b.want(mib.ConfigGeneration, 1)
	})
}

// What is on the disk can be read beside the running device and without it.
func TestPeek(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.busy()
		s := agent.Peek(agent.Config{Banks: b.cfg.Disk.Banks, State: b.cfg.Disk.State})
		if s.Op.ID != 3 || s.Restarts != 2 || s.Banks.Running != 1 || s.Banks.Banks[1].Version != "2.0.0" || len(s.Findings) != 0 {
			t.Errorf("status %+v", s)
		}
	})
	s := agent.Peek(agent.Config{Banks: sim.Memory().Banks, State: sim.Memory().State})
	if s.Op.ID != 0 || s.Banks.Running != 0 {
		t.Errorf("status of an empty disk: %+v", s)
	}
}

// The version floor can be moved at the device, both ways.
func TestSetFloor(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.image("2.0.0", 1)
		b.device.CutPower()
		synctest.Wait()
		cfg := agent.Config{Banks: b.cfg.Disk.Banks, State: b.cfg.Disk.State, Hardware: hardware}
		if err := agent.SetFloor(cfg, "3.0.0"); err != nil {
			t.Fatal(err)
		}
		b.device.PowerOn()
		b.must(command(downloadSoftware))
		b.failed(mib.FailCauseDowngradeRefused)
		b.device.CutPower()
		synctest.Wait()
		if err := agent.SetFloor(cfg, ""); err != nil {
			t.Fatal(err)
		}
		b.device.PowerOn()
		b.must(command(downloadSoftware))
		b.succeeded()
		if err := agent.SetFloor(cfg, "new"); err == nil {
			t.Error("a floor that is no version was accepted")
		}
	})
}

// A device must have an identity.
func TestDeviceID(t *testing.T) {
	for _, id := range []string{"", "an-identity-that-is-longer-than-32"} {
		if _, err := agent.New(agent.Config{DeviceID: id}); err == nil {
			t.Errorf("device %q was made", id)
		}
	}
}

package sim_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"aead.dev/minisign"

	"example.com/iad/agent"
	"example.com/iad/bank/image"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// life runs a device until stop is called; it takes the place of the lab's.
func (l *lab) life(cfg sim.Config) (stop func()) {
	l.device = sim.New(cfg)
	ctx, cancel := context.WithCancel(l.t.Context())
	done := make(chan error, 1)
	dev := l.device
	go func() { done <- dev.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("device: %v", err)
		}
	}
	l.t.Cleanup(stop)
	return stop
}

// newDisk is a device that is switched off, with software 1.0.0 and an address
// of its own.
func (l *lab) newDisk(cfg *sim.Config) {
	l.t.Helper()
	cfg.Disk = sim.Memory()
	cfg.Listen = ownAddress() + ":0"
	if err := sim.New(*cfg).Provision(bytes.NewReader(l.build(image.Manifest{Version: "1.0.0", ConfigFormat: 1})), settings(1)); err != nil {
		l.t.Fatal(err)
	}
}

// setFloor is what somebody at the device does with "iad floor".
func (l *lab) setFloor(cfg sim.Config, version string) {
	l.t.Helper()
	if err := agent.SetFloor(agent.Config{State: cfg.Disk.State, Banks: cfg.Disk.Banks}, version); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) version() string {
	l.t.Helper()
	d, err := l.client().Device(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return d.Version
}

func (l *lab) want(op *device.Operation, state mib.OperationState, cause mib.FailCause, version string) {
	l.t.Helper()
	if op.State != state || op.Cause != cause {
		l.t.Errorf("%v: %v, %v: %s; want %v, %v", op.Kind, op.State, op.Cause, op.Text, state, cause)
	}
	if v := l.version(); v != version {
		l.t.Errorf("runs %s, want %s", v, version)
	}
}

// Keys that are taken away and a floor above everything keep new software out;
// they keep no software that is on the device from starting, neither the
// running one, nor the fallback of a failed trial, nor what restoreOldSoftware
// goes back to.
func TestRevokedSoftwareStillStarts(t *testing.T) {
	var cfg sim.Config
	l := newLab(t, func(c *sim.Config) { cfg = *c })
	second := newKey(t)
	cfg.Trust = image.TrustKeys(l.key.Public().(minisign.PublicKey), second.Public().(minisign.PublicKey))
	l.newDisk(&cfg)
	first := l.key

	// The second key signs as well as the first, and its software raises the
	// floor above what runs.
	l.key = second
	stop := l.life(cfg)
	img := map[string][]byte{"fw.iad": l.build(image.Manifest{Version: "2.0.0", ConfigFormat: 1, Floor: "2.0.0"})}
	op := l.download(device.TFTP, img, "fw.iad", mib.OperationKindDownloadSoftware, device.ThenActivate, device.ThenReset)
	l.want(op, mib.OperationStateSucceeded, mib.FailCauseNone, "2.0.0")
	stop()

	trust := cfg.Trust
	cfg.Trust = nil
	l.setFloor(cfg, "9.0.0")
	stop = l.life(cfg)
	if v := l.version(); v != "2.0.0" {
		t.Errorf("with all keys revoked and a floor of 9.0.0 runs %s", v)
	}
	op = l.download(device.TFTP, img, "fw.iad", mib.OperationKindDownloadSoftware, device.Force)
	l.want(op, mib.OperationStateFailed, mib.FailCauseSignerUntrusted, "2.0.0")
	l.want(l.command(mib.OperationKindRestoreOldSoftware), mib.OperationStateSucceeded, mib.FailCauseNone, "1.0.0")
	stop()

	// New software fails its test after the revocation; the old one is below
	// the floor.
	cfg.Trust = trust
	l.newDisk(&cfg)
	l.setFloor(cfg, "1.9.0")
	stop = l.life(cfg)
	l.key = first
	img["fw.iad"] = l.build(image.Manifest{Version: "2.0.0", ConfigFormat: 1, SelfTest: "selftest"},
		payload("selftest", "#!/bin/sh\nexit 1\n", 0o755))
	op = l.download(device.TFTP, img, "fw.iad", mib.OperationKindDownloadSoftware, device.ThenActivate)
	l.want(op, mib.OperationStateSucceeded, mib.FailCauseNone, "1.0.0")
	stop()
	cfg.Trust = nil
	if err := agent.SetFloor(agent.Config{State: cfg.Disk.State, Banks: cfg.Disk.Banks}, "9.0.0"); err == nil {
		t.Error("the floor was set while software is on trial, at the cost of one of its starts")
	}
	l.life(cfg)
	l.device.Agent(t.Context(), 2)
	if v := l.version(); v != "1.0.0" {
		t.Errorf("after a failed trial with all keys revoked runs %s", v)
	}
}

// An image of the past, well signed, is no way back to its mistakes: without
// allowDowngrade it is refused, and below the floor with it as well, until
// somebody at the device lowers the floor.
func TestReplayedImage(t *testing.T) {
	var cfg sim.Config
	l := newLab(t, func(c *sim.Config) { cfg = *c })
	l.newDisk(&cfg)
	old := map[string][]byte{"old.iad": l.build(image.Manifest{Version: "1.4.0", ConfigFormat: 1})}
	img := map[string][]byte{"fw.iad": l.build(image.Manifest{Version: "2.0.0", ConfigFormat: 1, Floor: "1.5.0"})}
	stop := l.life(cfg)
	whole := []device.Option{device.ThenActivate, device.ThenReset}
	l.want(l.download(device.TFTP, img, "fw.iad", mib.OperationKindDownloadSoftware, whole...),
		mib.OperationStateSucceeded, mib.FailCauseNone, "2.0.0")
	for _, options := range [][]device.Option{nil, {device.AllowDowngrade}, {device.AllowDowngrade, device.Force}} {
		op := l.download(device.TFTP, old, "old.iad", mib.OperationKindDownloadSoftware, append(options, whole...)...)
		l.want(op, mib.OperationStateFailed, mib.FailCauseDowngradeRefused, "2.0.0")
	}
	stop()
	l.setFloor(cfg, "")
	l.life(cfg)
	l.want(l.download(device.TFTP, old, "old.iad", mib.OperationKindDownloadSoftware, whole...),
		mib.OperationStateFailed, mib.FailCauseDowngradeRefused, "2.0.0")
	l.want(l.download(device.TFTP, old, "old.iad", mib.OperationKindDownloadSoftware, append(whole, device.AllowDowngrade)...),
		mib.OperationStateSucceeded, mib.FailCauseNone, "1.4.0")
}

// command commands an operation that needs nothing and waits for its end. The
// device may restart before it has reported the operation's number.
func (l *lab) command(kind mib.OperationKind) *device.Operation {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	c := l.client()
	request := device.Request{Kind: kind, ID: device.NewReqID(), Owner: "lab"}
	if _, err := c.Start(ctx, request); err != nil {
		l.t.Fatal(err)
	}
	for {
		op, err := c.Operation(ctx)
		switch {
		case ctx.Err() != nil:
			l.t.Fatalf("%v does not end: %v", kind, err)
		case err != nil:
			l.device.Agent(ctx, 1) // until it is back
		case op.Is(request.ID, request.Owner) && op.Final():
			return op
		}
	}
}

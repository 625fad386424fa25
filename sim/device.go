package sim

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"aead.dev/minisign"

	"example.com/iad/agent"
	"example.com/iad/agent/agentx"
	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/agent/snmp"
	"example.com/iad/internal/clock"
	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// Config describes a virtual device. ID, Hardware, Trust and Disk are required.
type Config struct {
	ID       string
	Model    string
	Hardware string
	Trust    []minisign.PublicKey
	Disk     Disk
	// BankSize is the capacity of a bank in bytes, 0 for no limit.
	BankSize int64
	// NoReset means that new software takes effect without a restart.
	NoReset bool
	Hooks   Hooks
	// SNMP configures the embedded engine; nil for none.
	SNMP *snmp.Config
	// Listen is the address for its requests, as for snmp.Listen; empty for none.
	// Run opens the socket and keeps it open while the device restarts or is off.
	Listen         string
	AgentX         *agentx.Config
	Root           mib.OID
	Transfer       transfer.Options
	Protocols      []mib.Protocol
	PlainPasswords bool
	Fetcher        procedure.Fetcher // nil: package transfer
	Clock          clock.Clock       // nil: the system's
	// Grace is agent.Config.Grace.
	Grace time.Duration
	// RestartTime is how long a restart takes; 0 for no time.
	RestartTime time.Duration
	Log         *slog.Logger

	cutAt mib.OperationPhase // see Afflict
}

// Device is a virtual IAD.
type Device struct {
	cfg      Config
	platform *platform
	conn     net.PacketConn // for SNMP requests, nil for none

	mu      sync.Mutex
	agent   *agent.Agent
	off     context.CancelCauseFunc // cuts the power of the running agent
	powered bool
	changed chan struct{} // closed and replaced when agent or powered changes
	starts  int
	unsaved []byte // what the agent before its restart could not write
}

// errPower is the cause of a power cut.
var errPower = errors.New("sim: power cut")

// New returns a device that is not running yet; its power is on.
func New(cfg Config) *Device {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System{}
	}
	return &Device{
		cfg: cfg, powered: true, changed: make(chan struct{}),
		platform: &platform{
			disk: cfg.Disk, hooks: cfg.Hooks, bankSize: cfg.BankSize, noReset: cfg.NoReset, reason: mib.RestartReasonPowerOn,
		},
	}
}

// agentConfig is the configuration of the agent for one start.
func (d *Device) agentConfig() agent.Config {
	c := &d.cfg
	return agent.Config{
		DeviceID: c.ID, Model: c.Model, Hardware: c.Hardware, Trust: c.Trust,
		Banks: c.Disk.Banks, State: c.Disk.State, Data: c.Disk.Data, Work: c.Disk.Work,
		Platform: d.platform, Protocols: c.Protocols, Transfer: c.Transfer, PlainPasswords: c.PlainPasswords,
		Root: c.Root, SNMP: c.SNMP, AgentX: c.AgentX, Fetcher: c.Fetcher, Clock: c.Clock, Grace: c.Grace, Log: c.Log,
	}
}

// Run keeps the device going until ctx ends, then returns nil: it starts the
// agent, starts it again after each restart, and waits while the power is off.
// An error means that the device cannot start.
func (d *Device) Run(ctx context.Context) error {
	if d.cfg.Listen != "" && d.cfg.SNMP != nil {
		conn, err := snmp.Listen(d.cfg.Listen)
		if err != nil {
			return err
		}
		defer conn.Close()
		d.conn = conn
	}
	for ctx.Err() == nil {
		if !d.waitForPower(ctx) {
			return nil
		}
		if err := d.boot(ctx); err != nil {
			return err
		}
	}
	return nil
}

// boot is one life of the device, from start to restart or power cut.
func (d *Device) boot(parent context.Context) error {
	c := d.agentConfig()
	c.PassesUnsaved, c.Unsaved = true, d.unsaved
	d.unsaved = nil
	if d.conn != nil {
		discardReceived(d.conn)
		engine := *d.cfg.SNMP
		engine.Conn = d.conn
		c.SNMP = &engine
	}
	a, err := agent.New(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	d.update(func() { d.agent, d.off, d.starts = a, cancel, d.starts+1 })
	if d.cfg.cutAt != 0 {
		go d.watchPhase(ctx, a)
	}
	err = a.Run(ctx)
	d.update(func() { d.agent, d.off = nil, nil })
	var restart *procedure.RestartError
	switch {
	case parent.Err() != nil:
		return nil
	case errors.As(err, &restart):
		d.platform.reason, d.unsaved = 0, a.Unsaved()
		return d.rest(parent)
	case errors.Is(context.Cause(ctx), errPower):
		d.platform.reason = mib.RestartReasonPowerOn
		return nil
	}
	return err
}

// discardReceived drops the requests that arrived while the device was off, as a
// device without power does.
func discardReceived(conn net.PacketConn) {
	end := time.Now().Add(time.Millisecond)
	if conn.SetReadDeadline(end) != nil {
		return
	}
	for buf := make([]byte, 1); time.Now().Before(end); {
		_, _, _ = conn.ReadFrom(buf)
	}
}

// rest is the time that a restart takes.
func (d *Device) rest(ctx context.Context) error {
	if d.cfg.RestartTime == 0 {
		return nil
	}
	t := d.cfg.Clock.NewTimer(d.cfg.RestartTime)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C():
	}
	return nil
}

func (d *Device) update(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	close(d.changed)
	d.changed = make(chan struct{})
}

// wait waits until cond, called with the lock held, is true.
func (d *Device) wait(ctx context.Context, cond func() bool) bool {
	for {
		d.mu.Lock()
		ok, changed := cond(), d.changed
		d.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

func (d *Device) waitForPower(ctx context.Context) bool {
	return d.wait(ctx, func() bool { return d.powered })
}

// CutPower stops the device at once; it stays off until PowerOn.
func (d *Device) CutPower() {
	d.update(func() {
		d.powered = false
		if d.off != nil {
			d.off(errPower)
		}
	})
}

// PowerOn switches the device on again.
func (d *Device) PowerOn() { d.update(func() { d.powered = true }) }

// Agent waits until the device has started at least n times and is running, and
// returns its agent; nil if ctx ends first.
func (d *Device) Agent(ctx context.Context, n int) (a *agent.Agent) {
	d.wait(ctx, func() bool {
		a = d.agent
		return a != nil && d.starts >= n
	})
	return a
}

// Starts is how many times the device has started.
func (d *Device) Starts() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.starts
}

// Addr is where the embedded SNMP engine listens, once the device has started.
func (d *Device) Addr(ctx context.Context) netip.AddrPort {
	if a := d.Agent(ctx, 1); a != nil && a.SNMP() != nil {
		return a.SNMP().Addr()
	}
	return netip.AddrPort{}
}

// SetCalls says how many calls are in progress.
func (d *Device) SetCalls(n int) { d.platform.calls.Store(int64(n)) }

// Provision makes the device new: see agent.Provision.
func (d *Device) Provision(image io.Reader, set config.Set) error {
	return agent.Provision(d.agentConfig(), image, set)
}

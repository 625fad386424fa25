package sim

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/agentx"
	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/clock"
	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// Config describes a virtual device. ID, Hardware, Trust and Disk are required.
type Config struct {
	ID       string
	Model    string
	Hardware string
	Trust    *image.Trust
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
	Listen string
	// Network, in place of Listen, gives the device the address Address. Its transfers
	// and notifications leave from there too.
	Network        *Network
	Address        netip.Addr
	AgentX         *agentx.Config
	Root           mib.OID
	Transfer       transfer.Options
	Protocols      []mib.Protocol
	PlainPasswords bool
	Encryption     agent.Encryption
	ImageKeys      []agefile.Identity
	Fetcher        procedure.Fetcher // nil: package transfer
	Clock          clock.Clock       // nil: the system's
	// Grace is agent.Config.Grace.
	Grace time.Duration
	// RestartTime is how long a restart takes; 0 for no time.
	RestartTime time.Duration
	Log         *slog.Logger
	// Faults are those of the device from the beginning; see also Device.Inject.
	Faults []Fault
	// OnEvent, if not nil, is called with what happens to the device. It must not call the
	// device.
	OnEvent func(Event)
}

// Device is a virtual IAD.
type Device struct {
	cfg      Config
	platform *platform
	station  *station // for SNMP requests, nil for none

	mu       sync.Mutex
	agent    *agent.Agent
	ctx      context.Context         // of the running agent
	off      context.CancelCauseFunc // cuts its power
	life     *lifetime               // of what it writes
	powered  bool
	switched int           // how often somebody has switched the power
	changed  chan struct{} // closed and replaced when agent or powered changes
	starts   int
	unsaved  []byte // what the agent before its restart could not write
	losing   string // what the power cut that ended it does to what was not synced

	stopped chan struct{} // closed when Run ends
	faults  faults
	phases  phases
	medium  *medium
	link    link
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
	d := &Device{
		cfg: cfg, powered: true, changed: make(chan struct{}), stopped: make(chan struct{}),
		platform: &platform{
			hooks: cfg.Hooks, bankSize: cfg.BankSize, noReset: cfg.NoReset, reason: mib.RestartReasonPowerOn,
		},
	}
	d.platform.device = d
	d.link.device = d
	d.medium = newMedium(&cfg.Disk)
	d.platform.disk = d.medium.disk(&cfg.Disk)
	for _, f := range cfg.Faults {
		d.faults.list = append(d.faults.list, &armed{Fault: f, until: f.until(cfg.Clock.Now())})
	}
	return d
}

// agentConfig is the configuration of the agent for one start.
func (d *Device) agentConfig() agent.Config {
	c := &d.cfg
	return agent.Config{
		DeviceID: c.ID, Model: c.Model, Hardware: c.Hardware, Trust: c.Trust,
		Banks: c.Disk.Banks, State: c.Disk.State, Data: c.Disk.Data, Work: c.Disk.Work,
		Platform: d.platform, Protocols: c.Protocols, Transfer: c.Transfer, PlainPasswords: c.PlainPasswords, Encryption: c.Encryption, ImageKeys: c.ImageKeys,
		WatchdogInterval: time.Hour, // there is none
		Root:             c.Root, SNMP: c.SNMP, AgentX: c.AgentX, Fetcher: c.Fetcher, Clock: c.Clock, Grace: c.Grace, Log: c.Log,
	}
}

// Run keeps the device going until ctx ends, then returns nil: it starts the
// agent, starts it again after each restart, and waits while the power is off.
// An error means that the device cannot start.
func (d *Device) Run(ctx context.Context) error {
	if err := d.attach(); err != nil {
		return err
	}
	if d.station != nil {
		defer d.station.close()
	}
	defer close(d.stopped) // what waits for a fault ends before the station does
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

// attach gives the device its place in the network.
func (d *Device) attach() (err error) {
	var s *station
	switch {
	case d.cfg.SNMP == nil:
	case d.cfg.Network != nil:
		s, err = d.cfg.Network.attach(d.cfg.Address, d.answer, d.link.send)
	case d.cfg.Listen != "":
		s, err = listen(d.cfg.Listen, d.answer, d.link.send)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.station = s
	return err
}

// answer answers a request; a device that is off does not, even if its agent has not ended
// yet.
func (d *Device) answer(from netip.AddrPort, msg []byte) ([]byte, func()) {
	d.mu.Lock()
	a, life := d.agent, d.life
	d.mu.Unlock()
	if a == nil || life.over.Load() {
		return nil, nil
	}
	copies, late := d.link.pass(len(msg))
	if late > 0 {
		d.pause(late)
	}
	if copies == 0 {
		return nil, nil
	}
	reply, done := a.SNMP().Answer(from, msg)
	reply = d.spoil(reply)
	if life.over.Load() {
		return nil, done
	}
	return reply, done
}

// boot is one life of the device, from start to restart or power cut.
func (d *Device) boot(parent context.Context) error {
	a, ctx, err := d.start(parent)
	switch {
	case err != nil && d.life.over.Load(): // the power failed meanwhile
		return d.lostPower()
	case err != nil:
		return err
	}
	err = a.Run(ctx)
	return d.ended(parent, ctx, a, err)
}

// start starts the agent, which ended has to follow. The context ends when the power fails.
func (d *Device) start(parent context.Context) (*agent.Agent, context.Context, error) {
	a, err := d.newAgent()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(parent)
	d.update(func() {
		d.agent, d.ctx, d.off, d.starts = a, ctx, cancel, d.starts+1
		if d.life.over.Load() { // the power failed meanwhile
			cancel(errPower)
		}
	})
	if d.Starts() > 1 {
		d.event(Event{Kind: StartEvent})
	}
	d.watchPhases(ctx, a)
	return a, ctx, nil
}

// ended is what follows when the agent's Run has returned err.
func (d *Device) ended(parent, ctx context.Context, a *agent.Agent, err error) error {
	d.look() // the last phase before a restart
	d.mu.Lock()
	off := d.off
	d.mu.Unlock()
	defer off(nil)
	d.update(func() { d.agent, d.ctx, d.off = nil, nil, nil })
	var restart *procedure.RestartError
	switch {
	case parent.Err() != nil:
		return nil
	case errors.Is(context.Cause(ctx), errPower): // also while it restarted
		return d.lostPower()
	case errors.As(err, &restart):
		d.platform.reason, d.unsaved = 0, a.Unsaved()
		return d.rest(parent)
	}
	return err
}

// lostPower is what follows a power cut when the agent has ended.
func (d *Device) lostPower() error {
	d.platform.reason = mib.RestartReasonPowerOn
	d.mu.Lock()
	losing := d.losing
	d.losing = ""
	d.mu.Unlock()
	return d.medium.cut(d.cfg.ID, losing)
}

// newAgent starts the agent.
func (d *Device) newAgent() (*agent.Agent, error) {
	c := d.agentConfig()
	c.PassesUnsaved, c.Unsaved = true, d.unsaved
	d.unsaved = nil
	l := &lifetime{}
	d.distinguish()
	if f, ok := d.occasion(WrongClock); ok {
		c.Clock = newWrongClock(d.cfg.Clock, f.By)
	}
	if c.SNMP != nil {
		engine := *d.cfg.SNMP
		var dial dialer = new(net.Dialer).DialContext
		if d.station != nil && d.station.own.IsValid() {
			dial = d.station.dialTraps
			if slices.ContainsFunc(engine.Sinks, func(s snmp.Sink) bool { return s.Inform }) {
				dial = d.station.Dial
			}
			c.Transfer.Network = d.station
		}
		engine.Dial = d.faultyTraps(dial, l)
		c.SNMP = &engine
	}
	if c.Fetcher == nil {
		if c.Transfer.Network == nil {
			c.Transfer.Network = &station{} // the system chooses the address
		}
		c.Transfer.Network = &linkNetwork{c.Transfer.Network, &d.link}
		protocols := c.Protocols
		if len(protocols) == 0 {
			protocols = []mib.Protocol{mib.ProtocolTftp, mib.ProtocolFtp}
		}
		c.Fetcher = agent.NewFetcher(protocols, c.Transfer)
	}
	c.Fetcher = &faultyFetcher{Fetcher: c.Fetcher, device: d}
	d.mu.Lock()
	d.life = l
	d.mu.Unlock()
	disk := &d.platform.disk
	c.Banks, c.State, c.Data, c.Work = disk.Banks, disk.State, disk.Data, disk.Work
	for _, f := range []*afero.Fs{&c.Banks[0], &c.Banks[1], &c.State, &c.Data, &c.Work} {
		*f = &faultyFs{Fs: *f, device: d, life: l}
	}
	c.PhaseEntered = func() { d.look() }
	return agent.New(c)
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
func (d *Device) CutPower() { d.cutPower() }

// cutPower returns the number of the switch, for powerOnAfter.
func (d *Device) cutPower() (number int) {
	var was bool
	d.update(func() {
		d.switched++
		number, was, d.powered = d.switched, d.powered, false
		if d.life != nil {
			d.life.over.Store(true)
		}
		if d.off != nil {
			d.off(errPower)
		}
	})
	if was {
		d.event(Event{Kind: PowerEvent, Power: "off"})
	}
	return number
}

// PowerOn switches the device on again.
func (d *Device) PowerOn() { d.powerOn(func() bool { return true }) }

// powerOnAfter switches the device on again unless somebody has switched it after the
// switch with this number.
func (d *Device) powerOnAfter(number int) { d.powerOn(func() bool { return d.switched == number }) }

// powerOn switches the device on if wanted, called with the lock held, is true.
func (d *Device) powerOn(wanted func() bool) {
	var on bool
	d.update(func() {
		if wanted() {
			d.switched++
			on, d.powered = !d.powered, true
		}
	})
	if on {
		d.event(Event{Kind: PowerEvent, Power: "on"})
	}
}

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

// Addr is where the device answers requests, once it has started.
func (d *Device) Addr(ctx context.Context) netip.AddrPort {
	if d.Agent(ctx, 1) == nil || d.station == nil {
		return netip.AddrPort{}
	}
	return d.station.local
}

// ID is the device's identity.
func (d *Device) ID() string { return d.cfg.ID }

// Place is where the device answers requests; invalid before Run or if it does not.
func (d *Device) Place() netip.AddrPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.station == nil {
		return netip.AddrPort{}
	}
	return d.station.local
}

// State is what a device is doing.
type State struct {
	Powered bool
	// Running is false while the device is off or restarting; what follows is zero then.
	Running  bool
	Software string // version of the running software
	Bank     int    // that it runs from, 0 in rescue mode
	// Operation and Phase are 0 while there is no operation.
	Operation mib.OperationKind
	Phase     mib.OperationPhase
	Percent   uint8 // of the operation; procedure.PercentUnknown
	// LastID, Last, Result and Cause are about the running operation or else the last one;
	// LastID is 0 before the first.
	LastID uint32
	Last   mib.OperationKind
	Result mib.OperationState
	Cause  mib.FailCause
	Config []byte // digest of the configuration data in force
}

// State returns what the device is doing.
func (d *Device) State() State {
	d.mu.Lock()
	s, a := State{Powered: d.powered}, d.agent
	d.mu.Unlock()
	if a == nil || !s.Powered {
		return s
	}
	now := a.Engine().Snapshot()
	s.Running, s.Bank = true, now.Banks.Running
	s.Software = now.Banks.Bank(s.Bank).Version
	s.LastID, s.Last, s.Result, s.Cause, s.Config = now.Op.ID, now.Op.Kind, now.Op.State, now.Op.Cause, now.Config.Digest
	if !now.Op.State.Final() {
		s.Operation, s.Phase, s.Percent = now.Op.Kind, now.Op.Phase, now.Op.Percent
	}
	return s
}

// Calls is how many calls are in progress.
func (d *Device) Calls() int { return d.platform.Calls() }

// SetCalls says how many calls are in progress.
func (d *Device) SetCalls(n int) { d.platform.calls.Store(int64(n)) }

// Provision makes the device new: see agent.Provision.
func (d *Device) Provision(image io.Reader, set config.Set) error {
	return agent.Provision(d.agentConfig(), image, set)
}

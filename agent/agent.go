package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/spf13/afero"
	"golang.org/x/sync/errgroup"

	"example.com/iad/agent/agentx"
	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank"
	"example.com/iad/bank/image"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/clock"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// Config describes a device. Banks, State, Data, Work and Platform are
// required, and so is DeviceID.
type Config struct {
	DeviceID string // iadUpgDeviceId, 1 to 32 bytes
	Model    string // iadUpgDeviceModel
	Hardware string // iadUpgHardwareRevision; software must name it

	// Loader is the boot loader that chooses the bank, nil where the agent does.
	Loader bank.Loader
	// Verified says that what the loader starts is verified, see bank.Options.
	Verified bool
	Banks    [2]afero.Fs
	// Partitions are the raw partitions of the banks, nil where the banks have none.
	Partitions [2]bank.Partition
	State      afero.Fs // boot record, journal, settings, identity
	Data       afero.Fs // configuration data
	Work       afero.Fs // temporary files of conversions, as the platform sees them

	// Trust says who may sign software, until a trust document of an image does.
	Trust    *image.Trust
	Platform Platform
	// Protocols are iadUpgProtocolsSupported; empty means tftp and ftp.
	Protocols []mib.Protocol
	Transfer  transfer.Options
	// MaxConfigFile is the greatest size of a configuration file in bytes, 0
	// for 1 MiB.
	MaxConfigFile int64
	// ImageKeys decrypt encrypted software.
	ImageKeys []agefile.Identity
	// Encryption is that of configuration files on their way.
	Encryption Encryption
	// PlainPasswords accepts iadUpgServerPassword in requests without
	// privacy, where anybody on the way can read it.
	PlainPasswords bool

	// Root is where the module stands; empty means mib.DefaultRoot.
	Root mib.OID
	// SNMP configures the embedded engine; nil for none. EngineID, Boots, Changes
	// and Store are filled in.
	SNMP *snmp.Config
	// AgentX configures the session with a master agent; nil for none.
	AgentX *agentx.Config

	// PassesUnsaved says that a restart passes what Agent.Unsaved returns to the next
	// agent, as Unsaved. Without it, the device needs a writable state to go back to the
	// old software.
	PassesUnsaved bool
	Unsaved       []byte

	// Findings is what was found damaged before the agent: it becomes part of
	// the event that reports this start.
	Findings []string

	// Fronts are further front ends.
	Fronts []FrontEnd

	// Fetcher reaches file servers; nil means those of package transfer.
	Fetcher procedure.Fetcher
	// Clock is the system's if nil.
	Clock clock.Clock
	// Grace is how long a restart waits at most for notifications to leave;
	// 3 s if 0.
	Grace time.Duration
	// WatchdogInterval is how often Platform.Kick is called; 10 s if 0.
	WatchdogInterval time.Duration
	// StartLimit is how long New calls Platform.Kick, so that a start that hangs is ended
	// by the watchdog; 5 min if 0.
	StartLimit time.Duration
	// PhaseEntered is called when an operation has begun a phase, before the device does anything
	// in it. Nil is for nobody.
	PhaseEntered func()
	// Log gets what happens; nil discards it.
	Log *slog.Logger
}

// Agent is a device that has started.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	device  *device
	engine  *procedure.Engine
	fetcher procedure.Fetcher
	tree    *mib.Tree
	fronts  []FrontEnd
	// receivers get every notification, each at its own pace.
	receivers []notifier
	snmp      *snmp.Engine

	sentMu  sync.Mutex
	sentBy  []uint32 // by receiver
	sentAll uint32
}

var _ mib.Instrumentation = (*Agent)(nil)

// The magic numbers that distinguish the state records.
var (
	journalMagic  = [4]byte{'I', 'A', 'D', 'J'}
	settingsMagic = [4]byte{'I', 'A', 'D', 'S'}
	identityMagic = [4]byte{'I', 'A', 'D', 'I'}
)

const stateVersion = 1

// ErrWrongBank means that the boot loader, which had lost its choice, started a bank that
// must not run. It starts the right one after a restart.
var ErrWrongBank = errors.New("the boot loader started a bank that must not run; the right one starts next")

// New starts a device: it makes the boot decision, chooses the configuration
// data, and finds out what became of an operation that was under way. A device without
// usable software starts in rescue mode: it can be managed, and gets software.
// ErrWrongBank means that the device must restart.
func New(cfg Config) (*Agent, error) {
	if len(cfg.DeviceID) < 1 || len(cfg.DeviceID) > 32 {
		return nil, fmt.Errorf("agent: the device identity %q does not have 1 to 32 bytes", cfg.DeviceID)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Protocols) == 0 {
		cfg.Protocols = []mib.Protocol{mib.ProtocolTftp, mib.ProtocolFtp}
	}
	if cfg.MaxConfigFile == 0 {
		cfg.MaxConfigFile = config.DefaultMaxFile
	}
	cfg.WatchdogInterval = cmp.Or(cfg.WatchdogInterval, 10*time.Second)
	cfg.StartLimit = cmp.Or(cfg.StartLimit, 5*time.Minute)
	a := &Agent{cfg: cfg, log: cfg.Log}
	if cfg.Fetcher != nil {
		a.fetcher = cfg.Fetcher
	} else {
		a.fetcher = NewFetcher(cfg.Protocols, cfg.Transfer)
	}
	a.tree = mib.NewTree(mib.NewModule(cfg.Root), a)
	// Before the boot decision: what fails here is not the software's fault and must
	// not cost it a try.
	findings, err := a.openFronts()
	if err != nil {
		return nil, err
	}
	stop := a.kickWhileStarting()
	defer stop()
	if err := a.boot(findings); err != nil {
		return nil, err
	}
	return a, nil
}

// kickWhileStarting kicks the platform's watchdog until stop is called, at most for
// StartLimit: hashing two banks and handing over configuration data may take longer than
// the watchdog waits.
func (a *Agent) kickWhileStarting() (stop func()) {
	ctx, cancel := clock.Within(context.Background(), a.cfg.Clock, a.cfg.StartLimit)
	ended := make(chan struct{})
	t := a.cfg.Clock.NewTimer(a.cfg.WatchdogInterval)
	go func() {
		defer close(ended)
		defer t.Stop()
		for ctx.Err() == nil {
			a.cfg.Platform.Kick()
			select {
			case <-ctx.Done():
			case <-t.C():
				t.Reset(a.cfg.WatchdogInterval)
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// boot brings up banks, configuration data and the engine, in this order. fronts is
// what the front ends found damaged.
func (a *Agent) boot(fronts []string) error {
	cfg := &a.cfg
	var carried unsaved
	if len(cfg.Unsaved) > 0 {
		err := json.Unmarshal(cfg.Unsaved, &carried)
		if err == nil && carried.Journal != nil {
			err = procedure.CheckJournal(carried.Journal)
		}
		if err != nil {
			a.log.Error("what could not be written before the restart is lost", "err", err)
			carried = unsaved{}
		}
	}
	b, report := bank.Boot(bank.Options{
		Loader: cfg.Loader, Verified: cfg.Verified, Banks: cfg.Banks, Partitions: cfg.Partitions, State: cfg.State, Capacity: cfg.Platform.Capacity, Free: cfg.Platform.Free,
		Trust: cfg.Trust, Keys: cfg.ImageKeys, Hardware: cfg.Hardware, Now: cfg.Clock.Now, DropCache: cfg.Platform.DropCache, DropRange: cfg.Platform.DropRange, Checkpoint: cfg.Platform.Checkpoint, Log: cfg.Log, Alive: cfg.Platform.Kick,
		Reserve:       func(n int) int64 { return a.device.reserveFor(n) },
		PassesUnsaved: cfg.PassesUnsaved, Unsaved: carried.Boot,
	})
	if report.Restart {
		return ErrWrongBank
	}
	findings := append(slices.Clone(cfg.Findings), report.Findings...)
	data, found, err := config.Open(cfg.Data, config.Options{
		Check: cfg.Platform.CheckConfig, MaxFile: cfg.MaxConfigFile, Now: cfg.Clock.Now, Log: cfg.Log,
	})
	if err != nil {
		// Software on its defaults can be repaired from far, a device that
		// does not start cannot.
		findings = append(findings, err.Error())
	}
	findings = append(findings, found...)
	key, damagedKey, err := openBackupKey(cfg.State, len(cfg.Encryption.Recipients) > 0)
	findings = append(findings, damagedKey...)
	switch {
	case key == nil && err != nil:
		return err
	case err != nil:
		findings = append(findings, err.Error())
	}
	a.device = &device{
		backupKey: key, encryption: cfg.Encryption,
		banks: b, config: data, platform: cfg.Platform, work: cfg.Work,
		maxFile: cfg.MaxConfigFile, clock: cfg.Clock, log: cfg.Log, doubtful: report.Doubtful,
		retry: make(chan struct{}, 1),
	}
	if report.Rebuilt {
		a.device.rebuildGenerations()
	}
	last := a.device.lastGeneration()
	if err := a.device.chooseGeneration(context.Background()); err != nil {
		what := "configuration data: "
		if errors.Is(err, ErrNotHandedOver) {
			what = "the software does not have the configuration data in force: " // of which an event may show only this
		}
		findings = append(findings, what+err.Error())
	}
	if report.Doubtful {
		if err := b.RewriteRecord(); err != nil {
			a.log.Warn("the boot record has one good copy only", "err", err)
		}
	}
	if got := data.InForce().Number; report.Bank != 0 && last != 0 && got != last && len(found) == 0 && !report.Doubtful {
		findings = append(findings, fmt.Sprintf("the configuration data of generation %d are gone; generation %d is in force", last, got))
	}
	pc := procedure.Config{
		Banks: banks{b, a.device}, Store: store{a.device}, Fetcher: a.fetcher, Device: a.device,
		Clock: cfg.Clock, BootReason: cfg.Platform.BootReason(), Grace: cfg.Grace, Entered: cfg.PhaseEntered, Log: cfg.Log,
	}
	for _, r := range []struct {
		name  string
		magic [4]byte
		check func([]byte) error
		rec   *procedure.Record
		data  *[]byte
	}{
		{"journal", journalMagic, procedure.CheckJournal, &pc.Journal, &pc.JournalData},
		{"settings", settingsMagic, procedure.CheckSettings, &pc.Settings, &pc.SettingsData},
	} {
		rec, payload, found, err := durable.OpenRecord(cfg.State, r.name, r.magic, stateVersion, r.check)
		findings = append(findings, found...)
		if err != nil {
			// A device without a journal can still be managed and repaired.
			findings = append(findings, r.name+": "+err.Error())
			*r.rec = noRecord{err}
			continue
		}
		*r.rec, *r.data = rec, payload
		if len(found) > 0 && payload != nil {
			if err := rec.Write(payload); err != nil {
				a.log.Warn("a record has one good copy only", "record", r.name, "err", err)
			}
		}
	}
	if carried.Journal != nil {
		pc.JournalData, pc.JournalUnsaved = carried.Journal, true
	}
	findings = append(findings, fronts...)
	pc.Findings = findings
	for _, f := range findings {
		a.log.Warn("found at the start", "what", f)
	}
	engine, errs := procedure.Open(pc)
	for _, err := range errs {
		a.log.Error("state not usable; started with an empty one", "err", err)
	}
	a.engine = engine
	a.sentAll = engine.Snapshot().Sent
	a.sentBy = slices.Repeat([]uint32{a.sentAll}, len(a.receivers))
	return nil
}

// unsaved is the content of records that could not be written.
type unsaved struct {
	Boot    json.RawMessage `json:"boot,omitempty"`
	Journal json.RawMessage `json:"journal,omitempty"`
}

// Unsaved returns what the restart that Run asks for would lose, because the state
// could not be written; nil if there is nothing. See Config.Unsaved.
func (a *Agent) Unsaved() []byte {
	u := unsaved{a.device.banks.Unsaved(), a.engine.Unsaved()}
	if u.Boot == nil && u.Journal == nil {
		return nil
	}
	data, err := json.Marshal(u)
	if err != nil {
		return nil
	}
	return data
}

// noRecord stands for a record whose directory cannot be used.
type noRecord struct{ err error }

func (r noRecord) Write([]byte) error { return r.err }

// openFronts makes the front ends, which answer nobody before Run. findings name what
// was damaged.
func (a *Agent) openFronts() (findings []string, err error) {
	if c := a.cfg.SNMP; c != nil {
		var id identity
		if id, findings, err = a.openIdentity(c.EngineID); err != nil {
			return nil, err
		}
		sc := *c
		sc.EngineID, sc.Boots = id.EngineID, id.Boots
		findings = append(findings, openManaged(a.cfg.State, &sc)...)
		if a.snmp, err = snmp.New(sc, a.tree); err != nil {
			return nil, err
		}
		findings = append(findings, a.snmp.Findings()...)
		a.fronts = append(a.fronts, a.snmp)
		for _, r := range a.snmp.Receivers() {
			a.receivers = append(a.receivers, r)
		}
	}
	if c := a.cfg.AgentX; c != nil {
		s, err := agentx.New(*c, a.tree)
		if err != nil {
			return nil, err
		}
		a.fronts = append(a.fronts, s)
		a.receivers = append(a.receivers, s)
	}
	for _, f := range a.cfg.Fronts {
		a.fronts = append(a.fronts, f)
		a.receivers = append(a.receivers, f)
	}
	return findings, nil
}

// Tree is the object tree that the front ends serve.
func (a *Agent) Tree() *mib.Tree { return a.tree }

// SNMP is the embedded engine, nil if there is none.
func (a *Agent) SNMP() *snmp.Engine { return a.snmp }

// Engine is the procedure engine.
func (a *Agent) Engine() *procedure.Engine { return a.engine }

// Run serves until ctx ends, then returns nil, or until the device must
// restart, then returns a *procedure.RestartError. It is called once.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tasks, running := a.startTasks(ctx)
	err := a.engine.Run(running)
	if err == nil && running.Err() == nil {
		err = errors.New("agent: the procedure engine ended by itself")
	}
	cancel()
	if failed := tasks.Wait(); err == nil {
		err = failed
	}
	return err
}

// startTasks starts everything but the engine. The tasks end with ctx; the context returned
// ends with ctx or when a task has failed.
func (a *Agent) startTasks(ctx context.Context) (*errgroup.Group, context.Context) {
	g, running := errgroup.WithContext(ctx)
	for _, f := range a.fronts {
		g.Go(func() error { return f.Run(running) })
	}
	for i, r := range a.receivers {
		g.Go(func() error { return a.pump(running, r, i) })
	}
	g.Go(func() error { a.attend(running, g); return nil })
	g.Go(func() error { a.checkUnread(running); return nil })
	return g, running
}

// checkUnread reads the bank that the boot decision did not depend on.
func (a *Agent) checkUnread(ctx context.Context) {
	if len(a.device.banks.CheckUnread(ctx)) > 0 {
		a.engine.Sync() // the banks have changed
	}
}

// attend kicks the platform's watchdog as long as the engine answers, takes events for
// sent where nobody is there to get them, and starts keepTrying in g when it is needed.
func (a *Agent) attend(ctx context.Context, g *errgroup.Group) {
	var changed <-chan struct{}
	if len(a.receivers) == 0 {
		var stop func()
		changed, stop = a.engine.WatchNotices()
		defer stop()
	}
	t := a.cfg.Clock.NewTimer(a.cfg.WatchdogInterval)
	defer t.Stop()
	retry := a.device.retry
	for kick := true; ; {
		if kick {
			a.engine.Sync()
			a.cfg.Platform.Kick()
		}
		kick = false
		if s := a.engine.Snapshot(); changed != nil && s.Sent != s.Seq {
			a.engine.Sent(s.Seq)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-retry:
			retry = nil // keepTrying waits for the next one
			g.Go(func() error { return a.device.keepTrying(ctx, a.engine.Sync) })
		case <-t.C():
			kick = true
			t.Reset(a.cfg.WatchdogInterval)
		}
	}
}

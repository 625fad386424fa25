package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/bank/image"
	"example.com/iad/bank/image/encode"
	"example.com/iad/bank/image/frame"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/bootscript"
	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/iadtest"
	"example.com/iad/mib"
)

// The sweeps of this file cut the power of a whole virtual device at every
// operation of its file systems, through each operation of the module and through
// the complete procedure. Files come from memory. IAD_CRASH=full cuts at all of
// them and cuts a larger sample of the recoveries again.

func fullCrash() bool { return os.Getenv("IAD_CRASH") == "full" }

var crashKey = func() minisign.PrivateKey {
	_, key, err := minisign.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	return key
}()

// crashSoftware is what the images hold, by version.
func crashSoftware(version string) map[string][]byte {
	app := bytes.Repeat([]byte("application "+version+"\n"), 400)
	if crashDelta(version) {
		// It resembles 1.0.0 in its first two frames, and has as many without a resemblance.
		_, _ = rand.NewChaCha8(sha256.Sum256([]byte(version))).Read(app[len(app)-1000:])
		more := make([]byte, 8000)
		_, _ = rand.NewChaCha8(sha256.Sum256([]byte(version + " more"))).Read(more)
		app = append(app, more...)
	}
	return map[string][]byte{"app": app, "selftest": []byte(version)}
}

// crashFormats are the configuration data formats of the versions.
var crashFormats = map[string]uint32{"1.0.0": 1, "1.1.0": 1, "1.2.0": 1, "1.3.0": 1, "1.4.0": 1, "2.0.0": 2, "3.0.0": 2}

// crashDelta reports whether the server has a version as the difference from 1.0.0, too.
func crashDelta(version string) bool { return version == "1.3.0" || version == "1.4.0" }

// crashEncrypted reports whether a version is encrypted.
func crashEncrypted(version string) bool { return version == "1.2.0" || version == "1.4.0" }

// crashImages are the files of each version on the server. The one that a manager names is
// called as its kind.
var crashImages = func() map[string]map[string][]byte {
	images := map[string]map[string][]byte{}
	for version := range crashFormats {
		images[version] = crashImage(version)
	}
	return images
}()

var softwareName = mib.FileTypeSoftware.String()

func crashImage(version string) map[string][]byte {
	m := image.Manifest{Version: version, Hardware: []string{"IAD"}, ConfigFormat: crashFormats[version], SelfTest: "selftest", NoReset: true}
	var files []image.PayloadFile
	for _, name := range []string{"app", "selftest"} {
		data := crashSoftware(version)[name]
		files = append(files, image.PayloadFile{Name: name, Mode: 0o755, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}})
	}
	add := func(e image.EncodedFile, err error) {
		if err != nil {
			panic(err)
		}
		files[0].Encodings = append(files[0].Encodings, e)
	}
	app := crashSoftware(version)["app"]
	if crashDelta(version) {
		add(encode.XZDelta(context.Background(), "app.d-1.0.0", app, crashSoftware("1.0.0")["app"], frame.MinSize))
	}
	if crashDelta(version) || crashEncrypted(version) || version == "2.0.0" { // compressed, in several frames
		add(encode.XZ(context.Background(), "app.xz", app, frame.MinSize))
	}
	if crashEncrypted(version) {
		var err error
		if m.Key, err = image.Encrypt(files, crashOperator.Recipient()); err != nil {
			panic(err)
		}
	}
	if !crashDelta(version) {
		var b bytes.Buffer
		if err := image.Build(&b, m, files, crashKey); err != nil {
			panic(err)
		}
		return map[string][]byte{softwareName: b.Bytes()}
	}
	fs := afero.NewMemMapFs()
	if err := image.BuildSplit(fs, ".", m, files, crashKey); err != nil {
		panic(err)
	}
	infos, err := afero.ReadDir(fs, ".")
	if err != nil {
		panic(err)
	}
	split := make(map[string][]byte)
	for _, info := range infos {
		if split[strings.Replace(info.Name(), image.ManifestName, softwareName, 1)], err = afero.ReadFile(fs, info.Name()); err != nil {
			panic(err)
		}
	}
	return split
}

// crashSet is configuration data; who distinguishes sets.
func crashSet(format uint32, who string) config.Set {
	set := config.Set{}
	for _, k := range config.Kinds() {
		set[k] = config.WithHeader(k, format, fmt.Appendf(nil, "owner = %s\n", who))
	}
	return set
}

// world is what the outside knows: it outlives the device.
type world struct {
	step    int // commands that succeeded, in the order of the script
	opID    uint32
	events  string // numbers and contents of the events that came, in order
	backup  string // what the file server holds
	started bool   // the command of this step was answered
	key     string // the device's recipient for configuration files, "" for none
	window  int    // the confirm window that was set, in seconds; 0: none
	// encodings are the files with forms of app that the device has opened, in the order in
	// which it first did.
	encodings string
}

// command is one step of a script.
type command struct {
	kind    mib.OperationKind
	options procedure.Options
	file    string // version of the software on the server
	who     string // configuration data on the server; "" for the backup
	format  uint32
	// then is what must run afterwards.
	version string
	data    string // owner that the data in force name, "" for the defaults
	// orVersion may run instead, on its defaults: a cut restarts the device,
	// and software that is activated starts then.
	orVersion string
	// window is how many seconds a manager has to confirm the software; 0: the
	// device confirms it. The software stays on trial.
	window int
	// takesOver makes, in the first step of a script, the device one that needs no
	// restart for other software.
	takesOver bool
	// encrypts makes, in the first step of a script, the device one that encrypts its
	// backups and accepts nothing else.
	encrypts bool
	// badBase has, in the first step of a script, the software in bank 1 read as something else
	// when it is the base of a difference, after it was read to see that it fits.
	badBase bool
	// encodings is what the device has to open of the software, as in world; "" for anything.
	encodings string
	// cause is why the operation is to fail, 0 if it is to succeed; with confirmTimeout the window is over
	// while the operation fetches its files.
	cause mib.FailCause
}

// givesUp reports whether the step ends with software given up.
func (c *command) givesUp() bool { return c.cause == mib.FailCauseSelfTestFailed || c.late() }

// late reports whether the window is to be over in the middle of the step.
func (c *command) late() bool { return c.cause == mib.FailCauseConfirmTimeout }

// ended reports whether an operation ended as the step wants it to.
func (c *command) ended(op procedure.Operation) bool {
	if c.cause == 0 {
		return op.State == mib.OperationStateSucceeded
	}
	return op.State == mib.OperationStateFailed && op.Cause == c.cause
}

// memoryFiles is a file server in memory.
type memoryFiles struct {
	w     *world
	c     *command
	clock *hastyClock
}

func (f memoryFiles) Supports(mib.Protocol) bool { return true }
func (f memoryFiles) Open(context.Context, procedure.Server) (procedure.Files, error) {
	return f, nil
}
func (f memoryFiles) Close() error { return nil }

func (f memoryFiles) Get(ctx context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	if f.c.late() {
		f.clock.jump(lateWindow * time.Second)
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}
	var data []byte
	if k, ok := config.ParseKind(name); ok {
		data = crashSet(f.c.format, f.c.who)[k]
		if f.c.kind == mib.OperationKindBackupConfig {
			_, rest, _ := strings.Cut(f.w.backup, "<"+name+">")
			text, _, _ := strings.Cut(rest, "</>")
			data = []byte(text)
		} else if f.w.key != "" {
			to, err := agefile.ParseRecipient(f.w.key)
			if err == nil {
				data, err = agefile.Encrypt(data, to)
			}
			if err != nil {
				return nil, 0, err
			}
		}
	} else {
		var ok bool
		if data, ok = crashImages[f.c.file][name]; !ok {
			return nil, 0, fmt.Errorf("%s: %w", name, os.ErrNotExist)
		}
		if strings.HasPrefix(name, "app.") && !strings.Contains(f.w.encodings, name) {
			f.w.encodings += " " + name
		}
	}
	return io.NopCloser(bytes.NewReader(data[offset:])), int64(len(data)), nil
}

func (f memoryFiles) Put(_ context.Context, name string, r io.ReadSeeker, _ int64) error {
	data, err := io.ReadAll(r)
	if f.w.key != "" && bytes.Contains(data, []byte("owner")) {
		return errors.New("the device sends plain text")
	}
	f.w.backup += "<" + name + ">" + string(data) + "</>"
	return err
}

// ear is a front end that hears every notification.
type ear struct {
	m      *crashfs.Machine
	mu     sync.Mutex
	events []string
}

func (e *ear) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (e *ear) Notify(_ context.Context, n mib.Notice) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n.Notification == mib.NotifyOpProgress || e.m.Down() {
		return nil // a device without power says nothing
	}
	var seq, id int64
	for i, o := range n.Notification.Objects {
		switch o {
		case mib.EventSeq:
			seq = n.Varbinds[i].Value.Int
		case mib.OpId:
			id = n.Varbinds[i].Value.Int
		}
	}
	// The same number must always come with the same values.
	e.events = append(e.events, fmt.Sprintf("%d=%s/%d %x", seq, n.Notification.Name, id, sha256.Sum256(fmt.Append(nil, n.Varbinds))))
	return nil
}

func (e *ear) heard() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.events)
}

// crashHooks make a board without processes.
func crashHooks() Hooks {
	return Hooks{
		SelfTest: func(_ context.Context, t agent.SelfTest, b afero.Fs) error {
			data, err := afero.ReadFile(b, "selftest")
			if err != nil || string(data) != t.Version {
				return fmt.Errorf("the self-test of %s is not whole: %v", t.Version, err)
			}
			if t.Version == "3.0.0" {
				return errors.New("no dial tone")
			}
			return nil
		},
		Convert: func(_ context.Context, c agent.Conversion, work afero.Fs) error {
			for _, k := range config.Kinds() {
				data, err := afero.ReadFile(work, c.InDir+"/"+k.String())
				if err != nil {
					return err
				}
				data = config.WithHeader(k, c.To, config.Body(data))
				if err := afero.WriteFile(work, c.OutDir+"/"+k.String(), data, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

var crashParts = []string{"bank1", "bank2", "state", "data", "work", "loader"}

// crashDevice makes a device on a machine.
func crashDevice(m *crashfs.Machine, fetch procedure.Fetcher) *Device {
	return spoiltDevice(m, fetch, func(_ string, fs afero.Fs) afero.Fs { return fs })
}

// spoiltDevice makes a device whose file systems go through spoil.
func spoiltDevice(m *crashfs.Machine, fetch procedure.Fetcher, spoil func(part string, fs afero.Fs) afero.Fs) *Device {
	part := func(name string) afero.Fs { return spoil(name, m.Fs(name)) }
	return New(Config{
		ID: "IAD", Hardware: "IAD", Trust: image.TrustKeys(crashKey.Public().(minisign.PublicKey)),
		Disk: Disk{
			Banks: [2]afero.Fs{part("bank1"), part("bank2")}, State: part("state"), Data: part("data"), Work: part("work"),
		},
		ImageKeys: []agefile.Identity{crashOperator}, Hooks: crashHooks(), Fetcher: fetch, Grace: time.Second,
	})
}

func crashStart(t testing.TB) *crashfs.Disk {
	m := crashfs.NewDisk(crashParts...).Start()
	if err := crashDevice(m, nil).Provision(bytes.NewReader(crashImages["1.0.0"][softwareName]), crashSet(1, "old")); err != nil {
		t.Fatal(err)
	}
	return m.Settled()
}

// life lets the device live until the script is done, or the power fails.
func life(script []command, m *crashfs.Machine, w *world) error {
	return spoiltLife(script, m, w, func(_ string, fs afero.Fs) afero.Fs { return fs })
}

// spoiltLife is life with file systems that go through spoil.
func spoiltLife(script []command, m *crashfs.Machine, w *world, spoil func(string, afero.Fs) afero.Fs) error {
	clock := &hastyClock{}
	for restarts := 0; restarts < 12; restarts++ {
		var c command
		if w.step < len(script) {
			c = script[w.step]
		}
		d := spoiltDevice(m, memoryFiles{w, &c, clock}, spoil)
		d.cfg.Clock = clock
		d.platform.noReset = len(script) > 0 && script[0].takesOver
		if len(script) > 0 && script[0].encrypts {
			d.cfg.Encryption.Recipients = []agefile.Recipient{crashOperator.Recipient()}
		}
		if len(script) > 0 && script[0].badBase {
			d.cfg.Disk.Banks[0] = badBase{d.cfg.Disk.Banks[0]}
		}
		again, err := boot(script, &c, m, w, d, clock)
		if m.Down() || err != nil || !again {
			return err
		}
	}
	return errors.New("the device restarts for ever")
}

// boot is one start of the device. again is true if it restarted.
func boot(script []command, c *command, m *crashfs.Machine, w *world, d *Device, clock *hastyClock) (again bool, err error) {
	cfg := d.agentConfig()
	e := &ear{m: m}
	cfg.Fronts = []agent.FrontEnd{e}
	if board := loaderOf(m); board != nil {
		board.Broken = func(n int) bool { return !bootable(m.Fs(fmt.Sprintf("bank%d", n))) }
		n, why, err := board.Start()
		if err != nil {
			return false, fmt.Errorf("boot script: %w", err)
		}
		cfg.Loader = board.Loader(n, why)
	}
	a, err := agent.New(cfg)
	if errors.Is(err, agent.ErrWrongBank) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("start: %w", err)
	}
	// Before it runs, and goes on by itself.
	if err := checkDevice(a, m); err != nil {
		return false, err
	}
	key, _ := a.View().Value(mib.BackupRecipient, mib.OID{0})
	if d.cfg.Encryption.Recipients != nil {
		if w.started && w.key != string(key.Bytes) {
			return false, fmt.Errorf("the device had the key %q for configuration files, and now %q", w.key, key.Bytes)
		}
		w.key = string(key.Bytes)
		if err := checkSecrets(m); err != nil {
			return false, err
		}
	}
	if s := a.Engine().Snapshot().Settings; w.window != 0 && (s.ConfirmWindow != uint32(w.window) || s.ConfirmMode != mib.ConfirmModeManager) {
		return false, fmt.Errorf("a confirm window of %d s was set and is forgotten: %+v", w.window, s)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	err = operate(ctx, a, m, script, c, w, e, clock, ended)
	var restart *procedure.RestartError
	if errors.As(err, &restart) {
		again, err = true, nil
	} else {
		cancel()
		<-ended
	}
	if bad := w.hear(e.heard()); bad != nil && !m.Down() {
		return again, bad
	}
	return again, err
}

// bootable reports whether a boot loader that checks what it loads can start a bank.
func bootable(fs afero.Fs) bool {
	got, err := afero.ReadFile(fs, "app")
	return err == nil && slices.ContainsFunc(slices.Collect(maps.Keys(crashFormats)), func(version string) bool {
		return bytes.Equal(got, crashSoftware(version)["app"])
	})
}

// hear takes over the events that came. The same number is the same event, and
// none is left out.
func (w *world) hear(events []string) error {
	for _, ev := range events {
		seq, _, _ := strings.Cut(ev, "=")
		if strings.Contains(w.events, " "+ev+" ") {
			continue
		}
		if strings.Contains(w.events, " "+seq+"=") {
			return fmt.Errorf("event %s had another meaning before: %s", ev, w.events)
		}
		w.events += " " + ev + " "
	}
	return nil
}

// operate commands what is left to do and checks what comes of it.
func operate(ctx context.Context, a *agent.Agent, m *crashfs.Machine, script []command, c *command, w *world, e *ear, clock *hastyClock, ended <-chan error) error {
	changed, stop := a.Engine().Watch()
	defer stop()
	for {
		s := a.Engine().Snapshot()
		if m.Down() {
			return nil
		}
		switch {
		case !s.Op.State.Final() || s.Sent != s.Seq:
			// Not yet.
		case s.Banks.OnTrial() && c.window == 0 && (!c.late() || c.ended(s.Op)):
			// Not yet: the device is about to confirm its software, or to give it up.
			if c.late() {
				clock.jump(lateWindow * time.Second)
			}
		case len(script) == 0:
			return nil
		case w.started && s.Op.ID == w.opID && (c.ended(s.Op) || c.late() && !s.Banks.OnTrial()):
			// Interrupted on the way back, a late step is over as well.
			if err := checkOutcome(a, m, c); err != nil {
				return err
			}
			if c.encodings != "" && w.encodings != c.encodings {
				return fmt.Errorf("%s opened%s, not%s", c.kind, w.encodings, c.encodings)
			}
			w.step++
			w.started = false
			if w.step == len(script) {
				return checkHistory(a, w, e, script)
			}
			*c = script[w.step]
			continue
		case w.started && s.Op.ID == w.opID && s.Op.Cause != mib.FailCauseInterrupted:
			return fmt.Errorf("%s: %s: %d %s", c.kind, s.Op.State, s.Op.Cause, s.Op.Text)
		default:
			if w.started && s.Op.ID < w.opID {
				return fmt.Errorf("operation %d was accepted and is forgotten", w.opID)
			}
			if err := start(a, m, c, w); err != nil {
				return err
			}
			continue
		}
		select {
		case err := <-ended:
			return err
		case <-m.Off():
		case <-ctx.Done():
			return fmt.Errorf("stuck: operation %d %s is %s in %s", s.Op.ID, s.Op.Kind, s.Op.State, s.Op.Phase)
		case <-changed:
		}
	}
}

// start commands a step by SETs, as a manager would.
func start(a *agent.Agent, m *crashfs.Machine, c *command, w *world) error {
	module := a.Tree().Module()
	vbs := []mib.Varbind{
		{OID: module.OID(mib.ServerAddressType, 1), Value: mib.Int32(1)},
		{OID: module.OID(mib.ServerAddress, 1), Value: mib.Octets([]byte{127, 0, 0, 1})},
		{OID: module.OID(mib.ReqOptions, 0), Value: mib.Octets(optionBits(c.options))},
		{OID: module.OID(mib.ReqRetries, 0), Value: mib.Uint32(0)},
		{OID: module.OID(mib.ReqCommand, 0), Value: mib.Int32(int64(c.kind))},
	}
	for k := mib.FileTypeSoftware; k <= mib.FileTypeOtherData; k++ {
		vbs = append(vbs, mib.Varbind{OID: module.OID(mib.FileName, uint32(k)), Value: mib.Str(k.String())})
	}
	w.backup = ""
	if c.window != 0 {
		vbs = append([]mib.Varbind{
			{OID: module.OID(mib.ConfirmMode, 0), Value: mib.Int32(int64(mib.ConfirmModeManager))},
			{OID: module.OID(mib.ConfirmWindow, 0), Value: mib.Uint32(uint32(c.window))},
		}, vbs...)
	}
	tx, refused := a.Tree().Set(mib.Caller{}, vbs)
	if refused != nil {
		return refused
	}
	if !m.Down() {
		// The response leaves: the operation counts from now on.
		w.opID, w.started = a.Engine().Snapshot().Op.ID, true
		w.window = max(w.window, c.window)
	}
	tx.Done()
	return nil
}

func optionBits(o procedure.Options) []byte {
	var list []int
	for n := range 8 {
		if o&(1<<n) != 0 {
			list = append(list, n)
		}
	}
	return mib.Bits(list...)
}

// sampleCuts is how many operations of a script "make test" cuts the power at. The race
// detector makes a recovery ten times slower; "make test" runs the sweeps without it, too.
func sampleCuts() int {
	if iadtest.RaceDetector {
		return 4
	}
	return 24
}

// Whatever instant the power fails at, nothing is lost.
func TestCrash(t *testing.T) { sweepScripts(t, crashStart(t), sampleCuts()) }

// TestCrashLoader is TestCrash on boards whose boot loader chooses the bank.
func TestCrashLoader(t *testing.T) {
	for kind := range loaders {
		t.Run(kind, func(t *testing.T) {
			sweepScripts(t, crashStart(t).Write("loader", kind, make([]byte, bootscript.FileSize)), max(1, sampleCuts()/6))
		})
	}
}

// loaders make boards by the name of the file on partition loader.
var loaders = map[string]func(afero.Fs, string) *bootscript.Board{
	"script": bootscript.Script, "rauc": bootscript.RAUC, "bootcount": bootscript.Bootcount,
}

// loaderOf is the boot loader of a machine, nil if it has none.
func loaderOf(m *crashfs.Machine) *bootscript.Board {
	for kind, board := range loaders {
		if _, err := m.Fs("loader").Stat(kind); err == nil {
			return board(m.Fs("loader"), kind)
		}
	}
	return nil
}

func sweepScripts(t *testing.T, disk *crashfs.Disk, sample int) {
	seed := uint64(sha256.Sum256([]byte(t.Name()))[0])
	for _, s := range scripts {
		if loaderOf(disk.Start()) != nil && s.script[0].takesOver {
			continue // the loader has to start the other software
		}
		t.Run(s.name, func(t *testing.T) {
			sweep := crashfs.Sweep[world]{
				Start: disk,
				Life:  func(m *crashfs.Machine, w *world) error { return life(s.script, m, w) },
				Depth: 1, Seed: seed,
			}
			// A recovery costs the more the longer the script is.
			sweep.Limit = max(1, 12/(len(s.script)*len(s.script)))
			if fullCrash() {
				sweep.Depth = 2
			} else {
				sweep.Sample = sample
			}
			result, err := sweep.Run()
			if err != nil {
				t.Fatal(err)
			}
			fmt.Printf("%-35s %s\n", s.name+":", result)
			for _, f := range result.Faults {
				t.Error(f.Error())
			}
		})
	}
}

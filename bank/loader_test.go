package bank

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/durable"
	"example.com/iad/internal/iadtest"
	"example.com/iad/mib"
)

// A scriptedLoader keeps its state in two copies, as the boot script of deploy/uboot
// does, and starts banks by the script's rules.
type scriptedLoader struct {
	fs      afero.Fs
	started int
	why     string
	plant   string // an error in the loader, see TestPlantedLoaderErrors; "once": it can be written once
}

var loaderMagic = [4]byte{'t', 'e', 's', 't'}

func (l *scriptedLoader) Started() (int, string) { return l.started, l.why }

func (l *scriptedLoader) Load() (s LoaderState, err error) {
	data, _ := durable.ReadRecord(l.fs, "env", loaderMagic, 1, nil)
	if data == nil {
		return s, ErrLoaderLost
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, err
	}
	if s.Stale { // the script's own, see choose
		return s, ErrLoaderLost
	}
	return s, nil
}

func (l *scriptedLoader) Store(s LoaderState) error {
	switch l.plant {
	case "never written":
		return nil
	case "once":
		l.plant = "broken"
	case "broken":
		return syscall.EIO
	}
	return l.put(s)
}

func (l *scriptedLoader) put(s LoaderState) error {
	store, _, _, err := durable.OpenRecord(l.fs, "env", loaderMagic, 1, nil)
	if err != nil {
		return err
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return store.Write(data)
}

// script starts the board. A bank that is not whole resets it, so the script runs again.
// The error says that the power failed, or that the board resets for ever.
func (l *scriptedLoader) script(opt Options) error {
	for range 2 * (Tries + 2) {
		if err := l.choose(); err != nil || whole(opt, l.started) {
			return err
		}
	}
	return errors.New("the board resets for ever")
}

func (l *scriptedLoader) choose() error {
	s, err := l.Load()
	if s.Next != 0 {
		err = nil
	}
	l.why = "next"
	if err != nil {
		s = LoaderState{Next: 1, Left: 1, Fallback: 2, Stale: true}
		l.why = WhyLost
	}
	l.started = s.Next
	switch {
	case err != nil && l.plant == "lost state not written":
	case s.Left > 0 && l.plant == "starts not counted":
	case s.Left > 0:
		s.Left--
		return l.put(s)
	case s.Left == 0 && s.Fallback != 0:
		l.started = s.Fallback
		l.why = "tries"
	}
	return nil
}

// whole reports whether a bank's kernel, here the payload app, is. Of a partition the loader
// looks at the first block only.
func whole(opt Options, n int) bool {
	if opt.Partitions[n-1] != nil {
		v, err := firstBlock(opt, n)
		return err == nil && v != ""
	}
	got, err := afero.ReadFile(opt.Banks[n-1], "app")
	return err == nil && slices.ContainsFunc([]string{"1.0.0", "1.5.0", "2.0.0"}, func(v string) bool {
		return bytes.Equal(got, crashPayloads(v)["app"])
	})
}

// power starts the board: the loader, if there is one, then Boot, and both once more if
// the wrong bank was started.
func power(opt Options) (*Banks, BootReport, error) {
	l, ok := opt.Loader.(*scriptedLoader)
	for range 3 {
		if ok {
			if err := l.script(opt); err != nil {
				return nil, BootReport{}, err
			}
		}
		b, report := Boot(opt)
		switch {
		case report.Restart:
			continue
		case ok && report.Bank != l.started:
			return nil, report, fmt.Errorf("the loader started bank %d, and bank %d is said to run: %+v", l.started, report.Bank, report)
		}
		return b, report, nil
	}
	return nil, BootReport{}, errors.New("it restarts again and again")
}

// loaderMarker on the partition of the loader makes mount use one.
const loaderMarker = "used"

func loaderOf(m *crashfs.Machine) Loader {
	fs := m.Fs("loader")
	if _, err := fs.Stat(loaderMarker); err != nil {
		return nil
	}
	plant, err := afero.ReadFile(fs, loaderMarker)
	if err != nil {
		panic(err)
	}
	return &scriptedLoader{fs: fs, plant: string(plant)}
}

func withLoader() *crashfs.Disk { return blank().Write("loader", loaderMarker, nil) }

// loaderLives are the pieces of work of boards with a boot loader.
func loaderLives(t testing.TB) map[string]crashfs.Sweep[reported] {
	return loaderLivesFrom(t, provisionedOn(t, withLoader()))
}

func loaderLivesFrom(t testing.TB, fresh *crashfs.Disk) map[string]crashfs.Sweep[reported] {
	to := func(d *crashfs.Disk, version string) *crashfs.Disk {
		return after(t, d, func(opt Options) error { return upgrade(opt, version, new(reported)) })
	}
	trial := onTrial(t, fresh)
	upgradeLife := func(opt Options, w *reported) error { return upgrade(opt, "2.0.0", w) }
	return map[string]crashfs.Sweep[reported]{
		"upgrade": {Start: fresh, Life: life(upgradeLife)},
		"upgrade over old software": {
			Start: after(t, to(fresh, "1.5.0"), func(opt Options) error { return restoreLife(opt, new(reported)) }),
			Life:  life(upgradeLife),
		},
		"both copies of the loader lost": {
			Start: to(fresh, "2.0.0").Remove("loader", "env.a").Remove("loader", "env.b"),
			Life:  life(loaderLostLife),
		},
		"both copies of the loader lost while a bank is half written": {
			Start: halfWritten(t, to(fresh, "2.0.0")).Remove("loader", "env.a").Remove("loader", "env.b"),
			Life:  life(loaderLostLife),
		},
		"download after activation": {Start: fresh, Life: life(changedMindLife)},
		"tries used up":             {Start: trial, Life: life(neverConfirmedLife)},
		"restore":                   {Start: to(fresh, "2.0.0"), Life: life(restoreLife)},
		"restore while on trial":    {Start: trial, Life: life(restoreLife)},
		"give up":                   {Start: trial, Life: life(giveUpLife)},
	}
}

// halfWritten is a disk whose bank 1 was being written when the power failed.
func halfWritten(t testing.TB, d *crashfs.Disk) *crashfs.Disk {
	m := d.Start()
	opt := mount(m, nil)
	b, _, err := start(opt)
	if err != nil {
		t.Fatal(err)
	}
	src := splitServer(imagesOf(opt)["1.5.0"])
	src.cut = 35_000
	if _, err := b.Install(t.Context(), src, "dir/"+image.ManifestName, InstallOptions{AllowDowngrade: true}); err == nil {
		t.Fatal("the server did not break off")
	}
	return m.Settled()
}

// loaderLostLife brings a device back to 2.0.0, which is good in bank 2, after its loader
// started bank 1 for want of a state.
func loaderLostLife(opt Options, w *reported) error {
	b, _, err := start(opt)
	if err != nil {
		return err
	}
	if w.activated && version(b) != "2.0.0" {
		return fmt.Errorf("activated software does not start: %+v", b.Status())
	}
	if s := b.Status(); s.Running == 1 {
		if s.Banks[1].State != mib.BankStateGood && s.Banks[1].State != mib.BankStateTrial || s.Fallback != 2 && !w.activated {
			return fmt.Errorf("the software of bank 2 is lost: %+v", s)
		}
		if err := b.Activate(2); err != nil {
			return err
		}
		w.activated = true
		if b, _, err = start(opt); err != nil {
			return err
		}
	}
	if version(b) != "2.0.0" {
		return fmt.Errorf("%s runs: %+v", version(b), b.Status())
	}
	return b.Confirm()
}

func TestCrashLoader(t *testing.T) {
	for name, sweep := range loaderLives(t) {
		t.Run(name, func(t *testing.T) {
			sweep.Seed, sweep.Depth, sweep.Limit = 1, 2, 20
			switch {
			case fullCrash():
				sweep.Limit, sweep.Mixtures = 0, 6
			case iadtest.RaceDetector:
				sweep.Limit = 2
			}
			result, err := sweep.Run()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %s", name, result)
			for _, f := range result.Faults {
				t.Error(f)
			}
		})
	}
}

// TestPlantedLoaderErrors shows that the sweeps notice a loader, or orders of writes, that
// would lose a board.
func TestPlantedLoaderErrors(t *testing.T) {
	lives := loaderLives(t)
	for plant, name := range map[string]string{
		"never written":          "upgrade",
		"starts not counted":     "tries used up",
		"lost state not written": "both copies of the loader lost while a bank is half written",
	} {
		sweep := lives[name]
		sweep.Start = sweep.Start.Write("loader", loaderMarker, []byte(plant))
		sweep.Enough = 1
		result, err := sweep.Run()
		if err == nil && len(result.Faults) == 0 {
			t.Errorf("%s: %s: nothing was noticed: %s", plant, name, result)
		}
	}
}

// TestLoaderPutBack: what failed because the boot record could not be written has
// not switched the boot loader either.
func TestLoaderPutBack(t *testing.T) {
	fresh := provisionedOn(t, withLoader())
	fetched := after(t, fresh, func(opt Options) error {
		b, _, err := start(opt)
		if err != nil {
			return err
		}
		return fetchInto(b, "2.0.0", false)
	})
	noState := crashfs.Fault{Op: crashfs.OpWrite, Part: "state", Err: syscall.EIO}
	for _, c := range []struct {
		name string
		disk *crashfs.Disk
		do   func(*Banks) error
		runs string
	}{
		{"activate", fetched, func(b *Banks) error { return b.Activate(2) }, "1.0.0"},
		{"confirm", onTrial(t, fresh), (*Banks).Confirm, "2.0.0"},
		{"download", upgradedOn(t, fresh, "2.0.0"), func(b *Banks) error {
			_, err := b.Install(t.Context(), serve("fw.iad", crashImages["1.5.0"]), "fw.iad", InstallOptions{AllowDowngrade: true})
			return err
		}, "2.0.0"},
	} {
		m := c.disk.Start()
		b, _, err := start(mount(m, nil))
		if err != nil {
			t.Fatal(err)
		}
		l := b.opt.Loader
		was, err := l.Load()
		if err != nil {
			t.Fatal(err)
		}
		m.Fail(noState)
		if err := c.do(b); mib.CauseOf(err, 0) != mib.FailCauseBootFlagError {
			t.Errorf("%s: %v", c.name, err)
		}
		if now, err := l.Load(); err != nil || now != was {
			t.Errorf("%s: the loader has %+v, %v; it had %+v", c.name, now, err, was)
		}
		m.Heal()
		if b, _, err = start(mount(m.Settled().Start(), nil)); err != nil || version(b) != c.runs {
			t.Errorf("%s: after a restart: %v", c.name, err)
		}
	}

	// The loader cannot be put back: the error says so, and the next change does it.
	m := fetched.Start()
	b, _, err := start(mount(m, nil))
	if err != nil {
		t.Fatal(err)
	}
	l := b.opt.Loader.(*scriptedLoader)
	was, _ := l.Load()
	l.plant = "once"
	m.Fail(noState)
	if err := b.Activate(2); err == nil || !strings.Contains(err.Error(), "starts bank 2 next") || mib.CauseOf(err, 0) != mib.FailCauseBootFlagError {
		t.Error(err)
	}
	m.Heal()
	l.plant = ""
	if err := b.Unselect(); err != nil {
		t.Error(err)
	}
	if now, err := l.Load(); err != nil || now != was {
		t.Errorf("the loader has %+v, %v; it had %+v", now, err, was)
	}

	// A bank that was activated and is damaged is not started, recorded or not.
	m = fetched.Start()
	if b, _, err = start(mount(m, nil)); err != nil {
		t.Fatal(err)
	}
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	if err := afero.WriteFile(m.Fs("bank2"), "app", []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Fail(noState)
	if err := b.Check(2, false); mib.CauseOf(err, 0) != mib.FailCauseDigestMismatch {
		t.Error(err)
	}
	if now, err := b.opt.Loader.Load(); err != nil || now.Next != 1 {
		t.Errorf("the loader starts a damaged bank: %+v, %v", now, err)
	}
}

// TestLoaderIsSpared: what is tried again and again while the boot record cannot be written wears the loader's medium only
// once, and succeeds when it can be.
func TestLoaderIsSpared(t *testing.T) {
	fresh := provisionedOn(t, withLoader())
	fetched := after(t, fresh, func(opt Options) error {
		b, _, err := start(opt)
		if err != nil {
			return err
		}
		return fetchInto(b, "2.0.0", false)
	})
	for name, c := range map[string]struct {
		disk *crashfs.Disk
		do   func(*Banks) error
		want LoaderState
	}{
		"activate":             {fetched, func(b *Banks) error { return b.Activate(2) }, LoaderState{Next: 2, Left: Tries, Fallback: 1}},
		"the self-test passed": {onTrial(t, fresh), (*Banks).Tested, LoaderState{Next: 2, Left: Tries, Fallback: 1}},
		"confirm":              {onTrial(t, fresh), (*Banks).Confirm, LoaderState{Next: 2, Left: Uncounted, Fallback: 1}},
	} {
		m := c.disk.Start()
		b, _, err := start(mount(m, nil))
		if err != nil {
			t.Fatal(err)
		}
		was, err := b.opt.Loader.Load()
		if err != nil {
			t.Fatal(err)
		}
		writes := func() (n int) {
			for _, op := range m.Ops() {
				if op.Part == "loader" && op.Kind == crashfs.OpWrite {
					n++
				}
			}
			return n
		}
		m.Fail(crashfs.Fault{Op: crashfs.OpWrite, Part: "state", Err: syscall.EIO})
		var first int
		for i := range 10 {
			if err := c.do(b); mib.CauseOf(err, 0) != mib.FailCauseBootFlagError {
				t.Errorf("%s: %v", name, err)
			}
			if now, err := b.opt.Loader.Load(); err != nil || now != was {
				t.Errorf("%s: the loader has %+v, %v; it had %+v", name, now, err, was)
			}
			if i == 0 {
				first = writes()
			}
		}
		if n := writes(); n != first {
			t.Errorf("%s: %d writes to the loader after the first attempt", name, n-first)
		}
		m.Heal()
		if err := c.do(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if now, err := b.opt.Loader.Load(); err != nil || now != c.want {
			t.Errorf("%s: the loader has %+v, %v; want %+v", name, now, err, c.want)
		}
	}
}

// TestReconcile is the table of LoaderTable, a case or more for each row.
func TestReconcile(t *testing.T) {
	complete := func(version string) CheckResult {
		return CheckResult{Contents: ContentsComplete, Version: version, Digest: version}
	}
	both := [2]CheckResult{complete("1.0.0"), complete("2.0.0")}
	good := BankRecord{State: mib.BankStateGood, Confirmed: true, Cause: mib.FailCauseNone}
	ready := BankRecord{State: mib.BankStateReady, Cause: mib.FailCauseNone}
	trial := BankRecord{State: mib.BankStateTrial, TriesLeft: 3, Cause: mib.FailCauseNone}
	on := func(next, running, fallback int, one, two BankRecord) Record {
		return Record{Next: next, Running: running, Fallback: fallback, Banks: [2]BankRecord{one, two}}
	}
	for _, c := range []struct {
		name           string
		rec            Record
		loader         LoaderState
		started        int
		why            string
		checks         [2]CheckResult
		rule           string
		next, fallback int
		states         [2]mib.BankStateEnum
		tries          int // of next
	}{
		{name: "nothing happened", rec: on(1, 1, 2, good, good), loader: LoaderState{1, Uncounted, 2, false}, started: 1,
			rule: "", next: 1, fallback: 2, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateGood}},
		{name: "cut after the loader recorded an activation", rec: on(1, 1, 0, good, ready), loader: LoaderState{2, 2, 1, false}, started: 2,
			rule: "on trial", next: 2, fallback: 1, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateTrial}, tries: 3},
		{name: "three starts that did not get as far as the record", rec: on(1, 1, 0, good, ready), loader: LoaderState{2, 0, 1, false}, started: 1, why: "tries",
			rule: "on trial", next: 2, fallback: 1, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateTrial}, tries: 0},
		{name: "last start", rec: on(2, 2, 1, good, trial), loader: LoaderState{2, 0, 1, false}, started: 2,
			rule: "on trial", next: 2, fallback: 1, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateTrial}, tries: 1},
		{name: "cut after the loader recorded a confirmation", rec: on(2, 2, 1, good, trial), loader: LoaderState{2, Uncounted, 1, false}, started: 2,
			rule: "confirmed", next: 2, fallback: 1, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateGood}},
		{name: "cut after the loader recorded a return to the fallback", rec: on(2, 2, 1, good, trial), loader: LoaderState{1, Uncounted, 0, false}, started: 1,
			rule: "given up", next: 1, fallback: 1, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateFailed}},
		{name: "U-Boot's altbootcmd went back", rec: on(2, 1, 1, good, trial), loader: LoaderState{1, Uncounted, FallbackNotKept, false}, started: 1,
			rule: "given up", next: 1, fallback: 1, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateFailed}},
		{name: "cut after the loader recorded that an activation is withdrawn", rec: on(2, 1, 1, good, trial), loader: LoaderState{1, Uncounted, 0, false}, started: 1,
			rule: "withdrawn", next: 1, fallback: 1, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateReady}},
		{name: "cut after the loader recorded a return to old software", rec: on(2, 2, 1, good, good), loader: LoaderState{1, Uncounted, 0, false}, started: 1,
			rule: "withdrawn", next: 1, fallback: 1, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateGood}},
		{name: "cut after the loader recorded a download", rec: on(2, 2, 1, good, good), loader: LoaderState{2, Uncounted, 0, false}, started: 2,
			rule: "no fallback", next: 2, fallback: 0, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateGood}},
		{name: "loader lost", rec: on(2, 2, 1, good, good), loader: LoaderState{1, 0, 2, false}, started: 1, why: WhyLost,
			rule: "loader lost", next: 2, fallback: 1, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateGood}},
		{name: "both lost", loader: LoaderState{1, 0, 2, false}, started: 1, why: WhyLost,
			rule: "both lost", next: 1, fallback: 2, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateGood}},
		{name: "record lost", loader: LoaderState{2, Uncounted, 1, false}, started: 2,
			rule: "record lost", next: 2, fallback: 1, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateGood}},
		{name: "record lost on trial", loader: LoaderState{2, 1, 1, false}, started: 2,
			rule: "record lost", next: 2, fallback: 1, states: [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateTrial}, tries: 2},
		{name: "record lost, nothing to follow", loader: LoaderState{2, Uncounted, 1, false}, started: 1, why: "load",
			checks: [2]CheckResult{complete("1.0.0"), {Contents: ContentsDamaged}}, rule: "nothing to follow"},
	} {
		checks := both
		if c.checks[0].Contents != 0 {
			checks = c.checks
		}
		v := loaderView{Loader: c.loader, lost: c.why == WhyLost, started: c.started, why: c.why}
		got, rule := reconcile(c.rec, v, checks, [2]*image.Head{})
		if rule != c.rule || got.Next != c.next || got.Fallback != c.fallback || got.bank(got.Next).TriesLeft != c.tries ||
			got.Banks[0].State != c.states[0] || got.Banks[1].State != c.states[1] {
			t.Errorf("%s: rule %q, %+v", c.name, rule, got)
		}
	}
}

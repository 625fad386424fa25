package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/agent/config"
	"example.com/iad/bank"
	"example.com/iad/bank/uboot"
	"example.com/iad/internal/bootscript"
	"example.com/iad/mib"
)

var (
	cuts = flag.Int("cuts", 60, "power cuts to check")
	seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the choice of power cuts")
)

// checkCuts starts disks as power cuts could have left them.
func (x *bench) checkCuts() {
	x.Helper()
	disk, err := os.ReadFile(x.path(before))
	if err != nil {
		x.Fatal(err)
	}
	log, err := os.ReadFile(x.path(writes))
	if err != nil {
		x.Fatal(err)
	}
	r := &replay{disk: disk}
	if r.log, err = readLog(log); err != nil {
		x.Fatal(err)
	}
	var ends []int // of what lies between two flushes
	for i, w := range r.log {
		if w.flush && i > 0 {
			ends = append(ends, i)
		}
	}
	ends = append(ends, len(r.log))
	random := rand.New(rand.NewPCG(*seed, 0))
	var places []int
	for range *cuts {
		n := random.IntN(len(ends) - 1)
		places = append(places, ends[n]+1+random.IntN(ends[n+1]-ends[n]))
	}
	slices.Sort(places)
	results := map[string]int{}
	for _, at := range places {
		at = min(at, len(r.log))
		what, err := x.power(r.cut(at, random))
		if err != nil {
			x.Errorf("cut behind entry %d, seed %d: %v", at, *seed, err)
		}
		results[what]++
	}
	x.Logf("%d writes and %d flushes, %d power cuts, seed %d:", len(r.log), len(ends), *cuts, *seed)
	for _, what := range slices.Sorted(maps.Keys(results)) {
		x.Logf("%5d  %s", results[what], what)
	}
}

// maxStarts is more than any software gets on trial, and a few for what follows.
const maxStarts = 10

// power starts a board with a disk, as often as it resets itself: the boot script's rules, then what the agent does
// first. What came of it is returned, and an error if the board does not come up as it should.
func (x *bench) power(disk []byte) (what string, err error) {
	file := x.path("cut.img")
	if err := os.WriteFile(file, disk, 0o600); err != nil {
		return "", err
	}
	var resets int
	for range maxStarts {
		n, why, err := x.choose(file)
		if err != nil {
			return "", err
		}
		version := x.version(file, n)
		if version == "" || version == badKernel {
			resets++
			continue
		}
		report, err := x.boot(file, n, why, version)
		if err != nil {
			return "", err
		}
		if why == "load" && x.version(x.path(fmt.Sprintf("bank%d.img", 3-n)), 0) != "" {
			why = "load, although the other bank is complete once its journal is replayed"
		}
		if report.Restart {
			resets++
			continue
		}
		return fmt.Sprintf("software %s (%s), rule %q, trial %v, given up: bank %d, resets: %d", version, why, report.Rule, report.Trial, report.RolledBack, resets), nil
	}
	return "", errors.New("the board resets for ever")
}

// choose does what deploy/uboot/boot.cmd does.
func (x *bench) choose(disk string) (n int, why string, err error) {
	board := bootscript.Script(nil, "")
	board.Environment = loaderOf(disk).Environment
	board.Broken = func(n int) bool { return !x.loads(disk, n) }
	n, why, err = board.Start()
	if err == nil && board.Broken(n) {
		err = errors.New("no bank can be loaded")
	}
	return n, why, err
}

// loads reports whether U-Boot finds the files that it loads. Like debugfs it knows nothing of what is only in the
// journal of a file system.
func (x *bench) loads(disk string, n int) bool {
	return len(x.file(disk, n, "kernel")) > 0 && len(x.file(disk, n, "initrd")) > 0
}

// version is the version whose software a bank holds (see file), all of it; "" for none.
func (x *bench) version(disk string, n int) string {
	for _, v := range []string{first, good, badTest, badKernel} {
		if !slices.ContainsFunc(payloads, func(name string) bool {
			want, err := os.ReadFile(x.path("software", v, name))
			if err != nil {
				x.Fatal(err)
			}
			return !bytes.Equal(x.file(disk, n, name), want)
		}) {
			return v
		}
	}
	return ""
}

func partitionOf(name string) partition {
	return partitions[slices.IndexFunc(partitions, func(p partition) bool { return p.name == name })]
}

func copyPartition(disk, name, to string) error {
	in, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer in.Close()
	p := partitionOf(name)
	data := make([]byte, p.size*mebibyte)
	if _, err := in.ReadAt(data, p.at*mebibyte); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

// file reads a file of a bank of a disk, or of a bank of its own if n is 0; nothing if it is not there.
func (x *bench) file(disk string, n int, name string) []byte {
	if n != 0 {
		disk = fmt.Sprintf("%s?offset=%d", disk, partitionOf(fmt.Sprintf("bank%d", n)).at*mebibyte)
	}
	data, err := exec.Command(x.peer("debugfs"), "-R", "cat /"+name, disk).Output()
	if err != nil {
		x.Fatal(err)
	}
	return data
}

// boot does what the agent does first, and checks what runs and the configuration data.
func (x *bench) boot(disk string, n int, why, version string) (bank.BootReport, error) {
	dir := x.path("cut")
	if err := os.RemoveAll(dir); err != nil {
		return bank.BootReport{}, err
	}
	fs := map[string]afero.Fs{}
	for _, name := range []string{"bank1", "bank2", "state"} {
		part := x.path(name + ".img") // e2fsck does not find a journal at an offset
		if err := copyPartition(disk, name, part); err != nil {
			return bank.BootReport{}, err
		}
		// The kernel replays the journal. Exit status 1 says that something was corrected.
		var exit *exec.ExitError
		if out, err := exec.Command(x.peer("e2fsck"), "-fy", part).CombinedOutput(); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
			return bank.BootReport{}, fmt.Errorf("e2fsck of %s: %w: %s", name, err, out)
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return bank.BootReport{}, err
		}
		if out, err := exec.Command(x.peer("debugfs"), "-R", "rdump / "+to, part).CombinedOutput(); err != nil {
			return bank.BootReport{}, fmt.Errorf("debugfs of %s: %w: %s", name, err, out)
		}
		fs[name] = afero.NewBasePathFs(afero.NewOsFs(), to)
	}
	if err := afero.WriteFile(fs["state"], "cmdline", fmt.Appendf(nil, "iad.bank=%d iad.why=%s", n, why), 0o600); err != nil {
		return bank.BootReport{}, err
	}
	l := loaderOf(disk)
	l.Cmdline = uboot.Cmdline{Fs: fs["state"], Path: "cmdline", Parameter: "iad.bank", Values: [2]string{"1", "2"}, Why: "iad.why"}
	b, report := bank.Boot(bank.Options{Loader: l, Banks: [2]afero.Fs{fs["bank1"], fs["bank2"]},
		State: afero.NewBasePathFs(fs["state"], "iad/state"), Hardware: hardware})
	if report.Restart {
		return report, nil
	}
	st := b.Status()
	runs := st.Bank(report.Bank)
	if report.Bank != n || runs.Version != version || runs.State == mib.BankStateCorrupt {
		return report, fmt.Errorf("bank %d with %s was started (%s); the agent has bank %d, %+v: %s",
			n, version, why, report.Bank, *runs, strings.Join(report.Findings, "; "))
	}
	_, set, err := config.Peek(afero.NewBasePathFs(fs["state"], "iad/config"))
	if err != nil {
		return report, err
	}
	if kind, _ := config.ParseKind("userData"); string(set[kind]) != configuration {
		return report, fmt.Errorf("the configuration data are %q", set)
	}
	return report, nil
}

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
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
	bankpartition "example.com/iad/bank/partition"
	"example.com/iad/bank/uboot"
	"example.com/iad/internal/bootscript"
	"example.com/iad/mib"
)

var (
	cuts = flag.Int("cuts", 60, "power cuts to check")
	seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of everything that is drawn at random")
)

// A failure is what fails besides the power.
type failure string

const (
	powerOnly    failure = "power only"
	copiesLost   failure = "both copies of the choice lost"
	copiesFrozen failure = "the choice cannot be written"
)

// A campaign checks disks as power cuts could have left them.
type campaign struct {
	*build
	ctx    context.Context
	script string // that U-Boot runs
	replay *replay
	// Ends of what lies between two flushes, as indexes of the log: all of them, and those in which the boot loader's choice
	// is written or has just been.
	all, loader []int
	parts       [2][]*part // of bank 1 and bank 2, as they were seen last
	reference   map[string][]byte
}

// newCampaign is the campaign for the log of writes in the build's directory.
func newCampaign(ctx context.Context, b *build, script string) (*campaign, error) {
	c := &campaign{build: b, ctx: ctx, script: script, reference: map[string][]byte{}}
	disk, err := os.ReadFile(b.path(before))
	if err != nil {
		return nil, err
	}
	log, err := os.ReadFile(b.path(writes))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(b.path("cut"), 0o755); err != nil {
		return nil, err
	}
	c.replay = &replay{start: disk}
	if c.replay.log, err = readLog(log); err != nil {
		return nil, err
	}
	for _, v := range b.versions {
		for _, name := range b.kind.starts {
			if c.reference[v+"/"+name], err = os.ReadFile(b.path("software", v, name)); err != nil {
				return nil, err
			}
		}
	}
	begin, recent := 0, false
	for i, w := range append(slices.Clone(c.replay.log), write{flush: true}) {
		if !w.flush {
			continue
		}
		c.all = append(c.all, i)
		now := slices.ContainsFunc(c.replay.log[begin:i], write.inCopies)
		if now || recent {
			c.loader = append(c.loader, i)
		}
		begin, recent = i, now
	}
	return c, nil
}

// A verdict is what came of one disk.
type verdict struct {
	at      int // entries of the log before the cut
	failure failure
	what    string
	err     error
}

// run checks n power cuts, and calls each with what came of it until that returns false. only, if it is not "", is what
// fails at each besides the power, and the cuts are in no order; else in that of the log, which is quicker.
func (c *campaign) run(n int, random *rand.Rand, only failure, each func(verdict) bool) error {
	type place struct {
		at int
		failure
	}
	var places []place
	for range n {
		ends := c.all
		if random.IntN(2) == 0 {
			ends = c.loader
		}
		end := ends[random.IntN(len(ends))]
		begin := 0
		if i := slices.Index(c.all, end); i > 0 {
			begin = c.all[i-1]
		}
		p := place{min(begin+1+random.IntN(end-begin+1), len(c.replay.log)), powerOnly}
		switch {
		case only != "":
			p.failure = only
		case random.IntN(8) == 0:
			p.failure = copiesLost
		case random.IntN(8) == 0:
			p.failure = copiesFrozen
		}
		places = append(places, p)
	}
	if only == "" {
		slices.SortStableFunc(places, func(a, b place) int { return a.at - b.at })
	}
	for _, p := range places {
		disk := c.replay.cut(p.at, random)
		v := verdict{at: p.at, failure: p.failure}
		if p.failure == powerOnly {
			v.err = c.legal(disk, p.at)
		}
		if v.err == nil {
			v.what, v.err = c.power(disk, p.failure)
		}
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		if !each(v) {
			return nil
		}
	}
	return nil
}

// unflushed returns the entry of the log that writes a copy of the choice although what was written of the copies before
// may not last yet; 0 if there is none.
func (c *campaign) unflushed() int {
	pending := false
	for i, w := range c.replay.log {
		switch {
		case w.flush:
			pending = false
		case w.inCopies() && pending:
			return i
		case w.inCopies():
			pending = !w.lasts
		}
	}
	return 0
}

// legal checks the boot loader's choice on a disk: it is what was there at the last flush, or was written after it.
func (c *campaign) legal(disk []byte, at int) error {
	was := slices.Clone(c.replay.disk[:copiesEnd])
	var states []bank.LoaderState
	look := func() {
		if s, err := newBlocks(was, "").loader("").Load(); err == nil {
			states = append(states, s)
		}
	}
	look()
	for _, w := range c.replay.log[c.replay.done:at] {
		if w.inCopies() {
			copy(was[w.offset:], w.data)
			look()
		}
	}
	got, err := newBlocks(disk, "").loader("").Load()
	if err != nil || !slices.Contains(states, got) {
		return fmt.Errorf("the boot loader finds %+v, %v; it was left with one of %+v", got, err, states)
	}
	return nil
}

// maxStarts is more than any software gets on trial, and a few for what follows.
const maxStarts = 10

// power starts a board with a disk, as often as it resets itself: the boot script, then what the agent does first. What
// came of it is returned, and an error if the board does not come up as it should.
func (c *campaign) power(disk []byte, f failure) (what string, err error) {
	if f == copiesLost {
		for _, offset := range copies {
			clear(disk[offset : offset+copySize])
		}
	}
	blocks := newBlocks(disk, f)
	state := filepath.Join(c.dir, "cut", "state")
	if err := c.mount(disk, "state", state); err != nil {
		return "", err
	}
	var banks [2]*part
	for i := range banks {
		if banks[i], err = c.bank(disk, i+1); err != nil {
			return "", err
		}
	}
	var resets int
	for range maxStarts {
		n, why, err := c.choose(blocks, banks)
		if err != nil {
			return "", err
		}
		if err := expected(f, why, banks[2-n]); err != nil {
			return "", fmt.Errorf("bank %d is started: %w", n, err)
		}
		b := banks[n-1]
		if b.kernel == badKernel || b.kernel == "" && f == copiesLost {
			resets++
			continue
		}
		if b.kernel == "" {
			return "", fmt.Errorf("bank %d is started (%s), whose kernel is not complete", n, why)
		}
		report, err := c.boot(blocks, banks, state, n, why)
		if err != nil {
			return "", err
		}
		if report.Restart {
			resets++
			continue
		}
		if g := report.RolledBack; g != 0 && f == powerOnly && slices.Contains([]string{first, good}, banks[g-1].kernel) {
			return "", fmt.Errorf("software %s in bank %d was given up: %s", banks[g-1].kernel, g, report.Text)
		}
		return fmt.Sprintf("%s: software %s (%s), rule %q, trial %v, resets: %d", f, b.kernel, why, report.Rule, report.Trial, resets), nil
	}
	return "", errors.New("the board resets for ever")
}

// expected checks why a bank was started, if another one is there: a power cut alone is not a reason to go back.
func expected(f failure, why string, other *part) error {
	switch {
	case why == "next", f == copiesLost:
		return nil
	case why == "unwritten" && f == copiesFrozen:
		return nil
	case why == "tries" && other.kernel == badKernel:
		return nil
	}
	return fmt.Errorf("an unneeded fallback (%s) from software %q", why, other.kernel)
}

// choose runs the boot script.
func (c *campaign) choose(disk *blocks, banks [2]*part) (n int, why string, err error) {
	hw := bootscript.Hardware{Disk: disk}
	if c.kind.raw {
		hw.Partition = func(n int) (begin, size int64) {
			all := c.partitions()
			if n < 1 || n > len(all) {
				return 0, 0
			}
			return all[n-1].at * mebibyte, all[n-1].size * mebibyte
		}
		hw.Intact = func(data []byte) bool { return c.identify(map[string][]byte{fit: data}) != "" }
	} else {
		hw.Load = func(partition int, name string) int {
			if partition < 2 || partition > 3 {
				return 0
			}
			return banks[partition-2].sizes[name]
		}
	}
	args, err := bootscript.Run(c.ctx, c.script, hw)
	if err != nil {
		return 0, "", err
	}
	_, args, _ = strings.Cut(args, " iad.bank=")
	if _, err := fmt.Sscanf(args, "%d iad.why=%s", &n, &why); err != nil || n < 1 || n > 2 {
		return 0, "", fmt.Errorf("the kernel's command line ends with %q", args)
	}
	return n, why, nil
}

// Blocks are a disk in memory, of which only the beginning can be written.
type blocks struct {
	data   []byte // the beginning, with the copies of the choice
	rest   []byte
	frozen bool // nothing can be written
}

func newBlocks(disk []byte, f failure) *blocks {
	return &blocks{data: slices.Clone(disk[:copiesEnd]), rest: disk[copiesEnd:], frozen: f == copiesFrozen}
}

func (b *blocks) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= copiesEnd {
		return copy(p, b.rest[offset-copiesEnd:]), nil
	}
	return copy(p, b.data[offset:]), nil
}

func (b *blocks) WriteAt(p []byte, offset int64) (int, error) {
	if b.frozen {
		return 0, errors.New("write error")
	}
	return copy(b.data[offset:], p), nil
}

// loader is the agent's view of the choice.
func (b *blocks) loader(cmdline string) *uboot.Loader {
	l := loaderOf("")
	for i, offset := range copies {
		l.Environment.Copies[i] = place{b, offset}
	}
	fs := afero.NewMemMapFs()
	if err := afero.WriteFile(fs, "cmdline", []byte(cmdline), 0o600); err != nil {
		panic(err)
	}
	l.Cmdline = uboot.Cmdline{Fs: fs, Path: "cmdline", Parameter: "iad.bank", Values: [2]string{"1", "2"}, Why: "iad.why"}
	return l
}

// A place is a copy of the choice.
type place struct {
	*blocks
	offset int64
}

func (p place) String() string { return fmt.Sprintf("%#x", p.offset) }

func (p place) Read(data []byte) error {
	_, err := p.ReadAt(data, p.offset)
	return err
}

func (p place) Write(data []byte) error {
	_, err := p.WriteAt(data, p.offset)
	return err
}

func (p place) PutByte(offset int64, b byte) error {
	_, err := p.WriteAt([]byte{b}, p.offset+offset)
	return err
}

// A part is a partition with a bank.
type part struct {
	sum    uint64
	kernel string // version whose kernel and first file system U-Boot finds there; "" for none
	sizes  map[string]int
	dir    string // what Linux finds there
	raw    string // file with the raw partition, if there is one
}

var hashSeed = maphash.MakeSeed()

// bank examines a bank. Most cuts differ in one of them only.
func (c *campaign) bank(disk []byte, n int) (_ *part, err error) {
	const kept = 4
	name := fmt.Sprintf("bank%d", n)
	content, rawContent := c.content(disk, name), []byte(nil)
	if c.kind.raw {
		rawContent = c.content(disk, fmt.Sprintf("raw%d", n))
	}
	var h maphash.Hash
	h.SetSeed(hashSeed)
	h.Write(content)
	h.Write(rawContent)
	sum := h.Sum64()
	known := &c.parts[n-1]
	if i := slices.IndexFunc(*known, func(p *part) bool { return p.sum == sum }); i >= 0 {
		return (*known)[i], nil
	}
	p := &part{sum: sum, sizes: map[string]int{}, dir: filepath.Join(c.dir, "cut", fmt.Sprintf("%s-%x", name, sum))}
	found := map[string][]byte{fit: rawContent}
	if !c.kind.raw {
		if found, err = c.loadable(content); err != nil {
			return nil, err
		}
	}
	for name, data := range found {
		p.sizes[name] = len(data)
	}
	p.kernel = c.identify(found)
	if c.kind.raw && p.kernel == "" && slices.ContainsFunc(rawContent[:sectorSize], func(b byte) bool { return b != 0 }) {
		return nil, fmt.Errorf("the first sector of the raw partition of bank %d is there, but the payload is not complete", n)
	}
	if err := c.mount(disk, name, p.dir); err != nil {
		return nil, err
	}
	if c.kind.raw {
		p.raw = p.dir + ".partition"
		if err := os.WriteFile(p.raw, rawContent, 0o600); err != nil {
			return nil, err
		}
	}
	if *known = append(*known, p); len(*known) > kept {
		if err := errors.Join(os.RemoveAll((*known)[0].dir), os.RemoveAll((*known)[0].dir+".partition")); err != nil {
			return nil, err
		}
		*known = (*known)[1:]
	}
	return p, nil
}

// loadable reads the files that U-Boot loads. Like debugfs it knows nothing of what is only in the journal of a file
// system.
func (c *campaign) loadable(content []byte) (map[string][]byte, error) {
	dir := filepath.Join(c.dir, "cut", "raw")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755), os.WriteFile(dir+".img", content, 0o600)); err != nil {
		return nil, err
	}
	if err := c.dump(dir+".img", dir); err != nil {
		return nil, err
	}
	found := map[string][]byte{}
	for _, name := range c.kind.starts {
		found[name], _ = os.ReadFile(filepath.Join(dir, name)) // nothing if it is not there
	}
	return found, nil
}

// identify returns the version of which U-Boot finds everything that it starts, "" for none. What it reads of a raw
// partition is longer.
func (c *campaign) identify(found map[string][]byte) string {
	for _, v := range c.versions {
		if !slices.ContainsFunc(c.kind.starts, func(name string) bool {
			want := c.reference[v+"/"+name]
			return !bytes.HasPrefix(found[name], want) || !c.kind.raw && len(found[name]) != len(want)
		}) {
			return v
		}
	}
	return ""
}

// content is a partition of a disk.
func (c *campaign) content(disk []byte, name string) []byte {
	all := c.partitions()
	p := all[slices.IndexFunc(all, func(p partition) bool { return p.name == name })]
	return disk[p.at*mebibyte : (p.at+p.size)*mebibyte]
}

// mount makes a directory of what Linux finds in a partition, once it has replayed the journal.
func (c *campaign) mount(disk []byte, name, dir string) error {
	file := filepath.Join(c.dir, "cut", name+".img")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755), os.WriteFile(file, c.content(disk, name), 0o600)); err != nil {
		return err
	}
	// Exit status 1 says that something was corrected.
	var exit *exec.ExitError
	out, err := exec.CommandContext(c.ctx, c.peer("e2fsck"), "-fy", file).CombinedOutput()
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		return fmt.Errorf("e2fsck of %s: %w: %s", name, err, out)
	}
	return c.dump(file, dir)
}

// dump copies the files of a file system into a directory.
func (c *campaign) dump(file, dir string) error {
	if out, err := exec.CommandContext(c.ctx, c.peer("debugfs"), "-R", "rdump / "+dir, file).CombinedOutput(); err != nil {
		return fmt.Errorf("debugfs: %w: %s", err, out)
	}
	return nil
}

// boot does what the agent does first, and checks what runs and the configuration data.
func (c *campaign) boot(disk *blocks, banks [2]*part, state string, n int, why string) (bank.BootReport, error) {
	opt := bank.Options{Loader: disk.loader(fmt.Sprintf("iad.bank=%d iad.why=%s", n, why)), Hardware: hardware,
		State: afero.NewBasePathFs(afero.NewOsFs(), filepath.Join(state, "iad", "state"))}
	for i, p := range banks {
		opt.Banks[i] = afero.NewBasePathFs(afero.NewOsFs(), p.dir)
		if p.raw != "" {
			opt.Partitions[i] = bankpartition.Open(p.raw)
		}
	}
	b, report := bank.Boot(opt)
	if report.Restart {
		return report, nil
	}
	st := b.Status()
	runs := st.Bank(report.Bank)
	if report.Bank != n || runs.Version != banks[n-1].kernel || runs.State == mib.BankStateCorrupt {
		return report, fmt.Errorf("bank %d with %s was started (%s); the agent has bank %d, %+v: %s",
			n, banks[n-1].kernel, why, report.Bank, *runs, strings.Join(report.Findings, "; "))
	}
	_, set, err := config.Peek(afero.NewBasePathFs(afero.NewOsFs(), filepath.Join(state, "iad", "config")))
	if err != nil {
		return report, err
	}
	if kind, _ := config.ParseKind("userData"); string(set[kind]) != configuration {
		return report, fmt.Errorf("the configuration data are %q", set)
	}
	return report, nil
}

// checkCuts starts disks as power cuts could have left them.
func (x *bench) checkCuts() {
	x.Helper()
	c, err := newCampaign(x.Context(), x.build, x.script)
	if err != nil {
		x.Fatal(err)
	}
	if at := c.unflushed(); at != 0 {
		x.Errorf("entry %d writes a copy of the choice before the other one, written before it, lasts", at)
	}
	results, bad := map[string]int{}, 0
	err = c.run(*cuts, rand.New(rand.NewPCG(*seed, 0)), "", func(v verdict) bool {
		if v.err != nil {
			bad++
			x.Errorf("cut behind entry %d (%s), seed %d: %v", v.at, v.failure, *seed, v.err)
			return true
		}
		results[v.what]++
		return true
	})
	if err != nil {
		x.Fatal(err)
	}
	x.Logf("%d writes, flushes: %d; power cuts: %d, bad: %d, seed %d:", len(c.replay.log)-len(c.all)+1, len(c.all)-1, *cuts, bad, *seed)
	for _, what := range slices.Sorted(maps.Keys(results)) {
		x.Logf("%5d  %s", results[what], what)
	}
}

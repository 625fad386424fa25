package crashfs

import (
	"maps"
	"math/rand/v2"
	"os"
)

// An Outcome is a disk that could be found after a loss of power, and how it came
// about.
type Outcome struct {
	How  string
	Disk *Disk
}

// form is how much of a pending change reached the medium.
type form byte

const (
	lost   form = '-'
	kept   form = '+'
	half   form = 'h' // the first half of a write
	zeroed form = '0' // the size of a write, but zeros for its content
	junk   form = '?' // a torn write and garbage where its rest would be
)

// sampled is the number of pending changes above which those that are lost or kept
// alone are a sample.
const sampled = 12

// Disks returns the disks that could be found now: with nothing of what is pending,
// with all of it, with names but not data and the other way round, with sizes but zeros
// for content, with the first few of the changes, with all but one, with only one, and
// with a number of random mixtures. Outcomes that keep the same changes are listed
// once.
func (m *Machine) Disks(mixtures int, seed uint64) []Outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := &enumeration{m: m, seen: make(map[string]bool)}
	all := func(f func(c *change) form) func(int, *change) form {
		return func(_ int, c *change) form { return f(c) }
	}
	e.add("all unsynced lost", all(func(*change) form { return lost }))
	e.add("all kept", all(func(*change) form { return kept }))
	e.add("all kept, torn write with garbage", all(func(c *change) form {
		if c == m.torn {
			return junk
		}
		return kept
	}))
	e.add("names without data", all(func(c *change) form { return when(c.isName(), kept, lost) }))
	e.add("data without names", all(func(c *change) form { return when(c.isName(), lost, kept) }))
	e.add("names and sizes, zeros for data", all(func(c *change) form { return when(c.isWrite(), zeroed, kept) }))
	rng := rand.New(rand.NewPCG(seed, uint64(len(m.ops))))
	for _, k := range some(len(m.pending), rng) {
		e.add("the first few kept", func(i int, _ *change) form { return when(i <= k, kept, lost) })
		e.add("all but one kept", func(i int, _ *change) form { return when(i == k, lost, kept) })
		e.add("only one kept", func(i int, _ *change) form { return when(i == k, kept, lost) })
	}
	for range mixtures {
		e.add("mixture", func(_ int, c *change) form {
			forms := []form{lost, kept}
			if c.isWrite() {
				forms = []form{lost, kept, kept, half, zeroed}
			}
			return forms[rng.IntN(len(forms))]
		})
	}
	return e.found
}

func when(cond bool, yes, no form) form {
	if cond {
		return yes
	}
	return no
}

// some lists the indexes below n, or a sample of them.
func some(n int, rng *rand.Rand) []int {
	picked := rng.Perm(n)
	return picked[:min(n, sampled)]
}

type enumeration struct {
	m     *Machine
	seen  map[string]bool
	found []Outcome
}

func (e *enumeration) add(how string, choose func(i int, c *change) form) {
	forms := make([]byte, len(e.m.pending))
	for i, c := range e.m.pending {
		forms[i] = byte(choose(i, c))
	}
	if e.seen[string(forms)] {
		return
	}
	e.seen[string(forms)] = true
	e.found = append(e.found, Outcome{How: how, Disk: e.m.build(forms)})
}

// Settled returns the disk as the program sees it, as if everything had been synced:
// what is found after an orderly shutdown, or after the program alone was killed.
func (m *Machine) Settled() *Disk {
	m.mu.Lock()
	defer m.mu.Unlock()
	forms := make([]byte, len(m.pending))
	for i := range forms {
		forms[i] = byte(kept)
	}
	return m.build(forms)
}

// A picture is the medium in the making.
type picture struct {
	names    map[*inode]map[string]*inode
	contents map[*inode]*content
	modes    map[*inode]os.FileMode
}

// build makes the disk on which each pending change has that form.
func (m *Machine) build(forms []byte) *Disk {
	p := &picture{make(map[*inode]map[string]*inode), make(map[*inode]*content), make(map[*inode]os.FileMode)}
	for i, c := range m.pending {
		if form(forms[i]) != lost {
			p.apply(c, form(forms[i]))
		}
	}
	d := &Disk{parts: m.parts, roots: make(map[string]*node)}
	for part, root := range m.roots {
		d.roots[part] = p.node(root)
	}
	return d
}

func (p *picture) apply(c *change, f form) {
	for _, r := range c.names {
		if p.names[r.directory] == nil {
			p.names[r.directory] = maps.Clone(r.directory.onDisk.names)
		}
		setName(p.names[r.directory], r)
	}
	switch {
	case c.data != nil:
		p.contents[c.file] = written(p.content(c.file), c.off, shape(c, f))
	case c.size != nil:
		p.contents[c.file] = resized(p.content(c.file), *c.size)
	case c.mode != nil:
		p.modes[c.file] = *c.mode
	}
}

// shape is what of a write reaches the medium.
func shape(c *change, f form) []byte {
	switch f {
	case half:
		return c.data[:(len(c.data)+1)/2]
	case zeroed:
		return make([]byte, len(c.data))
	case junk:
		b := append([]byte(nil), c.data...)
		for i := range c.junk {
			b = append(b, byte(0xA5^i*31))
		}
		return b
	}
	return c.data
}

func (p *picture) content(i *inode) *content {
	if c, ok := p.contents[i]; ok {
		return c
	}
	return i.onDisk.content
}

func (p *picture) node(i *inode) *node {
	n := &node{mode: i.onDisk.mode, content: p.content(i)}
	if mode, ok := p.modes[i]; ok {
		n.mode = mode
	}
	if i.names == nil {
		return n
	}
	n.names = make(map[string]*node)
	names, ok := p.names[i]
	if !ok {
		names = i.onDisk.names
	}
	for name, child := range names {
		n.names[name] = p.node(child)
	}
	return n
}

package crashfs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/afero"
)

// ErrPowerLost is what every call returns once the power is gone.
var ErrPowerLost = errors.New("crashfs: power lost")

// When is the point of an operation at which the power fails.
type When uint8

// The instants of a cut.
const (
	Before When = iota // the operation does nothing and returns ErrPowerLost
	Middle             // of a write, the first half is done; others as Before
	After              // the operation is done and returns as usual
)

// String names the instant.
func (w When) String() string { return [...]string{"before", "in the middle of", "after"}[w] }

// Kind is a kind of operation on a file system.
type Kind string

// The kinds of operations. All but OpOpen and OpRead change something and are
// counted.
const (
	OpOpen     Kind = "open"
	OpRead     Kind = "read"
	OpCreate   Kind = "create"
	OpWrite    Kind = "write"
	OpTruncate Kind = "truncate"
	OpRename   Kind = "rename"
	OpRemove   Kind = "remove"
	OpMkdir    Kind = "mkdir"
	OpChmod    Kind = "chmod"
	OpSync     Kind = "sync"
	OpClose    Kind = "close" // of a file open for writing
)

// An Op is one operation that changed something.
type Op struct {
	Kind Kind
	Part string
	Path string
	Size int // bytes of a write
}

// String returns the operation, such as "rename state:boot.tmp".
func (o Op) String() string { return fmt.Sprintf("%s %s:%s", o.Kind, o.Part, o.Path) }

// A Machine is a device with power on. Its file systems may be used from several
// goroutines.
type Machine struct {
	mu      sync.Mutex
	parts   []string
	roots   map[string]*inode
	pending []*change // what is not yet durable, in the order it was done
	torn    *change   // of pending: the write that was cut in its middle

	ops  []Op
	cut  int // power fails at this operation, counted from 1; 0 never
	when When
	down bool
	off  chan struct{} // closed when the power fails

	faults   []*Fault
	limits   map[string]int64
	readOnly map[string]bool
}

// An inode is a file or directory of a running machine, as the program sees it and as
// it is on the medium.
type inode struct {
	mode    os.FileMode
	content *content          // of a file
	names   map[string]*inode // of a directory, else nil

	onDisk durable
}

// durable is what of an inode would be found if everything pending were lost.
type durable struct {
	mode    os.FileMode
	content *content
	names   map[string]*inode
}

// Start puts power on.
func (d *Disk) Start() *Machine {
	m := &Machine{parts: d.parts, roots: make(map[string]*inode), off: make(chan struct{}),
		limits: make(map[string]int64), readOnly: make(map[string]bool)}
	for _, p := range d.parts {
		m.roots[p] = load(d.roots[p])
	}
	return m
}

func load(n *node) *inode {
	i := &inode{mode: n.mode, content: n.content, onDisk: durable{mode: n.mode, content: n.content}}
	if n.names == nil {
		return i
	}
	i.names, i.onDisk.names = make(map[string]*inode), make(map[string]*inode)
	for name, child := range n.names {
		c := load(child)
		i.names[name], i.onDisk.names[name] = c, c
	}
	return i
}

// Fs is the file system of a partition.
func (m *Machine) Fs(part string) afero.Fs {
	if m.roots[part] == nil {
		panic("crashfs: no partition " + part)
	}
	return &fileSystem{m: m, part: part}
}

// CutAt chooses the operation, counted from 1, at which the power fails.
func (m *Machine) CutAt(op int, when When) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut, m.when = op, when
}

// Cut makes the power fail now.
func (m *Machine) Cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail()
}

// fail takes the power away; m.mu must be held.
func (m *Machine) fail() {
	if !m.down {
		m.down = true
		close(m.off)
	}
}

// Off is closed when the power fails.
func (m *Machine) Off() <-chan struct{} { return m.off }

// Down reports whether the power has failed.
func (m *Machine) Down() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.down
}

// Ops lists the changing operations since Start.
func (m *Machine) Ops() []Op {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.ops)
}

// An effect is what an operation does to the model.
type effect struct {
	change *change        // pending afterwards; nil for none
	half   func() *change // of a write, its first half
	sync   *inode         // made durable
}

// do carries out a changing operation: it counts it, makes it fail if there is a fault
// for it, or cuts the power. m.mu must be held.
func (m *Machine) do(op Op, e effect) error {
	if m.down {
		return ErrPowerLost
	}
	if err := m.fault(op.Kind, op.Part, op.Path); err != nil {
		return err
	}
	m.ops = append(m.ops, op)
	atCut := len(m.ops) == m.cut
	if atCut {
		m.fail()
		if m.when == Before || m.when == Middle && e.half == nil {
			return ErrPowerLost
		}
		if m.when == Middle {
			m.torn = e.half()
			m.apply(m.torn)
			return ErrPowerLost
		}
	}
	if e.change != nil {
		m.apply(e.change)
	}
	if e.sync != nil {
		m.settle(e.sync)
	}
	return nil
}

// modTime is the time that every file shows: the model knows none.
var modTime = time.Unix(1_700_000_000, 0)

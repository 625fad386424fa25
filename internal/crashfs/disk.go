package crashfs

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
)

// A content is the bytes of a file; it does not change, so disks share it.
type content struct {
	data []byte
	once sync.Once
	sum  [sha256.Size]byte
}

var nothing = &content{}

func newContent(data []byte) *content {
	if len(data) == 0 {
		return nothing
	}
	return &content{data: data}
}

func (c *content) hash() [sha256.Size]byte {
	c.once.Do(func() { c.sum = sha256.Sum256(c.data) })
	return c.sum
}

// A node is a file or directory on a Disk.
type node struct {
	mode    os.FileMode
	content *content         // of a file
	names   map[string]*node // of a directory, else nil
}

func newDirectory(mode os.FileMode) *node {
	return &node{mode: os.ModeDir | mode, content: nothing, names: make(map[string]*node)}
}

// A Disk is what lies on the medium of a device without power: one tree of files for
// each partition. It does not change.
type Disk struct {
	parts []string // in the order given to NewDisk
	roots map[string]*node
}

// NewDisk makes a disk of empty partitions with those names.
func NewDisk(parts ...string) *Disk {
	d := &Disk{parts: parts, roots: make(map[string]*node)}
	for _, p := range parts {
		d.roots[p] = newDirectory(0o755)
	}
	return d
}

// clean is the path of a name inside its partition, "" for the root.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (d *Disk) find(part, name string) *node {
	n := d.roots[part]
	if clean(name) == "" {
		return n
	}
	for _, e := range strings.Split(clean(name), "/") {
		if n == nil || n.names == nil {
			return nil
		}
		n = n.names[e]
	}
	return n
}

// Read returns the content of a file. The caller must not change it.
func (d *Disk) Read(part, name string) (data []byte, ok bool) {
	n := d.find(part, name)
	if n == nil || n.names != nil {
		return nil, false
	}
	return n.content.data, true
}

// Files lists the paths of all files of a partition, sorted.
func (d *Disk) Files(part string) []string {
	var all []string
	var walk func(prefix string, n *node)
	walk = func(prefix string, n *node) {
		for name, child := range n.names {
			if child.names != nil {
				walk(prefix+name+"/", child)
			} else {
				all = append(all, prefix+name)
			}
		}
	}
	walk("", d.roots[part])
	slices.Sort(all)
	return all
}

// Write returns a disk on which that file has the content data; its directory must
// exist.
func (d *Disk) Write(part, name string, data []byte) *Disk {
	return d.change(part, name, func(n *node) *node {
		if n == nil {
			n = &node{mode: 0o644}
		}
		return &node{mode: n.mode, content: newContent(slices.Clone(data))}
	})
}

// Mkdir returns a disk on which that name, which must be free, is an empty directory.
func (d *Disk) Mkdir(part, name string) *Disk {
	return d.change(part, name, func(*node) *node { return newDirectory(0o755) })
}

// Flip returns a disk on which one bit of that file, counted from the first byte's
// lowest, is wrong. A file that is missing or too short panics: the test is wrong.
func (d *Disk) Flip(part, name string, bit int64) *Disk {
	return d.change(part, name, func(n *node) *node {
		data := slices.Clone(n.content.data)
		data[bit/8] ^= 1 << (bit % 8)
		return &node{mode: n.mode, content: newContent(data)}
	})
}

// Remove returns a disk without that file or directory.
func (d *Disk) Remove(part, name string) *Disk {
	return d.change(part, name, func(*node) *node { return nil })
}

// change copies the directories on the way to name and replaces what name stands for.
func (d *Disk) change(part, name string, f func(*node) *node) *Disk {
	elems := strings.Split(clean(name), "/")
	var walk func(n *node, elems []string) *node
	walk = func(n *node, elems []string) *node {
		if n == nil || n.names == nil {
			panic(fmt.Sprintf("crashfs: no directory for %s", name))
		}
		directory := newDirectory(n.mode.Perm())
		for k, v := range n.names {
			directory.names[k] = v
		}
		child := n.names[elems[0]]
		if len(elems) > 1 {
			child = walk(child, elems[1:])
		} else {
			child = f(child)
		}
		if child == nil {
			delete(directory.names, elems[0])
		} else {
			directory.names[elems[0]] = child
		}
		return directory
	}
	changed := &Disk{parts: d.parts, roots: make(map[string]*node)}
	for p, root := range d.roots {
		changed.roots[p] = root
	}
	changed.roots[part] = walk(d.roots[part], elems)
	return changed
}

// Key identifies the disk by all it holds: disks with equal keys are equal.
func (d *Disk) Key() [sha256.Size]byte {
	h := sha256.New()
	text := func(s string) {
		h.Write(binary.AppendUvarint(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	var walk func(n *node)
	walk = func(n *node) {
		h.Write(binary.AppendUvarint(nil, uint64(n.mode)))
		if n.names == nil {
			sum := n.content.hash()
			h.Write(sum[:])
			return
		}
		h.Write(binary.AppendUvarint(nil, uint64(len(n.names))))
		names := make([]string, 0, len(n.names))
		for name := range n.names {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			text(name)
			walk(n.names[name])
		}
	}
	for _, p := range d.parts {
		text(p)
		walk(d.roots[p])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

package crashfs

import (
	"os"
	"slices"
)

// A change is one operation that may reach the medium or not. Exactly one of its
// parts is used.
type change struct {
	names []rename // entries of directories, set at once
	file  *inode   // the file of data, size or mode
	data  []byte   // written at off
	off   int64
	size  *int64 // cut or extended to
	mode  *os.FileMode
	junk  int // bytes of garbage that may follow data in a torn write
}

// A rename sets an entry of a directory, to nothing if to is nil.
type rename struct {
	directory *inode
	name      string
	to        *inode
}

func (c *change) isName() bool  { return c.names != nil }
func (c *change) isWrite() bool { return c.data != nil }

// apply does a change for the program and notes it as pending.
func (m *Machine) apply(c *change) {
	for _, r := range c.names {
		setName(r.directory.names, r)
	}
	switch {
	case c.data != nil:
		c.file.content = written(c.file.content, c.off, c.data)
	case c.size != nil:
		c.file.content = resized(c.file.content, *c.size)
	case c.mode != nil:
		c.file.mode = *c.mode
	}
	m.pending = append(m.pending, c)
}

// settle makes everything about an inode durable.
func (m *Machine) settle(i *inode) {
	keep := m.pending[:0:0]
	for _, c := range m.pending {
		switch {
		case c.file == i:
		case slices.ContainsFunc(c.names, func(r rename) bool { return r.directory == i }):
			for _, r := range c.names {
				setName(r.directory.onDisk.names, r)
			}
		default:
			keep = append(keep, c)
		}
	}
	m.pending = keep
	i.onDisk.mode, i.onDisk.content = i.mode, i.content
}

func setName(names map[string]*inode, r rename) {
	if r.to == nil {
		delete(names, r.name)
	} else {
		names[r.name] = r.to
	}
}

func written(c *content, off int64, data []byte) *content {
	size := max(int64(len(c.data)), off+int64(len(data)))
	b := make([]byte, size)
	copy(b, c.data)
	copy(b[off:], data)
	return newContent(b)
}

func resized(c *content, size int64) *content {
	b := make([]byte, size)
	copy(b, c.data)
	return newContent(b)
}

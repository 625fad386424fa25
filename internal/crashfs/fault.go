package crashfs

import (
	"io"
	"path"
	"syscall"
)

// A Fault makes operations fail.
type Fault struct {
	Op   Kind   // the kind of operation; "" any
	Part string // the partition; "" any
	Path string // pattern of path.Match for the path or its last element; "" any
	Skip int    // operations that match and go well before the first that fails
	// Times is how many operations fail, 0 all from then on.
	Times int
	// Err is what they return: syscall.EIO, syscall.ENOSPC. A write with
	// io.ErrShortWrite stores its first half.
	Err error
}

// Fail adds a fault.
func (m *Machine) Fail(f Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = append(m.faults, &f)
}

// Heal removes all faults, limits and write protections.
func (m *Machine) Heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = nil
	clear(m.limits)
	clear(m.readOnly)
}

// Limit makes writes fail with ENOSPC that would bring the files of a partition above
// that number of bytes. Overwriting needs no space.
func (m *Machine) Limit(part string, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limits[part] = bytes
}

// ReadOnly makes everything that changes a partition fail with EROFS, as after a
// remount because of errors.
func (m *Machine) ReadOnly(part string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.readOnly[part] = true
}

// fault returns the error that an operation fails with, nil for none.
func (m *Machine) fault(op Kind, part, name string) error {
	if m.readOnly[part] && op != OpOpen && op != OpRead && op != OpClose && op != OpSync {
		return syscall.EROFS
	}
	for _, f := range m.faults {
		if f.Op != "" && f.Op != op || f.Part != "" && f.Part != part || !f.matches(name) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		switch f.Times {
		case -1: // used up
			continue
		case 1:
			f.Times = -1
		case 0:
		default:
			f.Times--
		}
		return f.Err
	}
	return nil
}

func (f *Fault) matches(name string) bool {
	if f.Path == "" {
		return true
	}
	whole, _ := path.Match(f.Path, name)
	last, _ := path.Match(f.Path, path.Base(name))
	return whole || last
}

// room checks a partition's limit before its files grow by n bytes.
func (m *Machine) room(part string, grow int64) error {
	limit, ok := m.limits[part]
	if !ok || grow <= 0 {
		return nil
	}
	if m.used(m.roots[part])+grow > limit {
		return syscall.ENOSPC
	}
	return nil
}

// Used is the number of bytes in the files of a partition.
func (m *Machine) Used(part string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used(m.roots[part])
}

func (m *Machine) used(i *inode) (sum int64) {
	if i.names == nil {
		return int64(len(i.content.data))
	}
	for _, child := range i.names {
		sum += m.used(child)
	}
	return sum
}

// short reports whether a fault is a short write.
func short(err error) bool { return err == io.ErrShortWrite }

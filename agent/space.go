package agent

import "example.com/iad/agent/config"

// Neighbours is a Platform that knows which parts of the device share a file system,
// and so the room, with a bank. For another Platform they share none.
type Neighbours interface {
	// OnBank says which parts lie on the file system of bank n.
	OnBank(n int) Parts
}

// Parts are parts of a device beside the banks.
type Parts struct {
	State   bool
	Data    bool
	Work    bool // of conversions
	Applied bool // the files that the software uses
}

const (
	// stateReserve is for journal, boot record, settings and identity, with the
	// second copies that replacing them needs for a moment.
	stateReserve = 64 << 10
	// leastData is what configuration data of all kinds take at least.
	leastData = 6 * 4096
)

// reserve is how much room an update must leave on the file system of bank n, in
// bytes, so that configuration data of which a generation takes space can be
// converted, stored and handed to the software: those of the new software may be
// twice as large.
func reserve(p Platform, n int, space int64) (octets int64) {
	neighbours, ok := p.(Neighbours)
	if !ok {
		return 0
	}
	space = max(space, leastData)
	parts := neighbours.OnBank(n)
	if parts.State {
		octets += stateReserve
	}
	if parts.Data {
		octets += 2 * space
	}
	if parts.Work {
		octets += 3 * space // what goes in and what comes out
	}
	if parts.Applied {
		octets += 2 * space
	}
	return octets
}

// reserveFor is reserve for a store that may not be open yet.
func (d *device) reserveFor(n int) int64 {
	if d == nil || d.config == nil {
		return 0
	}
	return reserve(d.platform, n, d.config.Space())
}

// reserveOf is reserve for a device that is made with a set.
func reserveOf(p Platform, set config.Set) func(n int) int64 {
	return func(n int) int64 { return reserve(p, n, set.Space()) }
}

package uboot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// ErrLost means that no copy of an environment is good.
var ErrLost = errors.New("no good copy of the environment")

// A Copy is the place of one copy of an environment.
type Copy interface {
	// Read fills data.
	Read(data []byte) error
	// Write replaces the copy. What it wrote lasts when it returns.
	Write(data []byte) error
	// PutByte replaces one byte, from 1 to 0 only, without erasing anything.
	PutByte(offset int64, b byte) error
	String() string
}

// Newer says how the newer one of two good copies is known.
type Newer uint8

// The ways to know the newer copy.
const (
	ByCounter  Newer = iota // the flags byte counts up: block devices, files, NAND, UBI
	ByActive                // the flags byte is 1 in the active copy, 0 in the other one: NOR flash
	ByVariable              // no flags byte; the variable in Environment.Sequence counts up, in hexadecimal
)

// An Environment is a U-Boot environment in one copy or two.
type Environment struct {
	Copies   []Copy // one or two
	Size     int    // of each copy, in bytes
	Order    binary.ByteOrder
	Newer    Newer
	Sequence string // name of the variable that counts, with ByVariable
	// Create makes Update write a new environment if no copy is good. U-Boot's own
	// environment must not be made from nothing: it would lack the boot command.
	Create bool
	// Lock keeps other programs from changing the environment, and returns what ends
	// that. Nil for no lock.
	Lock func() (unlock func(), err error)
}

// loaded is what a look at the copies found.
type loaded struct {
	variables *Variables
	at        int // index of the copy that they come from
	flags     byte
	header    int
	findings  []string // what is wrong with the other copies
}

// headers are the sizes of the header that a copy may have. A U-Boot that was built for
// two copies leaves room for a flags byte in whatever it exports, so a script's copies have
// one header or the other.
func (e *Environment) headers() []int {
	switch {
	case e.Newer == ByVariable:
		return []int{checksumSize, checksumSize + 1}
	case len(e.Copies) == 2:
		return []int{checksumSize + 1}
	}
	return []int{checksumSize}
}

// Load returns the variables of the newest good copy, and what is wrong with the other
// one. The error wraps ErrLost if no copy is good.
func (e *Environment) Load() (*Variables, []string, error) {
	l, err := e.load()
	return l.variables, l.findings, err
}

func (e *Environment) load() (l loaded, err error) {
	var failed error
	for i, place := range e.Copies {
		data := make([]byte, e.Size)
		var v *Variables
		var header int
		err := place.Read(data)
		if err == nil {
			for _, header = range e.headers() {
				if v, err = decode(data, header, e.Order); err == nil {
					break
				}
			}
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", place, err)
			l.findings, failed = append(l.findings, "boot loader environment: "+err.Error()), errors.Join(failed, err)
			continue
		}
		flags := byte(0)
		if header > checksumSize {
			flags = data[checksumSize]
		}
		if l.variables == nil || e.newer(l, v, flags) {
			l.variables, l.at, l.flags, l.header = v, i, flags, header
		}
	}
	if l.variables == nil {
		return l, fmt.Errorf("%w: %w", ErrLost, failed)
	}
	return l, nil
}

// newer reports whether a copy is newer than the one in l, by the rules of U-Boot's
// env_import_redund.
func (e *Environment) newer(l loaded, v *Variables, flags byte) bool {
	switch {
	case e.Newer == ByVariable:
		return e.sequence(v) > e.sequence(l.variables)
	case e.Newer == ByActive:
		return flags == 1 && l.flags != 1
	case l.flags == 0xff && flags == 0:
		return true
	case l.flags == 0 && flags == 0xff:
		return false
	}
	return flags > l.flags
}

func (e *Environment) sequence(v *Variables) uint64 {
	n, _ := strconv.ParseUint(v.Get(e.Sequence), 16, 32)
	return n
}

// Update changes variables. It writes the older copy, or nothing if nothing changes: a
// power cut leaves either the old environment or the new one, if there are two copies.
func (e *Environment) Update(change func(*Variables)) error {
	if e.Lock != nil {
		unlock, err := e.Lock()
		if err != nil {
			return err
		}
		defer unlock()
	}
	l, err := e.load()
	switch {
	case err == nil:
	case e.Create && errors.Is(err, ErrLost):
		l = loaded{variables: new(Variables), at: -1, header: e.headers()[0]}
	default:
		return fmt.Errorf("%w; write the environment with U-Boot's saveenv or fw_setenv first", err)
	}
	next := l.variables.clone()
	change(next)
	if l.at >= 0 && slices.Equal(next.entries, l.variables.entries) {
		return nil
	}
	return e.write(l, next)
}

// write puts the variables over the copy that l did not come from.
func (e *Environment) write(l loaded, v *Variables) error {
	to := 0
	if len(e.Copies) == 2 && l.at == 0 {
		to = 1
	}
	if e.Newer == ByVariable {
		v.Set(e.Sequence, strconv.FormatUint(e.sequence(l.variables)+1, 16))
	}
	data, err := v.encode(e.Size, l.header, e.Order)
	if err != nil {
		return err
	}
	if l.header > checksumSize {
		if data[checksumSize] = l.flags + 1; e.Newer == ByActive {
			data[checksumSize] = 1
		}
	}
	if err := e.Copies[to].Write(data); err != nil {
		return fmt.Errorf("%s: %w", e.Copies[to], err)
	}
	if e.Newer == ByActive && l.at >= 0 && to != l.at {
		// Last: until then both are active, and U-Boot takes the first one, which is
		// either the old environment or the new one.
		if err := e.Copies[l.at].PutByte(checksumSize, 0); err != nil {
			return fmt.Errorf("%s: %w", e.Copies[l.at], err)
		}
	}
	return nil
}

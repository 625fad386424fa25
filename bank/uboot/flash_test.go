package uboot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// chip is flash memory in which, as in the real one, writing clears bits only and erasing sets
// all of an erase block.
type chip struct {
	memory     []byte
	unit       int64
	locked     map[int64]bool // erase blocks that ignore writes and cannot be erased
	fuse       bool           // what is locked stays so
	unreadable map[int64]bool // pages
}

const eraseBlock = 0x1000

func (c *chip) Size() int64             { return int64(len(c.memory)) }
func (c *chip) EraseBlock() int64       { return eraseBlock }
func (c *chip) WriteUnit() int64        { return c.unit }
func (c *chip) Bad(int64) (bool, error) { return false, nil }
func (c *chip) Close() error            { return nil }

func (c *chip) Unlock(at int64) {
	if !c.fuse {
		delete(c.locked, at)
	}
}

func (c *chip) Erase(at int64) error {
	if c.Unlock(at); c.locked[at] {
		return syscall.EIO
	}
	for page := at; page < at+eraseBlock; page += c.unit {
		delete(c.unreadable, page)
	}
	copy(c.memory[at:], bytes.Repeat([]byte{0xFF}, eraseBlock))
	return nil
}

func (c *chip) WriteAt(p []byte, at int64) (int, error) {
	if at%c.unit != 0 || int64(len(p))%c.unit != 0 {
		return 0, syscall.EINVAL
	}
	if c.locked[at/eraseBlock*eraseBlock] {
		return len(p), nil
	}
	for i, b := range p {
		c.memory[at+int64(i)] &= b
	}
	return len(p), nil
}

func (c *chip) ReadAt(p []byte, at int64) (int, error) {
	for page := at / c.unit * c.unit; page < at+int64(len(p)) && c.unit > 1; page += c.unit {
		if c.unreadable[page] {
			return 0, syscall.EBADMSG
		}
	}
	return copy(p, c.memory[at:]), nil
}

const copySize = 0x1400 // an erase block and a quarter of the next one

// onChip is an environment in two copies on a chip, each with other data behind it.
func onChip(newer Newer, unit int64) (*chip, *Environment) {
	c := &chip{memory: bytes.Repeat([]byte{0xFF}, 4*eraseBlock), unit: unit, locked: map[int64]bool{}, unreadable: map[int64]bool{}}
	e := &Environment{Size: copySize, Order: binary.LittleEndian, Newer: newer, Create: true}
	for i := range int64(2) {
		at := 2 * eraseBlock * i
		e.Copies = append(e.Copies, Flash{Name: "chip", Offset: at, device: func(string, bool) (mtd, error) { return c, nil }})
		copy(c.memory[at+copySize+0x123:], fmt.Sprintf("MAC address %d", i))
		copy(c.memory[at+2*eraseBlock-0x80:], "end")
	}
	return c, e
}

func setRound(e *Environment, round int) error {
	return e.Update(func(v *Variables) { v.Set("round", fmt.Sprint(round)) })
}

// TestFlashKeepsWhatFollows: what is in the last erase block of a copy behind it is still
// there after an update, and what cannot be read there does not prevent one.
func TestFlashKeepsWhatFollows(t *testing.T) {
	for newer, unit := range map[Newer]int64{ByActive: 1, ByCounter: 512} {
		c, e := onChip(newer, unit)
		for round := range 5 {
			if round == 3 && unit > 1 {
				for i := range int64(2) {
					c.unreadable[2*eraseBlock*i+copySize+0x400] = true
				}
			}
			if err := setRound(e, round); err != nil {
				t.Fatal(err)
			}
			if v, _, err := e.Load(); err != nil || v.Get("round") != fmt.Sprint(round) {
				t.Errorf("unit %d, round %d: %v, %v", unit, round, v, err)
			}
		}
		for i := range int64(2) {
			rest := c.memory[2*eraseBlock*i+copySize : 2*eraseBlock*(i+1)]
			if !bytes.HasPrefix(rest[0x123:], fmt.Appendf(nil, "MAC address %d\xff", i)) || !bytes.HasPrefix(rest[len(rest)-0x80:], []byte("end\xff")) {
				t.Errorf("unit %d, copy %d is followed by %q", unit, i, bytes.Trim(rest, "\xff"))
			}
		}
	}
}

// TestFlashLocked: the old copy is unlocked to be marked as such; if that fails, so does the
// update.
func TestFlashLocked(t *testing.T) {
	c, e := onChip(ByActive, 1)
	lock := func() {
		for at := int64(0); at < c.Size(); at += eraseBlock {
			c.locked[at] = true
		}
	}
	for round := range 4 {
		lock()
		if err := setRound(e, round); err != nil {
			t.Fatal(err)
		}
		if v, _, err := e.Load(); err != nil || v.Get("round") != fmt.Sprint(round) {
			t.Errorf("round %d: %v, %v", round, v, err)
		}
	}
	c.locked, c.fuse = map[int64]bool{2 * eraseBlock: true}, true // the copy in use
	if err := setRound(e, 9); err == nil || !strings.Contains(err.Error(), "write-protected") {
		t.Error(err)
	}
}

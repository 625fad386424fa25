package main

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
)

// A write is an entry of a log of writes.
type write struct {
	offset int64
	data   []byte // empty for a flush
	flush  bool   // all entries before it last
	lasts  bool   // it lasts itself (force unit access)
}

// copiesEnd is the end of the copies of the boot loader's choice on the disk.
var copiesEnd = copies[1] + copySize

// inCopies reports whether an entry writes the boot loader's choice.
func (w write) inCopies() bool {
	return len(w.data) > 0 && slices.ContainsFunc(copies[:], func(c int64) bool { return w.offset >= c && w.offset < c+copySize })
}

// Flags of entries.
const (
	flagFlush   = 1
	flagFUA     = 2
	flagDiscard = 4
)

const logMagic = 0x6a736677736872

// readLog reads what blklogwrites of QEMU has logged, in the format of Linux's dm-log-writes: a block that describes the
// log, then a block for each entry, followed by the data.
func readLog(log []byte) ([]write, error) {
	le := binary.LittleEndian
	if len(log) < sectorSize || le.Uint64(log) != logMagic || le.Uint32(log[24:]) != sectorSize {
		return nil, errors.New("not a log of writes with blocks of 512 bytes")
	}
	var list []write
	rest := log[sectorSize:]
	for range le.Uint64(log[16:]) {
		if len(rest) < sectorSize {
			return nil, errors.New("the log of writes is cut off")
		}
		flags := le.Uint64(rest[16:])
		w := write{offset: int64(le.Uint64(rest)) * sectorSize, flush: flags&flagFlush != 0, lasts: flags&flagFUA != 0}
		size := int(le.Uint64(rest[8:])) * sectorSize
		rest = rest[sectorSize:]
		if flags&flagDiscard == 0 {
			if len(rest) < size {
				return nil, errors.New("the log of writes is cut off")
			}
			w.data, rest = rest[:size], rest[size:]
		}
		list = append(list, w)
	}
	return list, nil
}

// A replay makes disks as power cuts could have left them, quickest in the order of the cuts.
type replay struct {
	start []byte // the disk before the first entry of the log
	log   []write
	disk  []byte // all that lasts of the first entries; nil before the first cut
	done  int    // how many these are
	after []byte // what cut has returned
}

// cut returns the disk after a power cut behind so many entries of the log. What was written before the last flush is
// there. Of each later write there is nothing, everything or some of its sectors, in any order. A file system relies on
// whole sectors; the copies of the boot loader's choice do not, and may have a sector that is neither old nor new. The disk
// is overwritten by the next call.
func (r *replay) cut(at int, random *rand.Rand) []byte {
	if r.disk == nil || at <= r.done {
		r.disk, r.done = append(r.disk[:0], r.start...), 0
	}
	settled := r.done
	for i, w := range r.log[r.done:at] {
		if w.flush {
			settled = r.done + i
		}
	}
	for _, w := range r.log[r.done:settled] {
		copy(r.disk[w.offset:], w.data)
	}
	r.done = settled
	r.after = append(r.after[:0], r.disk...)
	disk := r.after
	for _, i := range random.Perm(at - settled) {
		w := r.log[settled+i]
		fate := random.IntN(3)
		if w.lasts {
			continue
		}
		garbage := -1
		if w.inCopies() && random.IntN(2) == 0 {
			garbage = random.IntN(len(w.data) / sectorSize)
		}
		for s := 0; s < len(w.data); s += sectorSize {
			if fate == 1 || fate == 2 && random.IntN(2) == 0 {
				copy(disk[w.offset+int64(s):], w.data[s:s+sectorSize])
			}
			if s/sectorSize == garbage {
				for i := range sectorSize {
					disk[w.offset+int64(s+i)] = byte(random.Uint32())
				}
			}
		}
	}
	for _, w := range r.log[settled:at] {
		if w.lasts {
			copy(disk[w.offset:], w.data)
		}
	}
	return disk
}

package encode

import (
	"encoding/binary"
	"errors"
	"index/suffixarray"
)

// A copied is a piece of a payload that resembles a piece of the base: from there to the next
// one the payload has bytes of its own.
type copied struct {
	at, from, length int // in the payload, in the base, in bytes
}

// suffixes returns the positions in data in the order of what follows them. Package
// suffixarray has computed them and does not show them, except in what it writes to be read
// again: three parts, of which the first is the number of bytes, the second the data and the
// third the positions in pieces that each begin with their length.
func suffixes(data []byte) ([]int32, error) {
	c := collector{positions: make([]int32, 0, len(data)), skip: 2}
	if err := suffixarray.New(data).Write(&c); err != nil {
		return nil, err
	}
	if len(c.positions) != len(data) {
		return nil, errSuffixes
	}
	return c.positions, nil
}

var errSuffixes = errors.New("package suffixarray writes its index in an unknown form")

// A collector collects the positions.
type collector struct {
	positions []int32
	skip      int
}

func (c *collector) Write(p []byte) (int, error) {
	if c.skip > 0 {
		c.skip--
		return len(p), nil
	}
	if length, _ := binary.Varint(p); length != int64(len(p)) || len(p) < binary.MaxVarintLen64 {
		return 0, errSuffixes
	}
	for rest := p[binary.MaxVarintLen64:]; len(rest) > 0; {
		v, n := binary.Uvarint(rest)
		if n <= 0 || v >= uint64(cap(c.positions)) {
			return 0, errSuffixes
		}
		c.positions = append(c.positions, int32(v))
		rest = rest[n:]
	}
	return len(p), nil
}

// A matcher finds what is in the base.
type matcher struct {
	base      []byte
	positions []int32
}

// longest returns the longest piece of the base by which data begins.
func (m *matcher) longest(data []byte) (from, length int) {
	// What precedes low in the order is less than data, what follows high is greater; both have
	// at least so many bytes in common with it.
	low, high := 0, len(m.positions)
	lowCommon, highCommon := 0, 0
	try := func(i, known int) (common int) {
		p := int(m.positions[i])
		if common = known + commonPrefix(m.base[p+known:], data[known:]); common > length {
			from, length = p, common
		}
		return common
	}
	for low < high {
		middle := int(uint(low+high) / 2)
		common := try(middle, min(lowCommon, highCommon))
		if rest := m.base[int(m.positions[middle])+common:]; common < len(data) && (len(rest) == 0 || rest[0] < data[common]) {
			low, lowCommon = middle+1, common
		} else {
			high, highCommon = middle, common
		}
	}
	return from, length
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if binary.LittleEndian.Uint64(a[i:]) != binary.LittleEndian.Uint64(b[i:]) {
			break
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// minGain is by how many bytes a piece found elsewhere must resemble the payload better than
// the continuation of the last one does.
const minGain = 8

// match returns which pieces of the payload resemble which of the base, in ascending order and
// without overlap. It is the method of bsdiff (Colin Percival, "Naive differences of executable
// code", 2003): an exact match that beats the continuation of the last one begins a new piece,
// and each piece extends forward and backward over differing bytes as long as more than
// half of them are the same.
func match(base, payload []byte) ([]copied, error) {
	positions, err := suffixes(base)
	if err != nil {
		return nil, err
	}
	m := matcher{base, positions}
	var pieces []copied
	var (
		last     copied // at and from of the piece that is open
		scan     int    // an exact match is looked for from here
		from     int
		length   int // of the exact match
		same     int // so many bytes of it are the continuation's too
		compared int // up to here same has been counted
	)
	continues := func(i int) bool {
		b := i + last.from - last.at
		return b >= 0 && b < len(base) && base[b] == payload[i]
	}
	for scan < len(payload) {
		scan += length
		same, compared = 0, scan
		for ; scan < len(payload); scan++ {
			from, length = m.longest(payload[scan:])
			for ; compared < scan+length; compared++ {
				if continues(compared) {
					same++
				}
			}
			if length == same && length != 0 || length > same+minGain {
				break
			}
			if continues(scan) {
				same--
			}
		}
		if length == same && scan < len(payload) {
			continue // the exact match is the continuation
		}
		forward, backward := extendForward(base[last.from:], payload[last.at:scan]), 0
		if scan < len(payload) {
			backward = extendBackward(base[:from], payload[last.at:scan])
		}
		if overlap := last.at + forward - (scan - backward); overlap > 0 {
			keep := bestCut(base, payload, last, forward-overlap, from-backward, scan-backward, overlap)
			forward += keep - overlap
			backward -= keep
		}
		if last.length = forward; forward > 0 {
			pieces = append(pieces, last)
		}
		last = copied{at: scan - backward, from: from - backward}
	}
	return pieces, nil
}

// extendForward returns how many bytes of payload are best taken for a copy of base.
func extendForward(base, payload []byte) (length int) {
	score, best := 0, 0
	for i := range min(len(base), len(payload)) {
		if base[i] == payload[i] {
			score++
		} else {
			score--
		}
		if score > best {
			best, length = score, i+1
		}
	}
	return length
}

// extendBackward returns how many bytes at the end of payload are best taken for a copy of
// those at the end of base.
func extendBackward(base, payload []byte) (length int) {
	score, best := 0, 0
	for i := range min(len(base), len(payload)) {
		if base[len(base)-1-i] == payload[len(payload)-1-i] {
			score++
		} else {
			score--
		}
		if score > best {
			best, length = score, i+1
		}
	}
	return length
}

// bestCut divides bytes that two pieces could have: it returns how many the first one keeps.
func bestCut(base, payload []byte, first copied, firstLength, secondFrom, secondAt, overlap int) (keep int) {
	score, best := 0, 0
	for i := range overlap {
		b := payload[secondAt+i]
		if base[first.from+firstLength+i] == b {
			score++
		}
		if base[secondFrom+i] == b {
			score--
		}
		if score > best {
			best, keep = score, i+1
		}
	}
	return keep
}

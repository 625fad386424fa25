package lzma

import "encoding/binary"

// A found is a match: length bytes are the same as distance+1 bytes before.
type found struct{ length, distance int32 }

// Matches are the matches at each position of some data.
type Matches struct {
	data  []byte
	all   []found
	first []int32 // of each position, in all
}

// at returns the matches at a position, longer ones later and each with the least distance
// of its length.
func (m *Matches) at(pos int) []found { return m.all[m.first[pos]:m.first[pos+1]] }

const (
	hashBits = 16
	// depth bounds how many places are compared at a position.
	depth = 256
)

// FindMatches finds the matches in data whose distances are at most window bytes.
func FindMatches(data []byte, window int) *Matches {
	m := &Matches{data: data, first: make([]int32, len(data)+1)}
	var (
		pairs   [1 << 16]int32 // where two bytes were last, plus one
		triples [1 << hashBits]int32
		roots   [1 << hashBits]int32 // of trees of the places with the same hash of four bytes
	)
	sons := make([][2]int32, len(data)) // of each place: what is less, and what is greater
	for pos := range data {
		m.first[pos] = int32(len(m.all))
		limit := min(maxMatch, len(data)-pos)
		longest := 1
		report := func(length, at int) {
			longest = length
			m.all = append(m.all, found{int32(length), int32(pos - at - 1)})
		}
		if limit >= 2 {
			key := binary.LittleEndian.Uint16(data[pos:])
			if at := int(pairs[key]) - 1; at >= 0 && pos-at <= window {
				report(common(data, at, pos, 2, limit), at)
			}
			pairs[key] = int32(pos + 1)
		}
		if limit >= 3 {
			key := (uint32(data[pos]) | uint32(data[pos+1])<<8 | uint32(data[pos+2])<<16) * 2654435761 >> (32 - hashBits)
			if at := int(triples[key]) - 1; at >= 0 && pos-at <= window {
				if n := common(data, at, pos, 0, limit); n > longest && n >= 3 {
					report(n, at)
				}
			}
			triples[key] = int32(pos + 1)
		}
		if limit < 4 {
			continue
		}
		key := binary.LittleEndian.Uint32(data[pos:]) * 2654435761 >> (32 - hashBits)
		at := int(roots[key]) - 1
		roots[key] = int32(pos + 1)
		// The tree is split into what is less and what is greater than the data here.
		less, greater := &sons[pos][0], &sons[pos][1]
		lessCommon, greaterCommon := 0, 0
		for steps := depth; ; steps-- {
			if at < 0 || pos-at > window || steps == 0 {
				*less, *greater = 0, 0
				break
			}
			n := common(data, at, pos, min(lessCommon, greaterCommon), limit)
			if n > longest {
				report(n, at)
			}
			if n == limit {
				*less, *greater = sons[at][0], sons[at][1]
				break
			}
			if data[at+n] < data[pos+n] {
				*less = int32(at + 1)
				less, lessCommon = &sons[at][1], n
				at = int(*less) - 1
			} else {
				*greater = int32(at + 1)
				greater, greaterCommon = &sons[at][0], n
				at = int(*greater) - 1
			}
		}
	}
	m.first[len(data)] = int32(len(m.all))
	return m
}

// common returns how many bytes are the same at two places, n of which are known to be.
func common(data []byte, a, b, n, limit int) int {
	for n+8 <= limit && binary.LittleEndian.Uint64(data[a+n:]) == binary.LittleEndian.Uint64(data[b+n:]) {
		n += 8
	}
	for n < limit && data[a+n] == data[b+n] {
		n++
	}
	return n
}

package frame

import (
	"errors"

	"example.com/iad/bank/image/probability"
)

// LZMA is described by its reference decoder (LZMA SDK, lzma-specification.txt), LZMA2 by the xz
// file format and by the decoder for Linux (lib/xz/xz_dec_lzma2.c). This decoder is
// for data in memory: what it has written is its dictionary.

var errLZMA = errors.New("the compressed data are damaged")

// An lzmaDecoder decodes LZMA2.
type lzmaDecoder struct {
	probability.Model
	lc, lp, pb uint
	state      uint
	rep        [4]int // the last distances, less one

	// The range decoder.
	in        []byte // of the chunk
	width     uint32
	code      uint32
	exhausted bool

	out        []byte // with a capacity that bounds it
	limit      int    // of len(out), in this chunk
	dictionary int    // bytes of out that a match may go back
}

// decode decodes src, which begins with LZMA2, appends what it decodes to out within its
// capacity, and returns that and the rest of src. Matches go back dictionary bytes at most.
func (d *lzmaDecoder) decode(out, src []byte, dictionary int) ([]byte, []byte, error) {
	d.out = out[len(out):]
	needDictionary, needProperties := true, true
	for {
		if len(src) == 0 {
			return nil, nil, errLZMA
		}
		control := src[0]
		switch {
		case control == 0:
			return out[:len(out)+len(d.out)], src[1:], nil
		case control == 1:
			needDictionary, d.out = false, d.out[len(d.out):]
			out = out[:cap(out)-cap(d.out)]
		case control == 2 && !needDictionary:
		case control >= 0xe0:
			needDictionary, needProperties, d.out = false, false, d.out[len(d.out):]
			out = out[:cap(out)-cap(d.out)]
		case control >= 0xc0 && !needDictionary:
			needProperties = false
		case control >= 0x80 && !needDictionary && !needProperties:
		default:
			return nil, nil, errLZMA
		}
		var err error
		if control < 0x80 {
			src, err = d.copyChunk(src[1:])
		} else {
			d.dictionary = dictionary
			src, err = d.chunk(control, src[1:])
		}
		if err != nil {
			return nil, nil, err
		}
	}
}

// copyChunk takes an uncompressed chunk.
func (d *lzmaDecoder) copyChunk(src []byte) ([]byte, error) {
	if len(src) < 2 {
		return nil, errLZMA
	}
	n := int(src[0])<<8 + int(src[1]) + 1
	if src = src[2:]; len(src) < n {
		return nil, errLZMA
	}
	if n > cap(d.out)-len(d.out) {
		return nil, errTooLong
	}
	d.out = append(d.out, src[:n]...)
	return src[n:], nil
}

// chunk decodes a compressed chunk.
func (d *lzmaDecoder) chunk(control byte, src []byte) ([]byte, error) {
	if len(src) < 5 {
		return nil, errLZMA
	}
	size := int(control&0x1f)<<16 + int(src[0])<<8 + int(src[1]) + 1
	packed := int(src[2])<<8 + int(src[3]) + 1
	src = src[4:]
	if control >= 0xc0 {
		if !d.properties(src[0]) {
			return nil, errLZMA
		}
		src = src[1:]
	}
	if control >= 0xa0 {
		d.Reset()
		d.state, d.rep = 0, [4]int{}
	}
	if size > cap(d.out)-len(d.out) {
		return nil, errTooLong
	}
	if packed > len(src) || packed < 5 || src[0] != 0 {
		return nil, errLZMA
	}
	d.width, d.exhausted = 1<<32-1, false
	d.code = uint32(src[1])<<24 | uint32(src[2])<<16 | uint32(src[3])<<8 | uint32(src[4])
	d.in, d.limit = src[5:packed], len(d.out)+size
	for len(d.out) < d.limit {
		if !d.next() || d.exhausted {
			return nil, errLZMA
		}
	}
	if d.code != 0 || len(d.in) != 0 {
		return nil, errLZMA
	}
	return src[packed:], nil
}

// properties takes the byte that has lc, lp and pb.
func (d *lzmaDecoder) properties(b byte) bool {
	if b >= 9*5*5 {
		return false
	}
	d.lc, d.lp, d.pb = uint(b%9), uint(b/9%5), uint(b/45)
	return d.lc+d.lp <= 4
}

// bit decodes a bit of a probability.
func (d *lzmaDecoder) bit(p *uint16) uint {
	bound := d.width >> 11 * uint32(*p)
	b := uint(0)
	if d.code < bound {
		d.width = bound
		*p += (1<<11 - *p) >> 5
	} else {
		d.width -= bound
		d.code -= bound
		*p -= *p >> 5
		b = 1
	}
	if d.width < 1<<24 {
		d.shift()
	}
	return b
}

// shift takes the next byte.
func (d *lzmaDecoder) shift() {
	if len(d.in) == 0 {
		d.exhausted = true
		return
	}
	d.width, d.code = d.width<<8, d.code<<8|uint32(d.in[0])
	d.in = d.in[1:]
}

// bits decodes n bits that have no model, highest first.
func (d *lzmaDecoder) bits(n uint) (v uint) {
	for range n {
		d.width >>= 1
		v <<= 1
		if d.code >= d.width {
			d.code -= d.width
			v |= 1
		}
		if d.width < 1<<24 {
			d.shift()
		}
	}
	return v
}

// tree decodes a number below len(p), highest bit first.
func (d *lzmaDecoder) tree(p []uint16) uint {
	i := uint(1)
	for i < uint(len(p)) {
		i = i<<1 | d.bit(&p[i])
	}
	return i - uint(len(p))
}

// reverseTree decodes a number of n bits, lowest bit first.
func (d *lzmaDecoder) reverseTree(p []uint16, n uint) (v uint) {
	i := uint(1)
	for k := range n {
		b := d.bit(&p[i])
		i = i<<1 | b
		v |= b << k
	}
	return v
}

func (d *lzmaDecoder) length(m *probability.LengthModel, posState uint) int {
	if d.bit(&m.Choice) == 0 {
		return probability.MinMatch + int(d.tree(m.Low[posState][:]))
	}
	if d.bit(&m.Choice2) == 0 {
		return probability.MinMatch + 8 + int(d.tree(m.Middle[posState][:]))
	}
	return probability.MinMatch + 16 + int(d.tree(m.High[:]))
}

// next decodes a literal or a match. It reports whether that was possible.
func (d *lzmaDecoder) next() bool {
	posState := uint(len(d.out)) & (1<<d.pb - 1)
	if d.bit(&d.IsMatch[d.state][posState]) == 0 {
		return d.nextLiteral()
	}
	n := 0
	if d.bit(&d.IsRep[d.state]) == 0 {
		n = d.length(&d.MatchLength, posState)
		d.rep = [4]int{d.distance(n), d.rep[0], d.rep[1], d.rep[2]}
		d.state = probability.AfterMatch(d.state)
	} else if d.bit(&d.IsRep0[d.state]) == 0 {
		if d.bit(&d.IsRep0Long[d.state][posState]) == 0 {
			d.state = probability.AfterShortRep(d.state)
			return d.copyMatch(1)
		}
		n = d.length(&d.RepeatLength, posState)
		d.state = probability.AfterRepeat(d.state)
	} else {
		which := 1
		if d.bit(&d.IsRep1[d.state]) == 1 {
			which = 2 + int(d.bit(&d.IsRep2[d.state]))
		}
		distance := d.rep[which]
		copy(d.rep[1:which+1], d.rep[:which])
		d.rep[0] = distance
		n = d.length(&d.RepeatLength, posState)
		d.state = probability.AfterRepeat(d.state)
	}
	return d.copyMatch(n)
}

func (d *lzmaDecoder) nextLiteral() bool {
	at := len(d.out)
	context := uint(at) & (1<<d.lp - 1) << d.lc
	if at > 0 {
		context |= uint(d.out[at-1]) >> (8 - d.lc)
	}
	p := &d.Literal[context]
	symbol := uint(1)
	if d.state >= 7 {
		if d.rep[0] >= at {
			return false
		}
		// The byte that the last match would have continued with predicts this one, until
		// the first bit that differs.
		match := uint(d.out[at-1-d.rep[0]])
		for symbol < 0x100 {
			expected := match >> 7 & 1
			match <<= 1
			b := d.bit(&p[(1+expected)<<8+symbol])
			symbol = symbol<<1 | b
			if b != expected {
				break
			}
		}
	}
	for symbol < 0x100 {
		symbol = symbol<<1 | d.bit(&p[symbol])
	}
	d.out = append(d.out, byte(symbol))
	d.state = probability.AfterLiteral(d.state)
	return true
}

// distance decodes the distance, less one, of a match of n bytes.
func (d *lzmaDecoder) distance(n int) int {
	slot := d.tree(d.Slot[probability.LengthState(n)][:])
	if slot < 4 {
		return int(slot)
	}
	direct := slot>>1 - 1
	v := (2 | slot&1) << direct
	if slot < 14 {
		// The models of all these slots are in one table, one after the other.
		return int(v + d.reverseTree(d.Special[v-slot:], direct))
	}
	v += d.bits(direct-4) << 4
	return int((v + d.reverseTree(d.Align[:], 4)) & 0x7fffffff)
}

// copyMatch copies n bytes from the last distance.
func (d *lzmaDecoder) copyMatch(n int) bool {
	at := len(d.out)
	// One more than rep[0] may be too much for an int of 32 bits.
	if d.rep[0] >= at || d.rep[0] >= d.dictionary || n > d.limit-at {
		return false
	}
	distance := d.rep[0] + 1
	out := d.out[:at+n]
	for i := at; i < len(out); i++ {
		out[i] = out[i-distance]
	}
	d.out = out
	return true
}

package lzma

import "example.com/iad/bank/image/probability"

// A rangeEncoder writes bits by their probabilities.
type rangeEncoder struct {
	low     uint64
	width   uint32
	cache   byte
	pending int // bytes that a carry may still change, cache included
	out     []byte
}

func (r *rangeEncoder) start() { *r = rangeEncoder{width: 1<<32 - 1, pending: 1, out: r.out[:0]} }

// size is how many bytes there will be after finish.
func (r *rangeEncoder) size() int { return len(r.out) + r.pending + 4 }

func (r *rangeEncoder) shift() {
	if r.low < 0xff000000 || r.low>>32 != 0 {
		carry, b := byte(r.low>>32), r.cache
		for ; r.pending > 0; r.pending-- {
			r.out = append(r.out, b+carry)
			b = 0xff
		}
		r.cache = byte(r.low >> 24)
	}
	r.pending++
	r.low = r.low & 0x00ffffff << 8
}

func (r *rangeEncoder) bit(p *uint16, b uint) {
	bound := r.width >> 11 * uint32(*p)
	if b == 0 {
		r.width = bound
		*p += (1<<11 - *p) >> 5
	} else {
		r.low += uint64(bound)
		r.width -= bound
		*p -= *p >> 5
	}
	for r.width < 1<<24 {
		r.width <<= 8
		r.shift()
	}
}

// bits writes n bits without a model, highest first.
func (r *rangeEncoder) bits(v, n uint) {
	for n > 0 {
		n--
		r.width >>= 1
		if v>>n&1 == 1 {
			r.low += uint64(r.width)
		}
		for r.width < 1<<24 {
			r.width <<= 8
			r.shift()
		}
	}
}

// tree writes a number below len(p), highest bit first.
func (r *rangeEncoder) tree(p []uint16, v uint) {
	i := uint(1)
	for bit := uint(len(p)) >> 1; bit > 0; bit >>= 1 {
		b := pick(v&bit != 0, 1, 0)
		r.bit(&p[i], b)
		i = i<<1 | b
	}
}

// reverseTree writes a number of n bits, lowest bit first.
func (r *rangeEncoder) reverseTree(p []uint16, v, n uint) {
	i := uint(1)
	for range n {
		b := v & 1
		v >>= 1
		r.bit(&p[i], b)
		i = i<<1 | b
	}
}

func (r *rangeEncoder) length(m *probability.LengthModel, length int, posState uint) {
	n := uint(length - probability.MinMatch)
	switch {
	case n < 8:
		r.bit(&m.Choice, 0)
		r.tree(m.Low[posState][:], n)
	case n < 16:
		r.bit(&m.Choice, 1)
		r.bit(&m.Choice2, 0)
		r.tree(m.Middle[posState][:], n-8)
	default:
		r.bit(&m.Choice, 1)
		r.bit(&m.Choice2, 1)
		r.tree(m.High[:], n-16)
	}
}

func (r *rangeEncoder) finish() []byte {
	for range 5 {
		r.shift()
	}
	return r.out
}

func pick(first bool, a, b uint) uint {
	if first {
		return a
	}
	return b
}

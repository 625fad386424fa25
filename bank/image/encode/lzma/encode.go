package lzma

import "example.com/iad/bank/image/probability"

// Properties are how much of their surroundings the models of LZMA take into account.
type Properties struct {
	LC uint // high bits of the previous byte, for literals: 0 to 4
	LP uint // low bits of the position, for literals: 0 to 4; LC+LP is 4 at most
	PB uint // low bits of the position, for all else: 0 to 4
}

// An operation is a literal (length 1, kind literal), a match (kind is its distance plus 4) or a
// repeated match (kind is which of the last four distances; with length 1, the last one).
type operation struct {
	length int32
	kind   int32
}

const literal = -1

// An encoder writes operations.
type encoder struct {
	probability.Model
	Properties
	state   uint
	rep     [4]int32 // the last distances, less one
	coder   rangeEncoder
	matches *Matches
	data    []byte
	pos     int
	prices  prices
	nodes   []node
	path    []operation
}

const (
	maxPacked   = 1 << 16 // bytes of a compressed chunk
	maxUnpacked = 1 << 21
	maxCopied   = 1 << 16 // bytes of an uncompressed chunk
	// maxOperation bounds how many bytes one operation takes.
	maxOperation = 16
)

// Encode returns LZMA2 for the data of m.
func Encode(m *Matches, p Properties) (out []byte) {
	e := &encoder{Properties: p, matches: m, data: m.data, nodes: make([]node, blockSize+1)}
	// What the next compressed chunk has to reset: 3 the dictionary too, 2 the properties too,
	// 1 the state, 0 nothing.
	reset := byte(3)
	e.resetState()
	begin := 0
	e.coder.start()
	flush := func() {
		if e.pos == begin {
			return
		}
		packed := e.coder.finish()
		if size := e.pos - begin - 1; len(packed) < e.pos-begin {
			out = append(out, 0x80|reset<<5|byte(size>>16), byte(size>>8), byte(size), byte((len(packed)-1)>>8), byte(len(packed)-1))
			if reset >= 2 {
				out = append(out, byte((p.PB*5+p.LP)*9+p.LC))
			}
			out = append(out, packed...)
			reset = 0
		} else {
			for begin < e.pos {
				n := min(e.pos-begin, maxCopied)
				control := byte(2)
				if reset == 3 {
					control, reset = 1, 2
				}
				out = append(out, control, byte((n-1)>>8), byte(n-1))
				out = append(out, e.data[begin:begin+n]...)
				begin += n
			}
			reset = max(reset, 1)
			e.resetState()
		}
		begin = e.pos
		e.coder.start()
	}
	for e.pos < len(e.data) {
		for _, op := range e.parse() {
			e.write(op)
			if e.coder.size()+maxOperation > maxPacked || e.pos-begin+maxMatch > maxUnpacked {
				flush()
				if reset != 0 {
					break // the state is another than the one for which the path was chosen
				}
			}
		}
	}
	flush()
	return append(out, 0)
}

func (e *encoder) resetState() {
	e.Reset()
	e.state, e.rep = 0, [4]int32{}
}

func (e *encoder) posState(pos int) uint { return uint(pos) & (1<<e.PB - 1) }

// literalModel returns the probabilities of the literal at a position.
func (e *encoder) literalModel(pos int) *[0x300]uint16 {
	context := uint(pos) & (1<<e.LP - 1) << e.LC
	if pos > 0 {
		context |= uint(e.data[pos-1]) >> (8 - e.LC)
	}
	return &e.Literal[context]
}

// write encodes an operation.
func (e *encoder) write(op operation) {
	posState, r := e.posState(e.pos), &e.coder
	isMatch := &e.IsMatch[e.state][posState]
	switch {
	case op.kind == literal:
		r.bit(isMatch, 0)
		e.writeLiteral()
		e.state = probability.AfterLiteral(e.state)
	case op.kind >= 4:
		r.bit(isMatch, 1)
		r.bit(&e.IsRep[e.state], 0)
		r.length(&e.MatchLength, int(op.length), posState)
		e.writeDistance(int(op.kind-4), int(op.length))
		e.rep = [4]int32{op.kind - 4, e.rep[0], e.rep[1], e.rep[2]}
		e.state = probability.AfterMatch(e.state)
	default:
		r.bit(isMatch, 1)
		r.bit(&e.IsRep[e.state], 1)
		if op.kind == 0 {
			r.bit(&e.IsRep0[e.state], 0)
			r.bit(&e.IsRep0Long[e.state][posState], pick(op.length == 1, 0, 1))
		} else {
			r.bit(&e.IsRep0[e.state], 1)
			r.bit(&e.IsRep1[e.state], pick(op.kind == 1, 0, 1))
			if op.kind > 1 {
				r.bit(&e.IsRep2[e.state], uint(op.kind-2))
			}
			e.rep = moved(e.rep, op.kind)
		}
		if op.length == 1 {
			e.state = probability.AfterShortRep(e.state)
		} else {
			r.length(&e.RepeatLength, int(op.length), posState)
			e.state = probability.AfterRepeat(e.state)
		}
	}
	e.pos += int(op.length)
}

// moved returns the distances with number i first.
func moved(rep [4]int32, i int32) [4]int32 {
	first := rep[i]
	copy(rep[1:i+1], rep[:i])
	rep[0] = first
	return rep
}

func (e *encoder) writeLiteral() {
	p, b := e.literalModel(e.pos), uint(e.data[e.pos])
	symbol := uint(1)
	if e.state >= 7 {
		match := uint(e.data[e.pos-1-int(e.rep[0])])
		for n := 7; n >= 0; n-- {
			expected, bit := match>>n&1, b>>n&1
			e.coder.bit(&p[(1+expected)<<8+symbol], bit)
			symbol = symbol<<1 | bit
			if expected != bit {
				break
			}
		}
	}
	for symbol < 0x100 {
		// symbol begins with a 1, then come the bits that are written.
		bit := b >> (7 - (bitsLen(symbol) - 1)) & 1
		e.coder.bit(&p[symbol], bit)
		symbol = symbol<<1 | bit
	}
}

func bitsLen(v uint) (n uint) {
	for ; v > 0; v >>= 1 {
		n++
	}
	return n
}

func (e *encoder) writeDistance(distance, length int) {
	slot := slotOf(distance)
	e.coder.tree(e.Slot[probability.LengthState(length)][:], slot)
	if slot < 4 {
		return
	}
	direct := slot>>1 - 1
	first := (2 | slot&1) << direct
	rest := uint(distance) - first
	if slot < 14 {
		e.coder.reverseTree(e.Special[first-slot:], rest, direct)
		return
	}
	e.coder.bits(rest>>4, direct-4)
	e.coder.reverseTree(e.Align[:], rest&15, 4)
}

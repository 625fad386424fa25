package lzma

import (
	"math"
	"math/bits"

	"example.com/iad/bank/image/probability"
)

// Prices are in 64ths of a bit.
const bitPrice = 64

// zeroPrices are the prices of a bit 0, by its probability in steps of 16.
var zeroPrices = func() (p [1 << 7]uint32) {
	for i := range p {
		p[i] = uint32(math.Round(-math.Log2((float64(i)+0.5)/float64(len(p))) * bitPrice))
	}
	return p
}()

func price(p uint16, b uint) uint32 {
	if b != 0 {
		p = 1<<11 - p
	}
	return zeroPrices[min(p>>4, 127)]
}

func treePrice(p []uint16, v uint) (sum uint32) {
	for i := v | uint(len(p)); i > 1; i >>= 1 {
		sum += price(p[i>>1], i&1)
	}
	return sum
}

func reversePrice(p []uint16, v, n uint) (sum uint32) {
	i := uint(1)
	for range n {
		b := v & 1
		v >>= 1
		sum += price(p[i], b)
		i = i<<1 | b
	}
	return sum
}

func lengthPrices(m *probability.LengthModel, posState uint, prices *[maxMatch + 1]uint32) {
	low, notLow := price(m.Choice, 0), price(m.Choice, 1)
	middle, high := notLow+price(m.Choice2, 0), notLow+price(m.Choice2, 1)
	for n := uint(0); n <= maxMatch-probability.MinMatch; n++ {
		switch {
		case n < 8:
			prices[n+probability.MinMatch] = low + treePrice(m.Low[posState][:], n)
		case n < 16:
			prices[n+probability.MinMatch] = middle + treePrice(m.Middle[posState][:], n-8)
		default:
			prices[n+probability.MinMatch] = high + treePrice(m.High[:], n-16)
		}
	}
}

// slotOf returns the slot of a distance, less one.
func slotOf(distance int) uint {
	if distance < 4 {
		return uint(distance)
	}
	n := uint(bits.Len(uint(distance))) - 1
	return n<<1 | uint(distance)>>(n-1)&1
}

// prices are tables of what the model asks for at some time.
type prices struct {
	match, repeat [probability.PosStates][maxMatch + 1]uint32
	slot          [4][probability.Slots]uint32
	full          [4][probability.FullDistances]uint32
	align         [16]uint32
}

func (t *prices) update(m *probability.Model, pb uint) {
	for s := uint(0); s < 1<<pb; s++ {
		lengthPrices(&m.MatchLength, s, &t.match[s])
		lengthPrices(&m.RepeatLength, s, &t.repeat[s])
	}
	for i := range t.align {
		t.align[i] = reversePrice(m.Align[:], uint(i), 4)
	}
	for l := range t.slot {
		for s := range uint(probability.Slots) {
			t.slot[l][s] = treePrice(m.Slot[l][:], s)
			if s >= 14 {
				t.slot[l][s] += uint32(s>>1-1-4) * bitPrice
			}
		}
		for d := range t.full[l] {
			s := slotOf(d)
			t.full[l][d] = t.slot[l][s]
			if s >= 4 {
				direct := s>>1 - 1
				first := (2 | s&1) << direct
				t.full[l][d] += reversePrice(m.Special[first-s:], uint(d)-first, direct)
			}
		}
	}
}

// distance returns the price of a distance, less one, for a match of a length.
func (t *prices) distance(distance, length int) uint32 {
	l := probability.LengthState(length)
	if distance < probability.FullDistances {
		return t.full[l][distance]
	}
	return t.slot[l][slotOf(distance)] + t.align[distance&15]
}

package lzma

const (
	states    = 12
	posStates = 1 << 4 // at most
	minMatch  = 2
	maxMatch  = 273
	half      = 1 << 10 // a probability of one half
	slots     = 64
	// fullDistances is how many distances have a model of their own.
	fullDistances = 128
)

// A lengthModel has the probabilities of the bits of a match length.
type lengthModel struct {
	choice, choice2 uint16
	low, middle     [posStates][8]uint16
	high            [256]uint16
}

// A model has the probabilities of all bits.
type model struct {
	isMatch, isRep0Long           [states][posStates]uint16
	isRep, isRep0, isRep1, isRep2 [states]uint16
	slot                          [4][slots]uint16
	special                       [fullDistances]uint16
	align                         [16]uint16
	match, repeat                 lengthModel
	literal                       [1 << 4][0x300]uint16
}

func halves(all []uint16) {
	for i := range all {
		all[i] = half
	}
}

func (m *lengthModel) reset() {
	m.choice, m.choice2 = half, half
	for i := range m.low {
		halves(m.low[i][:])
		halves(m.middle[i][:])
	}
	halves(m.high[:])
}

func (m *model) reset() {
	for i := range states {
		halves(m.isMatch[i][:])
		halves(m.isRep0Long[i][:])
	}
	for _, all := range [][]uint16{m.isRep[:], m.isRep0[:], m.isRep1[:], m.isRep2[:], m.special[:], m.align[:]} {
		halves(all)
	}
	for i := range m.slot {
		halves(m.slot[i][:])
	}
	m.match.reset()
	m.repeat.reset()
	for i := range m.literal {
		halves(m.literal[i][:])
	}
}

// The state tells what the last operations were: below 7 the last one was a literal.

func afterLiteral(s uint) uint {
	switch {
	case s < 4:
		return 0
	case s < 10:
		return s - 3
	}
	return s - 6
}

func afterMatch(s uint) uint    { return pick(s < 7, 7, 10) }
func afterRepeat(s uint) uint   { return pick(s < 7, 8, 11) }
func afterShortRep(s uint) uint { return pick(s < 7, 9, 11) }

func pick(first bool, a, b uint) uint {
	if first {
		return a
	}
	return b
}

// lengthState chooses the model of the distance slot.
func lengthState(length int) int { return min(length-minMatch, 3) }

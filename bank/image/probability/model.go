// Package probability is the model of LZMA: the probabilities that the decoder of devices and the
// encoder of makers start from and change in step, and the states that select them. It follows
// the LZMA SDK's lzma-specification.txt.
package probability

const (
	States    = 12
	PosStates = 1 << 4 // at most
	MinMatch  = 2
	Slots     = 64
	// FullDistances is how many distances have a model of their own.
	FullDistances = 128

	half = 1 << 10 // a probability of one half
)

// A LengthModel has the probabilities of the bits of a match length.
type LengthModel struct {
	Choice, Choice2 uint16
	Low, Middle     [PosStates][8]uint16
	High            [256]uint16
}

// A Model has the probabilities of all bits. It consists of nothing else, so that Reset can
// set all of it.
type Model struct {
	IsMatch, IsRep0Long           [States][PosStates]uint16
	IsRep, IsRep0, IsRep1, IsRep2 [States]uint16
	Slot                          [4][Slots]uint16
	Special                       [FullDistances]uint16
	Align                         [16]uint16
	MatchLength, RepeatLength     LengthModel
	Literal                       [1 << 4][0x300]uint16
}

func halves(all []uint16) {
	for i := range all {
		all[i] = half
	}
}

func (m *LengthModel) reset() {
	m.Choice, m.Choice2 = half, half
	for i := range m.Low {
		halves(m.Low[i][:])
		halves(m.Middle[i][:])
	}
	halves(m.High[:])
}

// Reset makes all bits equally probable.
func (m *Model) Reset() {
	for i := range States {
		halves(m.IsMatch[i][:])
		halves(m.IsRep0Long[i][:])
	}
	for _, all := range [][]uint16{m.IsRep[:], m.IsRep0[:], m.IsRep1[:], m.IsRep2[:], m.Special[:], m.Align[:]} {
		halves(all)
	}
	for i := range m.Slot {
		halves(m.Slot[i][:])
	}
	m.MatchLength.reset()
	m.RepeatLength.reset()
	for i := range m.Literal {
		halves(m.Literal[i][:])
	}
}

// The state tells what the last operations were: below 7 the last one was a literal. These
// functions return the state after an operation.

func AfterLiteral(s uint) uint {
	switch {
	case s < 4:
		return 0
	case s < 10:
		return s - 3
	}
	return s - 6
}

func AfterMatch(s uint) uint    { return after(s, 7, 10) }
func AfterRepeat(s uint) uint   { return after(s, 8, 11) }
func AfterShortRep(s uint) uint { return after(s, 9, 11) } // a repeated match of one byte

func after(s, literal, match uint) uint {
	if s < 7 {
		return literal
	}
	return match
}

// LengthState selects the model of the distance slot by the length of the match.
func LengthState(length int) int { return min(length-MinMatch, 3) }

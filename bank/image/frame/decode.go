package frame

import (
	"encoding/binary"
	"errors"
	"io"
)

// A Codec says what the frames of a file hold.
type Codec string

// The codecs.
const (
	// XZ holds the payload.
	XZ Codec = "xz"
	// XZDelta holds the difference of the payload from a base.
	XZDelta Codec = "xz-delta"
)

// A BaseError is a failure to read the base of a difference.
type BaseError struct{ Err error }

func (e *BaseError) Error() string { return "read the base of the difference: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *BaseError) Unwrap() error { return e.Err }

// MaxControl bounds the control data of one frame in bytes.
func MaxControl(size int) int { return size/4 + 64 }

// A Decoder decodes frames of one size. It keeps its memory, about twice the frame size, for
// the next frame.
type Decoder struct {
	size    int
	lzma    lzmaDecoder
	content []byte
	program []byte // of a difference
	piece   []byte // of the base
}

// NewDecoder returns a Decoder of frames whose content has at most size bytes, a valid frame
// size.
func NewDecoder(size int) *Decoder { return &Decoder{size: size, content: make([]byte, size)} }

// Decode decodes a frame of codec XZ whose content has n bytes, at most the frame size.
// The content is valid until the next call.
func (d *Decoder) Decode(encoded []byte, n int) ([]byte, error) {
	content, err := d.decodeStreams(d.content[:0:n], encoded)
	if err == nil && len(content) < n {
		err = errTooShort
	}
	if err != nil {
		return nil, err
	}
	return content, nil
}

// pieceSize is how many bytes of the base are read at once.
const pieceSize = 16 << 10

// DecodeDelta decodes a frame of codec XZDelta whose content has n bytes, at most the frame
// size, with a base of baseSize bytes. Of the base it reads what the frame copies, in the order
// of the payload. A *BaseError says that the base could not be read. The content is valid
// until the next call.
func (d *Decoder) DecodeDelta(encoded []byte, n int, base io.ReaderAt, baseSize int64) ([]byte, error) {
	if d.program == nil {
		d.program, d.piece = make([]byte, 2*binary.MaxVarintLen64+MaxControl(d.size)+d.size), make([]byte, pieceSize)
	}
	program, err := d.decodeStreams(d.program[:0], encoded)
	if err != nil {
		return nil, err
	}
	controls, rest, err := length(program)
	if err != nil {
		return nil, err
	}
	literals, rest, err := length(rest)
	if err != nil {
		return nil, err
	}
	if len(rest) != controls+n || literals > n {
		return nil, errSteps
	}
	control, literal, added := rest[:controls], rest[controls:][:literals], rest[controls+literals:]
	content := d.content[:n]
	err = steps(control, n, baseSize, func(s step) error {
		if s.literal > len(literal) || s.copied > len(added) {
			return errSteps
		}
		if err := d.addBase(content[s.at:][:s.copied], added, base, s.from); err != nil {
			return err
		}
		copy(content[s.at+s.copied:], literal[:s.literal])
		literal, added = literal[s.literal:], added[s.copied:]
		return nil
	})
	if err != nil {
		return nil, err
	}
	return content, nil
}

// addBase makes p what is in the base from a position on, plus what is added.
func (d *Decoder) addBase(p, added []byte, base io.ReaderAt, from int64) error {
	for len(p) > 0 {
		piece := d.piece[:min(len(p), len(d.piece))]
		if n, err := base.ReadAt(piece, from); n < len(piece) {
			if err == io.EOF || err == nil {
				err = io.ErrUnexpectedEOF
			}
			return &BaseError{err}
		}
		for i, b := range piece {
			p[i] = b + added[i]
		}
		p, added, from = p[len(piece):], added[len(piece):], from+int64(len(piece))
	}
	return nil
}

// length reads the length of a part of the program, and returns what follows.
func length(program []byte) (n int, rest []byte, err error) {
	v, k := binary.Uvarint(program)
	if k <= 0 || v > uint64(len(program)) {
		return 0, nil, errSteps
	}
	return int(v), program[k:], nil
}

// A step makes some bytes of the content.
type step struct {
	at      int   // in the content
	copied  int   // so many bytes come from the base,
	from    int64 // from here in it;
	literal int   // so many follow that are in the frame
}

var errSteps = errors.New("the control data do not fit the content")

// steps calls f for each step of the control data, which must make n bytes of content and stay
// within the base.
func steps(control []byte, n int, baseSize int64, f func(step) error) error {
	s := step{}
	for len(control) > 0 {
		copied, k := binary.Uvarint(control)
		if k <= 0 || copied > uint64(n-s.at) {
			return errSteps
		}
		control = control[k:]
		literal, k := binary.Uvarint(control)
		if k <= 0 || literal > uint64(n-s.at)-copied {
			return errSteps
		}
		control = control[k:]
		seek, k := binary.Varint(control)
		if k <= 0 || seek > baseSize || seek < -baseSize {
			return errSteps
		}
		control = control[k:]
		s.copied, s.literal = int(copied), int(literal)
		if s.copied > 0 && (s.from < 0 || s.from > baseSize-int64(copied)) {
			return errors.New("the frame copies from outside the base")
		}
		if err := f(s); err != nil {
			return err
		}
		s.at += s.copied + s.literal
		if s.from += int64(s.copied) + seek; s.from < 0 || s.from > baseSize {
			return errors.New("the frame copies from outside the base")
		}
	}
	if s.at != n {
		return errSteps
	}
	return nil
}

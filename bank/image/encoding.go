package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"example.com/iad/bank/image/frame"
	"example.com/iad/mib"
)

// damaged makes an error that wraps ErrDamaged.
func damaged(format string, args ...any) *Error {
	return &Error{Code: mib.FailCauseDigestMismatch, Text: fmt.Sprintf(format, args...), Err: ErrDamaged}
}

// readIndex reads the index by which an encoding begins.
func readIndex(r io.Reader, p *Payload, e *Encoding) (*frame.Index, error) {
	raw := make([]byte, frame.IndexSize(p.Size, e.Frame))
	if err := readFull(r, raw); err != nil {
		return nil, err
	}
	if digestOf(raw) != e.IndexSHA256 {
		return nil, damaged("the index of %s", e.File)
	}
	x, err := frame.ParseIndex(raw, e.Size, p.Size, e.Frame)
	if err != nil {
		return nil, &Error{Code: mib.FailCauseBadFormat, Text: e.File, Err: err}
	}
	return x, nil
}

// digestOf returns the SHA-256 of data as a manifest has it.
func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// readFrame reads frame k into buf.
func readFrame(r io.Reader, e *Encoding, x *frame.Index, k int, buf []byte) ([]byte, error) {
	encoded := buf[:x.Length(k)]
	if err := readFull(r, encoded); err != nil {
		return nil, err
	}
	if !x.Matches(k, encoded) {
		return nil, damaged("frame %d of %s", k, e.File)
	}
	return encoded, nil
}

// Decode decodes frame k of an encoding, of which base is the base, nil with codec frame.XZ.
// Causes: badFormat; none, but a *frame.BaseError, if the base cannot be read.
func Decode(d *frame.Decoder, e *Encoding, x *frame.Index, k int, encoded []byte, base io.ReaderAt) (content []byte, err error) {
	if e.Codec == frame.XZDelta {
		content, err = d.DecodeDelta(encoded, x.Content(k), base, e.Base.Size)
	} else {
		content, err = d.Decode(encoded, x.Content(k))
	}
	var unread *frame.BaseError
	if err != nil && !errors.As(err, &unread) {
		err = &Error{Code: mib.FailCauseBadFormat, Text: fmt.Sprintf("frame %d of %s cannot be decoded", k, e.File), Err: err}
	}
	return content, err
}

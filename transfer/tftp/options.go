package tftp

import (
	"fmt"
	"strconv"
)

// Limits of the options' values.
const (
	DefaultBlockSize = 512   // without the blksize option (RFC 1350)
	MinBlockSize     = 8     // RFC 2348
	MaxBlockSize     = 65464 // RFC 2348
	MaxWindow        = 65535 // blocks, RFC 7440
	MaxTimeout       = 255   // seconds, RFC 2349
)

// Options are the options of a request or of its acknowledgement. The zero
// value has none.
type Options struct {
	BlockSize int   // blksize in bytes, 0 when absent
	Window    int   // windowsize in blocks, 0 when absent
	Timeout   int   // timeout in seconds, 0 when absent
	HasSize   bool  // tsize is present
	Size      int64 // tsize in bytes; 0 in a read request asks for it
}

// None reports whether no option is present.
func (o Options) None() bool { return o == Options{} }

// Terms returns block size and window, the defaults where there is no option.
func (o Options) Terms() (block, window int64) {
	block = DefaultBlockSize
	if o.BlockSize > 0 {
		block = int64(o.BlockSize)
	}
	return block, int64(max(1, o.Window))
}

// Option names as they are sent; they are compared without regard to case.
const (
	nameBlockSize = "blksize"
	nameWindow    = "windowsize"
	nameTimeout   = "timeout"
	nameSize      = "tsize"
)

// parseOptions reads pairs of strings. Options that this package does not know
// are skipped, as RFC 2347 asks of a server; values out of their range are an
// error.
func parseOptions(b []byte) (Options, error) {
	var o Options
	for len(b) > 0 {
		name, rest, ok := cutString(b)
		value, rest, ok2 := cutString(rest)
		if !ok || !ok2 {
			return Options{}, fmt.Errorf("%w: option without a value", ErrMalformed)
		}
		b = rest
		var err error
		switch lower(name) {
		case nameBlockSize:
			o.BlockSize, err = parseNumber(name, value, MinBlockSize, MaxBlockSize)
		case nameWindow:
			o.Window, err = parseNumber(name, value, 1, MaxWindow)
		case nameTimeout:
			o.Timeout, err = parseNumber(name, value, 1, MaxTimeout)
		case nameSize:
			o.Size, err = strconv.ParseInt(value, 10, 64)
			if err != nil || o.Size < 0 {
				err = fmt.Errorf("%w: option tsize with value %.20q", ErrMalformed, value)
			}
			o.HasSize = true
		}
		if err != nil {
			return Options{}, err
		}
	}
	return o, nil
}

func parseNumber(name, value string, least, most int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%w: option %s with value %.20q", ErrMalformed, lower(name), value)
	}
	return n, nil
}

func appendOptions(b []byte, o Options) []byte {
	add := func(name string, value int64) {
		b = append(append(b, name...), 0)
		b = append(strconv.AppendInt(b, value, 10), 0)
	}
	if o.HasSize {
		add(nameSize, o.Size)
	}
	if o.BlockSize != 0 {
		add(nameBlockSize, int64(o.BlockSize))
	}
	if o.Timeout != 0 {
		add(nameTimeout, int64(o.Timeout))
	}
	if o.Window != 0 {
		add(nameWindow, int64(o.Window))
	}
	return b
}

// lower is for the short ASCII words of the protocol.
func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if 'A' <= b[j] && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

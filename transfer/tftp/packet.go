package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Op is the kind of a packet: its first two bytes.
type Op uint16

// The operations of RFC 1350 section 5 and RFC 2347.
const (
	OpReadRequest  Op = 1
	OpWriteRequest Op = 2
	OpData         Op = 3
	OpAck          Op = 4
	OpError        Op = 5
	OpOptionAck    Op = 6
)

// ErrorCode is the code in an ERROR packet.
type ErrorCode uint16

// The error codes of RFC 1350 (0-7) and RFC 2347 (8).
const (
	ErrNotDefined      ErrorCode = 0
	ErrFileNotFound    ErrorCode = 1
	ErrAccessViolation ErrorCode = 2
	ErrDiskFull        ErrorCode = 3
	ErrIllegal         ErrorCode = 4
	ErrUnknownID       ErrorCode = 5
	ErrFileExists      ErrorCode = 6
	ErrNoSuchUser      ErrorCode = 7
	ErrOptions         ErrorCode = 8
)

// DataHeader is the number of bytes before the payload of a DATA packet.
const DataHeader = 4

// ModeOctet is the only transfer mode that keeps a file as it is.
const ModeOctet = "octet"

// maxRequest is the longest request or option acknowledgement that is read
// (RFC 2347 allows 512 bytes for a request).
const maxRequest = 1024

// ErrMalformed is wrapped by every error of Parse.
var ErrMalformed = errors.New("malformed TFTP packet")

// Packet is one packet, whatever its kind; only the fields of its kind are set.
type Packet struct {
	Op       Op
	Block    uint16    // DATA, ACK
	Data     []byte    // DATA; part of the slice that was parsed
	Filename string    // RRQ, WRQ
	Mode     string    // RRQ, WRQ, in lower case
	Options  Options   // RRQ, WRQ, OACK
	Code     ErrorCode // ERROR
	Message  string    // ERROR; as received, it may hold any bytes
}

// Parse reads one datagram. The packet's Data points into b.
func Parse(b []byte) (Packet, error) {
	if len(b) < 4 {
		return Packet{}, fmt.Errorf("%w: %d octets", ErrMalformed, len(b))
	}
	p := Packet{Op: Op(binary.BigEndian.Uint16(b))}
	switch p.Op {
	case OpData:
		p.Block = binary.BigEndian.Uint16(b[2:])
		p.Data = b[DataHeader:]
	case OpAck:
		p.Block = binary.BigEndian.Uint16(b[2:])
	case OpError:
		p.Code = ErrorCode(binary.BigEndian.Uint16(b[2:]))
		msg, _, _ := bytes.Cut(b[4:], []byte{0}) // some peers leave the final zero out
		p.Message = string(msg[:min(len(msg), maxRequest)])
	case OpReadRequest, OpWriteRequest:
		return parseRequest(p, b[2:])
	case OpOptionAck:
		return parseOptionAck(p, b[2:])
	default:
		return Packet{}, fmt.Errorf("%w: operation %d", ErrMalformed, p.Op)
	}
	return p, nil
}

func parseRequest(p Packet, b []byte) (Packet, error) {
	if len(b) > maxRequest {
		return Packet{}, fmt.Errorf("%w: request of %d octets", ErrMalformed, len(b))
	}
	name, rest, ok := cutString(b)
	mode, rest, ok2 := cutString(rest)
	if !ok || !ok2 || name == "" {
		return Packet{}, fmt.Errorf("%w: request without file name or mode", ErrMalformed)
	}
	p.Filename, p.Mode = name, lower(mode)
	var err error
	p.Options, err = parseOptions(rest)
	return p, err
}

func parseOptionAck(p Packet, b []byte) (Packet, error) {
	if len(b) > maxRequest {
		return Packet{}, fmt.Errorf("%w: option acknowledgement of %d octets", ErrMalformed, len(b))
	}
	var err error
	p.Options, err = parseOptions(b)
	return p, err
}

// cutString takes one string ended by a zero byte off b.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return "", nil, false
	}
	return string(b[:i]), b[i+1:], true
}

// AppendRequest appends an RRQ or WRQ in byte mode.
func AppendRequest(b []byte, op Op, filename string, o Options) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(op))
	b = append(append(b, filename...), 0)
	b = append(append(b, ModeOctet...), 0)
	return appendOptions(b, o)
}

// AppendOptionAck appends an OACK.
func AppendOptionAck(b []byte, o Options) []byte {
	return appendOptions(binary.BigEndian.AppendUint16(b, uint16(OpOptionAck)), o)
}

// AppendDataHeader appends the header of a DATA packet; the payload follows it.
func AppendDataHeader(b []byte, block uint16) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(OpData))
	return binary.BigEndian.AppendUint16(b, block)
}

// AppendAck appends an ACK.
func AppendAck(b []byte, block uint16) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(OpAck))
	return binary.BigEndian.AppendUint16(b, block)
}

// AppendError appends an ERROR. A zero byte in the message ends it.
func AppendError(b []byte, code ErrorCode, message string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(OpError))
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	for i := 0; i < len(message) && message[i] != 0; i++ {
		b = append(b, message[i])
	}
	return append(b, 0)
}

// Unwrap returns the block number of full width nearest to near whose low 16
// bits are block: block numbers roll over from 65535 to 0 in long files.
func Unwrap(near int64, block uint16) int64 {
	return near + int64(int16(block-uint16(near)))
}

// IsOptionAck reports whether a datagram that Parse refused was meant as an OACK.
func IsOptionAck(b []byte) bool {
	return len(b) >= 2 && Op(binary.BigEndian.Uint16(b)) == OpOptionAck
}

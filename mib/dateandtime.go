package mib

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// DateAndTime returns t as the DateAndTime of RFC 2579 in UTC: 11 bytes with
// a resolution of a tenth of a second, cut off. The zero time, and a year that
// does not fit, give eight zero bytes, which the module reads as unknown.
func DateAndTime(t time.Time) Value {
	t = t.UTC()
	if t.IsZero() || t.Year() < 0 || t.Year() > math.MaxUint16 {
		return Octets(make([]byte, 8))
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 11), uint16(t.Year()))
	return Octets(append(b, byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()),
		byte(t.Nanosecond()/int(100*time.Millisecond)), '+', 0, 0))
}

var errDateAndTime = errors.New("mib: not a DateAndTime")

// ParseDateAndTime reads a DateAndTime of 8 or 11 bytes and returns it in
// UTC. Eight bytes, local time without a zone, are taken for UTC. Zero
// bytes, unknown, give the zero time. A leap second becomes the first second
// of the next minute.
func ParseDateAndTime(b []byte) (time.Time, error) {
	if len(b) != 8 && len(b) != 11 {
		return time.Time{}, fmt.Errorf("%w: %d octets", errDateAndTime, len(b))
	}
	if [8]byte(b[:8]) == [8]byte{} {
		return time.Time{}, nil
	}
	year, month, day := int(binary.BigEndian.Uint16(b)), time.Month(b[2]), int(b[3])
	t := time.Date(year, month, day, int(b[4]), int(b[5]), int(b[6]), int(b[7])*int(100*time.Millisecond), time.UTC)
	date := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	if date.Month() != month || date.Day() != day || b[4] > 23 || b[5] > 59 || b[6] > 60 || b[7] > 9 {
		return time.Time{}, fmt.Errorf("%w: %x", errDateAndTime, b)
	}
	if len(b) == 8 {
		return t, nil
	}
	// RFC 2579 ends the hours from UTC at 13; there are places with 14.
	offset := time.Duration(b[9])*time.Hour + time.Duration(b[10])*time.Minute
	if b[9] > 14 || b[10] > 59 || b[8] != '+' && b[8] != '-' {
		return time.Time{}, fmt.Errorf("%w: %x", errDateAndTime, b)
	}
	if b[8] == '+' {
		offset = -offset
	}
	return t.Add(offset), nil
}

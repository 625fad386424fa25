package uboot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

// Variables are the variables of an environment, in their order. What is not NAME=VALUE
// is kept as it is. The zero value has none.
type Variables struct {
	entries []string
}

// Get returns the value of a variable, "" if it is not set.
func (v *Variables) Get(name string) string {
	for _, e := range v.entries {
		if n, value, ok := strings.Cut(e, "="); ok && n == name {
			return value
		}
	}
	return ""
}

// Set sets a variable; "" removes it, as U-Boot's setenv does.
func (v *Variables) Set(name, value string) {
	at := slices.IndexFunc(v.entries, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	switch {
	case value == "" && at >= 0:
		v.entries = slices.Delete(v.entries, at, at+1)
	case value == "":
	case at >= 0:
		v.entries[at] = name + "=" + value
	default:
		v.entries = append(v.entries, name+"="+value)
	}
}

// All returns the variables as NAME=VALUE, in their order.
func (v *Variables) All() []string { return slices.Clone(v.entries) }

func (v *Variables) clone() *Variables { return &Variables{entries: slices.Clone(v.entries)} }

// Why a copy cannot be used.
var (
	errChecksum = errors.New("its checksum is wrong: it is damaged, was never written, or has another size or byte order")
	errNoEnd    = errors.New("its variables have no end")
)

const checksumSize = 4

// decode reads the variables of a copy, behind a header of so many bytes.
func decode(data []byte, header int, order binary.ByteOrder) (*Variables, error) {
	if len(data) <= header {
		return nil, fmt.Errorf("%d bytes are too few for an environment", len(data))
	}
	if order.Uint32(data) != crc32.ChecksumIEEE(data[header:]) {
		return nil, errChecksum
	}
	v := new(Variables)
	for rest := data[header:]; ; {
		entry, after, ok := bytes.Cut(rest, []byte{0})
		switch {
		case !ok:
			return nil, errNoEnd
		case len(entry) == 0:
			return v, nil
		}
		v.entries = append(v.entries, string(entry))
		if rest = after; len(rest) == 0 {
			return nil, errNoEnd
		}
	}
}

// encode is the inverse of decode; the bytes of the header after the checksum are 0.
func (v *Variables) encode(size, header int, order binary.ByteOrder) ([]byte, error) {
	data := make([]byte, header, max(size, header))
	for _, e := range v.entries {
		if strings.Contains(e, "\x00") {
			return nil, fmt.Errorf("variable %q contains a zero byte", e)
		}
		data = append(append(data, e...), 0)
	}
	if data = append(data, 0); len(data) > size {
		return nil, fmt.Errorf("the environment is full: %d bytes, and %d are needed", size, len(data))
	}
	data = append(data, make([]byte, size-len(data))...)
	order.PutUint32(data, crc32.ChecksumIEEE(data[header:]))
	return data, nil
}

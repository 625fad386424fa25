package durable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"path/filepath"
	"syscall"

	"github.com/spf13/afero"
)

// Errors of reading what was stored; both name the file and the particulars in
// the error that wraps them.
var (
	// ErrCorrupt: not a frame of that kind, cut short, or its CRC is wrong.
	ErrCorrupt = errors.New("corrupt")
	// ErrNewer: a whole frame of a version above the one the reader knows.
	ErrNewer = errors.New("written by newer software")
)

// MaxPayload is the largest content of a frame in bytes. It bounds the memory
// that a reader spends on a file that somebody else may have written.
const MaxPayload = 1 << 20

// A frame, integers big-endian: magic 4, version 2, zero 2, sequence number 8,
// length of the payload 4, payload, CRC-32C of all that 4.
const (
	headSize = 20
	tailSize = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// EncodeFrame wraps payload (up to MaxPayload bytes) with its kind, version,
// sequence number and checksum.
func EncodeFrame(magic [4]byte, version uint16, seq uint64, payload []byte) []byte {
	b := make([]byte, 0, headSize+len(payload)+tailSize)
	b = append(b, magic[:]...)
	b = binary.BigEndian.AppendUint16(b, version)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, payload...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// DecodeFrame takes a frame apart. data must be the whole frame and nothing else.
// The error wraps ErrCorrupt, or ErrNewer for a whole frame whose version is
// above maxVersion; version and seq are valid with ErrNewer too. The payload
// shares data's memory.
func DecodeFrame(magic [4]byte, maxVersion uint16, data []byte) (version uint16, seq uint64, payload []byte, err error) {
	switch {
	case len(data) < headSize+tailSize:
		return 0, 0, nil, fmt.Errorf("%w: %d bytes, too short for a frame", ErrCorrupt, len(data))
	case [4]byte(data[:4]) != magic:
		return 0, 0, nil, fmt.Errorf("%w: starts with %q, not with %q", ErrCorrupt, data[:4], magic[:])
	}
	body, tail := data[:len(data)-tailSize], data[len(data)-tailSize:]
	if sum := crc32.Checksum(body, castagnoli); sum != binary.BigEndian.Uint32(tail) {
		return 0, 0, nil, fmt.Errorf("%w: wrong checksum", ErrCorrupt)
	}
	if n := binary.BigEndian.Uint32(data[16:]); uint64(n) != uint64(len(body)-headSize) {
		return 0, 0, nil, fmt.Errorf("%w: %d bytes announced, %d present", ErrCorrupt, n, len(body)-headSize)
	}
	version, seq = binary.BigEndian.Uint16(data[4:]), binary.BigEndian.Uint64(data[8:])
	switch {
	case version > maxVersion:
		return version, seq, nil, fmt.Errorf("%w: version %d, known up to %d", ErrNewer, version, maxVersion)
	case version == 0 || binary.BigEndian.Uint16(data[6:]) != 0:
		return 0, 0, nil, fmt.Errorf("%w: impossible header", ErrCorrupt)
	}
	return version, seq, body[headSize:], nil
}

// SaveFrame replaces the file name by a frame of version (1 or more) around
// payload, readable by its owner only.
func SaveFrame(fs afero.Fs, name string, magic [4]byte, version uint16, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("replace %s: %d bytes, %d at most", name, len(payload), MaxPayload)
	}
	return ReplaceFile(fs, name, EncodeFrame(magic, version, 0, payload), 0o600)
}

// LoadFrame reads what SaveFrame wrote, and makes its name last in case the process
// that wrote it was killed before it came to that. The error wraps os.ErrNotExist, ErrCorrupt
// or ErrNewer; with the last two move the file away (Quarantine, QuarantineAs) before
// writing another one.
func LoadFrame(fs afero.Fs, name string, magic [4]byte, maxVersion uint16) (payload []byte, err error) {
	data, err := readBounded(fs, name)
	if err != nil {
		return nil, err
	}
	_, _, payload, err = DecodeFrame(magic, maxVersion, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// An error here changes nothing about what was read.
	_ = SyncDir(fs, filepath.Dir(name))
	return payload, nil
}

// readBounded reads a file that can hold a frame; a longer one, or a directory in its
// place, is ErrCorrupt.
func readBounded(fs afero.Fs, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("read %s: %w: %w", name, ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("read %s: %w: it is a directory", name, ErrCorrupt)
	}
	const limit = headSize + MaxPayload + tailSize
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", name, ErrCorrupt, limit)
	}
	return data, nil
}

// nextSeq never wraps in practice: at a thousand writes a second it lasts for
// half a thousand million years.
func nextSeq(seq uint64) uint64 {
	if seq == math.MaxUint64 {
		return 1
	}
	return seq + 1
}

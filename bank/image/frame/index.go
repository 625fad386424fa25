package frame

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

const (
	// MinSize and MaxSize bound the frame size in bytes, which is a power of two.
	MinSize = 4 << 10
	MaxSize = 256 << 10
	// MaxIndex bounds an index in bytes.
	MaxIndex = 64 << 10

	entrySize = 4 + sha256.Size
	// overhead is how much larger than its content a frame may be, in bytes: headers, and
	// the marks of data that do not compress.
	overhead = 1 << 10
)

// CheckSize refuses a frame size that is not a power of two from MinSize to MaxSize.
func CheckSize(size int) error {
	if size < MinSize || size > MaxSize || size&(size-1) != 0 {
		return fmt.Errorf("frame size %d is not a power of two from %d to %d", size, MinSize, MaxSize)
	}
	return nil
}

// IndexSize returns the size in bytes of the index of a payload of length bytes in frames
// of a valid size. It may exceed MaxIndex; then the payload needs larger frames.
func IndexSize(length int64, size int) int64 { return count(length, size) * entrySize }

func count(length int64, size int) int64 { return (length + int64(size) - 1) / int64(size) }

// An Index says where the frames of a file are.
type Index struct {
	raw    []byte
	length int64 // of the payload
	size   int   // of a frame's content
	ends   []int64
}

// ParseIndex reads the index of a file of fileSize bytes with a payload of length bytes
// in frames of size bytes. Its SHA-256 has been compared with the manifest.
func ParseIndex(raw []byte, fileSize, length int64, size int) (*Index, error) {
	if want := IndexSize(length, size); int64(len(raw)) != want || want > MaxIndex {
		return nil, fmt.Errorf("the index has %d bytes, not %d", len(raw), want)
	}
	x := &Index{raw: raw, length: length, size: size, ends: make([]int64, len(raw)/entrySize)}
	end := int64(len(raw))
	for i := range x.ends {
		n := int64(binary.BigEndian.Uint32(raw[i*entrySize:]))
		if n == 0 || n > MaxEncoded(size) {
			return nil, fmt.Errorf("frame %d has %d bytes, 1 to %d are allowed", i, n, MaxEncoded(size))
		}
		end += n
		x.ends[i] = end
	}
	if end != fileSize {
		return nil, fmt.Errorf("index and frames have %d bytes, the file %d", end, fileSize)
	}
	return x, nil
}

// AppendEntry adds the entry of a frame to an index.
func AppendEntry(index, encoded []byte) []byte {
	index = binary.BigEndian.AppendUint32(index, uint32(len(encoded)))
	sum := sha256.Sum256(encoded)
	return append(index, sum[:]...)
}

// MaxEncoded returns the maximum length in bytes of a frame whose content has size bytes.
func MaxEncoded(size int) int64 { return int64(size) + overhead }

// Count returns the number of frames.
func (x *Index) Count() int { return len(x.ends) }

// Find returns the frame that stands for the byte at offset of the payload.
func (x *Index) Find(offset int64) int { return int(offset / int64(x.size)) }

// Start returns the offset in the payload at which frame i begins.
func (x *Index) Start(i int) int64 { return int64(i) * int64(x.size) }

// Content returns the number of bytes of the payload that frame i stands for.
func (x *Index) Content(i int) int { return int(min(int64(x.size), x.length-x.Start(i))) }

// Offset returns where frame i is in the file.
func (x *Index) Offset(i int) int64 {
	if i == 0 {
		return int64(len(x.raw))
	}
	return x.ends[i-1]
}

// Length returns the number of bytes of frame i in the file.
func (x *Index) Length(i int) int { return int(x.ends[i] - x.Offset(i)) }

// Matches reports whether encoded is frame i.
func (x *Index) Matches(i int, encoded []byte) bool {
	sum := sha256.Sum256(encoded)
	return string(sum[:]) == string(x.raw[i*entrySize+4:][:sha256.Size])
}

// Raw returns the bytes of the index.
func (x *Index) Raw() []byte { return x.raw }

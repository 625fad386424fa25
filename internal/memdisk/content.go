package memdisk

import (
	"bytes"
	"slices"
	"unique"

	"github.com/klauspost/compress/s2"
)

// pieceSize is the size in bytes of what files share.
const pieceSize = 64 << 10

// content is what a file contains: shared pieces of pieceSize bytes, then a tail. While
// nobody uses the file, a tail that is worth it is kept compressed, and shared too.
type content struct {
	shared []unique.Handle[string]
	tail   []byte // nil while only packed has it
	// packed is the compressed tail of packedSize bytes. It is meaningless if packedSize
	// is 0.
	packed     unique.Handle[string]
	packedSize int
}

// clone shares everything with the copy.
func (c *content) clone() content {
	c.pack(1)
	return content{shared: slices.Clone(c.shared), packed: c.packed, packedSize: c.packedSize}
}

// sharedSize is how many bytes are before the tail.
func (c *content) sharedSize() int64 { return int64(len(c.shared)) * pieceSize }

func (c *content) size() int64 { return c.sharedSize() + int64(max(len(c.tail), c.packedSize)) }

// readAt copies what follows offset; 0 bytes mean the end.
func (c *content) readAt(p []byte, offset int64) (n int) {
	for shared := c.sharedSize(); n < len(p) && offset < shared; {
		k := copy(p[n:], c.shared[offset/pieceSize].Value()[offset%pieceSize:])
		n, offset = n+k, offset+int64(k)
	}
	if at := offset - c.sharedSize(); n < len(p) && offset < c.size() {
		c.unpack()
		n += copy(p[n:], c.tail[at:])
	}
	return n
}

// unpack makes the tail readable.
func (c *content) unpack() {
	if c.packedSize == 0 || c.tail != nil {
		return
	}
	tail, err := s2.Decode(nil, []byte(c.packed.Value()))
	if err != nil {
		panic("memdisk: " + err.Error()) // it is what pack made
	}
	c.tail = tail
}

// pack compresses the tail if it has at least so many bytes, and frees what reading has
// unpacked.
func (c *content) pack(atLeast int) {
	switch {
	case c.packedSize > 0:
		c.tail = nil
	case len(c.tail) >= atLeast:
		c.packed, c.packedSize = unique.Make(string(s2.EncodeBetter(nil, c.tail))), len(c.tail)
		c.tail = nil
	case cap(c.tail) > len(c.tail):
		c.tail = bytes.Clone(c.tail)
	}
}

// take makes what follows offset part of the tail, which may be changed then.
func (c *content) take(offset int64) {
	c.unpack()
	c.packedSize, c.packed = 0, unique.Handle[string]{}
	i := int(offset / pieceSize)
	if i >= len(c.shared) {
		return
	}
	tail := make([]byte, 0, c.size()-int64(i)*pieceSize)
	for _, s := range c.shared[i:] {
		tail = append(tail, s.Value()...)
	}
	c.tail = append(tail, c.tail...)
	clear(c.shared[i:])
	c.shared = c.shared[:i]
}

func (c *content) truncate(size int64) {
	if size == 0 {
		*c = content{}
		return
	}
	c.take(min(size, c.size()))
	at := size - c.sharedSize()
	if at <= int64(len(c.tail)) {
		c.tail = c.tail[:at]
		return
	}
	c.tail = append(c.tail, make([]byte, at-int64(len(c.tail)))...)
}

func (c *content) writeAt(p []byte, offset int64) {
	if offset > c.size() {
		c.truncate(offset)
	}
	c.take(offset)
	at := offset - c.sharedSize()
	if end := at + int64(len(p)); end > int64(len(c.tail)) {
		c.tail = slices.Grow(c.tail, int(end)-len(c.tail))[:end]
	}
	copy(c.tail[at:], p)
	c.share()
}

// share shares the pieces that the tail has become long enough for.
func (c *content) share() {
	if len(c.tail) < pieceSize {
		return
	}
	for len(c.tail) >= pieceSize {
		c.shared = append(c.shared, unique.Make(string(c.tail[:pieceSize])))
		c.tail = c.tail[pieceSize:]
	}
	c.tail = bytes.Clone(c.tail)
	if len(c.tail) == 0 {
		c.tail, c.shared = nil, slices.Clip(c.shared)
	}
}

// worthPacking is the least size in bytes of a tail that is compressed: less hardly costs
// more than the handle.
const worthPacking = 512

// settle saves memory when nobody uses the file any more.
func (c *content) settle() { c.pack(worthPacking) }

package memdisk

import (
	"slices"
	"unique"
)

// pieceSize is the size in bytes of what files share.
const pieceSize = 64 << 10

// content is what a file contains: shared pieces of pieceSize bytes, the last perhaps
// shorter, then bytes that are its own. There are no bytes of its own after a shorter
// piece.
type content struct {
	shared []unique.Handle[string]
	own    []byte
}

// clone shares everything with the copy.
func (c *content) clone() content {
	if len(c.own) > 0 {
		c.share((len(c.own) + pieceSize - 1) / pieceSize)
	}
	return content{shared: slices.Clone(c.shared)}
}

// sharedSize is how many bytes are shared.
func (c *content) sharedSize() int64 {
	n := len(c.shared)
	if n == 0 {
		return 0
	}
	return int64(n-1)*pieceSize + int64(len(c.shared[n-1].Value()))
}

func (c *content) size() int64 { return c.sharedSize() + int64(len(c.own)) }

// readAt copies what follows offset; 0 bytes mean the end.
func (c *content) readAt(p []byte, offset int64) (n int) {
	for shared := c.sharedSize(); n < len(p) && offset < shared; {
		k := copy(p[n:], c.shared[offset/pieceSize].Value()[offset%pieceSize:])
		n, offset = n+k, offset+int64(k)
	}
	if at := offset - c.sharedSize(); n < len(p) && at < int64(len(c.own)) {
		n += copy(p[n:], c.own[at:])
	}
	return n
}

// take makes what follows offset, at the beginning of a piece, the file's own.
func (c *content) take(offset int64) {
	i := int(offset / pieceSize)
	if i >= len(c.shared) {
		return
	}
	own := make([]byte, 0, c.size()-int64(i)*pieceSize)
	for _, s := range c.shared[i:] {
		own = append(own, s.Value()...)
	}
	c.own = append(own, c.own...)
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
	if at <= int64(len(c.own)) {
		c.own = c.own[:at]
		return
	}
	c.own = append(c.own, make([]byte, at-int64(len(c.own)))...)
}

func (c *content) writeAt(p []byte, offset int64) {
	if offset > c.size() {
		c.truncate(offset)
	}
	c.take(offset)
	at := offset - c.sharedSize()
	if end := at + int64(len(p)); end > int64(len(c.own)) {
		c.own = slices.Grow(c.own, int(end)-len(c.own))[:end]
	}
	copy(c.own[at:], p)
	if len(c.own) >= pieceSize {
		c.share(len(c.own) / pieceSize)
	}
}

// share shares the first pieces of what is the file's own.
func (c *content) share(pieces int) {
	for ; pieces > 0; pieces-- {
		n := min(pieceSize, len(c.own))
		c.shared = append(c.shared, unique.Make(string(c.own[:n])))
		c.own = c.own[n:]
	}
	if len(c.own) == 0 {
		c.own = nil
		c.shared = slices.Clip(c.shared)
		return
	}
	c.own = slices.Clone(c.own)
}

// worthSharing is the least size in bytes of the end of a file that is shared: less hardly
// costs more than the sharing, and is mostly a device's own.
const worthSharing = 1 << 10

// settle shares what is worth it, when nobody writes any more.
func (c *content) settle() {
	if len(c.own) >= worthSharing {
		c.share((len(c.own) + pieceSize - 1) / pieceSize)
	}
}

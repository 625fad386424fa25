package encode

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"

	"example.com/iad/bank/image/encode/lzma"
	"example.com/iad/bank/image/frame"
)

// properties of LZMA that suit programs of processors with instructions of four bytes; x86
// programs and data; and what has no alignment.
var properties = []lzma.Properties{
	{LC: 0, LP: 2, PB: 2},
	{LC: 3, LP: 0, PB: 2},
	{LC: 3, LP: 0, PB: 0},
}

// compress returns data as one xz stream for a frame of size bytes: the shortest that the
// properties lead to.
func compress(data []byte, size int) []byte {
	dictionary := min(size, max(frame.MinSize, 1<<bits.Len(uint(len(data)-1))))
	matches := lzma.FindMatches(data, dictionary)
	var best []byte
	for _, p := range properties {
		if packed := lzma.Encode(matches, p); best == nil || len(packed) < len(best) {
			best = packed
		}
	}
	return stream(best, data, dictionary)
}

// stream makes an xz stream with one block, by sections 2 to 4 of the xz file format 1.2.1.
// dictionary is a power of two.
func stream(packed, data []byte, dictionary int) []byte {
	sum := func(b, of []byte) []byte { return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(of)) }
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }

	flags := []byte{0, 1} // the check is a CRC32
	b := append([]byte("\xfd7zXZ\x00"), flags...)
	b = sum(b, flags)

	// 12 bytes; LZMA2 with its one property, the dictionary.
	block := []byte{2, 0, 0x21, 1, byte(2 * (bits.Len(uint(dictionary)) - 13)), 0, 0, 0}
	block = append(sum(block, block), packed...)
	unpadded := len(block) + crc32.Size
	b = append(b, sum(pad(block), data)...)

	index := binary.AppendUvarint([]byte{0, 1}, uint64(unpadded))
	index = pad(binary.AppendUvarint(index, uint64(len(data))))
	b = append(b, sum(index, index)...)

	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4))
	footer = append(footer, flags...)
	b = append(sum(b, footer), footer...)
	return append(b, "YZ"...)
}

package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// streamHeader is the size in bytes of the header and of the footer of a stream.
	streamHeader = 12
	filterLZMA2  = 0x21
	maxStreams   = 3
)

var (
	errStream   = errors.New("the frame is not a sequence of xz streams with one block each")
	errTooLong  = errors.New("the frame holds more than its content")
	errTooShort = errors.New("the frame holds less than its content")

	streamMagic = [6]byte{0xfd, '7', 'z', 'X', 'Z', 0}
	footerMagic = [2]byte{'Y', 'Z'}
	// checkSizes are the sizes in bytes of the checks of a block, by their number.
	checkSizes = [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}
)

// decodeStreams appends the content of all streams of a frame to out, within its capacity.
// The frame has been compared with its digest, so that the checksums in the streams are not
// needed; their structure is judged, because it decides what is decoded.
func (d *Decoder) decodeStreams(out, encoded []byte) ([]byte, error) {
	for n := 0; len(encoded) > 0 || n == 0; n++ {
		if n == maxStreams {
			return nil, fmt.Errorf("the frame has more than %d xz streams", maxStreams)
		}
		var err error
		if out, encoded, err = d.decodeStream(out, encoded); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// decodeStream appends the content of the first stream to out and returns it with what
// follows the stream. Sections 2 to 4 of the xz file format 1.2.1 describe the parts.
func (d *Decoder) decodeStream(out, encoded []byte) ([]byte, []byte, error) {
	if len(encoded) <= streamHeader || [6]byte(encoded) != streamMagic || encoded[6] != 0 || encoded[7] > 15 {
		return nil, nil, errStream
	}
	check := encoded[7]
	block := encoded[streamHeader:]
	header, dictionary, err := blockHeader(block)
	if err != nil {
		return nil, nil, err
	}
	if dictionary > d.size {
		return nil, nil, fmt.Errorf("the frame needs a dictionary of %d bytes, larger than %d", dictionary, d.size)
	}
	start := len(out)
	out, rest, err := d.lzma.decode(out, block[header:], dictionary)
	if err != nil {
		return nil, nil, err
	}
	packed := len(block) - len(rest)
	unpadded := packed + checkSizes[check]
	if rest, err = zeros(rest, -packed&3); err != nil || len(rest) < checkSizes[check] {
		return nil, nil, errStream
	}
	rest = rest[checkSizes[check]:]

	// The index: of one block, with its sizes; then its padding and checksum.
	index := binary.AppendUvarint([]byte{0, 1}, uint64(unpadded))
	index = binary.AppendUvarint(index, uint64(len(out)-start))
	if len(rest) < len(index) || string(rest[:len(index)]) != string(index) {
		return nil, nil, errStream
	}
	padding := -len(index) & 3
	if rest, err = zeros(rest[len(index):], padding); err != nil || len(rest) < 4+streamHeader {
		return nil, nil, errStream
	}
	footer := rest[4:]
	if binary.LittleEndian.Uint32(footer[4:]) != uint32(len(index)+padding)/4 || footer[8] != 0 || footer[9] != check || [2]byte(footer[10:]) != footerMagic {
		return nil, nil, errStream
	}
	return out, footer[streamHeader:], nil
}

// zeros takes n zeros from b.
func zeros(b []byte, n int) ([]byte, error) {
	for range n {
		if len(b) == 0 || b[0] != 0 {
			return nil, errStream
		}
		b = b[1:]
	}
	return b, nil
}

// blockHeader reads the header of a block, and returns its size and that of the dictionary.
func blockHeader(b []byte) (size, dictionary int, err error) {
	size = (int(b[0]) + 1) * 4
	if b[0] == 0 || size > len(b) {
		return 0, 0, errStream
	}
	flags, rest := b[1], b[2:size-4]
	if flags&0x3f != 0 {
		return 0, 0, errors.New("the frame uses a filter besides LZMA2")
	}
	for _, present := range []byte{0x40, 0x80} { // the sizes of the block, which the index has too
		if flags&present == 0 {
			continue
		}
		_, k := binary.Uvarint(rest)
		if k <= 0 {
			return 0, 0, errStream
		}
		rest = rest[k:]
	}
	if len(rest) < 3 || rest[0] != filterLZMA2 || rest[1] != 1 {
		return 0, 0, errors.New("the frame uses another filter than LZMA2")
	}
	bits := rest[2]
	if bits > 36 { // 2 GiB; far more than any frame may need
		return 0, 0, errors.New("the frame needs too large a dictionary")
	}
	return size, int(min(int64(2|bits&1)<<(bits/2+11), 1<<31-1)), nil
}

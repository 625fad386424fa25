package frame

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"example.com/iad/bank/image/encode/lzma"
	"example.com/iad/bank/image/probability"
)

// TestMatchesBeforeTheBeginning: a chunk whose matches go back to data that are not there is
// refused.
func TestMatchesBeforeTheBeginning(t *testing.T) {
	noise := make([]byte, 70_000)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(noise)
	data := append(noise, noise[:3000]...)
	packed := lzma.Encode(lzma.FindMatches(data, len(data)), lzma.Properties{LC: 3, PB: 2})
	d := new(lzmaDecoder)
	got, rest, err := d.decode(make([]byte, 0, len(data)), packed, len(data))
	if err != nil || !bytes.Equal(got, data) || len(rest) != 0 {
		t.Fatalf("%d bytes of %d, %d left, %v", len(got), len(data), len(rest), err)
	}
	// The first chunks are uncompressed; without them the last one has nothing to copy from.
	for packed[0] == 1 || packed[0] == 2 {
		packed = packed[3+int(packed[1])<<8+int(packed[2])+1:]
	}
	if packed[0] < 0xc0 || packed[0] >= 0xe0 {
		t.Fatalf("the compressed chunk begins with %#x", packed[0])
	}
	packed[0] |= 0x20 // it resets the dictionary
	if got, _, err := d.decode(make([]byte, 0, len(data)), packed, len(data)); err == nil {
		t.Errorf("decoded as %d bytes", len(got))
	}
	// Nor do matches go back further than the dictionary.
	if _, _, err := d.decode(make([]byte, 0, len(data)), lzma.Encode(lzma.FindMatches(data, len(data)), lzma.Properties{}), 4096); err == nil {
		t.Error("a match goes back further than the dictionary")
	}
}

// TestLongestDistance: a match from the longest distance there is, 2^31 bytes, which is not an int
// of 32 bits, is refused.
func TestLongestDistance(t *testing.T) {
	// These bytes make the range decoder return 1 for the bit that begins a match, 0 for
	// that which says that it is a new one, and 1 for all that follow.
	packed := append([]byte{0, 0xbf, 0xff, 0xfb}, bytes.Repeat([]byte{0xff}, 28)...)
	const length = probability.MinMatch + 16 + 255
	chunk := append([]byte{0xe0, (length - 1) >> 8, (length - 1) & 0xff, 0, byte(len(packed) - 1), 0}, packed...)
	d := new(lzmaDecoder)
	if got, _, err := d.decode(make([]byte, 0, length), chunk, MaxSize); err == nil {
		t.Errorf("decoded as %d bytes", len(got))
	}
	if d.rep[0] != 1<<31-1 {
		t.Errorf("the distance less one is %#x", d.rep[0])
	}
}

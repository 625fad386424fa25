package encode

import (
	"bytes"
	"math/bits"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"example.com/iad/bank/image/frame"
)

// Literal context, literal position and position bits of LZMA that suit programs of
// processors with instructions of four bytes; x86 programs and data; and what has no alignment.
var properties = []lzma.Properties{
	{LC: 0, LP: 2, PB: 2},
	{LC: 3, LP: 0, PB: 2},
	{LC: 3, LP: 0, PB: 0},
}

// compress returns data as one xz stream for a frame of size bytes: the shortest that the
// properties lead to.
func compress(data []byte, size int) (best []byte, err error) {
	dictionary := min(size, max(frame.MinSize, 1<<bits.Len(uint(len(data)-1))))
	for i := range properties {
		var b bytes.Buffer
		w, err := xz.WriterConfig{Properties: &properties[i], DictCap: dictionary, CheckSum: xz.CRC32}.NewWriter(&b)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		if best == nil || b.Len() < len(best) {
			best = b.Bytes()
		}
	}
	return best, nil
}

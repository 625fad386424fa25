package board

import (
	"math"
	"testing"
)

func TestOctets(t *testing.T) {
	for _, c := range []struct {
		blocks uint64
		size   int64
		want   int64
	}{
		{0, 4096, 0}, {10, 4096, 40960}, {10, 0, 0}, {10, -1, 0},
		{math.MaxUint64, 1, math.MaxInt64}, {1 << 60, 4096, math.MaxInt64}, {1 << 50, 4096, 1 << 62},
	} {
		if got := octets(c.blocks, c.size); got != c.want {
			t.Errorf("%d blocks of %d: %d, want %d", c.blocks, c.size, got, c.want)
		}
	}
}

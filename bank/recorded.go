package bank

import (
	"github.com/spf13/afero"

	"example.com/iad/bank/image"
)

// Recorded reports for each bank whether the boot record in state names the manifest in
// dir, which is the directory of one of the banks. It changes nothing.
func Recorded(state, dir afero.Fs) (is [2]bool) {
	h, err := image.ReadInstalled(dir)
	if err != nil {
		return is
	}
	rec, _ := peekRecord(state)
	for i := range is {
		is[i] = rec.Banks[i].Digest == h.Digest
	}
	return is
}

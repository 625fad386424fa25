package bank

import "github.com/spf13/afero"

// Recorded reports of each bank whether the manifest in dir, the directory of either
// one, is what the boot record in state names for it. It changes nothing.
func Recorded(state, dir afero.Fs) (is [2]bool) {
	h, err := readBankHead(dir)
	if err != nil {
		return is
	}
	rec, _ := peekRecord(state)
	for i := range is {
		is[i] = rec.Banks[i].Digest == h.digest
	}
	return is
}

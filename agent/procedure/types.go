package procedure

import (
	"strings"

	"example.com/iad/mib"
)

// FileKinds is how many kinds of file there are.
const FileKinds = 6

// FileSet is a set of kinds of files: 1<<n stands for bit n of IadUpgFileSet.
type FileSet uint8

// SetOf returns the set of the given kinds.
func SetOf(kinds ...mib.FileType) (s FileSet) {
	for _, k := range kinds {
		s |= 1 << (k - 1)
	}
	return s
}

// AllConfig is the set of all kinds of configuration data.
const AllConfig FileSet = 0b111110

// Has reports whether k is in the set.
func (s FileSet) Has(k mib.FileType) bool { return s&(1<<(k-1)) != 0 }

// Kinds lists the set in the order of the kinds.
func (s FileSet) Kinds() (kinds []mib.FileType) {
	for k := mib.FileTypeSoftware; k <= mib.FileTypeOtherData; k++ {
		if s.Has(k) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// Options of a request: 1<<n stands for bit n of iadUpgReqOptions.
type Options uint8

// Options, see iadUpgReqOptions.
const (
	Force Options = 1 << iota
	AllowDowngrade
	ThenActivate
	ThenReset
	ConvertFirst
	CheckOnly
)

// Has reports whether all of p are set.
func (o Options) Has(p Options) bool { return o&p == p }

func (o Options) String() string {
	var names []string
	for i, n := range []string{"force", "allowDowngrade", "thenActivate", "thenReset", "convertFirst", "checkOnly"} {
		if o&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, " ")
}

// PercentUnknown is the value of iadUpgOpPercent while progress is unknown.
const PercentUnknown = 255

// before returns the number before n.
func before(n uint32) uint32 {
	if n--; n == 0 {
		return 1<<32 - 1
	}
	return n
}

// next returns the number after n; the numbers of operations and events wrap
// to 1.
func next(n uint32) uint32 {
	if n++; n == 0 {
		return 1
	}
	return n
}

package partition

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"example.com/iad/bank"
)

// Open returns the partition of a name: an MTD device such as /dev/mtd3, a UBI volume
// such as /dev/ubi0_1, or a block device; a link to one of them, or a file that stands for a
// block device, with its size. Whether it exists shows when it is used.
func Open(name string) bank.Partition {
	switch base := filepath.Base(target(name)); {
	case strings.HasPrefix(base, "mtd") && !strings.HasPrefix(base, "mtdblock"):
		return Flash{Name: name}
	case strings.HasPrefix(base, "ubi") && strings.Contains(base, "_"):
		return Volume{Name: name}
	}
	return Block{Name: name}
}

// target is where a link leads to.
func target(name string) string {
	if to, err := filepath.EvalSymlinks(name); err == nil {
		return to
	}
	return name
}

// Pair returns the partitions of bank 1 and bank 2. findings says what is wrong with them:
// the device starts all the same. If both names stand for one device, neither can be
// written, because a download would overwrite the software that runs.
func Pair(names [2]string) (parts [2]bank.Partition, findings []string) {
	var info [2]os.FileInfo
	for i, name := range names {
		parts[i] = Open(name)
		var err error
		if info[i], err = os.Stat(name); err == nil {
			_, err = parts[i].Capacity()
		}
		if err != nil {
			findings = append(findings, fmt.Sprintf("the partition of bank %d cannot be used: %v", i+1, err))
		}
	}
	if info[0] != nil && info[1] != nil && same(info[0], info[1]) {
		err := fmt.Errorf("%s and %s are the same device: name the partition of each bank, then restart", names[0], names[1])
		findings = append(findings, err.Error())
		for i := range parts {
			parts[i] = locked{parts[i], err}
		}
	}
	return parts, findings
}

// locked is a partition that must not be written.
type locked struct {
	bank.Partition
	why error
}

func (l locked) Claim() (bank.PartitionWriter, error) { return nil, l.why }

// errKind is of what is neither a block device nor a file.
var errKind = errors.New("it is neither a block device, an MTD device nor a UBI volume")

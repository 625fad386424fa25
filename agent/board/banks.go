package board

import (
	"fmt"
	"os"

	"example.com/iad/agent"
	"example.com/iad/bank"
)

// onePlace marks a bank as absent that is the same directory as the other one, as after a
// mistake in fstab: a download would erase the software that runs.
func (r Root) onePlace(gone map[string]*AbsentError) {
	a, errA := os.Stat(r.Banks[0])
	b, errB := os.Stat(r.Banks[1])
	if errA != nil || errB != nil || !os.SameFile(a, b) {
		return
	}
	n := 2
	if holds := bank.Recorded(Directory(r.State), Directory(r.Banks[1])); holds[1] && !holds[0] {
		n = 1
	}
	gone[fmt.Sprintf("bank%d", n)] = &AbsentError{r.Banks[n-1], fmt.Sprintf("is the same directory as %s; mount the partition of bank %d there, then restart", r.Banks[2-n], n)}
}

// uncross gives each bank the directory that its software is in. If fstab or the order of
// the disks was changed, each partition may be mounted in the place of the other one:
// without this both banks would hold other software than recorded.
func (r Root) uncross(cfg *agent.Config) {
	first, second := bank.Recorded(cfg.State, cfg.Banks[0]), bank.Recorded(cfg.State, cfg.Banks[1])
	if first[0] || second[1] || !first[1] && !second[0] {
		return
	}
	cfg.Banks[0], cfg.Banks[1] = cfg.Banks[1], cfg.Banks[0]
	if p, ok := cfg.Platform.(*Platform); ok {
		p.Banks[0], p.Banks[1] = p.Banks[1], p.Banks[0]
		p.absent[0], p.absent[1] = p.absent[1], p.absent[0]
	}
	cfg.Findings = append(cfg.Findings, fmt.Sprintf("bank 1 is in %s and bank 2 in %s: their partitions have changed places; each bank is used where it is", r.Banks[1], r.Banks[0]))
}

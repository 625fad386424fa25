package bank

import (
	"fmt"

	"example.com/iad/bank/image"
	"example.com/iad/mib"
)

// Check judges as Activate does whether bank n could be activated, and changes
// nothing, but that a damaged bank becomes corrupt. Without allowDowngrade a version that is not above the running one is refused
// as well. Causes: those of Activate.
func (b *Banks) Check(n int, allowDowngrade bool) error {
	return inOp(fmt.Sprintf("check bank %d", n), b.check(n, allowDowngrade))
}

// downgrades reports whether version is anything but running or above it. Versions that
// differ only in what follows a "+" have no order, so any of them may be the older one.
func downgrades(version, running string) bool {
	return version != running && !image.Older(running, version)
}

func (b *Banks) check(n int, allowDowngrade bool) error {
	b.ops.Lock()
	defer b.ops.Unlock()
	if err := b.checkOther(n); err != nil {
		return err
	}
	if s := b.rec.bank(n).State; s != mib.BankStateReady && s != mib.BankStateGood && s != mib.BankStateTrial {
		return refuse(mib.FailCauseBankUnavailable, "the bank is %s: download software into it first", s)
	}
	h, err := b.checkContent(n)
	if err != nil {
		return err
	}
	if err := b.opt.admit(h, b.trust, b.rec.Floor); err != nil {
		return err
	}
	running := b.head(b.running)
	if running != nil && downgrades(h.Manifest.Version, running.Manifest.Version) && !allowDowngrade {
		return refuse(mib.FailCauseDowngradeRefused, "version %s is not newer than the running %s", h.Manifest.Version, running.Manifest.Version)
	}
	return nil
}

// Verify checks the software in bank n, its signature and all hashes, and returns its
// manifest. It needs no Banks, and changes nothing. Of opt it uses Banks, Partitions, State,
// Trust and DropCache.
func Verify(opt Options, n int) (*image.Manifest, error) {
	m := opt.medium(n)
	h, err := image.ReadInstalled(m.fs)
	if err != nil {
		return nil, err
	}
	trust, _ := opt.peekTrust()
	if err := h.Verify(trust); err != nil {
		return nil, err
	}
	for _, p := range h.Manifest.Payloads {
		err := m.check(p)
		if err != nil && p.Target != image.TargetFile && opt.crossed(0) {
			m.part = opt.Partitions[other(n)-1]
			err = m.check(p)
		}
		if err != nil {
			return nil, err
		}
	}
	return h.Manifest, nil
}

// CheckFallback returns the bank that Restore would select, after reading all of
// it; a damaged one becomes corrupt. The error is noFallback if there is none.
func (b *Banks) CheckFallback() (int, error) {
	b.ops.Lock()
	defer b.ops.Unlock()
	n, err := b.checkFallback()
	return n, inOp("check the old software", err)
}

func (b *Banks) checkFallback() (int, error) {
	switch b.running {
	case 0:
		return 0, refuse(mib.FailCauseNoFallback, "rescue mode, neither bank holds software to go back to: install software with downloadSoftware")
	case b.rec.Fallback:
		return b.running, nil
	}
	old := other(b.running)
	if s := b.rec.bank(old).State; s != mib.BankStateGood {
		return 0, refuse(mib.FailCauseNoFallback, "bank %d is %s: no software to go back to", old, s)
	}
	if _, err := b.checkContent(old); err != nil {
		return 0, &Error{Code: mib.FailCauseNoFallback, Text: "no software to go back to", Err: err}
	}
	return old, nil
}

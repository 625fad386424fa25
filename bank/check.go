package bank

import "fmt"

// Check judges as Activate does whether bank n could be activated, and changes
// nothing. Without allowDowngrade a version below the running one is refused
// as well. Causes: those of Activate.
func (b *Banks) Check(n int, allowDowngrade bool) error {
	return inOp(fmt.Sprintf("check bank %d", n), b.check(n, allowDowngrade))
}

func (b *Banks) check(n int, allowDowngrade bool) error {
	b.mu.Lock()
	err := b.checkOther(n)
	rec, running := b.rec, b.heads[b.running-1]
	b.mu.Unlock()
	if err != nil {
		return err
	}
	if s := rec.bank(n).State; s != StateReady && s != StateGood && s != StateTrial {
		return refuse(CauseBankUnavailable, "the bank is %s: download software into it first", s)
	}
	c, h := checkBank(b.fs(n), rec.bank(n).Digest, b.opt.DropCache)
	if c.Found != FoundComplete {
		return refuse(CauseDigestMismatch, "the bank is corrupt: %s", c.Text)
	}
	if err := b.opt.admit(h, rec.Floor); err != nil {
		return err
	}
	if running != nil && running.manifest != nil && older(h.manifest.Version, running.manifest.Version) && !allowDowngrade {
		return refuse(CauseDowngradeRefused, "version %s is older than the running %s", h.manifest.Version, running.manifest.Version)
	}
	return nil
}

// CheckFallback returns the bank that Restore would select. The error is
// noFallback if there is none.
func (b *Banks) CheckFallback() (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rec.Fallback == b.running {
		return b.running, nil
	}
	old := other(b.running)
	if s := b.rec.bank(old).State; s != StateGood {
		return 0, refuse(CauseNoFallback, "bank %d is %s: no software to go back to", old, s)
	}
	return old, nil
}

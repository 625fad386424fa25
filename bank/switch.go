package bank

import (
	"fmt"

	"example.com/iad/bank/image"
	"example.com/iad/mib"
)

// Activate makes bank n, which must be ready or good, the next one to start, on trial
// with Tries starts, and the running bank the fallback. First it reads and checks the
// whole bank: hashes (a damaged bank becomes corrupt), signature, hardware and version
// floor. A bank that is already activated is left as it is. Causes: bankUnavailable,
// digestMismatch, signatureInvalid, signerUntrusted, incompatibleHardware,
// downgradeRefused, bootFlagError.
func (b *Banks) Activate(n int) error {
	return inOp(fmt.Sprintf("activate bank %d", n), b.activate(n))
}

func (b *Banks) activate(n int) error {
	b.ops.Lock()
	defer b.ops.Unlock()
	if err := b.checkOther(n); err != nil {
		return err
	}
	running := b.rec.bank(b.running)
	if running.State == mib.BankStateTrial {
		return refuse(mib.FailCauseBankUnavailable, "the running software is on trial: confirm it or restore the old one first")
	}
	r := b.rec.bank(n)
	switch {
	case r.State == mib.BankStateTrial && b.rec.Next == n:
		return nil
	case r.State != mib.BankStateReady && r.State != mib.BankStateGood:
		return refuse(mib.FailCauseBankUnavailable, "the bank is %s: download software into it first", r.State)
	}
	h, err := b.checkContent(n)
	if err != nil {
		return err
	}
	if err := b.opt.admit(h, b.trust, b.rec.Floor); err != nil {
		return err
	}
	if b.opt.Loader != nil && b.opt.Checkpoint != nil {
		if err := b.opt.Checkpoint(n); err != nil {
			// The loader then may not find the software, and starts the old one again.
			b.opt.Log.Warn("the boot loader may not see all of the bank", "bank", n, "err", err)
		}
	}
	next := b.rec
	next.Next, next.Fallback = n, b.running
	next.bank(n).State, next.bank(n).TriesLeft = mib.BankStateTrial, Tries
	return b.save(next)
}

// checkContent compares all of bank n with the record; what is damaged is recorded
// as corrupt. b.ops must be held.
func (b *Banks) checkContent(n int) (*image.Head, error) {
	m := b.opt.medium(n)
	m.alive = b.opt.Alive
	c, h := checkBank(m, b.rec.bank(n).Digest)
	if n == b.unread {
		b.unread = 0
	}
	if c.Contents == ContentsComplete {
		b.setHead(n, h)
		return h, nil
	}
	bad := b.rec
	r := bad.bank(n)
	r.State, r.TriesLeft, r.Cause, r.Text = mib.BankStateCorrupt, 0, mib.FailCauseDigestMismatch, shorten(c.Text)
	if bad.Fallback == n {
		bad.Fallback = 0
	}
	if bad.Next == n && b.running != 0 {
		bad.Next = b.running
	}
	if err := b.record(bad); err != nil {
		b.adopt(bad) // what is damaged is not used, recorded or not
		b.opt.Log.Warn("the bank is corrupt; this could not be recorded", "bank", n, "err", err)
	}
	return nil, refuse(mib.FailCauseDigestMismatch, "the bank is corrupt: %s", c.Text)
}

// checkOther refuses what is not a bank, is running or is being written.
func (b *Banks) checkOther(n int) error {
	switch {
	case n < 1 || n > 2:
		return refuse(mib.FailCauseBadRequest, "there is no bank %d", n)
	case n == b.running:
		return refuse(mib.FailCauseBankUnavailable, "the bank is running")
	case b.installing:
		return refuse(mib.FailCauseBusy, "software is being downloaded")
	}
	return nil
}

// Unselect takes back an activation before the restart: the running bank is next
// again. Without one it does nothing.
func (b *Banks) Unselect() error {
	b.ops.Lock()
	defer b.ops.Unlock()
	if b.running == 0 {
		return nil
	}
	next := b.rec
	b.unselect(&next)
	return inOp("take back the activation", b.save(next))
}

// unselect makes the running bank the next one; the other one is what it was.
func (b *Banks) unselect(next *Record) {
	next.Next = b.running
	next.notStarted(other(b.running))
}

// Restore selects the old software and returns its bank: the fallback, or the other
// bank if that is good. Software on trial that is running is given up. If the old
// software runs already, an activation is taken back and nothing else done: Restore
// may be repeated. Causes: noFallback, bootFlagError.
func (b *Banks) Restore() (int, error) {
	n, err := b.restore()
	return n, inOp("restore the old software", err)
}

func (b *Banks) restore() (int, error) {
	b.ops.Lock()
	defer b.ops.Unlock()
	old, err := b.checkFallback()
	if err != nil {
		return 0, err
	}
	next := b.rec
	if old == b.running {
		b.unselect(&next)
		return old, b.saveOrKeep(next)
	}
	next.Next, next.Fallback = old, old
	if r := next.bank(b.running); r.State == mib.BankStateTrial {
		*r = r.failed(mib.FailCauseOther, "given up by a command to restore the old software")
	}
	return old, b.saveOrKeep(next)
}

// Confirm makes the running software good and raises the version floor if its
// manifest says so. Without software on trial it does nothing.
func (b *Banks) Confirm() error {
	b.ops.Lock()
	defer b.ops.Unlock()
	next := b.rec
	r := next.bank(b.running)
	if r.State != mib.BankStateTrial {
		return nil
	}
	next.confirm(b.running, b.head(b.running))
	return inOp("confirm", b.save(next))
}

// Tested resets the tries of the running software on trial: its self-test has passed,
// and tries count the starts that do not get that far. Without software on trial, or
// with all tries left, it does nothing. Cause: bootFlagError.
func (b *Banks) Tested() error {
	b.ops.Lock()
	defer b.ops.Unlock()
	next := b.rec
	r := next.bank(b.running)
	if r.State != mib.BankStateTrial {
		return nil
	}
	r.TriesLeft = Tries
	return inOp("reset the tries", b.save(next))
}

// higher returns the higher of two floors; "" is the lowest.
func higher(a, b string) string {
	if a == "" || b != "" && image.Older(a, b) {
		return b
	}
	return a
}

// GiveUp gives up the software on trial: its bank has failed, for the reason given, and
// the fallback is next. If the fallback is not good, the error is noFallback and the
// next start is in rescue mode. Without software on trial the error is
// preconditionMissing.
func (b *Banks) GiveUp(cause mib.FailCause, text string) error {
	b.ops.Lock()
	defer b.ops.Unlock()
	const op = "give up the software on trial"
	if b.unread != 0 {
		_, _ = b.checkContent(b.unread) // the software that would start next
	}
	next := b.rec
	n := b.running
	if n != 0 && next.bank(n).State != mib.BankStateTrial {
		n = other(n)
	}
	r := next.bank(n)
	if r.State != mib.BankStateTrial {
		return inOp(op, refuse(mib.FailCausePreconditionMissing, "no software is on trial"))
	}
	if b.opt.Loader != nil {
		// The loader's state is written first, so the reason must be recorded before.
		noted := b.rec
		noted.bank(n).Cause, noted.bank(n).Text = cause, shorten(text)
		if err := b.save(noted); err != nil {
			b.opt.Log.Warn("the reason for giving up could not be recorded", "err", err)
		}
	}
	*r = r.failed(cause, text)
	old := other(n)
	if old != b.running && next.bank(old).State != mib.BankStateGood {
		if err := b.saveOrKeep(next); err != nil {
			return inOp(op, err)
		}
		return inOp(op, refuse(mib.FailCauseNoFallback, "bank %d is %s", old, next.bank(old).State))
	}
	next.Next, next.Fallback = old, old
	return inOp(op, b.saveOrKeep(next))
}

// TakeOver makes bank n, which must be the next one, the running one without a restart,
// for software that can take effect that way. Software on trial uses up a try.
func (b *Banks) TakeOver(n int) error {
	b.ops.Lock()
	defer b.ops.Unlock()
	op := fmt.Sprintf("switch to bank %d without a restart", n)
	next := b.rec
	switch {
	case n == b.running:
		return nil
	case n != next.Next || b.installing:
		return inOp(op, refuse(mib.FailCauseBankUnavailable, "bank %d is the next one", next.Next))
	}
	next.Running = n
	if r := next.bank(n); r.State == mib.BankStateTrial && r.TriesLeft > 0 {
		r.TriesLeft--
	}
	if err := b.save(next); err != nil {
		return inOp(op, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running = n
	return nil
}

// SetGeneration remembers that the software of bank n last ran with the
// configuration data of generation gen, 0 for its defaults.
func (b *Banks) SetGeneration(n int, gen uint32) error {
	b.ops.Lock()
	defer b.ops.Unlock()
	if n < 1 || n > 2 {
		return refuse(mib.FailCauseBadRequest, "there is no bank %d", n)
	}
	next := b.rec
	next.bank(n).Generation = gen
	return inOp(fmt.Sprintf("record generation %d", gen), b.save(next))
}

// RewriteRecord writes the boot record once more, so that it has two good copies again: to
// be called after a start whose report is Doubtful, once the device knows what holds.
func (b *Banks) RewriteRecord() error {
	b.ops.Lock()
	defer b.ops.Unlock()
	return b.write(b.rec)
}

// SetFloor sets the version floor, up or down, "" for none. It is for local use;
// commands from the network must not reach it.
func (b *Banks) SetFloor(version string) error {
	if version != "" {
		if err := image.CheckVersion(version); err != nil {
			return &Error{Code: mib.FailCauseBadRequest, Op: "set the version floor", Text: "not a version", Err: err}
		}
	}
	b.ops.Lock()
	defer b.ops.Unlock()
	next := b.rec
	next.Floor = version
	return inOp("set the version floor", b.save(next))
}

// inOp adds what was being done to an Error of this package or of package image.
func inOp(op string, err error) error {
	switch e := err.(type) {
	case *Error:
		if e.Op == "" {
			named := *e
			named.Op = op
			return &named
		}
	case *image.Error:
		return &Error{Code: e.Code, Op: op, Text: e.Text, Err: e.Err}
	}
	return err
}

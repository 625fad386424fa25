package agentx

import (
	"errors"
	"time"

	"example.com/iad/mib"
)

// set is a SET between two of its phases (RFC 2741 section 7.2.4).
type set struct {
	tx    mib.Transaction
	phase phase
	since time.Time
}

type phase uint8

const (
	tested phase = iota
	committed
	commitFailed // made nothing visible; UndoSet is to follow
)

// maxSets is how many transactions may be open at a time. snmpd has one.
const maxSets = 8

// test is TestSet. A refused one leaves nothing behind; the CleanupSet that
// follows finds nothing to do.
func (w *worker) test(p *packet) (mib.Status, int) {
	if _, open := w.sets[p.TransactionID]; open {
		return mib.GenErr, 0 // a transaction has one TestSet
	}
	if len(w.sets) >= maxSets {
		return mib.ResourceUnavailable, 0
	}
	tx, err := w.tree.Test(w.caller, p.Varbinds)
	if err != nil {
		w.link.s.cfg.Log.Info("SET refused", "transaction", p.TransactionID, "err", err)
		return statusOf(err, mib.GenErr)
	}
	w.sets[p.TransactionID] = &set{tx: tx, since: w.link.s.cfg.Clock.Now()}
	return mib.NoError, 0
}

func (w *worker) commit(transaction uint32) (mib.Status, int) {
	s, ok := w.sets[transaction]
	if !ok || s.phase != tested {
		return mib.CommitFailed, 0
	}
	err := s.tx.Commit()
	s.since = w.link.s.cfg.Clock.Now() // it may have taken long
	if err != nil {
		w.link.s.cfg.Log.Warn("SET not carried out", "transaction", transaction, "err", err)
		s.phase = commitFailed
		_, index := statusOf(err, mib.CommitFailed)
		return mib.CommitFailed, index
	}
	s.phase = committed
	return mib.NoError, 0
}

// undo is UndoSet. The master sends it to all parties of a SET, whether they
// had committed or not.
func (w *worker) undo(transaction uint32) mib.Status {
	s, ok := w.sets[transaction]
	if !ok {
		return mib.NoError // nothing of it is in force
	}
	delete(w.sets, transaction)
	if err := s.takeBack(); err != nil {
		w.link.s.cfg.Log.Error("SET could not be undone", "transaction", transaction, "err", err)
		return mib.UndoFailed
	}
	return mib.NoError
}

// cleanup is CleanupSet: the end of a SET that succeeded, or of one that
// another party refused in its TestSet.
func (w *worker) cleanup(transaction uint32) {
	s, ok := w.sets[transaction]
	if !ok {
		return
	}
	if s.phase != committed {
		w.undo(transaction)
		return
	}
	delete(w.sets, transaction)
	s.tx.Done()
}

// takeBack ends a transaction so that nothing of it remains.
func (s *set) takeBack() error {
	if s.phase == tested {
		s.tx.Done()
		return nil
	}
	return s.tx.Undo()
}

// rollBack takes back all transactions.
func (w *worker) rollBack(why string) {
	for transaction := range w.sets {
		w.link.s.cfg.Log.Warn("SET undone", "transaction", transaction, "reason", why)
		w.undo(transaction)
	}
}

// expire takes back what the master seems to have forgotten, so that the
// reservation does not stand in the way of every later SET. It does nothing while a
// request is carried out, which may take long.
func (w *worker) expire() {
	if !w.mu.TryLock() {
		return
	}
	defer w.mu.Unlock()
	for transaction, s := range w.sets {
		w.expireOne(transaction, s)
	}
}

// takeBackForgotten does the same before a request is carried out, as under constant load expire
// finds no moment to do it. It spares the transaction that the request continues.
func (w *worker) takeBackForgotten(continued uint32) {
	for transaction, s := range w.sets {
		if transaction != continued {
			w.expireOne(transaction, s)
		}
	}
}

func (w *worker) expireOne(transaction uint32, s *set) {
	if w.link.s.cfg.Clock.Now().Sub(s.since) > setLimit {
		w.link.s.cfg.Log.Warn("SET undone", "transaction", transaction, "reason", "the master agent did not continue it")
		w.undo(transaction)
	}
}

// discount leaves the time of a slow request, begun then, out of what the master may take for the
// next phase, which may wait behind that request.
func (w *worker) discount(begun time.Time) {
	if took := w.link.s.cfg.Clock.Now().Sub(begun); took >= slowRequest {
		for _, s := range w.sets {
			s.since = s.since.Add(took)
		}
	}
}

// slowRequest is longer than any request takes that does not wait for a disk.
const slowRequest = time.Second

// statusOf returns what of an error travels to the manager.
func statusOf(err error, fallback mib.Status) (mib.Status, int) {
	var e *mib.SetError
	if errors.As(err, &e) && e.Status != mib.NoError && e.Status <= mib.InconsistentName && e.Index >= 0 {
		return e.Status, e.Index
	}
	return fallback, 0
}

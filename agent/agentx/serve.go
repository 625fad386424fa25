package agentx

import (
	"errors"
	"fmt"
	"hash/maphash"
	"sync"

	"example.com/iad/mib"
	"github.com/posteo/go-agentx/pdu"
)

// worker answers the requests of the master, one after the other.
type worker struct {
	mu     sync.Mutex // held while a request is carried out, and by expire
	link   *link
	tree   *mib.Tree
	caller mib.Caller
	sets   map[uint32]*set // by transaction
	past   replay
	seed   maphash.Seed
	oids   []mib.OID // reused from Get to Get
}

func newWorker(l *link) *worker {
	return &worker{
		link: l, tree: l.s.tree,
		caller: mib.Caller{Private: l.s.cfg.Private, Name: "agentx"},
		sets:   make(map[uint32]*set),
		seed:   maphash.MakeSeed(),
	}
}

// end takes back what is not finished, when no more requests can come.
func (w *worker) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rollBack("the session ended")
}

func (w *worker) serve(p *packet) {
	answer := w.work(p)
	if answer == nil {
		return
	}
	if err := w.link.write(answer); err != nil {
		w.link.fail(fmt.Errorf("writing to the master agent: %w", err))
	}
}

// work carries a request out; it returns the answer, nil for none.
func (w *worker) work(p *packet) []byte {
	w.link.busy.Store(true)
	defer func() {
		w.link.worked.Add(1)
		w.link.busy.Store(false)
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.sets) > 0 {
		w.takeBackForgotten(p.TransactionID)
		defer w.discount(w.link.s.cfg.Clock.Now())
	}
	if p.Type == pdu.TypeCleanupSet { // has no answer
		if !p.malformed && p.SessionID == w.link.id.Load() {
			w.cleanup(p.TransactionID)
		}
		return nil
	}
	key := requestKey{p.PacketID, p.TransactionID, p.Type, maphash.Bytes(w.seed, p.raw)}
	answer := w.past.find(key)
	if answer == nil {
		answer = w.answer(p, w.past.buffer())
		w.past.store(key, answer)
	}
	return answer
}

// answer carries out a request and makes the answer in b. Error codes are those
// of SNMP alone: snmpd passes every other code on to the manager as it is. An
// error always blames a varbind: snmpd makes genErr of every error that does
// not, and blames the first one itself.
func (w *worker) answer(p *packet, b []byte) []byte {
	status, index, vbs := w.carryOut(p)
	if status != mib.NoError && index == 0 {
		index = 1
	}
	b, err := encodeResponse(b, p.Header, status, index, vbs)
	if err != nil {
		status = mib.GenErr
		if errors.Is(err, errTooBig) {
			status = mib.TooBig
		}
		w.link.s.cfg.Log.Warn("cannot send the answer", "request", p.Type, "err", err)
		// An answer without varbinds can always be encoded.
		b, _ = encodeResponse(b, p.Header, status, 1, nil)
	}
	return b
}

func (w *worker) carryOut(p *packet) (status mib.Status, index int, vbs []mib.Varbind) {
	if p.malformed || p.SessionID != w.link.id.Load() || p.Flags&pdu.FlagNonDefaultContext != 0 {
		return mib.GenErr, 0, nil
	}
	switch p.Type {
	case pdu.TypeGet:
		w.oids = w.oids[:0]
		for _, r := range p.Ranges {
			w.oids = append(w.oids, r.Start)
		}
		vbs = w.tree.Get(w.oids)
	case pdu.TypeGetNext:
		vbs = w.tree.Next(p.Ranges)
	case pdu.TypeGetBulk:
		vbs = w.bulk(p)
	case pdu.TypeTestSet:
		status, index = w.test(p)
	case pdu.TypeCommitSet:
		status, index = w.commit(p.TransactionID)
	case pdu.TypeUndoSet:
		status = w.undo(p.TransactionID)
	case pdu.TypePing:
	}
	return status, index, vbs
}

// bulk searches as RFC 2741 section 7.2.3.3 says, all in one state of the
// device. It stops where the answer would get too long, which the section
// allows, and when nothing more is found.
func (w *worker) bulk(p *packet) []mib.Varbind {
	reader := w.tree.Read()
	once := min(int(p.NonRepeaters), len(p.Ranges))
	vbs := reader.Next(p.Ranges[:once])
	size := 0
	for _, vb := range vbs {
		size += encodedSize(vb)
	}
	repeated := p.Ranges[once:]
	for range p.MaxRepetitions {
		more := false
		for i, vb := range reader.Next(repeated) {
			if size += encodedSize(vb); size > maxPayload-8 {
				return vbs
			}
			vbs = append(vbs, vb)
			more = more || vb.Value.Type != mib.EndOfMibView
			repeated[i].Start, repeated[i].Inclusive = vb.OID, false
		}
		if !more {
			break
		}
	}
	return vbs
}

// encodedSize is the most bytes that a varbind takes in a PDU.
func encodedSize(vb mib.Varbind) int {
	return 16 + 4*len(vb.OID) + 4*len(vb.Value.OID) + len(vb.Value.Bytes)
}

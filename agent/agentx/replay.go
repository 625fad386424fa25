package agentx

import "github.com/posteo/go-agentx/pdu"

// Limits of what is kept for repeated requests. snmpd repeats a request at most
// five times, and has few of them under way at a time.
const (
	replayCount  = 64
	replayOctets = 256 << 10
)

// requestKey identifies a request within a session. snmpd repeats a request with
// the same identifiers; the sum over the payload guards against a master that
// reuses them for another request.
type requestKey struct {
	packetID, transactionID uint32
	kind                    pdu.Type
	sum                     uint64
}

// replay keeps the last answers, to be given again to repeated requests.
type replay struct {
	entries [replayCount]replayEntry
	next    int // the entry to use next, the oldest one
	octets  int // of memory that all entries hold
}

type replayEntry struct {
	key    requestKey
	answer []byte // empty for none
}

// find returns the answer that the request got, or nil.
func (r *replay) find(k requestKey) []byte {
	for i := range r.entries {
		if e := &r.entries[i]; e.key == k && len(e.answer) > 0 {
			return e.answer
		}
	}
	return nil
}

// buffer returns memory for the next answer.
func (r *replay) buffer() []byte { return r.entries[r.next].answer[:0] }

// store keeps an answer made in buffer, which may have grown. The oldest
// answers make room.
func (r *replay) store(k requestKey, answer []byte) {
	e := &r.entries[r.next]
	r.octets += cap(answer) - cap(e.answer)
	*e = replayEntry{k, answer}
	r.next = (r.next + 1) % replayCount
	for i := r.next; r.octets > replayOctets && &r.entries[i] != e; i = (i + 1) % replayCount {
		r.octets -= cap(r.entries[i].answer)
		r.entries[i] = replayEntry{}
	}
}

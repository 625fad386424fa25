package conformance

import (
	"crypto/sha256"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// owner is iadUpgReqOwner of all requests.
const owner = "iadlab"

// request is a SET of the iadUpgReq objects. Zero fields are left out, so the device uses
// the DEFVAL.
type request struct {
	kind    mib.OperationKind
	id      uint32 // 0: a new one
	noID    bool   // leave out iadUpgReqId
	server  int    // iadUpgReqServer; 0: left out, so 1
	files   []mib.FileType
	bank    int
	version string
	options []int
	limit   time.Duration
	retries int // as is: the suite makes no use of the DEFVAL
	delay   time.Duration
	target  uint32
	before  []mib.Varbind // rows that are written in the same SET
}

func (t *T) varbinds(r *request) []mib.Varbind {
	if r.id == 0 && !r.noID {
		r.id = device.NewReqID()
	}
	vbs := append([]mib.Varbind{}, r.before...)
	if !r.noID {
		vbs = append(vbs, t.v(mib.ReqId, mib.Uint32(r.id)))
	}
	vbs = append(vbs, t.v(mib.ReqOwner, mib.Str(owner)))
	if r.server != 0 {
		vbs = append(vbs, t.v(mib.ReqServer, mib.Uint32(uint32(r.server))))
	}
	if len(r.files) > 0 {
		bits := make([]int, len(r.files))
		for i, k := range r.files {
			bits[i] = int(k) - 1
		}
		vbs = append(vbs, t.v(mib.ReqFiles, mib.Octets(mib.Bits(bits...))))
	}
	if r.bank != 0 {
		vbs = append(vbs, t.v(mib.ReqBank, mib.Uint32(uint32(r.bank))))
	}
	if r.version != "" {
		vbs = append(vbs, t.v(mib.ReqVersion, mib.Str(r.version)))
	}
	if len(r.options) > 0 {
		vbs = append(vbs, t.v(mib.ReqOptions, mib.Octets(mib.Bits(r.options...))))
	}
	if r.limit != 0 {
		vbs = append(vbs, t.v(mib.ReqTimeLimit, mib.Uint32(uint32(r.limit/time.Second))))
	}
	vbs = append(vbs, t.v(mib.ReqRetries, mib.Uint32(uint32(r.retries))))
	if r.delay != 0 {
		vbs = append(vbs, t.v(mib.ReqDelay, mib.Uint32(uint32(r.delay/time.Second))))
	}
	if r.target != 0 {
		vbs = append(vbs, t.v(mib.ReqTargetOpId, mib.Uint32(r.target)))
	}
	return append(vbs, t.v(mib.ReqCommand, r.kind.Value()))
}

// start commands an operation, which has to be accepted, and returns its number.
func (t *T) start(r request) uint32 {
	id := t.accepted(&r)
	// A device that restarts at once may not answer now.
	if op, err := t.client.Operation(t.ctx); err == nil {
		t.watch.see(t, op)
		t.must("OP-ID", op.ID == id, "iadUpgOpId is %d after operation %d; want %d", op.ID, id-1, id)
		t.check("OP-REQUEST", op.ReqID == r.id && op.Owner == owner && op.Kind == r.kind,
			"iadUpgOpReqId %d, iadUpgOpOwner %q, iadUpgOpKind %s; want %d, %q, %s", op.ReqID, op.Owner, op.Kind, r.id, owner, r.kind)
		t.check("REQ-REFUSAL", t.mayGet(mib.ReqRefusal) <= int64(mib.FailCauseNone), "iadUpgReqRefusal is not none after a request that was accepted")
	}
	return id
}

// accepted sends a request, which must be accepted, and returns the number of its operation.
func (t *T) accepted(r *request) uint32 {
	before := t.number(mib.OpId)
	status, index := t.set(t.varbinds(r)...)
	if status != mib.NoError {
		vbs, err := t.client.Get(t.ctx, t.client.OID(mib.ReqRefusal, 0), t.client.OID(mib.ReqRefusalText, 0))
		t.answered(err)
		t.must("REQ-ACCEPT", false, "%s was refused: %s, error-index %d, iadUpgReqRefusal %s, %s",
			r.kind, status, index, mib.FailCause(vbs[0].Value.Int), vbs[1].Value)
	}
	t.check("REQ-ACCEPT", true, "")
	return next(uint32(before))
}

// mayGet reads a number from a device that may be restarting: 0 then.
func (t *T) mayGet(o *mib.Object) int64 {
	vbs, err := t.client.Get(t.ctx, t.client.OID(o, 0))
	if err != nil {
		return 0
	}
	return vbs[0].Value.Int
}

// next is the number after n; numbers wrap to 1.
func next(n uint32) uint32 {
	if n == 1<<32-1 {
		return 1
	}
	return n + 1
}

// execute commands an operation and follows it to its end.
func (t *T) execute(r request) *device.Operation { return t.awaitEnd(t.start(r)) }

// succeed is execute for an operation that has to succeed.
func (t *T) succeed(requirement string, r request) *device.Operation {
	op := t.execute(r)
	t.must(requirement, op.State == mib.OperationStateSucceeded, "%s ended as %s, %s: %s; want succeeded", r.kind, op.State, op.Cause, op.Text)
	return op
}

// fail is execute for an operation that has to fail with one of the causes.
func (t *T) fail(requirement string, r request, causes ...mib.FailCause) *device.Operation {
	op := t.execute(r)
	t.check(requirement, op.State == mib.OperationStateFailed && contains(causes, op.Cause),
		"%s ended as %s with cause %s: %s; want failed with %v", r.kind, op.State, op.Cause, op.Text, causes)
	return op
}

func contains[E comparable](list []E, x E) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

// awaitEnd follows an operation to its end, over restarts, for as long as it says and
// Config.Limit more.
func (t *T) awaitEnd(id uint32) *device.Operation {
	until := time.Now().Add(t.cfg.Limit)
	for {
		op, err := t.client.Operation(t.ctx)
		switch {
		case err == nil:
			t.watch.see(t, op)
			t.must("OP-ID", op.ID == id || op.ID == 0 && id == 0, "operation %d is followed, but iadUpgOpId is %d", id, op.ID)
			if final(op.State) {
				t.ended(op)
				return op
			}
			if left := time.Now().Add(op.TimeLeft + t.cfg.Limit); left.After(until) && op.TimeLeft < time.Hour {
				until = left
			}
		case !noAnswer(err):
			t.answered(err)
		}
		if t.ctx.Err() != nil {
			panic(stop{})
		}
		if time.Now().After(until) {
			if err != nil {
				t.answered(err)
			}
			t.must("OP-TIME", false, "operation %d (%s) is still %s, %s; iadUpgOpTimeLeft is %v", id, op.Kind, op.State, op.Phase, op.TimeLeft)
		}
		t.wait(poll)
	}
}

// ended checks what holds for every operation that has ended.
func (t *T) ended(op *device.Operation) {
	if op.State == mib.OperationStateIdle {
		return
	}
	succeeded := op.State == mib.OperationStateSucceeded
	t.check("OP-PERCENT-END", !succeeded || op.Percent == 100, "iadUpgOpPercent is %d in state succeeded; want 100", op.Percent)
	t.check("OP-CAUSE", succeeded == (op.Cause == mib.FailCauseNone), "state %s with iadUpgOpFailCause %s", op.State, op.Cause)
	t.check("OP-CAUSE", succeeded || op.Text != "", "iadUpgOpFailText is empty after %s", op.Cause)
	t.check("OP-ADVICE", succeeded == (op.Advice == mib.RetryAdviceNotApplicable), "state %s with iadUpgOpAdvice %s", op.State, op.Advice)
	t.check("OP-TIME", op.TimeLeft == 0, "iadUpgOpTimeLeft is %v in state %s; want 0", op.TimeLeft, op.State)
	if op.State == mib.OperationStateAborted {
		t.check("OP-CAUSE", op.Cause == mib.FailCauseAbortedByManager || op.Cause == mib.FailCauseAbortedLocally, "state aborted with iadUpgOpFailCause %s", op.Cause)
	}
	history, err := t.client.History(t.ctx)
	t.answered(err)
	found := 0
	for _, h := range history {
		if h.OpID != op.ID {
			continue
		}
		found++
		t.check("HIST-ROW", h.ReqID == op.ReqID && h.Owner == op.Owner && h.Kind == op.Kind && h.State == op.State && h.Cause == op.Cause && h.Phase == op.Phase && h.Attempts == op.Attempt && h.Bank == op.Bank,
			"history of operation %d: request %d, owner %q, %s, %s, %s, phase %s, %d attempts, bank %d; the iadUpgOp objects have %d, %q, %s, %s, %s, %s, %d, %d", op.ID,
			h.ReqID, h.Owner, h.Kind, h.State, h.Cause, h.Phase, h.Attempts, h.Bank, op.ReqID, op.Owner, op.Kind, op.State, op.Cause, op.Phase, op.Attempt, op.Bank)
	}
	t.check("HIST-ONCE", found == 1, "operation %d has %d rows in iadUpgHistTable; want 1", op.ID, found)
}

// refused is a request that has to be refused with a status and a cause, and that must
// start nothing.
func (t *T) refused(requirement string, r request, want mib.Status, cause mib.FailCause) {
	before := t.operation()
	vbs := t.varbinds(&r)
	status, _ := t.set(vbs...)
	t.check(requirement, status == want, "%s: %s; want %s", t.describe(vbs), status, want)
	got := mib.FailCause(t.number(mib.ReqRefusal))
	t.check(requirement, got == cause, "%s: iadUpgReqRefusal is %s; want %s", t.describe(vbs), got, cause)
	t.check("REQ-REFUSAL", len(t.get(mib.ReqRefusalText).Bytes) > 0, "iadUpgReqRefusalText is empty after the refusal %s", got)
	after := t.operation()
	t.check("REQ-NOTHING", after.ID == before.ID, "a refused %s started operation %d", r.kind, after.ID)
	if after.ID != before.ID {
		t.awaitEnd(after.ID)
	}
}

// server returns the varbinds of server 1 as the lab's server for a protocol, which gives
// up after a second of silence unless timeout is longer.
func (t *T) server(p mib.Protocol, timeout time.Duration) []mib.Varbind {
	typ, address, err := mib.InetAddress(t.cfg.Advertise)
	if err != nil {
		panic(err) // it is an IP address: startServers has checked it
	}
	return []mib.Varbind{
		t.v(mib.ServerAddressType, typ.Value(), 1), t.v(mib.ServerAddress, mib.Octets(address), 1),
		t.v(mib.ServerPort, mib.Uint32(uint32(t.servers.port(p))), 1), t.v(mib.ServerProtocol, p.Value(), 1),
		t.v(mib.ServerUser, mib.Str(""), 1), t.v(mib.ServerPath, mib.Str(""), 1),
		t.v(mib.ServerTimeout, mib.Uint32(uint32(max(timeout, time.Second)/time.Second)), 1),
	}
}

// file returns the varbinds of a row of iadUpgFileTable.
func (t *T) file(kind mib.FileType, name string, size uint32, digest []byte) []mib.Varbind {
	return []mib.Varbind{
		t.v(mib.FileName, mib.Str(name), uint32(kind)), t.v(mib.FileExpectSize, mib.Uint32(size), uint32(kind)),
		t.v(mib.FileExpectDigest, mib.Octets(digest), uint32(kind)),
	}
}

// configKinds are the kinds of configuration data.
var configKinds = []mib.FileType{
	mib.FileTypeUserData, mib.FileTypePortData, mib.FileTypeProtocolParams, mib.FileTypeDefaultParams, mib.FileTypeOtherData,
}

// configNames names the files of configuration data DIR/KIND.
func (t *T) configNames(prefix string) []mib.Varbind {
	var vbs []mib.Varbind
	for _, k := range configKinds {
		vbs = append(vbs, t.file(k, prefix+k.String(), 0, nil)...)
	}
	return vbs
}

// useServer points server 1 at the lab's server. The rows of files are reset.
func (t *T) useServer(p mib.Protocol, timeout time.Duration) {
	t.write(t.server(p, timeout)...)
	t.write(t.configNames("")...)
}

// protocol is what tests use that do not depend on one: TFTP if the device has it.
func (t *T) protocol() mib.Protocol {
	if t.first.Speaks(mib.ProtocolTftp) {
		return mib.ProtocolTftp
	}
	return mib.ProtocolFtp
}

func digest(data []byte) []byte {
	sum := sha256.Sum256(data)
	return sum[:]
}

package procedure

import (
	"errors"
	"fmt"
	"time"

	"example.com/iad/mib"
)

// Change is a SET as the engine sees it.
type Change struct {
	// Edit makes the changes of all objects but the lock and the trigger to
	// a copy of the settings. It runs in the engine's goroutine; an error
	// refuses the SET and is returned by Test as it is.
	Edit func(*Settings) error
	// Lock is the value written to iadUpgReqLock, nil if it was not.
	Lock *int32
	// Guarded reports whether the SET writes objects that iadUpgReqLock guards:
	// those of the groups of servers, files and requests. A SET with a Command
	// does.
	Guarded bool
	// Command is the value written to iadUpgReqCommand, 0 if it was not.
	Command mib.OperationKind
	// HasReqID and HasOwner report whether the SET itself carries iadUpgReqId
	// and iadUpgReqOwner.
	HasReqID, HasOwner bool
	// Zone is the interface that the SET came in by from a link-local address.
	Zone string
}

// Verdict is the class of a refusal, from which follows the error-status.
type Verdict uint8

// Verdicts.
const (
	Inconsistent Verdict = 1 + iota // inconsistentValue
	WrongValue                      // wrongValue
	Unavailable                     // resourceUnavailable
)

// Subject is the part of a SET that a refusal is about.
type Subject uint8

// Subjects.
const (
	SubjectCommand Subject = 1 + iota
	SubjectLock
	SubjectServer // Refusal.Row is its iadUpgServerIndex
	SubjectFile   // Refusal.Row is its iadUpgFileKind
)

// Refusal is why a SET cannot be made.
type Refusal struct {
	Verdict Verdict
	Subject Subject
	Row     int
	Failure
}

// Unwrap returns the failure with its cause.
func (r *Refusal) Unwrap() error { return &r.Failure }

func refuse(v Verdict, c mib.FailCause, format string, args ...any) *Refusal {
	return &Refusal{Verdict: v, Subject: SubjectCommand, Failure: Failure{Code: c, Text: cut(fmt.Sprintf(format, args...))}}
}

// reservedFor is how long a SET that was tested may take to Commit. A front end that
// has lost its manager must not keep another one from abort or restoreOldSoftware.
const reservedFor = 10 * time.Second

// Reservation is a SET that was tested; it is in nobody's way but that of
// another SET. Commit, then Done; or Commit, then Undo; or Done alone.
//
// Without a Commit it ends by itself after 10 s; a later Commit fails. After a
// Commit it stays until Done or Undo: only the front end knows whether the response reports
// success, and so whether the work is to begin or to be taken back. It
// must call one of them in the end.
type Reservation struct {
	e         *Engine
	command   mib.OperationKind
	repeat    bool
	lock      bool
	owner     string
	zone      string
	settings  Settings
	until     time.Time // without a Commit
	committed bool
	ended     chan struct{} // closed by Done and Undo
	// What Undo goes back to.
	oldSettings Settings
	oldOp       Operation
	oldLock     int32
}

// Test checks whether a SET can be made and reserves the engine for it. The
// error is a *Refusal, or what Edit returned, or ErrStopped.
func (e *Engine) Test(c Change) (r *Reservation, err error) {
	inUse := 0
	if c.Command == mib.OperationKindReset || c.Command == mib.OperationKindRestoreOldSoftware || c.Command == mib.OperationKindActivate {
		inUse = e.cfg.Device.Calls() // may take a moment: not in Run's goroutine
	}
	if stopped := e.call(func() {
		e.inUse = inUse
		before := e.refusal
		r, err = e.test(c)
		if e.fresh = e.refusal == before; !e.fresh { // nothing else can be seen of a test
			e.publish()
		}
	}); stopped != nil {
		return nil, stopped
	}
	return r, err
}

func (e *Engine) test(c Change) (*Reservation, error) {
	wanted := c.Command > mib.OperationKindNone
	fail := func(r *Refusal) (*Reservation, error) {
		if wanted {
			e.refusal = r.Failure
		}
		return nil, r
	}
	if e.reserved != nil {
		return fail(refuse(Unavailable, mib.FailCauseBusy, "another SET is being carried out"))
	}
	if c.Lock != nil && *c.Lock != e.lock {
		r := refuse(Inconsistent, mib.FailCauseOther, "iadUpgReqLock is %d: another manager has changed something since it was read", e.lock)
		r.Subject = SubjectLock
		return fail(r)
	}
	r := &Reservation{
		e: e, command: c.Command, zone: c.Zone, lock: c.Lock != nil || c.Guarded || c.Command != 0, settings: e.s,
		until: e.clock.Now().Add(reservedFor), ended: make(chan struct{}),
	}
	if c.Edit != nil {
		if err := c.Edit(&r.settings); err != nil {
			if wanted {
				e.refusal = Failure{Code: mib.FailCauseBadRequest, Text: cut(err.Error())}
			}
			return nil, err
		}
	}
	r.owner = r.settings.Params.Owner
	if wanted && e.isRepeat(c, &r.settings.Params) {
		r.repeat = true
		e.refusal = Failure{Code: mib.FailCauseNone}
		e.reserved = r
		return r, nil
	}
	if op := e.earlier(c, &r.settings.Params); wanted && op != nil {
		return fail(refuse(Inconsistent, mib.FailCauseBadRequest, "request %d was operation %d already, which is %s; choose a new iadUpgReqId",
			op.Params.ReqID, op.ID, op.State))
	}
	if e.pendingRestart != nil || e.handover {
		return fail(refuse(Unavailable, mib.FailCauseBusy, "the device restarts"))
	}
	if ref := e.checkRows(&r.settings); ref != nil {
		return fail(ref)
	}
	if wanted {
		if ref := e.checkCommand(c.Command, &r.settings); ref != nil {
			return fail(ref)
		}
		e.refusal = Failure{Code: mib.FailCauseNone}
	}
	e.reserved = r
	return r, nil
}

// isRepeat recognises a request whose response was lost, see iadUpgReqId.
func (e *Engine) isRepeat(c Change, p *Params) bool { return e.j.Op.from(c, p) }

// earlier returns the operation, before the last one, that a request started when it
// came for the first time; nil if there is none. A manager that was paused and sends
// its request again must not start it a second time.
func (e *Engine) earlier(c Change, p *Params) *Operation {
	for i := range e.j.History {
		if op := &e.j.History[i]; op.ID != e.j.Op.ID && op.from(c, p) {
			return op
		}
	}
	return nil
}

// from reports whether a request is the one that the operation came from.
func (o *Operation) from(c Change, p *Params) bool {
	return c.Command != mib.OperationKindAbort && c.Command != mib.OperationKindConfirm && c.HasReqID && c.HasOwner && p.ReqID != 0 &&
		p.ReqID == o.Params.ReqID && p.Owner == o.Params.Owner && c.Command == o.Kind
}

// checkRows refuses changes to rows that the running operation uses.
func (e *Engine) checkRows(s *Settings) *Refusal {
	if e.j.Op.State.Final() {
		return nil
	}
	used := func(subject Subject, row int) *Refusal {
		r := refuse(Inconsistent, mib.FailCauseBusy, "operation %d uses this row", e.j.Op.ID)
		r.Subject, r.Row = subject, row
		return r
	}
	server, files := usedRows(e.j.Op.Kind, &e.j.Op.Params)
	if server != 0 && !s.Servers[server-1].equal(&e.s.Servers[server-1]) {
		return used(SubjectServer, server)
	}
	for _, k := range files.Kinds() {
		if !s.Files[k-1].equal(&e.s.Files[k-1]) {
			return used(SubjectFile, int(k))
		}
	}
	return nil
}

// usedRows returns the rows of the server and file tables that an operation
// reads.
func usedRows(kind mib.OperationKind, p *Params) (server int, files FileSet) {
	switch kind {
	case mib.OperationKindBackupConfig, mib.OperationKindRecoverConfig, mib.OperationKindDownloadSoftware:
		return int(p.Server), filesOf(kind, p)
	}
	return 0, 0
}

// filesOf resolves the empty set, see iadUpgReqFiles.
func filesOf(kind mib.OperationKind, p *Params) FileSet {
	switch {
	case kind == mib.OperationKindDownloadSoftware && p.Files == 0:
		return SetOf(mib.FileTypeSoftware)
	case p.Files == 0:
		return AllConfig
	}
	return p.Files
}

// Commit makes the SET visible and, with a command, journals the operation. An
// error means that nothing was changed.
func (r *Reservation) Commit() (err error) {
	if stopped := r.e.call(func() {
		err = r.commit()
		r.e.publish()
	}); stopped != nil {
		return stopped
	}
	return err
}

func (r *Reservation) commit() error {
	e := r.e
	if e.reserved != r {
		return errors.New("procedure: the reservation has ended")
	}
	r.oldSettings, r.oldOp, r.oldLock = e.s, e.j.Op, e.lock
	if r.repeat {
		r.committed = true
		return nil
	}
	if r.accepts() && (e.pendingRestart != nil || e.handover) {
		return errors.New("procedure: the device has begun to restart")
	}
	// The way back and the way to stop must not need room for a file.
	must := r.command == mib.OperationKindRestoreOldSoftware || r.command == mib.OperationKindReset || r.command == mib.OperationKindAbort || r.command == mib.OperationKindConfirm
	s := r.settings
	params := s.Params
	if r.command > mib.OperationKindNone {
		s.Params = defaultParams
	}
	if !s.equal(&e.s) {
		if err := e.persistSettings(&s); err != nil && !must {
			return e.notStored(r.command, err)
		}
	}
	e.s = s
	if r.accepts() {
		e.accept(r.command, params)
		e.zone = r.zone
		if err := e.persist(); err != nil && !must {
			e.s, e.j.Op = r.oldSettings, r.oldOp
			return errors.Join(e.notStored(r.command, err), e.persistSettings(&e.s))
		}
	}
	if r.lock {
		e.lock = nextLock(e.lock)
	}
	r.committed = true
	return nil
}

// accepts reports whether the SET starts an operation.
func (r *Reservation) accepts() bool {
	return !r.repeat && r.command >= mib.OperationKindBackupConfig && r.command <= mib.OperationKindConvertConfig
}

// expire ends a SET that was tested and then forgotten.
func (r *Reservation) expire() {
	r.e.log.Warn("a SET was tested but not committed in time", "command", r.command, "after", reservedFor)
	r.end()
}

// end releases what was reserved.
func (r *Reservation) end() {
	r.e.reserved = nil
	close(r.ended)
}

// notStored notes why a command could not be accepted.
func (e *Engine) notStored(command mib.OperationKind, err error) error {
	if command > mib.OperationKindNone {
		e.refusal = Failure{Code: mib.FailCauseStorageFull, Text: cut(err.Error())}
	}
	return err
}

// Refused notes why a request was refused before the engine was asked, for
// iadUpgReqRefusal.
func (e *Engine) Refused(f Failure) {
	_ = e.call(func() {
		e.refusal = Failure{Code: f.Code, Text: cut(f.Text)}
		e.publish()
	})
}

// nextLock increments a TestAndIncr (RFC 2579).
func nextLock(n int32) int32 {
	if n == 1<<31-1 {
		return 0
	}
	return n + 1
}

// Undo takes back a Commit and ends the reservation.
func (r *Reservation) Undo() (err error) {
	if stopped := r.e.call(func() {
		e := r.e
		if e.reserved != r {
			return
		}
		defer e.publish()
		r.end()
		if !r.committed || r.repeat {
			return
		}
		changed := !e.s.equal(&r.oldSettings)
		e.s, e.lock = r.oldSettings, r.oldLock
		if changed {
			err = e.persistSettings(&e.s)
		}
		if r.accepts() && !e.j.Op.State.Final() {
			e.j.Op = r.oldOp
			err = errors.Join(err, e.persist())
		}
	}); stopped != nil {
		return stopped
	}
	return err
}

// Done ends the reservation; after a Commit the work starts now.
func (r *Reservation) Done() {
	_ = r.e.call(func() {
		e := r.e
		if e.reserved != r {
			return
		}
		defer e.publish()
		r.end()
		if !r.committed || r.repeat {
			return
		}
		e.windowChanged(r.oldSettings.ConfirmWindow)
		e.confirmIfDue() // the mode may have changed
		switch r.command {
		case 0, mib.OperationKindNone:
		case mib.OperationKindAbort:
			e.abort(failure(mib.FailCauseAbortedByManager, "aborted by "+owner(r.owner)))
		case mib.OperationKindConfirm:
			e.confirm()
		default:
			if !e.j.Op.State.Final() { // the end of a trial may have come between
				e.start()
			}
		}
	})
}

func owner(name string) string {
	if name == "" {
		return "a manager"
	}
	return name
}

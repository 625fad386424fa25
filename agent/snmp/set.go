package snmp

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// ownSet is a SET of objects of the engine itself. The old keys hold until its response has
// left, and after a loss of power the stored ones do.
type ownSet struct {
	engine   *Engine
	request  *request
	seen     map[string]mib.Value
	accounts map[*account]*accountSet
	targets  map[*sink]*targetSet
	// The spin locks that are named.
	userLock, targetLock bool
}

// accountSet is what a SET changes of a row of usmUserTable. What is nil remains.
type accountSet struct {
	auth, priv mib.Value // values of the columns for changes of a key
	keys       *snmp.Keys
	public     []byte
	setPublic  bool
}

// isOwn reports whether the engine itself has the object, for SETs.
func isOwn(oid mib.OID) bool {
	return oid.HasPrefix(oidUsmUser) || oid.HasPrefix(oidTargetAddr) || oid.Compare(oidTargetSpinLock) == 0
}

// mayWrite is the access control for a varbind of a SET.
func (req *request) mayWrite(oid mib.OID) bool {
	if !oid.HasPrefix(oidUsmUser) {
		return req.access.Write.Contains(oid)
	}
	if req.user == nil {
		return false // RFC 3414 section 5: the security model must be USM
	}
	n := len(oidUsmUserEntry)
	if len(oid) > n && oid.HasPrefix(oidUsmUserEntry) {
		index := oid[n+1:]
		switch column := oid[n]; column {
		case userOwnAuthKeyChange, userOwnPrivKeyChange:
			if !ofUser(index, req.user) {
				return false
			}
		case userAuthKeyChange, userPrivKeyChange:
			// For the user's own row it is the next column by another name.
			if ofUser(index, req.user) && req.access.Write.Contains(oidUsmUserEntry.Append(column+1).Append(index...)) {
				return true
			}
		case userPublic:
			// It is part of a change of keys.
			if !ofUser(index, req.user) && !req.access.Write.Contains(oidUsmUserEntry.Append(userAuthKeyChange).Append(index...)) {
				return false
			}
		}
	}
	return req.access.Write.Contains(oid)
}

// ofUser reports whether a row of usmUserTable is the user's, at whatever engine.
func ofUser(index mib.OID, u *user) bool {
	return len(index) > 0 && int64(index[0]) < int64(len(index)) && index[1+index[0]:].Compare(indexOf([]byte(u.Name))) == 0
}

// assign judges a varbind by itself. pos is its position in the request.
func (s *ownSet) assign(pos int, vb mib.Varbind) (mib.Status, string) {
	key := vb.OID.String()
	if was, twice := s.seen[key]; twice {
		if !was.Equal(vb.Value) {
			return mib.InconsistentValue, "two values for " + key + " in one SET"
		}
		return mib.NoError, ""
	}
	s.seen[key] = vb.Value
	if !vb.OID.HasPrefix(oidUsmUser) {
		return s.assignTarget(pos, vb)
	}
	if s.request.level < AuthPriv {
		return mib.AuthorizationError, "keys are changed in messages with privacy only"
	}
	if vb.OID.Compare(oidUsmUserSpinLock) == 0 {
		s.userLock = true
		return testAndIncr(vb.Value, s.engine.userLock)
	}
	column, r, ok := userTable.find(s.engine, vb.OID)
	switch {
	case !ok:
		return mib.NotWritable, vb.OID.String() + " is not a writable object"
	case r == nil:
		return mib.NoCreation, "there is no such user; users are made in iad.toml"
	}
	return s.assignUser(r.(*account), column, vb.Value)
}

func (s *ownSet) assignUser(a *account, column uint32, v mib.Value) (mib.Status, string) {
	set := s.accounts[a]
	if set == nil {
		set = &accountSet{}
		s.accounts[a] = set
	}
	switch column {
	case userAuthKeyChange, userOwnAuthKeyChange:
		return set.change(&set.auth, a, a.keys.Load().AuthKey(), v)
	case userPrivKeyChange, userOwnPrivKeyChange:
		return set.change(&set.priv, a, a.keys.Load().PrivKey(), v)
	case userPublic:
		switch {
		case v.Type != mib.OctetString:
			return mib.WrongType, "usmUserPublic is an OCTET STRING"
		case len(v.Bytes) > maxPublic:
			return mib.WrongLength, fmt.Sprintf("usmUserPublic has at most %d bytes", maxPublic)
		}
		set.public, set.setPublic = bytes.Clone(v.Bytes), true
		return mib.NoError, ""
	}
	return mib.NotWritable, "users, their protocols and their status are changed in iad.toml"
}

// change judges a KeyChange for the key old; value takes it.
func (set *accountSet) change(value *mib.Value, a *account, old []byte, v mib.Value) (mib.Status, string) {
	switch {
	case v.Type != mib.OctetString:
		return mib.WrongType, "a KeyChange is an OCTET STRING"
	case old == nil:
		return mib.NoError, "" // RFC 3414 section 5: without a protocol nothing happens
	case value.Type != 0 && !value.Equal(v):
		return mib.InconsistentValue, "two changes of one key of user " + a.user.Name
	case len(v.Bytes) != 2*len(old):
		return mib.WrongLength, fmt.Sprintf("a KeyChange of user %s has %d bytes, not %d", a.user.Name, 2*len(old), len(v.Bytes))
	}
	*value = mib.Octets(bytes.Clone(v.Bytes))
	return mib.NoError, ""
}

// testAndIncr judges a value for an object of the textual convention TestAndIncr (RFC 2579).
func testAndIncr(v mib.Value, now int32) (mib.Status, string) {
	switch {
	case v.Type != mib.Integer:
		return mib.WrongType, "a spin lock is an INTEGER"
	case v.Int < 0 || v.Int > math.MaxInt32:
		return mib.WrongValue, "a spin lock is 0 to 2147483647"
	case v.Int != int64(now):
		return mib.InconsistentValue, fmt.Sprintf("the spin lock is %d: somebody else has changed something", now)
	}
	return mib.NoError, ""
}

func increment(lock int32) int32 { return (lock + 1) & math.MaxInt32 }

// commit stores the changes.
func (s *ownSet) commit() error {
	for a, set := range s.accounts {
		keys := a.keys.Load()
		var changed [2][]byte
		for i, c := range []struct {
			old    []byte
			change mib.Value
		}{{keys.AuthKey(), set.auth}, {keys.PrivKey(), set.priv}} {
			if c.change.Type == 0 {
				continue
			}
			var err error
			if changed[i], err = snmp.ChangedKey(a.user.Auth, c.old, c.change.Bytes); err != nil {
				return err
			}
		}
		var err error
		if set.keys, err = keys.WithKeys(changed[0], changed[1]); err != nil {
			return err
		}
		if !set.setPublic {
			set.public = a.public
		}
	}
	if !s.stores() {
		return nil
	}
	if err := s.engine.store(s.engine.changes(s)); err != nil {
		return fmt.Errorf("what a manager changed could not be stored: %w", err)
	}
	return nil
}

// notCommitted is the answer after commit has failed.
func notCommitted(err error) *mib.SetError {
	if errors.Is(err, ErrUncertain) {
		return &mib.SetError{Status: mib.UndoFailed, Reason: err.Error()} // RFC 3416 section 4.2.5
	}
	return &mib.SetError{Status: mib.CommitFailed, Index: 1, Reason: err.Error()}
}

// stores reports whether there is anything to store.
func (s *ownSet) stores() bool {
	for sink, set := range s.targets {
		if !set.endpoint(sink).equal(*sink.at.Load()) {
			return true
		}
	}
	return len(s.accounts) > 0
}

// undo stores what was there before a commit.
func (s *ownSet) undo() error {
	if !s.stores() {
		return nil
	}
	err := s.engine.store(s.engine.changes(nil))
	if err != nil {
		s.engine.unsettled = true
	}
	return err
}

// done puts the changes in force.
func (s *ownSet) done() {
	e := s.engine
	for a, set := range s.accounts {
		if set.auth.Type != 0 || set.priv.Type != 0 {
			e.log.Info("a manager has changed keys", "of", a.user.Name, "by", s.request.caller.Name)
		}
		a.keys.Store(set.keys)
		a.public = set.public
	}
	for sink, set := range s.targets {
		set.done(sink, s.request.caller.Name)
	}
	if s.userLock {
		e.userLock = increment(e.userLock)
	}
	if s.targetLock {
		e.targetLock = increment(e.targetLock)
	}
}

// set carries a SET out. The transaction it returns is to be ended when the response has left.
func (e *Engine) set(req *request) (done func(), refused *mib.SetError) {
	own := &ownSet{engine: e, request: req, seen: map[string]mib.Value{}, accounts: map[*account]*accountSet{}, targets: map[*sink]*targetSet{}}
	var rest []mib.Varbind
	var places []int // of the rest in the request
	for i, vb := range req.pdu.Vars {
		if !isOwn(vb.OID) {
			rest, places = append(rest, vb), append(places, i+1)
		} else if status, reason := own.assign(i+1, vb); status != mib.NoError {
			return nil, &mib.SetError{Status: status, Index: i + 1, Reason: reason}
		}
	}
	for sink, set := range own.targets {
		if status, reason := set.finish(sink); status != mib.NoError {
			return nil, &mib.SetError{Status: status, Index: set.pos, Reason: reason}
		}
	}
	if len(own.seen) == 0 {
		tx, refused := e.tree.Set(req.caller, rest)
		if refused != nil {
			return nil, refused
		}
		return tx.Done, nil
	}
	if len(rest) == 0 {
		if err := own.commit(); err != nil {
			return nil, notCommitted(err)
		}
		return own.done, nil
	}
	// The device's part goes second: it undoes itself if it fails.
	tx, err := e.tree.Test(req.caller, rest)
	if err == nil {
		if err := own.commit(); err != nil {
			tx.Done()
			return nil, notCommitted(err)
		}
		if err = tx.Commit(); err == nil {
			return func() { own.done(); tx.Done() }, nil
		}
		if failed := errors.Join(tx.Undo(), own.undo()); failed != nil {
			return nil, &mib.SetError{Status: mib.UndoFailed, Reason: failed.Error()}
		}
	}
	refused = &mib.SetError{Status: mib.GenErr, Reason: err.Error()}
	errors.As(err, &refused)
	out := *refused
	if out.Index >= 1 && out.Index <= len(places) {
		out.Index = places[out.Index-1]
	}
	return nil, &out
}

package device_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"example.com/iad/internal/iadtest"

	"example.com/iad/mib"
)

// What belongs together is one SET: nobody's row comes between the server and the
// command.
func TestStartIsOneSet(t *testing.T) {
	p := iadtest.NewPeer(t)
	var sets atomic.Int32
	p.Script(func() { p.Before = func() { sets.Add(1) } })
	if _, err := p.Client().Start(t.Context(), backupRequest()); err != nil || sets.Load() != 1 {
		t.Errorf("%d SETs, %v", sets.Load(), err)
	}
}

var errNotOwner = errors.New("another run has taken over")

// After a lost race it is found out once more whether the run is still in charge.
func TestStartAsksWhoOwns(t *testing.T) {
	p := iadtest.NewPeer(t)
	p.Script(func() { p.Before = func() { p.Put(mib.ReqLock, mib.Int32(p.Value(mib.ReqLock).Int+1)) } })
	r, asked := backupRequest(), 0
	r.Owns = func() error {
		if asked++; asked == 2 {
			return errNotOwner
		}
		return nil
	}
	if _, err := p.Client().Start(t.Context(), r); !errors.Is(err, errNotOwner) || p.Started() != 0 {
		t.Errorf("%v; %d operations started", err, p.Started())
	}
}

package procedure_test

import (
	"maps"
	"testing"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// Each row of the table of state changes is there because it happens.
func TestEveryTransitionIsTaken(t *testing.T) {
	taken := map[procedure.Transition]bool{}
	scenario := func(f func(l *lab)) {
		run(t, func(l *lab) {
			f(l)
			l.now()
			l.mu.Lock()
			defer l.mu.Unlock()
			maps.Copy(taken, l.taken)
		})
	}
	later := func(p *procedure.Params) { p.Delay, p.TimeLimit = 60, 120 }
	delayed := func(l *lab) {
		if err := l.request(mib.OperationKindBackupConfig, later); err != nil {
			t.Fatal(err)
		}
	}
	checkOnly := func(l *lab) { l.begin(mib.OperationKindBackupConfig, procedure.CheckOnly) }
	fail := func(l *lab) {
		l.failing("collect", coded(mib.FailCauseConfigReadError))
		l.begin(mib.OperationKindBackupConfig, 0)
	}
	abort := func(l *lab) {
		delayed(l)
		l.begin(mib.OperationKindAbort, 0)
	}
	for _, before := range []func(*lab){func(*lab) {}, checkOnly, fail, abort} {
		scenario(func(l *lab) {
			before(l)
			checkOnly(l)
		})
		scenario(func(l *lab) {
			before(l)
			delayed(l)
			time.Sleep(time.Hour)
		})
	}
	scenario(func(l *lab) { // one attempt fails, another one succeeds
		l.failing("connect", coded(mib.FailCauseServerBusy))
		l.begin(mib.OperationKindBackupConfig, 0)
		time.Sleep(time.Minute)
	})
	scenario(func(l *lab) { // the trial ends while an operation waits
		l.trial()
		time.Sleep(590 * time.Second)
		delayed(l)
		l.restart(nil)
	})
	scenario(func(l *lab) { delayed(l); l.cut(nil) })
	scenario(func(l *lab) { l.hold("connect"); l.begin(mib.OperationKindBackupConfig, 0); l.cut(nil) })
	scenario(func(l *lab) {
		l.hold("connect")
		l.begin(mib.OperationKindBackupConfig, 0)
		l.begin(mib.OperationKindAbort, 0)
	})
	scenario(func(l *lab) {
		l.stop()
		l.journal.data = []byte(`{"op":{"id":7,"kind":2,"state":5,"phase":4,"attempt":1,"cause":1}}`)
		l.start()
	})
	scenario(func(l *lab) { l.begin(mib.OperationKindReset, 0); l.restart(nil) })
	scenario(func(l *lab) { l.begin(mib.OperationKindActivate, procedure.ThenReset); l.restart(nil) })
	scenario(func(l *lab) { l.begin(mib.OperationKindActivate, procedure.ThenReset); l.restart(fellBack) })
	for _, tr := range procedure.Transitions() {
		tr.Why = ""
		if !taken[tr] {
			t.Errorf("%s on %s to %s was not taken", tr.From, tr.On, tr.To)
		}
		delete(taken, tr)
	}
	for tr := range taken {
		t.Errorf("%s on %s to %s is not in the table", tr.From, tr.On, tr.To)
	}
}

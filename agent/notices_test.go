package agent

import (
	"testing"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// Each event becomes its notification with all its objects, in their order and
// syntax; the last number of its identifier is the type of the event, and its
// bit in iadUpgNotifyEnable has its name.
func TestNotices(t *testing.T) {
	a := &Agent{cfg: Config{DeviceID: "IAD-7"}, tree: mib.NewTree(mib.NewModule(nil), nil)}
	op := procedure.Operation{ID: 5, Kind: mib.OperationKindActivate, State: mib.OperationStateFailed, Phase: mib.OperationPhaseTrying,
		Params: procedure.Params{ReqID: 9, Owner: "ems"}, Attempt: 1, Elapsed: 7, Cause: mib.FailCauseBootFailed, Text: "no", Percent: 99}
	met := 0
	for typ, n := range notifications {
		if n.Rel[len(n.Rel)-1] != uint32(typ) {
			t.Errorf("%s for type %d", n.Name, typ)
		}
		if label := mib.EventType.Label(int64(typ)); mib.NotifyEnable.Label(int64(typ)-1) != label || label != typ.String() {
			t.Errorf("type %d is %q, its bit %q", typ, label, mib.NotifyEnable.Label(int64(typ)-1))
		}
		notice := a.notice(&procedure.Event{
			Seq: 33, Type: typ, Time: time.Now(), Op: op, TimeLeft: 8, Cause: mib.FailCauseBootFailed, Text: "no",
			Bank: 2, BankInfo: procedure.Bank{State: mib.BankStateFailed, Running: true, Version: "2", Cause: mib.FailCauseBootFailed},
			Software: "1", ConfigFormat: 3, ResetRequired: true, Reason: mib.RestartReasonRollback, Restarts: 12,
		})
		check(t, notice, n)
		want := map[*mib.Object]mib.Value{
			mib.DeviceId: mib.Str("IAD-7"), mib.EventSeq: mib.Uint32(33), mib.OpId: mib.Uint32(5), mib.OpReqId: mib.Uint32(9),
			mib.OpTimeLeft: mib.Uint32(8), mib.OpElapsed: mib.Uint32(7), mib.RestartCount: mib.Uint32(12),
			mib.BankVersion: mib.Str("2"), mib.SoftwareVersion: mib.Str("1"), mib.ResetRequired: mib.Bool(true),
			mib.OpFailCause: mib.FailCauseBootFailed.Value(), mib.BankRoles: mib.Octets(mib.Bits(0)),
		}
		for i, v := range notice.Varbinds {
			o := n.Objects[i]
			if w, ok := want[o]; ok && !v.Value.Equal(w) {
				t.Errorf("%s: %s is %v, want %v", n.Name, o.Name, v.Value, w)
			}
			wantIndex := uint32(0)
			if o.Kind == mib.Column {
				wantIndex = 2
			}
			if v.OID[len(v.OID)-1] != wantIndex {
				t.Errorf("%s: %s.%d", n.Name, o.Name, v.OID[len(v.OID)-1])
			}
		}
		met++
	}
	if met != 7 {
		t.Errorf("%d kinds of events", met)
	}
}

func check(t *testing.T, notice mib.Notice, n *mib.Notification) {
	t.Helper()
	if notice.Notification != n || len(notice.Varbinds) != len(n.Objects) {
		t.Fatalf("%s has %d varbinds, want %d", n.Name, len(notice.Varbinds), len(n.Objects))
	}
	for i, v := range notice.Varbinds {
		if st, why := n.Objects[i].Check(v.Value); st != mib.NoError {
			t.Errorf("%s: %s", n.Name, why)
		}
	}
}

// The bits of the options are those of the module.
func TestOptionsAreTheModules(t *testing.T) {
	for i, e := range mib.ReqOptions.Enums {
		if got := procedure.Options(1 << i).String(); got != e.Name {
			t.Errorf("option %d is %q, in the module %q", i, got, e.Name)
		}
	}
}

// The defaults of the engine are the DEFVALs of the module.
func TestDefaultsAreTheModules(t *testing.T) {
	v := &view{a: &Agent{}, s: &procedure.Snapshot{Settings: procedure.DefaultSettings()}}
	for _, o := range mib.Objects {
		if o.Default == nil {
			continue
		}
		index := mib.OID{0}
		if o.Kind == mib.Column {
			index = mib.OID{1}
		}
		got, ok := v.Value(o, index)
		if o.IsBits && len(o.Default.Bytes) == 0 {
			got.Bytes = got.Bytes[:0]
		}
		if !ok || !got.Equal(*o.Default) && !(len(got.Bytes)+len(o.Default.Bytes) == 0 && got.Type == o.Default.Type && got.Int == o.Default.Int) {
			t.Errorf("%s is %v, DEFVAL is %v", o.Name, got, *o.Default)
		}
	}
}

// An empty or wrapped table is served in the order of its numbers.
func TestOrdered(t *testing.T) {
	rows := ordered([]mib.OID{{4294967294}, {4294967295}, {1}, {2}})
	for i, want := range []uint32{1, 2, 4294967294, 4294967295} {
		if rows[i][0] != want {
			t.Fatalf("rows %v", rows)
		}
	}
	if rows := ordered(nil); len(rows) != 0 {
		t.Errorf("rows %v", rows)
	}
}

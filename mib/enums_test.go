package mib_test

import (
	"errors"
	"fmt"
	"testing"

	"example.com/iad/mib"
)

// The labels of the types are those of the module's objects.
func TestLabels(t *testing.T) {
	enum := func(o *mib.Object, name func(int64) string) {
		t.Helper()
		for _, e := range o.Enums {
			if got := name(e.Number); got != e.Name {
				t.Errorf("%s %d is %q, in the module %q", o.Name, e.Number, got, e.Name)
			}
		}
		n := o.Enums[len(o.Enums)-1].Number + 1
		if got := name(n); got != fmt.Sprint(n) {
			t.Errorf("%s %d is %q, not in the module", o.Name, n, got)
		}
	}
	enum(mib.OpKind, func(n int64) string { return mib.OperationKind(n).String() })
	enum(mib.OpState, func(n int64) string { return mib.OperationState(n).String() })
	enum(mib.OpPhase, func(n int64) string { return mib.OperationPhase(n).String() })
	enum(mib.OpFailCause, func(n int64) string { return mib.FailCause(n).String() })
	enum(mib.OpAdvice, func(n int64) string { return mib.RetryAdvice(n).String() })
	enum(mib.BankState, func(n int64) string { return mib.BankStateEnum(n).String() })
	enum(mib.ConfirmMode, func(n int64) string { return mib.ConfirmModeEnum(n).String() })
	enum(mib.RestartReason, func(n int64) string { return mib.RestartReasonEnum(n).String() })
	enum(mib.EventType, func(n int64) string { return mib.EventTypeEnum(n).String() })
	enum(mib.FileKind, func(n int64) string { return mib.FileType(n).String() })
	enum(mib.ServerProtocol, func(n int64) string { return mib.Protocol(n).String() })
	if n := len(mib.OpFailCause.Enums); n != len(mib.FailCauses()) {
		t.Errorf("%d causes, %d in the module", len(mib.FailCauses()), n)
	}
}

type withCause struct{ error }

func (withCause) Cause() mib.FailCause { return mib.FailCauseBusy }

func TestCauseOf(t *testing.T) {
	plain := errors.New("x")
	for _, c := range []struct {
		err  error
		want mib.FailCause
	}{
		{nil, mib.FailCauseOther},
		{plain, mib.FailCauseOther},
		{fmt.Errorf("y: %w", errors.Join(plain, withCause{plain})), mib.FailCauseBusy},
	} {
		if got := mib.CauseOf(c.err, mib.FailCauseOther); got != c.want {
			t.Errorf("CauseOf(%v) = %s, want %s", c.err, got, c.want)
		}
	}
}

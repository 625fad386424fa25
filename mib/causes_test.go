package mib_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/iad/mib"
)

// Every cause of the module has exactly one row, complete and in order, and
// the module's text describes each cause once.
func TestEveryCauseHasOneRow(t *testing.T) {
	var enumerated []mib.FailCause
	for _, e := range mib.OpFailCause.Enums {
		c := mib.FailCause(e.Number)
		enumerated = append(enumerated, c)
		x := c.Explain()
		if x.Cause != c || x.What == "" || x.Objects == "" || x.Advice < mib.RetryAdviceNotApplicable || x.Advice > mib.RetryAdviceRestoreFirst {
			t.Errorf("%s: %+v", c, x)
		}
		if (x.Advice == mib.RetryAdviceNotApplicable) != (c == mib.FailCauseNone) {
			t.Errorf("%s: advice %s", c, x.Advice)
		}
		// Only the text that comes with these says what to do.
		general := []mib.FailCause{mib.FailCauseNone, mib.FailCauseOther, mib.FailCauseUnsupported, mib.FailCausePreconditionMissing}
		if (x.Remedy == "") != slices.Contains(general, c) {
			t.Errorf("%s: remedy %q", c, x.Remedy)
		}
	}
	if rows := mib.FailCauses(); !slices.Equal(rows, enumerated) {
		t.Errorf("mib/causes.go has rows for %v, the module has %v", rows, enumerated)
	}
	_, convention, _ := strings.Cut(string(mib.Text), "IadUpgFailCause ::= TEXTUAL-CONVENTION")
	convention, _, _ = strings.Cut(convention, "REFERENCE")
	for _, c := range enumerated {
		if n := len(regexp.MustCompile(`(?m)^        `+c.String()+` `).FindAllString(convention, -1)); n != 1 {
			t.Errorf("the DESCRIPTION of IadUpgFailCause has %d lines for %s", n, c)
		}
	}
}

// A cause of a later revision counts as other, with its number.
func TestUnknownCause(t *testing.T) {
	x := mib.FailCause(250).Explain()
	if x.What != "failed, cause 250" || x.Advice != mib.FailCauseOther.Advice() || x.Objects != mib.FailCauseOther.Explain().Objects {
		t.Errorf("%+v", x)
	}
}

// What the device and the manager once judged differently. Software that was
// given up is not installed again unasked, and what another option or file
// cures is fixFirst.
func TestAdvice(t *testing.T) {
	for cause, want := range map[mib.FailCause]mib.RetryAdvice{
		mib.FailCauseUnsupported:      mib.RetryAdviceFixFirst,
		mib.FailCauseAlreadyInstalled: mib.RetryAdviceFixFirst,
		mib.FailCauseNameNotResolved:  mib.RetryAdviceRetryLater,
		mib.FailCauseProtocolError:    mib.RetryAdviceRetryLater,
		mib.FailCauseBadFormat:        mib.RetryAdviceFixFirst,
		mib.FailCauseEraseError:       mib.RetryAdviceRetryLater,
		mib.FailCauseWriteError:       mib.RetryAdviceRetryLater,
		mib.FailCauseBootFlagError:    mib.RetryAdviceRetryLater,
		mib.FailCauseBootFailed:       mib.RetryAdviceDoNotRetry,
		mib.FailCauseSelfTestFailed:   mib.RetryAdviceDoNotRetry,
		mib.FailCauseWatchdogReset:    mib.RetryAdviceDoNotRetry,
		mib.FailCauseNoFallback:       mib.RetryAdviceFixFirst,
		mib.FailCauseRollbackFailed:   mib.RetryAdviceFixFirst,
		mib.FailCauseConfigReadError:  mib.RetryAdviceRetryLater,
		mib.FailCauseConfigSaveError:  mib.RetryAdviceRetryLater,
		mib.FailCauseAbortedByManager: mib.RetryAdviceRetryNow,
		mib.FailCauseDeadlineExceeded: mib.RetryAdviceRetryLater,
	} {
		if got := cause.Advice(); got != want {
			t.Errorf("%s: advice %s, want %s", cause, got, want)
		}
	}
}

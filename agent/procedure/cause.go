package procedure

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"example.com/iad/mib"
)

// Failure is an error with the cause that the wire needs.
type Failure struct {
	Code mib.FailCause
	Text string
}

func (f *Failure) Error() string { return f.Text }

// Cause returns the number of IadUpgFailCause.
func (f *Failure) Cause() mib.FailCause { return f.Code }

func failure(c mib.FailCause, text string) *Failure { return &Failure{Code: c, Text: cut(text)} }

// classify turns any error into a Failure: that of the error's own cause if it
// has one, else internalError.
func classify(err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return failure(f.Code, f.Text)
	}
	var coded interface {
		error
		Cause() mib.FailCause
	}
	switch {
	case errors.As(err, &coded):
		return &Failure{Code: coded.Cause(), Text: cut(coded.Error())}
	case errors.Is(err, context.DeadlineExceeded):
		return failure(mib.FailCauseDeadlineExceeded, "the time limit has passed")
	}
	return &Failure{Code: mib.FailCauseInternalError, Text: cut(err.Error())}
}

// maxText is the size limit of the texts of IAD-UPGRADE-MIB in bytes.
const maxText = 128

// cutAll joins findings, the most serious first, to a text for the MIB. Where there is
// not room for all, their details are left out, then the last ones are cut, as far as
// still something is said of each.
func cutAll(findings []string) string {
	const sep = "; "
	text := strings.Join(findings, sep)
	if len(text) <= maxText {
		return cut(text)
	}
	short := make([]string, len(findings))
	for i, f := range findings {
		short[i], _, _ = strings.Cut(f, ": ")
	}
	least := max(10, min(16, (maxText-len(sep)*(len(short)-1))/len(short)))
	for i := range slices.Backward(short) {
		over := len(strings.Join(short, sep)) - maxText
		if over > 0 {
			short[i] = cutTo(short[i], max(least, len(short[i])-over))
		}
	}
	return cut(strings.Join(short, sep))
}

// cut makes s printable, valid UTF-8 and short enough for the MIB.
func cut(s string) string { return cutTo(s, maxText) }

// cutTo is cut to a limit of at least some bytes.
func cutTo(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	end := limit - len("…")
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

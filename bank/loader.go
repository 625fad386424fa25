package bank

import (
	"errors"
	"fmt"

	"example.com/iad/bank/image"
	"example.com/iad/mib"
)

// ErrLoaderLost means that the boot loader has no good copy of its state.
var ErrLoaderLost = errors.New("the boot loader's state is lost")

// LoaderState is what a boot loader acts on when the device starts.
type LoaderState struct {
	Next int // the bank to start, 1 or 2
	// Left is how many more starts the software of Next gets to prove itself; the loader
	// takes one off before each start. At 0 it starts Fallback. Uncounted means that the
	// software is good and that its starts are not counted.
	Left int
	// Fallback is the bank to start when Next has no starts left, 0 for none.
	// FallbackNotKept means that this loader has no place for it.
	Fallback int
	// Stale means that the loader counts the starts of good software too, and that the
	// state has to be stored again before they run out.
	Stale bool
}

// Values of the fields of LoaderState that are not numbers of starts or banks.
const (
	Uncounted       = -1
	FallbackNotKept = -1
)

// A Loader is the boot loader of a board: it chooses the bank that starts, and counts
// the starts of software on trial. Package uboot has implementations.
//
// What the loader acts on is written first, and is what counts: after a power cut
// between the two writes the boot record follows it, see [LoaderTable].
type Loader interface {
	// Started returns the bank that the loader started, 0 if it did not say, and in a
	// word why it chose that one.
	Started() (bank int, why string)
	// Load reads the state. The error wraps ErrLoaderLost if no copy of it is good.
	Load() (LoaderState, error)
	// Store replaces the state, durably and at once: after a power cut the loader finds
	// either the old state or the new one.
	Store(LoaderState) error
}

// WhyLost is the reason that a loader gives when it had lost its state.
const WhyLost = "lost"

// loader is the state that makes a boot loader do what the record says.
func (r *Record) loader() LoaderState {
	s := LoaderState{Next: r.Next, Left: Uncounted}
	if n := r.bank(r.Next); n.State == mib.BankStateTrial {
		s.Left = n.TriesLeft
	}
	if f := r.Fallback; f != 0 && f != r.Next && r.bank(f).State == mib.BankStateGood {
		s.Fallback = f
	}
	return s
}

// matches reports whether a loader's state needs no write to be want.
func (s LoaderState) matches(want LoaderState) bool {
	if s.Fallback == FallbackNotKept {
		want.Fallback = FallbackNotKept
	}
	return s == want
}

// loaderView is what a start finds of the loader: its state, after it has counted the
// start, and what it did.
type loaderView struct {
	Loader  LoaderState
	lost    bool // it had no state, or there is none that can be read
	started int  // the bank it started, 0 if it did not say
	why     string
}

// view asks the loader. The error is one of reading its state.
func view(l Loader) (v loaderView, err error) {
	v.started, v.why = l.Started()
	v.Loader, err = l.Load()
	v.lost = err != nil || v.why == WhyLost
	return v, err
}

// reconciliation is the record while it is made to follow the loader.
type reconciliation struct {
	loaderView
	choice
	heads [2]*image.Head
}

func (r *reconciliation) next() *BankRecord { return r.record(r.Loader.Next) }

// counted is how many starts the software of Next had left before this one.
func (r *reconciliation) counted() int {
	if r.started == r.Loader.Next || r.started == 0 && r.Loader.Left > 0 {
		return r.Loader.Left + 1
	}
	return r.Loader.Left
}

// rebuild makes a record of which bank n is next. The floor is the fallback's, if there is
// one.
func (r *reconciliation) rebuild(n int, state mib.BankStateEnum, fallback bool) {
	o := other(n)
	r.adopt(n, state)
	r.Record.Next, r.Record.Floor = n, r.checks[n-1].Floor
	switch {
	case !r.whole(o):
		r.adopt(o, mib.BankStateCorrupt)
	case fallback:
		r.adopt(o, mib.BankStateGood)
		r.Record.Fallback, r.Record.Floor = o, r.checks[o-1].Floor
	default:
		r.adopt(o, mib.BankStateGood)
	}
}

// A loaderRule is a row of the reconciliation: the first one whose when is true applies.
type loaderRule struct {
	Rule
	when func(*reconciliation) bool
	then func(*reconciliation)
}

var loaderRules = []loaderRule{
	{
		Rule: Rule{Name: "both lost", When: "the loader had lost its state, and both copies of the record are lost; the bank that the loader started is complete",
			Then: "that bank is next, and good; the other one, if it is complete, is good and the fallback"},
		when: func(r *reconciliation) bool {
			return r.lost && r.Record.lost() && r.started != 0 && r.whole(r.started)
		},
		then: func(r *reconciliation) { r.rebuild(r.started, mib.BankStateGood, true) },
	},
	{
		Rule: Rule{Name: "loader lost", When: "the loader had lost its state, or no copy of it is good",
			Then: "the record stays as it is"},
		when: func(r *reconciliation) bool { return r.lost },
		then: func(*reconciliation) {},
	},
	{
		Rule: Rule{Name: "record lost", When: "both copies of the record are lost; the loader's next bank is complete",
			Then: "that bank is next: on trial if the loader counts its starts, else good; the other one, if it is complete, is good and the fallback unless the loader says that there is none"},
		when: func(r *reconciliation) bool { return r.Record.lost() && r.whole(r.Loader.Next) },
		then: func(r *reconciliation) {
			state := mib.BankStateGood
			if r.Loader.Left >= 0 {
				state = mib.BankStateTrial
			}
			if r.rebuild(r.Loader.Next, state, r.Loader.Fallback != 0); state == mib.BankStateTrial {
				r.next().TriesLeft = r.counted()
			}
		},
	},
	{
		Rule: Rule{Name: "nothing to follow", When: "both copies of the record are lost; the loader's next bank is not complete",
			Then: "the record is rebuilt from the banks"},
		when: func(r *reconciliation) bool { return r.Record.lost() },
		then: func(*reconciliation) {},
	},
	{
		Rule: Rule{Name: "on trial", When: "the loader counts the starts of its next bank, which is ready, good or on trial",
			Then: "that bank is next and on trial, with the loader's number of starts left: it was activated, counted or tested after the record was written"},
		when: func(r *reconciliation) bool {
			s := r.next().State
			return r.Loader.Left >= 0 && (s == mib.BankStateReady || s == mib.BankStateGood || s == mib.BankStateTrial)
		},
		then: func(r *reconciliation) {
			n := r.next()
			n.State, n.TriesLeft = mib.BankStateTrial, r.counted()
			if r.Record.Next != r.Loader.Next {
				r.Record.Next, r.Record.Fallback = r.Loader.Next, other(r.Loader.Next)
			}
		},
	},
	{
		Rule: Rule{Name: "confirmed", When: "the next bank is the same; it is on trial in the record, and the loader does not count its starts",
			Then: "it is good, and its manifest raises the version floor: it was confirmed after the record was written"},
		when: func(r *reconciliation) bool {
			return r.Loader.Left < 0 && r.Record.Next == r.Loader.Next && r.next().State == mib.BankStateTrial
		},
		then: func(r *reconciliation) {
			r.Record.confirm(r.Loader.Next, r.heads[r.Loader.Next-1])
		},
	},
	{
		Rule: Rule{Name: "given up", When: "the loader's next bank is another one, and it does not count its starts; the record's next bank is on trial, and was started or the loader keeps no fallback",
			Then: "the record's next bank has failed, for the reason recorded before the loader's state was written; the loader's is next"},
		when: func(r *reconciliation) bool {
			return r.Loader.Left < 0 && r.Record.Next != r.Loader.Next && r.record(r.Record.Next).State == mib.BankStateTrial &&
				(r.Record.Running == r.Record.Next || r.Loader.Fallback == FallbackNotKept)
		},
		then: func(r *reconciliation) {
			n := r.record(r.Record.Next)
			switch {
			case n.Cause > mib.FailCauseNone: // recorded before the loader's state was written
				*n = n.failed(n.Cause, n.Text)
			case r.Record.Running == r.Record.Next:
				*n = n.failed(mib.FailCauseOther, "given up by a command to restore the old software")
			default:
				*n = n.failed(mib.FailCauseBootFailed, "the boot loader went back to the old software")
			}
			r.Record.Next, r.Record.Fallback = r.Loader.Next, r.Loader.Next
		},
	},
	{
		Rule: Rule{Name: "withdrawn", When: "the loader's next bank is another one, and it does not count its starts",
			Then: "the loader's bank is next, and the fallback the loader's if it keeps one; a bank that was on trial is what it was before it was activated"},
		when: func(r *reconciliation) bool { return r.Loader.Left < 0 && r.Record.Next != r.Loader.Next },
		then: func(r *reconciliation) {
			r.Record.notStarted(other(r.Loader.Next))
			r.Record.Next, r.Record.Fallback = r.Loader.Next, r.Loader.Next
			if r.Loader.Fallback > 0 {
				r.Record.Fallback = r.Loader.Fallback
			}
		},
	},
	{
		Rule: Rule{Name: "no fallback", When: "the loader has no fallback, and the record has another bank as one",
			Then: "there is none: the loader's was removed because that bank was about to be written"},
		when: func(r *reconciliation) bool {
			return r.Loader.Fallback == 0 && r.Record.Fallback == other(r.Record.Next)
		},
		then: func(r *reconciliation) { r.Record.Fallback = 0 },
	},
}

// reconcile makes a record follow the loader, by the first rule that applies.
func reconcile(rec Record, v loaderView, checks [2]CheckResult, heads [2]*image.Head) (next Record, rule string) {
	r := &reconciliation{loaderView: v, choice: choice{Decision: Decision{Record: rec}, checks: checks}, heads: heads}
	for _, row := range loaderRules {
		if row.when(r) {
			row.then(r)
			return r.Record, row.Name
		}
	}
	return r.Record, ""
}

// LoaderTable returns the rules by which the boot record follows the boot loader at a
// start: the first one that applies.
func LoaderTable() []Rule {
	var rules []Rule
	for _, r := range loaderRules {
		rules = append(rules, r.Rule)
	}
	return rules
}

// confirm makes bank n good and raises the floor if the manifest in its head says so.
func (r *Record) confirm(n int, h *image.Head) {
	b := r.bank(n)
	b.State, b.TriesLeft, b.Confirmed = mib.BankStateGood, 0, true
	b.Cause, b.Text = mib.FailCauseNone, ""
	if h != nil && h.Manifest != nil {
		r.Floor = higher(r.Floor, h.Manifest.Floor)
	}
}

// notStarted makes bank n, if it is on trial, what it was before it was activated.
func (r *Record) notStarted(n int) {
	b := r.bank(n)
	if b.State != mib.BankStateTrial {
		return
	}
	b.State, b.TriesLeft = mib.BankStateReady, 0
	if b.Confirmed {
		b.State = mib.BankStateGood
	}
}

// mustRestart reports whether the loader started a bank that must not run, because it had
// lost its state or has another one than was decided; with the right one it will start
// the bank that was decided.
func mustRestart(d Decision, v loaderView) bool {
	n := v.started
	return n != 0 && d.Bank != 0 && n != d.Bank && d.Record.bank(n).State != mib.BankStateGood &&
		(v.lost || !v.Loader.matches(d.Record.loader()))
}

// elsewhere changes a decision to the bank that the loader started, which runs whatever
// was decided.
func elsewhere(d Decision, v loaderView) Decision {
	n := v.started
	if n == 0 || n == d.Bank {
		return d
	}
	s := d.Record.bank(n)
	text := fmt.Sprintf("the boot loader started bank %d", n)
	if v.why != "" {
		text += ": " + v.why
	}
	if d.Bank != 0 {
		was := d.Record.bank(d.Bank)
		if d.RolledBack, d.Cause, d.Text = d.Bank, mib.FailCauseBootFailed, text; v.lost {
			d.Cause = mib.FailCauseBootFlagError
		}
		if was.State == mib.BankStateTrial {
			*was = was.failed(d.Cause, text)
		}
	}
	d.Rule, d.Bank, d.Trial = "started by the loader", n, s.State == mib.BankStateTrial
	d.Record.Next, d.Record.Running = n, n
	if f := d.Record.Fallback; f == n || d.Record.bank(f).State != mib.BankStateGood {
		d.Record.Fallback = 0
	}
	if o := other(n); d.Record.bank(o).State == mib.BankStateGood {
		d.Record.Fallback = o
	}
	return d
}

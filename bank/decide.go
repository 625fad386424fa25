package bank

import (
	"fmt"
	"io"
	"strings"

	"example.com/iad/bank/image"
	"example.com/iad/mib"
)

// Contents is what a check of a bank's files found.
type Contents uint8

// The contents of a bank.
const (
	ContentsNone     Contents = 1 // no files
	ContentsDamaged  Contents = 2 // something is missing or its hash is wrong
	ContentsForeign  Contents = 3 // complete in itself, but not what the record names
	ContentsComplete Contents = 4 // every hash is right
)

// A CheckResult is what a hash check found in one bank.
type CheckResult struct {
	Contents     Contents
	Text         string // what is wrong, "" with ContentsComplete
	Digest       string // SHA-256 of the manifest in hexadecimal, "" if there is none
	Version      string // as the manifest says; these are "" and 0 if it is unreadable
	Floor        string
	ConfigFormat uint32
}

// A Decision is what Decide makes of a record and two checks.
type Decision struct {
	Rule       string        // name of the rule that applied
	Bank       int           // the bank to start, 0 if none can: rescue mode
	Trial      bool          // it starts on trial
	RolledBack int           // the bank that was to start and does not, 0 none
	Cause      mib.FailCause // why not, mib.FailCauseNone if RolledBack is 0
	Text       string        // detail to Cause
	Record     Record        // what must be recorded before the software starts
}

// A Rule is a row of the boot decision: the first one whose When is true decides.
type Rule struct {
	Name string
	When string // for documentation
	Then string // for documentation

	when func(*choice) bool
	then func(*choice)
}

// choice is a boot decision in the making. n is the bank recorded as next, o the
// other one; bank numbers that are not fixed by the record (rules that try n, then
// o) are left in pick.
type choice struct {
	Decision
	checks [2]CheckResult
	n, o   int
	pick   int
}

func (b *choice) contents(n int) Contents { return b.checks[n-1].Contents }
func (b *choice) complete(n int) bool     { return b.contents(n) == ContentsComplete }
func (b *choice) is(n int, s mib.BankStateEnum) bool {
	return b.Record.bank(n).State == s && b.complete(n)
}
func (b *choice) record(n int) *BankRecord { return b.Record.bank(n) }

// choose sets pick to the first of n and o for which ok holds.
func (b *choice) choose(ok func(n int) bool) bool {
	for _, n := range [2]int{b.n, b.o} {
		if ok(n) {
			b.pick = n
			return true
		}
	}
	return false
}

// start makes n the bank that starts.
func (b *choice) start(n int) {
	b.Bank = n
	b.Record.Next, b.Record.Running = n, n
}

// try starts n on trial, which costs a try if there is one left.
func (b *choice) try(n int) {
	r := b.record(n)
	if r.State != mib.BankStateTrial {
		*r = BankRecord{State: mib.BankStateTrial, TriesLeft: Tries, Digest: b.checks[n-1].Digest,
			Generation: r.Generation, Written: r.Written, Cause: mib.FailCauseNone}
	}
	if r.TriesLeft > 0 {
		r.TriesLeft--
	}
	b.Trial = true
	b.start(n)
}

// usedUp marks bank n, if it is on trial, as failed.
func (b *choice) usedUp(n int) {
	if r := b.record(n); r.State == mib.BankStateTrial {
		*r = r.failed(mib.FailCauseBootFailed, fmt.Sprintf("started %d times without passing its self-test", Tries))
	}
}

// fallBack starts o instead of n. From then on o is what Restore selects, which
// therefore succeeds at once.
func (b *choice) fallBack() {
	b.usedUp(b.n)
	r := b.record(b.n)
	b.RolledBack = b.n
	b.Cause, b.Text = r.Cause, r.Text
	if b.Cause <= mib.FailCauseNone {
		b.Cause, b.Text = mib.FailCauseOther, fmt.Sprintf("bank %d is %s", b.n, r.State)
	}
	b.Record.Fallback = b.o
	b.start(b.o)
}

// rescue starts nothing. If there is no record, what was found is used as one but not
// recorded: what cannot be read now may be readable at the next start.
func (b *choice) rescue() {
	if b.Record.lost() {
		b.adopt(1, mib.BankStateCorrupt)
		b.adopt(2, mib.BankStateCorrupt)
		b.Record.Next = 1
	}
	b.Record.Running, b.Record.Fallback = 0, 0
}

// preRules prepare the record: every one that applies is carried out, in order.
var preRules = []Rule{
	{
		Name: "record lost, both banks complete",
		When: "both copies of the record are lost; both banks are complete",
		Then: "the bank with the higher version (bank 1 if they are equal) is next, on trial; the other one is good and the fallback; the floor is the fallback's",
		when: func(b *choice) bool { return b.Record.lost() && b.whole(1) && b.whole(2) },
		then: func(b *choice) {
			next := 1
			if image.Older(b.checks[0].Version, b.checks[1].Version) {
				next = 2
			}
			b.adopt(next, mib.BankStateTrial)
			b.adopt(other(next), mib.BankStateGood)
			b.Record.Next, b.Record.Fallback = next, other(next)
			b.Record.Floor = b.checks[other(next)-1].Floor
		},
	},
	{
		Name: "record lost, one bank complete",
		When: "both copies of the record are lost; one bank is complete",
		Then: "that bank is next, and good: there is nothing to fall back on; the floor is its own",
		when: func(b *choice) bool { return b.Record.lost() && b.whole(1) != b.whole(2) },
		then: func(b *choice) {
			next := 1
			if b.whole(2) {
				next = 2
			}
			b.adopt(next, mib.BankStateGood)
			b.adopt(other(next), mib.BankStateCorrupt)
			b.Record.Next = next
			b.Record.Floor = b.checks[next-1].Floor
		},
	},
	{
		Name: "damaged bank",
		When: "a bank recorded as ready, trial, good or failed is not complete, or holds other software than recorded",
		Then: "it is corrupt, and no fallback",
		when: func(b *choice) bool { return !b.Record.lost() && (b.broken(1) || b.broken(2)) },
		then: func(b *choice) {
			for n := 1; n <= 2; n++ {
				if !b.broken(n) {
					continue
				}
				r := b.record(n)
				r.State, r.TriesLeft = mib.BankStateCorrupt, 0
				r.Cause, r.Text = mib.FailCauseDigestMismatch, shorten(b.checks[n-1].Text)
				if b.Record.Fallback == n {
					b.Record.Fallback = 0
				}
			}
		},
	},
	{
		Name: "recovered bank",
		When: "a bank recorded as corrupt was good before, and is complete",
		Then: "it is good again, because now it can be read; it is the fallback if there is none and the other one is next",
		when: func(b *choice) bool { return !b.Record.lost() && (b.recovered(1) || b.recovered(2)) },
		then: func(b *choice) {
			for n := 1; n <= 2; n++ {
				if !b.recovered(n) {
					continue
				}
				r := b.record(n)
				r.State, r.Cause, r.Text = mib.BankStateGood, mib.FailCauseNone, ""
				if b.Record.Fallback == 0 && b.Record.Next != n {
					b.Record.Fallback = n
				}
			}
		},
	},
}

// prepare carries out every rule that repairs the record and applies.
func (b *choice) prepare() {
	for _, r := range preRules {
		if r.when(b) {
			r.then(b)
		}
	}
}

// recovered reports whether bank n was good, was then found damaged, and is whole.
func (b *choice) recovered(n int) bool { return b.is(n, mib.BankStateCorrupt) && b.record(n).Confirmed }

// whole reports whether bank n is complete, recorded or not.
func (b *choice) whole(n int) bool { return b.contents(n) >= ContentsForeign }

// broken reports whether bank n is less than its record claims.
func (b *choice) broken(n int) bool { return written(b.record(n).State) && !b.complete(n) }

// adopt records what was found in a bank of which nothing is known.
func (b *choice) adopt(n int, s mib.BankStateEnum) {
	c := &b.checks[n-1]
	r := BankRecord{State: s, Digest: c.Digest, Cause: mib.FailCauseNone}
	switch {
	case c.Contents == ContentsNone:
		r.State = mib.BankStateEmpty
	case c.Contents == ContentsForeign:
		c.Contents = ContentsComplete
	case c.Contents == ContentsDamaged:
		r.Cause, r.Text = mib.FailCauseDigestMismatch, shorten(c.Text)
	}
	switch r.State {
	case mib.BankStateTrial:
		r.TriesLeft = Tries
	case mib.BankStateGood:
		r.Confirmed = true
	}
	*b.record(n) = r
}

// Names of the rules that do not depend on the bank that is not to start.
const (
	ruleTrial = "trial"
	ruleGood  = "good"
)

// rules choose the bank: the first one that applies decides.
var rules = []Rule{
	{
		Name: "no software",
		When: "there is no record and no complete bank",
		Then: "rescue mode; nothing is recorded",
		when: func(b *choice) bool { return b.Record.lost() },
		then: (*choice).rescue,
	},
	{
		Name: ruleTrial,
		When: "the next bank is on trial, complete, and has tries left",
		Then: "it starts, with one try less",
		when: func(b *choice) bool { return b.is(b.n, mib.BankStateTrial) && b.record(b.n).TriesLeft > 0 },
		then: func(b *choice) { b.try(b.n) },
	},
	{
		Name: ruleGood,
		When: "the next bank is good and complete",
		Then: "it starts",
		when: func(b *choice) bool { return b.is(b.n, mib.BankStateGood) },
		then: func(b *choice) { b.start(b.n) },
	},
	{
		Name: "tries used up",
		When: "the next bank is on trial, complete, without tries left; the other one is good and complete",
		Then: "the next bank has failed; the other one starts",
		when: func(b *choice) bool { return b.is(b.n, mib.BankStateTrial) && b.is(b.o, mib.BankStateGood) },
		then: func(b *choice) { b.fallBack() },
	},
	{
		Name: "fallback",
		When: "the next bank cannot start; the other one is good and complete",
		Then: "the other one starts",
		when: func(b *choice) bool { return b.is(b.o, mib.BankStateGood) },
		then: func(b *choice) { b.fallBack() },
	},
	{
		Name: "unproven",
		When: "no bank is good; one (the next one first) is ready, or on trial with tries left, and complete",
		Then: "it starts on trial, without a fallback",
		when: func(b *choice) bool {
			return b.choose(func(n int) bool {
				return b.is(n, mib.BankStateReady) || b.is(n, mib.BankStateTrial) && b.record(n).TriesLeft > 0
			})
		},
		then: func(b *choice) { b.desperate() },
	},
	{
		Name: "last resort",
		When: "no bank is in a state to start; one (the next one first) is complete in itself, and has neither failed nor used up its tries",
		Then: "it starts on trial, without a fallback",
		when: func(b *choice) bool {
			return b.choose(func(n int) bool { return b.whole(n) && !b.is(n, mib.BankStateFailed) && !b.is(n, mib.BankStateTrial) })
		},
		then: func(b *choice) { b.desperate() },
	},
	{
		Name: "no usable bank",
		When: "no bank is complete, apart from software that was given up or has used up its tries",
		Then: "rescue mode; software without tries left has failed",
		when: func(b *choice) bool { return true },
		then: func(b *choice) {
			b.usedUp(b.n)
			b.usedUp(b.o)
			b.rescue()
		},
	},
}

// desperate starts the picked bank on trial though nothing is left to fall back on.
func (b *choice) desperate() {
	if b.pick != b.n {
		b.fallBack()
	}
	b.Record.Fallback = 0
	b.try(b.pick)
}

// Decide chooses the bank to start from what is recorded and what a check of each
// bank found. It is pure: the same arguments give the same decision. The caller
// records Decision.Record before it starts the software.
func Decide(rec Record, checks [2]CheckResult) Decision {
	b := &choice{Decision: Decision{Record: rec, Cause: mib.FailCauseNone}, checks: checks}
	b.prepare()
	b.n = b.Record.Next
	if b.n != 0 {
		b.o = other(b.n)
	}
	for _, r := range rules {
		if r.when(b) {
			b.Rule = r.Name
			r.then(b)
			break
		}
	}
	return b.Decision
}

// BootTable returns the boot decision as a table: prepare lists the rules that
// repair the record, each of which is carried out if it applies; choose lists the
// rules of which the first that applies decides.
func BootTable() (prepare, choose []Rule) {
	return append([]Rule(nil), preRules...), append([]Rule(nil), rules...)
}

// WriteBootTable writes the boot decision as two tables in Markdown.
func WriteBootTable(w io.Writer) error {
	var s strings.Builder
	prepare, choose := BootTable()
	s.WriteString("If the next bank is good or on trial, only that one is read before the software starts. The other one is taken for what the record says, and read once the agent serves: then the rules for a damaged and a recovered bank are applied to it. In all other cases both banks are read first.\n\n")
	s.WriteString("First the record is repaired; every row that applies is carried out:\n\n")
	writeRules(&s, prepare)
	s.WriteString("\nThen the first row that applies decides:\n\n")
	writeRules(&s, choose)
	s.WriteString("\nOn a board whose boot loader chooses the bank, the record first follows the loader, whose state was written first. The first row that applies is carried out:\n\n")
	writeRules(&s, LoaderTable())
	s.WriteString("\nThe bank that the loader started runs, whatever the record says, with two exceptions: if the loader had lost its state, or had one that differs from what was decided, and the bank that it started is not good, the loader's state is written and the board restarts once more.\n")
	_, err := io.WriteString(w, s.String())
	return err
}

func writeRules(s *strings.Builder, rules []Rule) {
	s.WriteString("| | rule | when | then |\n|---|---|---|---|\n")
	for i, r := range rules {
		fmt.Fprintf(s, "| %d | %s | %s | %s |\n", i+1, r.Name, r.When, r.Then)
	}
}

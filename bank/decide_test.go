package bank

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"example.com/iad/mib"
)

var update = flag.Bool("update", false, "write the golden files anew")

// bankIs makes the record of a bank by what it is and what is found in it.
type bankIs struct {
	state mib.BankStateEnum
	tries int
	found Contents
}

func decideFor(next, fallback int, banks [2]bankIs) Decision {
	return Decide(given(next, fallback, banks))
}

// given is the record and the findings of a decision.
func given(next, fallback int, banks [2]bankIs) (Record, [2]CheckResult) {
	rec := Record{Next: next, Running: next, Fallback: fallback, Floor: "0.1.0"}
	var checks [2]CheckResult
	for i, b := range banks {
		digest := strings.Repeat([]string{"1a", "2b"}[i], 32)
		rec.Banks[i] = BankRecord{State: b.state, TriesLeft: b.tries, Digest: digest, Cause: mib.FailCauseNone}
		checks[i] = CheckResult{Contents: b.found, Digest: digest, Version: []string{"1.0.0", "2.0.0"}[i], Floor: []string{"", "2.0.0"}[i]}
		if b.found != ContentsComplete {
			checks[i].Text = "damage"
		}
	}
	if next == 0 {
		rec = Record{}
	}
	return rec, checks
}

// TestDecide goes through the table; every rule is met.
func TestDecide(t *testing.T) {
	good := bankIs{mib.BankStateGood, 0, ContentsComplete}
	bad := bankIs{mib.BankStateGood, 0, ContentsDamaged}
	empty := bankIs{mib.BankStateEmpty, 0, ContentsNone}
	is := func(s mib.BankStateEnum, found Contents) bankIs { return bankIs{s, 0, found} }
	trial := func(tries int) bankIs { return bankIs{mib.BankStateTrial, tries, ContentsComplete} }
	whole := bankIs{0, 0, ContentsComplete}

	met := make(map[string]bool)
	for _, test := range []struct {
		name           string
		next, fallback int
		banks          [2]bankIs
		rule           string
		bank           int
		trial          bool
		rolledBack     int
		cause          mib.FailCause
		states         [2]mib.BankStateEnum
		newFallback    int
	}{
		{"ordinary", 1, 0, [2]bankIs{good, empty}, "good", 1, false, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateEmpty}, 0},
		{"ready one waits", 1, 1, [2]bankIs{good, is(mib.BankStateReady, ContentsComplete)}, "good", 1, false, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateReady}, 1},
		{"interrupted download", 1, 1, [2]bankIs{good, is(mib.BankStateWriting, ContentsDamaged)}, "good", 1, false, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateWriting}, 1},
		{"trial", 2, 1, [2]bankIs{good, trial(3)}, "trial", 2, true, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateTrial}, 1},
		{"last trial", 2, 1, [2]bankIs{good, trial(1)}, "trial", 2, true, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateTrial}, 1},
		{"trial without fallback", 2, 1, [2]bankIs{bad, trial(1)}, "trial", 2, true, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateCorrupt, mib.BankStateTrial}, 0},
		{"tries used up", 2, 1, [2]bankIs{good, trial(0)}, "tries used up", 1, false, 2, mib.FailCauseBootFailed, [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateFailed}, 1},
		{"trial damaged", 2, 1, [2]bankIs{good, {mib.BankStateTrial, 2, ContentsDamaged}}, "fallback", 1, false, 2, mib.FailCauseDigestMismatch, [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateCorrupt}, 1},
		{"good damaged", 2, 1, [2]bankIs{good, bad}, "fallback", 1, false, 2, mib.FailCauseDigestMismatch, [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateCorrupt}, 1},
		{"good is another", 2, 1, [2]bankIs{good, is(mib.BankStateGood, ContentsForeign)}, "fallback", 1, false, 2, mib.FailCauseDigestMismatch, [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateCorrupt}, 1},
		{"good damaged, ready left", 1, 1, [2]bankIs{bad, is(mib.BankStateReady, ContentsComplete)}, "unproven", 2, true, 1, mib.FailCauseDigestMismatch, [2]mib.BankStateEnum{mib.BankStateCorrupt, mib.BankStateTrial}, 0},
		{"no tries, nothing else", 2, 1, [2]bankIs{bad, trial(0)}, "no usable bank", 0, false, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateCorrupt, mib.BankStateFailed}, 0},
		{"no tries, ready left", 2, 0, [2]bankIs{is(mib.BankStateReady, ContentsComplete), trial(0)}, "unproven", 1, true, 2, mib.FailCauseBootFailed, [2]mib.BankStateEnum{mib.BankStateTrial, mib.BankStateFailed}, 0},
		{"only a failed one", 1, 1, [2]bankIs{bad, is(mib.BankStateFailed, ContentsComplete)}, "no usable bank", 0, false, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateCorrupt, mib.BankStateFailed}, 0},
		{"failed without fallback", 2, 0, [2]bankIs{empty, is(mib.BankStateFailed, ContentsComplete)}, "no usable bank", 0, false, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateEmpty, mib.BankStateFailed}, 0},
		{"only an unfinished one", 1, 1, [2]bankIs{bad, is(mib.BankStateVerifying, ContentsComplete)}, "last resort", 2, true, 1, mib.FailCauseDigestMismatch, [2]mib.BankStateEnum{mib.BankStateCorrupt, mib.BankStateTrial}, 0},
		{"only another one", 1, 2, [2]bankIs{bad, is(mib.BankStateGood, ContentsForeign)}, "last resort", 2, true, 1, mib.FailCauseDigestMismatch, [2]mib.BankStateEnum{mib.BankStateCorrupt, mib.BankStateTrial}, 0},
		{"corrupt one has recovered", 2, 0, [2]bankIs{empty, is(mib.BankStateCorrupt, ContentsComplete)}, "last resort", 2, true, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateEmpty, mib.BankStateTrial}, 0},
		{"nothing", 1, 0, [2]bankIs{bad, bad}, "no usable bank", 0, false, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateCorrupt, mib.BankStateCorrupt}, 0},
		{"record lost, both", 0, 0, [2]bankIs{whole, whole}, "trial", 2, true, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateTrial}, 1},
		{"record lost, first", 0, 0, [2]bankIs{whole, {0, 0, ContentsDamaged}}, "good", 1, false, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateGood, mib.BankStateCorrupt}, 0},
		{"record lost, second", 0, 0, [2]bankIs{{0, 0, ContentsNone}, whole}, "good", 2, false, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateEmpty, mib.BankStateGood}, 0},
		{"record lost, none", 0, 0, [2]bankIs{{0, 0, ContentsNone}, {0, 0, ContentsDamaged}}, "no software", 0, false, 0, mib.FailCauseNone, [2]mib.BankStateEnum{mib.BankStateEmpty, mib.BankStateCorrupt}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := decideFor(test.next, test.fallback, test.banks)
			met[d.Rule] = true
			states := [2]mib.BankStateEnum{d.Record.Banks[0].State, d.Record.Banks[1].State}
			if d.Rule != test.rule || d.Bank != test.bank || d.Trial != test.trial || d.RolledBack != test.rolledBack ||
				d.Cause != test.cause || states != test.states || d.Record.Fallback != test.newFallback {
				t.Errorf("%+v", d)
			}
		})
	}
	_, choose := BootTable()
	for _, r := range choose {
		if !met[r.Name] {
			t.Errorf("no test for the rule %q", r.Name)
		}
	}
}

// TestDecideRecovered: a good bank that was found damaged and is whole is good again.
func TestDecideRecovered(t *testing.T) {
	for _, next := range []int{1, 2} {
		rec := decideFor(next, 0, [2]bankIs{{mib.BankStateGood, 0, ContentsComplete}, {mib.BankStateGood, 0, ContentsComplete}}).Record
		var checks [2]CheckResult
		for i := range rec.Banks {
			rec.Banks[i].Confirmed = true
			checks[i] = CheckResult{Contents: ContentsComplete, Digest: rec.Banks[i].Digest, Version: "1.0.0"}
		}
		bank2 := rec.bank(2)
		bank2.State, bank2.Cause, bank2.Text = mib.BankStateCorrupt, mib.FailCauseDigestMismatch, "input/output error"
		d := Decide(rec, checks)
		if want := map[int]int{1: 2, 2: 0}[next]; d.Bank != next || d.Record.bank(2).State != mib.BankStateGood || d.Record.Fallback != want {
			t.Errorf("next %d: %+v", next, d)
		}
		checks[1].Contents = ContentsForeign
		if d := Decide(rec, checks); d.Bank != 1 || d.Record.bank(2).State != mib.BankStateCorrupt {
			t.Errorf("next %d, other software: %+v", next, d)
		}
		bank2.Confirmed, checks[1].Contents = false, ContentsComplete
		if d := Decide(rec, checks); d.Bank != 1 || d.Record.bank(2).State != mib.BankStateCorrupt {
			t.Errorf("next %d, never confirmed: %+v", next, d)
		}
	}
}

// TestDecideAlways checks what must hold for every record and every finding.
func TestDecideAlways(t *testing.T) {
	var all []bankIs
	for s := mib.BankStateEmpty; s <= mib.BankStateCorrupt; s++ {
		for f := ContentsNone; f <= ContentsComplete; f++ {
			all = append(all, bankIs{s, 0, f})
			if s == mib.BankStateTrial {
				all = append(all, bankIs{s, 1, f}, bankIs{s, Tries, f})
			}
		}
	}
	startable := func(b bankIs) bool { return b.found == ContentsComplete && b.state == mib.BankStateGood }
	for next := 1; next <= 2; next++ {
		for fallback := 0; fallback <= 2; fallback++ {
			for _, b1 := range all {
				for _, b2 := range all {
					banks := [2]bankIs{b1, b2}
					rec, checks := given(next, fallback, banks)
					d := Decide(rec, checks)
					bad := func(why string) {
						t.Errorf("next %d, fallback %d, %+v: %s: %+v", next, fallback, banks, why, d)
					}
					// What was given up does not start again.
					usable := func(b bankIs) bool {
						over := b.state == mib.BankStateFailed || b.state == mib.BankStateTrial && b.tries == 0
						return b.found >= ContentsForeign && !(over && b.found == ContentsComplete)
					}
					switch {
					case (d.Bank != 0) != (usable(b1) || usable(b2)):
						bad("a usable bank starts, if there is one")
					case d.Record.check() != nil:
						bad(d.Record.check().Error())
					case d.Bank == 0:
						again := Decide(d.Record, checks)
						if again.Bank != 0 || again.Record != d.Record || d.Record.Running != 0 || d.Record.Fallback != 0 || d.Record.ready() != 0 {
							bad("rescue mode does not last as it is")
						}
					case banks[d.Bank-1].found < ContentsForeign:
						bad("an incomplete bank starts")
					case startable(banks[next-1]) && d.Bank != next:
						bad("good software does not start")
					case !startable(banks[d.Bank-1]) && banks[d.Bank-1].state != mib.BankStateTrial && (startable(b1) || startable(b2)):
						bad("good software is passed over")
					case d.Record.check() != nil:
						bad(d.Record.check().Error())
					case d.Record.Next != d.Bank || d.Record.Running != d.Bank:
						bad("the record names another bank")
					case d.RolledBack == d.Bank || d.RolledBack != 0 && d.RolledBack != next || (d.RolledBack == 0) != (d.Cause == mib.FailCauseNone):
						bad("wrong report")
					case d.Record.Fallback != 0 && !startable(banks[d.Record.Fallback-1]) && d.Record.Fallback != fallback:
						bad("new fallback that is not good")
					}
					// Starting again and again, the software on trial ends.
					if d.Trial && startable(banks[other(d.Bank)-1]) {
						if left := d.Record.bank(d.Bank).TriesLeft; left >= Tries {
							bad("a try that is not counted")
						}
					}
				}
			}
		}
	}
}

// TestBootTable keeps the documentation of the decision current: -update writes it.
func TestBootTable(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("# Which bank starts\n\nGenerated from the rules in decide.go by `go test -run TestBootTable -update`.\n\n")
	if err := WriteBootTable(&b); err != nil {
		t.Fatal(err)
	}
	const name = "BOOT.md"
	if *update {
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || !bytes.Equal(want, b.Bytes()) {
		t.Errorf("%s is not current (%v): run go test -run TestBootTable -update", name, err)
	}
}

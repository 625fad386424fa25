package bank

import (
	"testing"

	"example.com/iad/mib"
)

// Tries count starts that did not come to a passed self-test: others cost none, however
// many there are.
func TestTriesAfterAPassedSelfTest(t *testing.T) {
	opt := device(t)
	b, _ := boot(t, opt)
	install(t, b, "2.0.0")
	if err := b.Activate(2); err != nil {
		t.Fatal(err)
	}
	for i := range 3 * Tries {
		b, report := boot(t, opt)
		if report.Bank != 2 || !report.Trial || b.Status().Banks[1].TriesLeft != Tries-1 {
			t.Fatalf("start %d: %+v", i, report)
		}
		for range 2 {
			if err := b.Tested(); err != nil {
				t.Fatal(err)
			}
		}
		if left := b.Status().Banks[1].TriesLeft; left != Tries {
			t.Fatalf("start %d: %d tries left", i, left)
		}
	}
	for range Tries {
		boot(t, opt)
	}
	b, report := boot(t, opt)
	if report.Bank != 1 || report.Cause != mib.FailCauseBootFailed {
		t.Fatalf("%+v", report)
	}
	if err := b.Tested(); err != nil || b.Status().Banks[0].TriesLeft != 0 {
		t.Errorf("good software: %v, %d tries", err, b.Status().Banks[0].TriesLeft)
	}
}

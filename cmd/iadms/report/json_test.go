package report_test

import (
	"strings"
	"testing"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/manager"
	"example.com/iad/mib"
)

// Whatever stops a transfer, people and programs get a remedy.
func TestTransferRemedies(t *testing.T) {
	for c := mib.FailCauseNameNotResolved; c <= mib.FailCauseStorageFull; c++ {
		if !strings.Contains("0123456789", c.String()[:1]) { // the numbers between two classes have no name
			f := &manager.Failure{Device: "A", Kind: mib.OperationKindDownloadSoftware, Cause: c, Text: "as the device says"}
			if r := report.NewFailure(f).Remedy; r == "" || !strings.HasSuffix(f.Error(), "; "+r) {
				t.Errorf("%v: remedy %q, text %q", c, r, f)
			}
		}
	}
}

package main

import (
	"bytes"
	"strings"
	"testing"

	"example.com/iad/agent"
	"example.com/iad/mib"
)

// The status of a device whose last operation failed names a remedy.
func TestStatusRemedy(t *testing.T) {
	st := &agent.Status{}
	st.Op.ID, st.Op.Cause, st.Op.Text = 1, mib.FailCauseFileNotFound, "550 no such file"
	want := mib.FailCauseFileNotFound.Explain().Remedy
	var text, document bytes.Buffer
	if err := writeText(&text, "A", st); err != nil || !strings.Contains(text.String(), "To do: "+want+"\n") {
		t.Errorf("%v, %s", err, &text)
	}
	if err := writeJSON(&document, "A", st); err != nil || want == "" || !strings.Contains(document.String(), `"remedy": "`+want+`"`) && !strings.Contains(document.String(), `"remedy":"`+want+`"`) {
		t.Errorf("%v, %s", err, &document)
	}
}

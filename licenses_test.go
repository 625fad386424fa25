package iad_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestThirdPartyLicenses compares the table of licences with the modules that the
// programs are linked with.
func TestThirdPartyLicenses(t *testing.T) {
	programs := []string{"iad", "iadms", "iadsim", "iadlab", "iadmsd"}
	want := make(map[string][]string) // module: programs
	for _, program := range programs {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-deps",
			"-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "./cmd/"+program)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		for _, name := range strings.Fields(string(out)) {
			if have := want[name]; len(have) == 0 || have[len(have)-1] != program {
				want[name] = append(have, program)
			}
		}
	}
	text, err := os.ReadFile("THIRD-PARTY-LICENSES.md")
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string][]string)
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 4+len(programs) || !strings.Contains(cells[1], "/") {
			continue
		}
		name := strings.TrimSpace(cells[1])
		if strings.TrimSpace(cells[2]) == "" {
			t.Errorf("%s: no licence", name)
		}
		for i, program := range programs {
			if strings.TrimSpace(cells[3+i]) == "yes" {
				got[name] = append(got[name], program)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("THIRD-PARTY-LICENSES.md (-programs +table):\n%s", diff)
	}
}

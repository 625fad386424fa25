package agent_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/iad/agent/procedure"
	"example.com/iad/bank"
	"example.com/iad/mib"
)

var update = flag.Bool("update", false, "write the generated parts of the documentation")

// generated is a part of a documentation file between two comment lines.
type generated struct {
	file, part string
	write      func(*bytes.Buffer)
}

var documentation = []generated{
	{"procedure.md", "diagram", writeDiagram},
	{"procedure.md", "transitions", writeTransitions},
	{"procedure.md", "phases", writePhases},
	{"procedure.md", "boot", func(b *bytes.Buffer) { _ = bank.WriteBootTable(b) }},
	{"mib.md", "causes", writeCauses},
}

// The tables in docs/ are those of the code. "go test ./agent -run
// TestDocumentation -update" writes them.
func TestDocumentation(t *testing.T) {
	for _, g := range documentation {
		path := filepath.Join("..", "docs", g.file)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		begin, end := []byte("<!-- begin generated: "+g.part+" -->\n"), []byte("<!-- end generated -->\n")
		i := bytes.Index(data, begin)
		j := bytes.Index(data[max(i, 0):], end)
		if i < 0 || j < 0 {
			t.Fatalf("%s: no part %q", path, g.part)
		}
		i, j = i+len(begin), i+j
		var b bytes.Buffer
		b.WriteString("\n")
		g.write(&b)
		b.WriteString("\n")
		if bytes.Equal(data[i:j], b.Bytes()) {
			continue
		}
		if !*update {
			t.Errorf("%s: part %q is not current; write it by go test ./agent -run TestDocumentation -update", path, g.part)
			continue
		}
		if err := os.WriteFile(path, slices.Concat(data[:i], b.Bytes(), data[j:]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func writeDiagram(b *bytes.Buffer) {
	b.WriteString("```mermaid\nstateDiagram-v2\n    [*] --> idle\n")
	// Rows between the same two states make one arrow.
	type arrow struct{ from, to mib.OperationState }
	var order []arrow
	labels := map[arrow][]string{}
	for _, tr := range procedure.Transitions() {
		a := arrow{tr.From, tr.To}
		if labels[a] == nil {
			order = append(order, a)
		}
		labels[a] = append(labels[a], tr.On.String())
	}
	for _, a := range order {
		fmt.Fprintf(b, "    %s --> %s: %s\n", a.from, a.to, strings.Join(labels[a], ", "))
	}
	b.WriteString("```\n")
}

func writeTransitions(b *bytes.Buffer) {
	b.WriteString("| state | on | next state | because |\n|---|---|---|---|\n")
	for _, tr := range procedure.Transitions() {
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", tr.From, tr.On, tr.To, tr.Why)
	}
}

func writePhases(b *bytes.Buffer) {
	b.WriteString("| operation | options | phases |\n|---|---|---|\n")
	const activate, reset = procedure.ThenActivate, procedure.ThenReset
	for _, row := range []struct {
		kind    mib.OperationKind
		options procedure.Options
	}{
		{mib.OperationKindBackupConfig, 0}, {mib.OperationKindDownloadSoftware, 0}, {mib.OperationKindDownloadSoftware, activate},
		{mib.OperationKindDownloadSoftware, activate | reset}, {mib.OperationKindActivate, 0}, {mib.OperationKindActivate, reset},
		{mib.OperationKindReset, 0}, {mib.OperationKindRestoreOldSoftware, 0}, {mib.OperationKindRecoverConfig, 0},
		{mib.OperationKindRecoverConfig, reset}, {mib.OperationKindConvertConfig, 0},
	} {
		var names []string
		for _, p := range procedure.Plan(row.kind, row.options) {
			names = append(names, p.String())
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", row.kind, row.options, strings.Join(names, ", "))
	}
}

func writeCauses(b *bytes.Buffer) {
	b.WriteString("| | cause | advice of the device | what to do |\n|---|---|---|---|\n")
	for _, c := range mib.FailCauses() {
		fmt.Fprintf(b, "| %d | `%s` | %s | %s |\n", c, c, c.Advice(), c.Explain().Objects)
	}
}

package manager_test

import (
	"context"
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/manager"
	"example.com/iad/manager/files"
)

// editor marks the files with the new format, as a human finds them, and has each call
// append a line to userData, or nothing if that is empty.
type editor struct {
	lines []string
	calls int
}

func (e *editor) Modify(_ context.Context, m manager.Modification) error {
	if err := files.SetFormat(m.Files, m.Draft, m.To); err != nil {
		return err
	}
	line := ""
	if e.calls < len(e.lines) {
		line = e.lines[e.calls]
	}
	e.calls++
	name := path.Join(m.Draft, "userData.cfg")
	data, err := afero.ReadFile(m.Files, name)
	if err != nil {
		return err
	}
	if line == "correct" {
		data = []byte(strings.ReplaceAll(string(data), "this is no setting\n", ""))
	} else {
		data = append(data, line...)
	}
	if err := afero.WriteFile(m.Files, name, data, 0o600); err != nil {
		return err
	}
	if same, err := m.Unchanged(); same || err != nil {
		return errors.Join(manager.ErrUnchanged, err)
	}
	return nil
}

// idle is a program that does nothing.
type idle struct{}

func (idle) Modify(context.Context, manager.Modification) error { return nil }

// relabel is a program that changes the first lines on purpose.
type relabel struct{}

func (relabel) Modify(_ context.Context, m manager.Modification) error {
	return files.SetFormat(m.Files, m.Draft, m.To)
}

// Data that an edit left as they were are not given to new software marked with its
// format unless a person wants that.
func TestNothingModified(t *testing.T) {
	policies := func(list ...manager.PolicyKind) manager.Operator {
		p := &manager.Policies{Automatic: manager.Automatic{Retries: 2}}
		for _, kind := range list {
			p.List = append(p.List, manager.Policy{Kind: kind})
		}
		return p
	}
	bad := "this is no setting\n"
	for _, c := range []struct {
		name     string
		modifier manager.Modifier
		later    bool // modified after the device's conversion failed
		policies manager.Operator
		choices  []manager.Choice
		decision bool
		version  string
		inForce  string // what user data have at the end; empty: nothing is in force
	}{
		{name: "nobody to ask", modifier: &editor{}, policies: policies(manager.PolicyAdvice, manager.PolicyService),
			decision: true, version: "1.0.0", inForce: "iad-config userData 1\n"},
		{name: "nobody to ask, a program", modifier: idle{}, policies: policies(manager.PolicyAdvice, manager.PolicyService),
			decision: true, version: "1.0.0", inForce: "iad-config userData 1\n"},
		{name: "policy edit", modifier: &editor{}, policies: policies(manager.PolicyEdit, manager.PolicyGiveUp), decision: true, version: "2.0.0"},
		{name: "stop", modifier: &editor{}, choices: []manager.Choice{manager.GiveUp}, decision: true, version: "2.0.0"},
		{name: "edit again", modifier: &editor{lines: []string{"", "by = hand\n"}}, choices: []manager.Choice{manager.Modify},
			version: "2.0.0", inForce: "by = hand\n"},
		{name: "use as they are", modifier: &editor{}, choices: []manager.Choice{manager.UseAsIs}, version: "2.0.0", inForce: "iad-config userData 2\n"},
		{name: "use as a program left them", modifier: idle{}, choices: []manager.Choice{manager.UseAsIs}, version: "2.0.0", inForce: "iad-config userData 2\n"},
		{name: "after a conversion that failed", modifier: &editor{}, later: true, choices: []manager.Choice{manager.Modify, manager.UseAsIs},
			version: "2.0.0", inForce: "iad-config userData 2\n"},
		{name: "corrected", modifier: &editor{lines: []string{bad, "correct"}}, choices: []manager.Choice{manager.Modify},
			version: "2.0.0", inForce: "iad-config userData 2\n"},
		{name: "as refused before", modifier: &editor{lines: []string{bad, ""}}, choices: []manager.Choice{manager.Modify, manager.GiveUp},
			decision: true, version: "2.0.0"},
		{name: "marked on purpose", modifier: relabel{}, version: "2.0.0", inForce: "iad-config userData 2\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{configure: noConverter})
			plan := l.plan(l.image("2.0.0", 2))
			plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
			plan.Modifier, plan.ModifyFirst = c.modifier, !c.later
			operator := c.policies
			script := &scripted{t: t}
			if operator == nil {
				for _, choice := range c.choices {
					script.answers = append(script.answers, manager.Answer{Choice: choice})
				}
				operator = script
			}
			_, err := manager.Upgrade(l.ctx, plan, operator, l.observe)
			if errors.Is(err, manager.ErrDecision) != c.decision || (err != nil) != c.decision || len(script.asked) != len(c.choices) {
				t.Errorf("ended with %v after %d questions", err, len(script.asked))
			}
			if c.decision && !strings.Contains(err.Error(), "not given to the device") {
				t.Errorf("the error does not say what became of the data: %v", err)
			}
			d, err := l.client.Device(l.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if d.Version != c.version || (d.Generation == 0) != (c.inForce == "") {
				t.Fatalf("runs %s with generation %d", d.Version, d.Generation)
			}
			if c.inForce != "" && !strings.Contains(l.inForce(), c.inForce) {
				t.Errorf("in force:\n%s", l.inForce())
			}
			if c.decision {
				l.checkLabels()
			}
		})
	}
}

// checkLabels looks for settings of format 1 that are kept marked as format 2.
func (l *lab) checkLabels() {
	l.t.Helper()
	names, err := afero.Glob(l.store, "backup/TEST-0001/*.modified-*/userData.cfg")
	if err != nil || len(names) == 0 {
		l.t.Fatalf("%v, %v", names, err)
	}
	for _, name := range names {
		data, err := afero.ReadFile(l.store, name)
		if err != nil {
			l.t.Fatal(err)
		}
		if string(data) == "iad-config userData 2\nname = userData of the test\n" {
			l.t.Errorf("%s is the backup, marked as format 2", name)
		}
	}
}

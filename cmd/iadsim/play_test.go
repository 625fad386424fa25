package main

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/iad/internal/peers"
	"example.com/iad/sim/scenario"
)

const scenarios = "../../deploy/scenarios"

// fewer makes a shipped scenario short.
var fewer = regexp.MustCompile(`(?m)^devices( *)= \d+$`)

var faults = regexp.MustCompile(`(?m)^fault +?= \[`)

// The shipped scenarios pass, with fewer devices, and the same seed makes the same faults
// happen to the same devices in the same phases.
func TestShippedScenarios(t *testing.T) {
	list, err := filepath.Glob(scenarios + "/*.toml")
	if err != nil || len(list) < 5 {
		t.Fatalf("%q, %v", list, err)
	}
	// All at once: most of the time they wait.
	type play struct {
		results [2]*scenario.Result
		errs    [2]error
		ended   sync.WaitGroup
	}
	plays := make([]play, len(list))
	texts := make([][]byte, len(list))
	for k, name := range list {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !fewer.Match(text) {
			t.Fatalf("%s has no number of devices", name)
		}
		texts[k] = fewer.ReplaceAll(text, []byte("devices$1= 10"))
		for i := range 2 {
			dir := t.TempDir()
			plays[k].ended.Go(func() {
				s, err := scenario.Parse(texts[k], scenarios)
				if err == nil {
					plays[k].results[i], err = s.Play(t.Context(), scenario.Options{Dir: dir, Version: "test", Log: slog.New(slog.DiscardHandler)})
				}
				plays[k].errs[i] = err
			})
		}
	}
	for k, name := range list {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".toml"), func(t *testing.T) {
			plays[k].ended.Wait()
			for i, r := range plays[k].results {
				if r == nil {
					t.Fatal(plays[k].errs[i])
				}
				for _, c := range r.Checks {
					if !c.Passed {
						t.Errorf("%s: %s", c.Name, c.Detail)
					}
				}
			}
			first, second := plays[k].results[0].Faults, plays[k].results[1].Faults
			if faults.Match(texts[k]) == (len(first) == 0) {
				t.Errorf("faults: %v", first)
			}
			if !slices.Equal(first, second) {
				t.Errorf("the same seed makes other faults happen: %s", cmp.Diff(first, second))
			}
		})
	}
}

// The verdict can be read by CI systems.
func TestPlayJUnit(t *testing.T) {
	xmllint := peers.Find(t, "xmllint")
	r := scenario.Result{Title: "a <title>", Checks: []scenario.CheckResult{{Name: "good", Passed: true}, {Name: "bad", Detail: "first line\nsecond \x01 line"}}}
	name := filepath.Join(t.TempDir(), "junit.xml")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := r.WriteJUnit(f); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), xmllint, "--nonet", "--noout", "--schema", "../../conformance/testdata/junit.xsd", name).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(name)
	if err != nil || !bytes.Contains(text, []byte(`tests="2" failures="1"`)) || !bytes.Contains(text, []byte("first line")) {
		t.Errorf("%s, %v", text, err)
	}
}

package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var planted = flag.Bool("planted", false, "check that planted errors of the agent are found: a board for each, 2 minutes")

// enough is how many power cuts may be needed to find a planted error.
const enough = 400

// An edit plants an error in a text.
type edit struct{ file, old, new string }

func (e edit) apply(text string) (string, error) {
	if n := strings.Count(text, e.old); n != 1 {
		return "", fmt.Errorf("%s: what is to be replaced is found %d times: %s", e.file, n, e.old)
	}
	return strings.Replace(text, e.old, e.new, 1), nil
}

// wrongScripts are errors in the boot script. They show only if something else fails besides the power, or if the new
// software does not start.
var wrongScripts = []struct {
	name string
	edit
	failure
}{
	{"the start is not counted", edit{old: "setexpr iad_left ${iad_left} - 1\n", new: "true\n"}, powerOnly},
	{"the older copy counts", edit{old: "-gt 0x${iad_seq_a}", new: "-lt 0x${iad_seq_a}"}, powerOnly},
	{"the save is not checked", edit{old: "if run iad_save; then\n", new: "run iad_save\n    if true; then\n"}, copiesFrozen},
	{"the lost choice is not restored", edit{old: "  setenv iad_left 1\n", new: ""}, copiesLost},
}

// checkScripts checks that errors in the boot script are found.
func (x *bench) checkScripts() {
	x.Helper()
	for _, w := range wrongScripts {
		script, err := w.apply(x.script)
		if err != nil {
			x.Fatal(err)
		}
		x.finds(w.name, x.build, script, w.failure)
	}
}

// finds checks that the campaign finds an error, and that it is the error that makes the difference if it is in the script.
func (x *bench) finds(name string, b *build, script string, only failure) {
	x.Helper()
	c, err := newCampaign(x.Context(), b, script)
	if err != nil {
		x.Fatal(err)
	}
	var found, without error
	cuts := 0
	err = c.run(enough, rand.New(rand.NewPCG(*seed, 1)), only, func(v verdict) bool {
		cuts++
		if found = v.err; found != nil && script != x.script {
			c.script = x.script
			_, without = c.power(c.replay.after, only)
		}
		return found == nil
	})
	switch {
	case err != nil:
		x.Fatal(err)
	case found == nil:
		x.Errorf("planted error: %s: not found by %d power cuts, seed %d", name, cuts, *seed)
	case without != nil:
		x.Errorf("planted error: %s: seed %d: the script without it fails too: %v", name, *seed, without)
	default:
		x.Logf("planted error: %s: found by power cut %d: %.200s", name, cuts, found)
	}
}

// wrongAgents are errors in the order of the agent's writes. That the boot record is written before the loader's state is
// not among them: the record follows the loader whichever came first.
var wrongAgents = []struct {
	name  string
	kind  *kind
	edits []edit
}{
	{"the first block of a raw partition is written first", armRaw, []edit{
		{"bank/partition.go", "\t\trest, at = piece[len(g.first):], int64(len(g.first))\n", ""},
	}},
	{"the file system of the bank is not checkpointed before the choice is written", arm, []edit{
		{"bank/switch.go", "if b.opt.Loader != nil && b.opt.Checkpoint != nil {", "if false {"},
	}},
	{"the bank is not synced before the choice is written", arm, []edit{
		{"bank/switch.go", "if b.opt.Loader != nil && b.opt.Checkpoint != nil {", "if false {"},
		{"internal/durable/append.go", "err := a.f.Sync()", "err := error(nil)"},
	}},
	{"the choice is written before the bank is complete", arm, []edit{
		{"bank/install.go", "\tb.setHead(n, h)\n\treturn nil\n", "\tb.setHead(n, h)\n\treturn b.opt.Loader.Store(LoaderState{Next: n, Left: Tries, Fallback: b.running})\n"},
	}},
	{"both copies of the choice are written at once", arm, []edit{
		{"bank/uboot/file.go", "func (f File) Write(data []byte) error { return f.writeAt(data, f.Offset) }", `func (f File) Write(data []byte) error {
	file, err := f.Fs.OpenFile(f.Name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, offset := range []int64{0x10000, 0x20000} {
		if _, err := file.WriteAt(data, offset); err != nil {
			return err
		}
	}
	return file.Sync()
}`},
	}},
	{"the copy in use is written", arm, []edit{
		{"bank/uboot/environment.go", "len(e.Copies) == 2 && l.at == 0", "len(e.Copies) == 2 && l.at == 1"},
	}},
}

// TestPlantedErrors checks that errors in the agent are found. Each agent upgrades a board of its own.
func TestPlantedErrors(t *testing.T) {
	if !*planted {
		t.Skip("takes 2 minutes for each error: run it by make board-cuts, or with -args -planted")
	}
	for _, w := range wrongAgents {
		t.Run(strings.ReplaceAll(w.name, " ", "_"), func(t *testing.T) {
			x := newBench(t, t.TempDir(), w.kind)
			x.source = t.TempDir()
			if err := copySource(x.top, x.source); err != nil {
				t.Fatal(err)
			}
			for _, e := range w.edits {
				name := filepath.Join(x.source, e.file)
				text, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				wrong, err := e.apply(string(text))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(wrong), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			x.make()
			x.on("upgrade", options{writes: x.path(writes)})
			x.see(`msg=ready`)
			// It may succeed or fail without any power cut.
			out, status := x.iadms(append(x.upgradeArgs(x.network, good), "--yes")...)
			t.Logf("iadms ended with %d: %s", status, out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
			if err := x.off(); err != nil {
				t.Fatal(err)
			}
			x.finds(w.name, x.build, x.script, powerOnly)
		})
	}
}

// copySource copies what programs are built from.
func copySource(from, to string) error {
	for _, name := range []string{"go.mod", "go.sum", "agent", "bank", "cmd", "deploy", "internal", "manager", "mib", "transfer"} {
		info, err := os.Stat(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if info.IsDir() {
			err = os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join(from, name)))
		} else {
			var data []byte
			if data, err = os.ReadFile(filepath.Join(from, name)); err == nil {
				err = os.WriteFile(filepath.Join(to, name), data, 0o644)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Package iad_test holds the rules of the source tree that no compiler knows.
package iad_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "example.com/iad"

// mayImport says which of our packages each package may import, tests aside.
// What joins manager and device is SNMP and files only; support for tests
// stays in tests.
var mayImport = map[string][]string{
	"mib":                  {},
	"internal/durable":     {},
	"internal/crashfs":     {},
	"internal/peers":       {},
	"internal/cli":         {},
	"internal/manpages":    {}, // for tests only
	"internal/textfile":    {},
	"internal/agefile":     {},
	"internal/credentials": {"internal/durable", "internal/textfile"},
	"internal/snmp":        {"mib"},
	"bank":                 {"bank/image", "bank/image/frame", "mib", "internal/durable", "internal/agefile"},
	"bank/image":           {"bank/image/frame", "mib", "internal/durable", "internal/agefile"},
	"bank/image/frame":     {"bank/image/probability"},
	"internal/executable":  {},
	"internal/imagetest":   {"internal/agefile", "bank/image", "bank/image/encode", "bank/image/frame"},
	"internal/bootscript":  {"bank", "bank/uboot"},
	"internal/flash":       {},
	"bank/partition":       {"bank", "internal/flash"},
	"bank/uboot":           {"bank", "internal/flash"},
	"internal/datagram":    {},
	"transfer/tftp":        {"internal/datagram"},
	"transfer":             {"mib", "transfer/tftp"},
	"agent/config":         {"mib", "internal/durable"},
	"agent/procedure":      {"mib", "internal/clock", "internal/durable"},
	"agent/agentx":         {"mib", "internal/clock"},
	"agent/snmp":           {"mib", "internal/snmp", "internal/datagram"},
	"agent":                {"mib", "internal/clock", "agent/*", "bank", "bank/image", "transfer", "internal/durable", "internal/agefile"},
	"agent/board":          {"mib", "agent", "agent/config", "agent/procedure", "bank", "internal/durable", "internal/executable"},
	"agent/settings":       {"agent", "agent/agentx", "agent/board", "agent/procedure", "agent/snmp", "bank", "bank/image", "bank/partition", "bank/uboot", "transfer", "mib", "internal/durable", "internal/agefile"},
	"manager":              {"mib", "manager/device", "manager/trap", "manager/files", "internal/durable", "internal/clock"},
	"manager/device":       {"mib", "internal/clock"},
	"manager/trap":         {"manager/device", "mib", "internal/durable", "internal/snmp"},
	"manager/files":        {"manager/device", "bank/image", "transfer", "transfer/tftp", "mib", "internal/durable", "internal/agefile"},
	"manager/batch":        {},
	"fleet":                {"manager", "manager/device", "mib"},
	"fleet/operations":     {"fleet"},
	"fleet/auth":           {"fleet", "fleet/engine", "fleet/operations"},
	"fleet/api":            {"fleet", "fleet/auth", "fleet/operations", "manager"},
	"fleet/openid":         {"fleet/operations"},
	"fleet/ui":             {"fleet", "fleet/auth", "fleet/openid", "fleet/operations", "manager"},
	"fleet/client":         {"fleet", "fleet/operations"},
	"fleet/campaign":       {"fleet"},
	"fleet/inventory":      {"fleet", "internal/credentials", "manager/device", "mib"},
	"fleet/metrics":        {"fleet", "fleet/inventory", "fleet/store", "fleet/view"},
	"fleet/notify":         {"fleet", "fleet/engine", "fleet/store"},
	"fleet/retention":      {"fleet", "fleet/engine", "fleet/store"},
	"fleet/service":        {"fleet", "fleet/audit", "fleet/campaign", "fleet/engine", "fleet/inventory", "fleet/operations", "fleet/store", "fleet/view", "manager/device", "bank/image", "mib"},
	"fleet/view":           {"fleet", "fleet/inventory", "fleet/store"},
	"fleet/audit":          {"fleet", "fleet/engine"},
	"fleet/engine":         {},
	"fleet/seal":           {"internal/durable"},
	"fleet/store":          {"fleet", "fleet/engine", "fleet/seal"},
	"fleet/scheduler":      {"fleet", "fleet/campaign", "fleet/engine", "fleet/inventory", "fleet/store"},
	"fleet/traps":          {"fleet/engine", "fleet/store", "manager/trap"},
	"fleet/archive":        {"fleet", "fleet/engine", "fleet/store", "internal/durable", "manager/device"},
	"fleet/worker":         {"fleet", "fleet/engine", "fleet/store", "manager", "manager/*", "mib", "internal/durable"},
	"internal/clock":       {},
	"internal/memdisk":     {},
	"internal/fleettest":   {"fleet", "fleet/campaign", "fleet/operations", "manager"},
	"internal/fleetsim":    {"fleet", "internal/iadtest", "agent", "agent/config", "agent/snmp", "bank/image", "manager/device", "mib", "sim"},
	"internal/iadtest":     {"internal/cli", "manager/device", "manager/files", "bank/image", "transfer", "mib"},
	"sim":                  {"internal/agefile", "internal/clock", "agent", "agent/*", "bank", "bank/image", "transfer", "mib", "internal/memdisk", "internal/crashfs", "transfer/tftp"},
	"sim/control":          {"sim", "agent/procedure"},
	"cmd/iad":              {"agent", "agent/*", "bank", "bank/image", "transfer", "mib", "internal/durable", "internal/cli", "internal/credentials", "internal/snmp", "internal/agefile"},
	"sim/fleet":            {"sim", "agent/board", "agent/config", "agent/snmp", "bank/image", "mib", "internal/durable", "internal/credentials"},
	"sim/scenario":         {"sim", "sim/fleet", "sim/control", "bank/image", "mib", "internal/junit"},
	"cmd/iadsim":           {"sim", "sim/scenario", "sim/control", "sim/fleet", "internal/durable", "internal/cli", "internal/snmp", "internal/textfile"},
	"internal/junit":       {},
	"conformance":          {"internal/junit", "manager/device", "manager/trap", "bank/image", "transfer/tftp", "mib"},
	"conformance/bench":    {},
	"cmd/iadlab":           {"conformance", "conformance/bench", "manager/device", "bank/image", "mib", "internal/cli", "internal/credentials", "internal/durable"},
	"cmd/iadmsd":           {"bank/image", "fleet", "fleet/*", "internal/durable", "manager/files", "manager/trap", "internal/cli", "internal/textfile"},
	"cmd/iadms":            {"cmd/iadms/command"},
	"cmd/iadms/command":    {"fleet", "fleet/client", "fleet/operations", "manager", "manager/*", "cmd/iadms/report", "bank/image", "bank/image/*", "mib", "internal/*"},
	"cmd/iadms/report":     {"manager", "manager/*", "mib", "internal/cli"},

	// For makers, not for devices.
	"bank/image/encode":      {"bank/image", "bank/image/frame", "bank/image/encode/lzma"},
	"bank/image/encode/lzma": {"bank/image/probability"},
	"bank/image/probability": {}, // what encoder and decoder share
}

// devicePackages write what must survive a loss of power.
var devicePackages = []string{"bank", "bank/partition", "bank/uboot", "bank/image", "bank/image/frame", "bank/image/probability", "agent", "agent/agentx", "agent/board", "agent/config", "agent/procedure", "agent/settings", "agent/snmp"}

type pkg struct {
	ImportPath, Dir, Doc string
	GoFiles              []string
	Imports              []string
}

func (p pkg) name() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,Doc,GoFiles,Imports", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 { // not a package of tests only
			all = append(all, p)
		}
	}
}

func TestImportsGoOneWay(t *testing.T) {
	for _, p := range packages(t) {
		allowed, known := mayImport[p.name()]
		if !known {
			t.Errorf("%s: a new package: say in mayImport what it may import", p.name())
			continue
		}
		for _, imported := range p.Imports {
			ours, found := strings.CutPrefix(imported, module+"/")
			if found && !slices.ContainsFunc(allowed, func(pattern string) bool {
				match, err := path.Match(pattern, ours)
				return err == nil && match
			}) {
				t.Errorf("%s must not import %s", p.name(), ours)
			}
		}
	}
}

func TestPackagesHaveComments(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.name())
		}
	}
}

// TestOneImporter keeps libraries that could be replaced behind one package each.
func TestOneImporter(t *testing.T) {
	importers := map[string]string{
		"github.com/nats-io/":   "fleet/engine",
		"github.com/expr-lang/": "fleet/inventory",
		"modernc.org/sqlite":    "fleet/view",
		"filippo.io/age":        "fleet/seal",
		"github.com/coreos/":    "fleet/openid",
	}
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			for library, importer := range importers {
				if strings.HasPrefix(imported, library) && p.name() != importer {
					t.Errorf("%s imports %s; only %s may", p.name(), imported, importer)
				}
			}
		}
	}
}

// TestDeviceStaysSmall keeps out of the program for boards what no board needs.
func TestDeviceStaysSmall(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "./cmd/iad").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, dependency := range strings.Fields(string(out)) {
		switch dependency {
		case "testing", "html/template", "github.com/spf13/cobra/doc", "github.com/vbauerster/mpb/v8", "github.com/ulikunitz/xz", module + "/bank/image/encode", module + "/manager", module + "/sim":
			t.Errorf("cmd/iad contains %s", dependency)
		}
	}
}

// sources calls f for every Go file that people write.
func sources(t *testing.T, f func(name string, text []byte)) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		switch base := filepath.Base(name); {
		case err != nil:
			return err
		case entry.IsDir():
			if name != "." && (strings.HasPrefix(base, ".") || base == "bin") {
				return filepath.SkipDir
			}
			return nil
		case filepath.Ext(base) != ".go", strings.HasPrefix(base, "zz_"):
			return nil
		}
		text, err := os.ReadFile(name)
		if err == nil {
			f(filepath.ToSlash(name), text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// calls returns the calls X.NAME(...) in a file as "X.NAME" by line, and the
// comments by line.
func calls(t *testing.T, name string, text []byte) (found map[int][]string, comments map[int]string) {
	t.Helper()
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	found, comments = map[int][]string{}, map[int]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if selector, ok := call.Fun.(*ast.SelectorExpr); ok {
				receiver := ""
				if ident, ok := selector.X.(*ast.Ident); ok {
					receiver = ident.Name
				}
				line := set.Position(call.Pos()).Line
				found[line] = append(found[line], receiver+"."+selector.Sel.Name)
			}
		}
		return true
	})
	for _, group := range file.Comments {
		for _, comment := range group.List {
			comments[set.Position(comment.Pos()).Line] += comment.Text
		}
	}
	return found, comments
}

// TestTestsDoNotSleep: a test waits for an event or moves a clock, that of
// testing/synctest for instance, where sleeping takes no time. So a file that sleeps
// imports testing/synctest, or calls a function of its package that runs a test in a
// bubble, or says on the line with a comment "//bubble: who" whose bubble it runs in.
func TestTestsDoNotSleep(t *testing.T) {
	type file struct {
		sleeps  []int
		bubbles bool
		calls   map[string]bool
		within  map[string]map[string]bool // the calls of each function
	}
	files := map[string]*file{}
	sources(t, func(name string, text []byte) {
		if !strings.HasSuffix(name, "_test.go") {
			return
		}
		f := &file{calls: map[string]bool{}, within: map[string]map[string]bool{}}
		f.bubbles = bytes.Contains(text, []byte(`"testing/synctest"`)) && name != "imports_test.go"
		found, comments := calls(t, name, text)
		for line, names := range found {
			if slices.Contains(names, "time.Sleep") && !strings.Contains(comments[line], "//bubble: ") {
				f.sleeps = append(f.sleeps, line)
			}
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			function, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			inside := map[string]bool{}
			ast.Inspect(function, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					switch callee := call.Fun.(type) {
					case *ast.Ident:
						inside[callee.Name] = true
					case *ast.SelectorExpr:
						if x, ok := callee.X.(*ast.Ident); ok && x.Name == "synctest" && callee.Sel.Name == "Test" {
							inside["synctest.Test"] = true
						}
					}
				}
				return true
			})
			if function.Recv == nil {
				f.within[function.Name.Name] = inside
			}
			for callee := range inside {
				f.calls[callee] = true
			}
		}
		files[name] = f
	})
	// starts has, for each directory, the functions that start a bubble.
	starts := map[string]map[string]bool{}
	for changed := true; changed; {
		changed = false
		for name, f := range files {
			dir := path.Dir(name)
			if starts[dir] == nil {
				starts[dir] = map[string]bool{"synctest.Test": true}
			}
			for function, inside := range f.within {
				for callee := range inside {
					if starts[dir][callee] && !starts[dir][function] {
						starts[dir][function], changed = true, true
					}
				}
			}
		}
	}
	for name, f := range files {
		bubbles := f.bubbles
		for callee := range f.calls {
			bubbles = bubbles || starts[path.Dir(name)][callee]
		}
		if len(f.sleeps) > 0 && !bubbles {
			slices.Sort(f.sleeps)
			t.Errorf("%s: a test sleeps, in lines %d", name, f.sleeps)
		}
	}
}

// TestDeviceWritesDurably: what a device writes goes through internal/durable. A
// file whose loss does no harm is opened on a line with the comment
// "//durable: why".
func TestDeviceWritesDurably(t *testing.T) {
	writing := []string{"WriteFile", "WriteReader", "SafeWriteReader", "Create", "OpenFile", "Rename"}
	sources(t, func(name string, text []byte) {
		if strings.HasSuffix(name, "_test.go") || !slices.Contains(devicePackages, path.Dir(name)) {
			return
		}
		found, comments := calls(t, name, text)
		for line, names := range found {
			for _, call := range names {
				receiver, method, _ := strings.Cut(call, ".")
				if receiver != "durable" && slices.Contains(writing, method) && !strings.Contains(comments[line], "//durable: ") {
					t.Errorf("%s:%d: %s is not durable: use internal/durable, or say why it need not be", name, line, call)
				}
			}
		}
	})
}

// A failure cause has one name, advice, explanation and remedy, all in mib/causes.go:
// no other file has a map or list of texts by cause. Tests have lists of what leads to
// which cause, those of package conformance too.
func TestOneTableOfCauses(t *testing.T) {
	inspect := func(name string, text []byte) (found []string) {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			table, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			rows := 0
			for _, e := range table.Elts {
				cause, text := false, false
				ast.Inspect(e, func(n ast.Node) bool {
					switch n := n.(type) {
					case *ast.Ident:
						cause = cause || strings.HasPrefix(n.Name, "FailCause") && n.Name != "FailCause"
					case *ast.BasicLit:
						text = text || n.Kind == token.STRING && strings.Contains(n.Value, " ")
					case *ast.FuncLit:
						return false
					}
					return true
				})
				if cause && text {
					rows++
				}
			}
			if rows > 2 { // fewer are cases, not a table
				found = append(found, set.Position(table.Pos()).String())
			}
			return true
		})
		return found
	}
	own := 0
	sources(t, func(name string, text []byte) {
		if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "conformance/tests_") {
			return
		}
		found := inspect(name, text)
		if filepath.ToSlash(name) == "mib/causes.go" {
			own = len(found)
			return
		}
		for _, at := range found {
			t.Errorf("%s: a second table of texts by failure cause; mib/causes.go has the first", at)
		}
	})
	if own != 1 {
		t.Errorf("mib/causes.go: %d tables found, want 1", own)
	}
	if found := inspect("x.go", []byte("package x\nvar m = map[mib.FailCause]string{mib.FailCauseOther: `a b`, mib.FailCauseBusy: `a b`, mib.FailCauseInterrupted: `c d`}")); len(found) != 1 {
		t.Error("a map by cause is not found")
	}
}

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// TestSchema compares the bills of materials of a release with CycloneDX's schema.
func TestSchema(t *testing.T) {
	dir := os.Getenv("IAD_SBOMS")
	if dir == "" {
		t.Skip("make release-test runs this test")
	}
	module, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	schemas := filepath.Join(strings.TrimSpace(string(module)), "schema")
	compiler := jsonschema.NewCompiler()
	for _, name := range []string{"bom-1.6.schema.json", "spdx.schema.json", "jsf-0.82.schema.json"} {
		file := name
		if name == "jsf-0.82.schema.json" {
			file = "jsf-0.82.schemax.json" // the name that the module has for it
		}
		if err := compiler.AddResource("http://cyclonedx.org/schema/"+name, decode(t, filepath.Join(schemas, file))); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := compiler.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.cdx.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no bills of materials (%v)", dir, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			bom := decode(t, name)
			if err := schema.Validate(bom); err != nil {
				t.Error(err)
			}
			bom.(map[string]any)["specVersion"] = 1.6
			if schema.Validate(bom) == nil {
				t.Error("the schema accepts a number as specVersion")
			}
		})
	}
}

func decode(t *testing.T, name string) any {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	value, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}

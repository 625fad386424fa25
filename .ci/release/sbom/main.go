// Command sbom completes a bill of materials in CycloneDX's JSON that cyclonedx-gomod has made, from standard input to
// standard output: the licences of the modules, as THIRD-PARTY-LICENSES.md has them. What a program finds in licence files
// is wrong for some of them.
//
//	cyclonedx-gomod app -json ... | sbom -licenses THIRD-PARTY-LICENSES.md
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
)

func main() {
	licenses := flag.String("licenses", "THIRD-PARTY-LICENSES.md", "table of modules and their licences")
	flag.Parse()
	if err := complete(*licenses, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func complete(licenses string, r io.Reader, w io.Writer) error {
	text, err := os.ReadFile(licenses)
	if err != nil {
		return err
	}
	known := table(string(text))
	known["std"] = "BSD-3-Clause" // Go's own
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(r, cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		return err
	}
	if bom.Components == nil || len(*bom.Components) == 0 {
		return fmt.Errorf("the bill of materials has no components")
	}
	for i := range *bom.Components {
		c := &(*bom.Components)[i]
		license, found := known[c.Name]
		if !found {
			return fmt.Errorf("%s has no licence in %s: add a row", c.Name, licenses)
		}
		c.Licenses = &cyclonedx.Licenses{{Expression: license}}
	}
	return cyclonedx.NewBOMEncoder(w, cyclonedx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(&bom, bom.SpecVersion)
}

// table returns the SPDX expressions of the modules in the table.
func table(text string) map[string]string {
	known := map[string]string{}
	for line := range strings.Lines(text) {
		cells := strings.Split(line, "|")
		if len(cells) > 3 && strings.Contains(cells[1], "/") {
			known[strings.TrimSpace(cells[1])] = strings.TrimSpace(cells[2])
		}
	}
	return known
}

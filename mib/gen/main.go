// Command gen generates the Go description of IAD-UPGRADE-MIB.
//
// It reads ../IAD-UPGRADE-MIB.txt, with the few definitions which that module
// imports taken from base/, and writes ../zz_objects.go, ../zz_enums.go and
// ../zz_notifications.go. With -check it writes nothing and fails if one of
// them differs from what it would have written.
//
// It is a module of its own so that the MIB parser is no dependency of the
// device.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/golangsnmp/gomib"
	"github.com/golangsnmp/gomib/mib"
)

const moduleName = "IAD-UPGRADE-MIB"

func main() {
	log.SetFlags(0)
	log.SetPrefix("mib/gen: ")
	check := flag.Bool("check", false, "compare only, exit with status 1 if a file is not current")
	flag.Parse()

	mod, err := load("..", "base")
	if err != nil {
		log.Fatal(err)
	}
	files, err := generate(mod)
	if err != nil {
		log.Fatal(err)
	}
	stale := false
	for name, text := range files {
		path := filepath.Join("..", name)
		if *check {
			old, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(old, text) {
				log.Printf("%s is not current: run go generate ./mib", name)
				stale = true
			}
			continue
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			log.Fatal(err)
		}
	}
	if stale {
		os.Exit(1)
	}
}

// load resolves the module. It refuses what is unresolved or wrong; style is
// smilint's matter.
func load(dir, base string) (*mib.Module, error) {
	m, err := gomib.Load(context.Background(),
		gomib.WithSource(gomib.FS(dir, os.DirFS(dir)), gomib.FS(base, os.DirFS(base))),
		gomib.WithModules(moduleName),
		gomib.WithStrictness(mib.StrictnessNormal))
	if err != nil {
		return nil, err
	}
	for _, d := range m.Diagnostics() {
		err = fmt.Errorf("%s:%d: %s", d.Module, d.Line, d.Message)
		log.Print(err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s has findings, the last one: %w", moduleName, err)
	}
	return m.Module(moduleName), nil
}

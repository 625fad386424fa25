package release

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	makefile = "package/iad/iad.mk"
	recipe   = "recipes-iad/iad/iad.bb"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRecipesNameFiles: the files that recipes take from the source exist, and the ones that they install start under the same name.
func TestRecipesNameFiles(t *testing.T) {
	fromSource := regexp.MustCompile(`(?:\$\(@D\)|\$\{S\})/(deploy/[\w./-]+)`)
	for _, name := range []string{top + "/deploy/buildroot/" + makefile, top + "/deploy/yocto/" + recipe} {
		found := fromSource.FindAllStringSubmatch(read(t, name), -1)
		if len(found) == 0 {
			t.Errorf("%s takes nothing from the source", name)
		}
		for _, m := range found {
			if _, err := os.Stat(filepath.Join(top, m[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if info, err := os.Stat(top + "/deploy/buildroot/package/iad/S60iad"); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("S60iad cannot be executed: %v", err)
	}
}

// licenses returns the licences of what iad is linked with, as THIRD-PARTY-LICENSES.md has them.
func licenses(t *testing.T) []string {
	t.Helper()
	list := []string{"BSD-3-Clause"} // Go's own
	for line := range strings.Lines(read(t, top+"/THIRD-PARTY-LICENSES.md")) {
		cells := strings.Split(line, "|")
		if len(cells) > 4 && strings.Contains(cells[1], "/") && strings.TrimSpace(cells[3]) == "yes" {
			list = append(list, strings.TrimSpace(cells[2]))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// offline is an environment in which Go downloads nothing.
func offline(t *testing.T, env ...string) []string {
	t.Helper()
	return append(os.Environ(), append([]string{"HTTPS_PROXY=http://127.0.0.1:9", "GOPROXY=off", "GOFLAGS="}, env...)...)
}

// same compares a program that a recipe has built with the one in the archive for its processor.
func same(t *testing.T, built, released string) {
	t.Helper()
	if released == "" {
		return // not selected
	}
	if !bytes.Equal([]byte(read(t, built)), []byte(read(t, released))) {
		t.Errorf("the recipe builds another program than %s", released)
	}
}

// buildroot runs what the package of Buildroot consists of, with a makefile in the place of Buildroot.
func buildroot(t *testing.T, release, source string, sums, programs map[string]string) {
	tree := unpack(t, filepath.Join(release, "iad-"+version+"-buildroot.tar.gz"))
	build := unpack(t, source)
	hashes := map[string]string{}
	for line := range strings.Lines(read(t, filepath.Join(tree, "package/iad/iad.hash"))) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "sha256" {
			hashes[fields[2]] = fields[1]
		}
	}
	want := map[string]string{filepath.Base(source): sums[filepath.Base(source)], "LICENSES.txt": digest(t, filepath.Join(build, "LICENSES.txt"))}
	if diff := cmp.Diff(want, hashes); diff != "" {
		t.Errorf("iad.hash (-want +got):\n%s", diff)
	}
	target := t.TempDir()
	frame := filepath.Join(t.TempDir(), "Makefile")
	if err := os.WriteFile(frame, []byte(`# What Buildroot has.
BR2_PACKAGE_IAD_FTPS = y
TARGET_DIR = `+target+`
HOST_GO_TARGET_ENV = GOOS=linux GOARCH=mips GOMIPS=softfloat
INSTALL = install
IAD_PKGDIR = `+tree+`/package/iad
generic-package = # evaluated at the end of iad.mk
include `+tree+`/`+makefile+`
print:
	@echo 'source $(IAD_SOURCE)'
	@echo 'license $(IAD_LICENSE)'
	@echo 'licence files $(IAD_LICENSE_FILES)'
`+build+`/done:
	$(IAD_BUILD_CMDS)
	$(IAD_INSTALL_TARGET_CMDS)
	$(IAD_INSTALL_INIT_SYSV)
	$(IAD_INSTALL_INIT_SYSTEMD)
`), 0o600); err != nil {
		t.Fatal(err)
	}
	out := run(t, exec.CommandContext(t.Context(), "make", "-f", frame, "print"))
	for _, want := range []string{
		"source " + filepath.Base(source) + "\n",
		"license PROPRIETARY (iad), " + strings.Join(licenses(t), ", ") + "\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	cmd := exec.CommandContext(t.Context(), "make", "-f", frame, build+"/done")
	cmd.Env = offline(t)
	run(t, cmd)
	var files []string
	for _, pattern := range []string{"*/*", "*/*/*", "usr/lib/systemd/system/*"} {
		found, err := filepath.Glob(filepath.Join(target, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range found {
			if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
				files = append(files, strings.TrimPrefix(name, target))
			}
		}
	}
	slices.Sort(files)
	if diff := cmp.Diff([]string{"/etc/iad/init.conf", "/etc/init.d/S60iad", "/usr/bin/iad", "/usr/lib/systemd/system/iad-init.service", "/usr/lib/systemd/system/iad.service"}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	same(t, filepath.Join(target, "usr/bin/iad"), programs["mips"])
}

// yocto runs the functions of the recipe with a shell in the place of BitBake.
func yocto(t *testing.T, release, source string, sums, programs map[string]string) {
	layer := unpack(t, filepath.Join(release, "iad-"+version+"-yocto.tar.gz"))
	build := unpack(t, source)
	text := read(t, filepath.Join(layer, "recipes-iad/iad/iad_"+version+".bb"))
	var names []string
	for _, license := range licenses(t) {
		name, _, _ := strings.Cut(license, " WITH ")
		names = append(names, name)
	}
	slices.Sort(names)
	for _, want := range []string{
		`SRC_URI[sha256sum] = "` + sums[filepath.Base(source)] + `"`,
		`LIC_FILES_CHKSUM = "file://LICENSES.txt;sha256=` + digest(t, filepath.Join(build, "LICENSES.txt")) + `"`,
		`LICENSE = "Proprietary & ` + strings.Join(slices.Compact(names), " & ") + `"`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("want %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "@V") || strings.Contains(text, "@S") || strings.Contains(text, "@L") {
		t.Errorf("a value is missing:\n%s", text)
	}
	python := regexp.MustCompile(`\$\{@[^}]*\}`)
	script := "set -e\n"
	for _, function := range []string{"do_compile", "do_install"} {
		_, body, found := strings.Cut(text, "\n"+function+"() {\n")
		body, _, end := strings.Cut(body, "\n}\n")
		if !found || !end {
			t.Fatalf("no %s in\n%s", function, text)
		}
		script += python.ReplaceAllString(body, "") + "\n"
	}
	// Where Go for the build machine is, as in a sysroot of Yocto.
	libraries, image := t.TempDir(), t.TempDir()
	if err := os.Symlink(strings.TrimSpace(run(t, exec.CommandContext(t.Context(), "go", "env", "GOROOT"))), filepath.Join(libraries, "go")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = build
	cmd.Env = offline(t, "STAGING_LIBDIR_NATIVE="+libraries, "TARGET_GOARCH=arm", "TARGET_GOARM=7", "TARGET_GOMIPS=", "S="+build, "B="+build, "D="+image,
		"PV="+version, "bindir=/usr/bin", "sysconfdir=/etc", "systemd_system_unitdir=/usr/lib/systemd/system")
	run(t, cmd)
	for _, name := range []string{"etc/iad/init.conf", "usr/lib/systemd/system/iad.service", "usr/lib/systemd/system/iad-init.service"} {
		if _, err := os.Stat(filepath.Join(image, name)); err != nil {
			t.Error(err)
		}
	}
	same(t, filepath.Join(image, "usr/bin/iad"), programs["armv7"])
}

// Package peers finds the programs that tests talk to: net-snmp's agent and tools, TFTP and FTP servers, minisign and
// others. They are unpacked into .peers/ at the module's root by "make peers", or installed on the machine.
// It is support for tests only.
package peers

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// directories that hold servers and are often not in the PATH of a user.
var dirs = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// Find returns the path of program name: the one unpacked into .peers/bin, else the one in PATH, else one in the directories
// for servers (/usr/sbin and the like). If there is none, the test fails where the environment says CI=true and is
// skipped elsewhere.
func Find(t testing.TB, name string) string {
	t.Helper()
	unpacked := filepath.Join(Dir(), "bin", name)
	if executable(unpacked) {
		return unpacked
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range dirs {
		if path := filepath.Join(dir, name); executable(path) {
			return path
		}
	}
	missing(t, name)
	return ""
}

// MIBs returns the directory of the base MIB modules (SNMPv2-SMI, SNMPv2-TC, NET-SNMP-MIB ...), a file each, for the option
// -M of net-snmp's tools. A missing directory is treated as a missing program is by Find.
func MIBs(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(Dir(), "mibs")
	if _, err := os.Stat(dir); err != nil {
		missing(t, dir)
	}
	return dir
}

// Dir returns the directory .peers at the module's root, whether it exists or not. What was unpacked stands in its
// directory root, laid out as on an installed system: plug-ins of a server are found there.
func Dir() string {
	_, file, _, ok := runtime.Caller(0)
	if ok && filepath.IsAbs(file) {
		return filepath.Join(filepath.Dir(file), "..", "..", ".peers")
	}
	// Built with -trimpath: a test runs in the directory of its package, somewhere below the module's root.
	dir, err := os.Getwd()
	for err == nil && dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return filepath.Join(dir, ".peers")
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func missing(t testing.TB, name string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s not found: run make peers", name)
	}
	t.Skipf("%s not found: run make peers", name)
}

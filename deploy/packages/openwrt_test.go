package packages

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/iad/internal/peers"
)

type entry struct {
	Mode int64
	Link string
}

// untar unpacks a compressed archive, as the parts of an ipk are, and checks that everything is root's.
func untar(t *testing.T, r io.Reader) (entries map[string]entry, text map[string]string) {
	t.Helper()
	zr, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	entries, text = map[string]entry{}, map[string]string{}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return entries, text
		} else if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s is owned by %d:%d", h.Name, h.Uid, h.Gid)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(h.Name, ".")
		name = "/" + strings.TrimPrefix(name, "/")
		entries[name], text[name] = entry{h.Mode & 0o7777, h.Linkname}, string(content)
	}
}

// TestIpk compares the packages for OpenWrt with what opkg and procd expect.
func TestIpk(t *testing.T) {
	dir := os.Getenv("IAD_PACKAGES")
	if dir == "" {
		t.Skip("make packages-test runs this test")
	}
	ipks, err := filepath.Glob(filepath.Join(dir, "*.ipk"))
	if err != nil || len(ipks) == 0 {
		t.Fatalf("%s: no packages for OpenWrt (%v)", dir, err)
	}
	for _, ipk := range ipks {
		t.Run(filepath.Base(ipk), func(t *testing.T) {
			f, err := os.Open(ipk)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			_, parts := untar(t, f)
			if parts["/debian-binary"] != "2.0\n" {
				t.Errorf("debian-binary: %q", parts["/debian-binary"])
			}
			scripts, control := untar(t, strings.NewReader(parts["/control.tar.gz"]))
			if diff := cmp.Diff("/etc/config/iad\n", control["/conffiles"]); diff != "" {
				t.Errorf("conffiles (-want +got):\n%s", diff)
			}
			base := strings.TrimSuffix(filepath.Base(ipk), ".ipk")
			_, rest, _ := strings.Cut(base, "_")
			_, architecture, _ := strings.Cut(rest, "_")
			for _, line := range []string{"Package: iad\n", "Architecture: " + architecture + "\n"} {
				if !strings.Contains(control["/control"], line) {
					t.Errorf("control: no %q in\n%s", line, control["/control"])
				}
			}
			for script, function := range map[string]string{"/postinst": `default_postinst "$0" "$@"`, "/prerm": `default_prerm "$0" "$@"`} {
				if scripts[script].Mode&0o111 != 0o111 || !strings.Contains(control[script], function) {
					t.Errorf("%s: mode %o\n%s", script, scripts[script].Mode, control[script])
				}
			}
			files, text := untar(t, strings.NewReader(parts["/data.tar.gz"]))
			if diff := cmp.Diff(map[string]entry{
				"/usr/bin/iad":                         {Mode: 0o755},
				"/etc/init.d/iad":                      {Mode: 0o755},
				"/etc/config/iad":                      {Mode: 0o644},
				"/usr/share/licenses/iad/LICENSES.txt": {Mode: 0o644},
			}, files); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if !strings.HasPrefix(text["/usr/bin/iad"], "\x7fELF") {
				t.Error("/usr/bin/iad is not a program")
			}
		})
	}
}

// procd stands for the functions of OpenWrt that a service file calls, and prints what it is asked for.
const procd = `
config_load() { :; }
config_get_bool() { eval "$1=\${UCI_$3-$4}"; }
config_get() { eval "$1=\${UCI_$3-${4-}}"; }
logger() { shift 4; echo "log $*"; }
procd_open_instance() { echo open; }
procd_set_param() { echo "$*"; }
procd_append_param() { echo "append $*"; }
procd_close_instance() { echo close; }
. ./iad.init
start_service
`

// TestOpenWrtService runs the service file with the shell that OpenWrt has.
func TestOpenWrtService(t *testing.T) {
	busybox := peers.Find(t, "busybox")
	run := func(want string, env ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), busybox, "sh", "-uc", procd)
		cmd.Dir, cmd.Env = "../openwrt", env
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), want) {
			t.Errorf("%q: want %q in\n%s", env, want, out)
		}
		return string(out)
	}
	root := t.TempDir()
	if out := run("make the device with 'iad init' first", "UCI_root="+root); strings.Contains(out, "open") {
		t.Errorf("a device that does not exist is started:\n%s", out)
	}
	if err := os.WriteFile(filepath.Join(root, "iad.toml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out := run("command /usr/bin/iad run --root "+root+"\n", "UCI_root="+root)
	for _, want := range []string{"env GOMEMLIMIT=9MiB\n", "respawn 3600 5 0\n", "file " + root + "/iad.toml\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	run("append command --agentx unix:/var/run/agentx.sock --snmp none\n", "UCI_root="+root, "UCI_agentx=unix:/var/run/agentx.sock")
	if out := run("", "UCI_root="+root, "UCI_enabled=0"); out != "" {
		t.Errorf("a service that is not enabled is started:\n%s", out)
	}
}

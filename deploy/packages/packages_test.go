// Package packages holds no code: it tests the packages and the units that they contain.
package packages

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/iad/internal/peers"
)

// maxExposure is the level from which systemd no longer calls a service well protected.
const maxExposure = 3.0

var exposure = regexp.MustCompile(`Overall exposure level for [^:]*: ([0-9.]+)`)

func TestUnitsAreHardened(t *testing.T) {
	analyze := peers.Find(t, "systemd-analyze")
	units, err := filepath.Glob("../systemd/*.service")
	if err != nil || len(units) == 0 {
		t.Fatalf("no units: %v", err)
	}
	for _, unit := range units {
		t.Run(filepath.Base(unit), func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--no-pager", unit).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			level := exposure.FindSubmatch(out)
			if level == nil {
				t.Fatalf("no exposure level in\n%s", out)
			}
			if f, err := strconv.ParseFloat(string(level[1]), 64); err != nil || f >= maxExposure {
				t.Errorf("exposure level %s, want less than %.1f\n%s", level[1], maxExposure, out)
			}
		})
	}
}

// machine is a container that was started with systemd.
type machine struct {
	t  *testing.T
	id string
}

// boot starts a fresh Debian from the archive that .ci/testroot makes.
func boot(t *testing.T) *machine {
	t.Helper()
	const archive = "../../bin/testroot.tar"
	if _, err := os.Stat(archive); err != nil {
		t.Fatalf("%v; .ci/testroot makes it", err)
	}
	image := strings.TrimSpace(host(t, "docker", "import", archive))
	t.Cleanup(func() { _ = exec.Command("docker", "rmi", "-f", image).Run() })
	// systemd mounts file systems and has control groups below those of the container.
	id := strings.TrimSpace(host(t, "docker", "run", "--detach", "--network", "none", "--cap-add", "SYS_ADMIN",
		"--tmpfs", "/run", "--tmpfs", "/tmp", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup", image, "/lib/systemd/systemd", "--log-target=console"))
	t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", "-v", id).Run() })
	m := &machine{t, id}
	// The bus may not be there at first; systemctl itself waits for the end of the start.
	for deadline := time.Now().Add(time.Minute); ; {
		out, err := m.try("systemctl is-system-running --wait")
		if err == nil || strings.TrimSpace(out) == "degraded" {
			// Outside a container systemd does so itself; services get their credentials by a mount.
			m.run("mount --make-rshared /")
			return m
		}
		if time.Now().After(deadline) {
			t.Fatalf("systemd: %v\n%s", err, out)
		}
	}
}

func host(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, &stderr)
	}
	return string(out)
}

func (m *machine) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "exec", m.id, "sh", "-ec", script).CombinedOutput()
	return string(out), err
}

// run executes a script in the machine, which must succeed.
func (m *machine) run(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	m.t.Logf("# %s\n%s", script, out)
	if err != nil {
		journal, _ := m.try("journalctl --no-pager -n 30 -u 'iad*'")
		m.t.Fatalf("%s: %v\n%s\n%s", script, err, out, journal)
	}
	return out
}

// expect executes a script whose output must contain want.
func (m *machine) expect(want, script string) {
	m.t.Helper()
	if out := m.run(script); !strings.Contains(out, want) {
		m.t.Fatalf("%s: want %q in\n%s", script, want, out)
	}
}

// copy copies files into the machine's /root.
func (m *machine) copy(files ...string) {
	m.t.Helper()
	for _, file := range files {
		host(m.t, "docker", "cp", file, m.id+":/root/")
	}
}

// each returns the package of each program whose file name ends like that.
func each(t *testing.T, dir, end string) []string {
	t.Helper()
	var files []string
	for _, program := range []string{"iad", "iadms", "iadsim", "iadlab", "iadmsd"} {
		found, err := filepath.Glob(filepath.Join(dir, program+end))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %d packages of %s, want 1 (%v)", dir, len(found), program, err)
		}
		files = append(files, found[0])
	}
	return files
}

// later makes packages of a later version with other example settings, as a distributor would.
func later(t *testing.T, debs []string) string {
	t.Helper()
	out := t.TempDir()
	for _, deb := range debs {
		dir := filepath.Join(t.TempDir(), "deb")
		host(t, "dpkg-deb", "--raw-extract", deb, dir)
		host(t, "sed", "-i", "s/^Version: .*/Version: 99.0/", filepath.Join(dir, "DEBIAN", "control"))
		settings, err := os.ReadFile(filepath.Join(dir, "DEBIAN", "conffiles"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a program without settings
			t.Fatal(err)
		}
		for line := range strings.Lines(string(settings)) {
			host(t, "sed", "-i", "$ a # New in version 99.", filepath.Join(dir, strings.TrimSpace(line)))
		}
		host(t, "dpkg-deb", "--root-owner-group", "--build", "-Znone", dir, out)
	}
	return out
}

// TestDeb installs the packages for this machine, which "make packages" has built, on a fresh Debian: the first start of a device,
// an upgrade of its software, an upgrade of the packages, their removal and their purge.
func TestDeb(t *testing.T) {
	dir := os.Getenv("IAD_PACKAGES")
	if dir == "" {
		t.Skip("make packages-test runs this test")
	}
	for _, name := range []string{"docker", "dpkg-deb"} {
		peers.Find(t, name)
	}
	debs := each(t, dir, "_*_amd64.deb")
	m := boot(t)
	m.copy(debs...)
	host(t, "docker", "cp", later(t, debs), m.id+":/root/later")

	m.run("dpkg -i /root/*.deb")
	m.expect(`.TH "IAD"`, "gzip -dc /usr/share/man/man1/iad.1.gz")
	if out := m.run("systemd-analyze verify --man=no iad.service iadms.service iadsim.service iadmsd.service"); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	m.expect("iadlab ", "iadlab --version && ! getent passwd iadlab") // a tool without a service needs no user
	m.expect("disabled", "systemctl is-enabled iad || true")

	// Not configured yet: the reason is in the journal.
	if out, err := m.try("systemctl start iad"); err == nil {
		t.Fatalf("a device without settings was started: %s", out)
	}
	m.expect("--device-id, --hardware are required", "journalctl --no-pager -u iad-init")

	// The first start and the first upgrade.
	m.run(`cd /root
iadms image keygen --no-password -o maker
for v in 1.0.0 2.0.0; do iadms image build --version $v --hardware IAD-4FXS --key maker.key -o fw-$v.iad /etc/debian_version; done
install -m 644 maker.pub /etc/iad/maker.pub
install -m 644 fw-1.0.0.iad /etc/iad/first.iad
sed -i 's/^#IAD_HARDWARE/IAD_HARDWARE/; s/^#IAD_DEVICE_ID/IAD_DEVICE_ID/' /etc/iad/init.conf
systemctl enable --now iad`)
	m.run("install -m 600 /var/lib/iad/credentials.toml /root/credentials.toml")
	m.expect("upgraded 1.0.0 -> 2.0.0", "iadms upgrade 127.0.0.1:161 --credentials /root/credentials.toml --image /root/fw-2.0.0.iad")
	const status = "iadms status 127.0.0.1:161 --credentials /root/credentials.toml"
	m.expect("2.0.0", status)
	m.expect("IAD-0001 answers on", "iad healthcheck --root /var/lib/iad")
	m.expect("iad", "stat -c %U /proc/$(systemctl show -P MainPID iad)")

	// The other two services.
	m.run("systemctl start iadsim && timeout 60 sh -c 'until iadsim healthcheck --snmp 127.0.0.1:16109; do :; done' && iadms status 127.0.0.1:16109")
	m.run("systemctl stop iad && systemctl start iad")                                                  // port 161 is free again at once
	m.run("systemctl start iadms && timeout 60 sh -c 'until grep -q :0015 /proc/net/tcp6; do :; done'") // FTP
	m.expect("iadms 600", "stat -c '%U %a' /etc/iadms/iadms.toml")

	// The fleet service: the key is created, is not with the data, and belongs to root.
	m.run("sed -i 's/^#IADMSD_SLOTS=.*/IADMSD_SLOTS=7/; s/^IADMSD_NOTIFICATIONS=.*/IADMSD_NOTIFICATIONS=:1162/' /etc/iadmsd/iadmsd.conf && systemctl enable --now iadmsd")
	const ready = "for i in $(seq 60); do iadmsd healthcheck && exit; sleep 1; done; exit 1"
	m.expect("ok", ready)
	m.expect("iadmsd", "stat -c %U /proc/$(systemctl show -P MainPID iadmsd)")
	m.expect("root 600", "stat -c '%U %a' /etc/iadmsd/iadmsd.key")
	m.expect("iadmsd 600", "stat -c '%U %a' /etc/iadmsd/notify.toml")
	m.run("test -z \"$(find /var/lib/iadmsd -name '*.key')\"")
	const fleet = "iadms fleet --api https://localhost:8443 --ca /var/lib/iadmsd/tls/cert.pem "
	m.run(fleet + "login --account admin </var/lib/iadmsd/initial-password")
	m.run("printf 'write_community = \"private\"\\n' >/root/sim.toml && chmod 600 /root/sim.toml && " + fleet + "store-credentials default --credentials /root/sim.toml")
	m.run("printf 'name,address\\nsim-0,127.0.0.1:16100\\n' >/root/devices.csv && " + fleet + "import /root/devices.csv")

	// The packages are upgraded: settings that were changed stay, services that run are started again.
	before := m.run("systemctl show -P MainPID iad")
	m.run("dpkg -i --force-confold /root/later/*.deb")
	if after := m.run("systemctl show -P MainPID iad"); after == before {
		t.Errorf("process %s still runs after the upgrade of the package", strings.TrimSpace(after))
	}
	m.expect("IAD_HARDWARE=IAD-4FXS", "grep ^IAD_ /etc/iad/init.conf")
	m.expect("2.0.0", status)

	m.expect("IADMSD_SLOTS=7", "grep ^IADMSD_ /etc/iadmsd/iadmsd.conf")
	m.expect("ok", ready)
	m.expect("sim-0", fleet+"devices")

	// Removed: no process is left, data and settings are.
	m.run("sha256sum /etc/iadmsd/iadmsd.key >/root/key.sum")
	m.run("dpkg -r iad iadms iadsim iadlab iadmsd")
	m.run("test -s /etc/iadmsd/iadmsd.conf && test -d /var/lib/iadmsd/engine && test ! -e /usr/bin/iadmsd")
	m.expect("inactive", "systemctl is-active iad || true")
	m.expect("IAD_DEVICE_ID=IAD-0001", "grep ^IAD_ /etc/iad/init.conf")
	m.run("test -s /var/lib/iad/iad.toml && test ! -e /usr/bin/iad")
	m.run("dpkg -i --force-confold /root/later/*.deb && systemctl enable --now iad iadmsd")
	m.expect("2.0.0", status)
	m.expect("ok", ready)
	m.expect("sim-0", fleet+"devices")
	m.run("sha256sum -c /root/key.sum")

	m.expect("/var/lib/iad and the user iad are kept", "dpkg --purge iad iadms iadsim iadlab iadmsd")
	// Without its key, the data of the fleet service would be of little use.
	m.run("test ! -e /etc/iadmsd/iadmsd.conf && test -s /etc/iadmsd/iadmsd.key && test -d /var/lib/iadmsd/engine && getent passwd iadmsd")
	m.run("test ! -e /etc/iad/init.conf && test -s /var/lib/iad/iad.toml && getent passwd iad")
	m.run("test ! -e /etc/systemd/system/multi-user.target.wants/iad.service")
}

// TestRpm installs the packages with the real rpm, on a Debian: their scripts get other arguments than from dpkg, and in another
// order. What the services do is TestDeb's.
func TestRpm(t *testing.T) {
	dir := os.Getenv("IAD_PACKAGES")
	if dir == "" {
		t.Skip("make packages-test runs this test")
	}
	peers.Find(t, "docker")
	if found, _ := filepath.Glob(filepath.Join(dir, "*.rpm")); len(found) == 0 {
		t.Skip(`no packages for rpm: FORMATS has no "rpm"`)
	}
	m := boot(t)
	m.copy(each(t, dir, "-*.x86_64.rpm")...)

	m.run("rpm --checksig --nosignature /root/*.rpm")
	m.run("rpm -i /root/*.rpm")
	// Only what has passwords has got another owner than root.
	if out := m.run("rpm -Va --nodeps --nomtime 'iad*' | grep -v '^[.]*UG[.]*  c /etc/iad[a-z]*/[a-z]*.toml$' || true"); out != "" {
		t.Errorf("not as packed:\n%s", out)
	}
	m.expect("iadms 600", "stat -c '%U %a' /etc/iadms/iadms.toml")
	m.run("getent passwd iadms && iadms --version")
	m.run("systemctl enable --now iadsim && timeout 60 sh -c 'until iadsim healthcheck --snmp 127.0.0.1:16109; do :; done'")
	before := m.run("systemctl show -P MainPID iadsim")
	m.run("echo '# Mine.' >>/etc/iadsim/iadsim.conf")

	// An upgrade ends with the scripts of the old package: they must not stop what runs.
	m.run("rpm -U --replacepkgs /root/*.rpm")
	m.expect("active", "systemctl is-active iadsim && systemctl is-enabled iadsim")
	if after := m.run("systemctl show -P MainPID iadsim"); after == before {
		t.Errorf("process %s still runs after the upgrade of the package", strings.TrimSpace(after))
	}
	m.expect("# Mine.", "tail -n 1 /etc/iadsim/iadsim.conf")

	m.run("mkdir -p /var/lib/iadsim/kept")
	m.expect("/var/lib/iadsim and the user iadsim are kept", "rpm -e iad iadms iadsim iadlab iadmsd")
	m.expect("inactive", "systemctl is-active iadsim || true")
	m.run("test ! -e /usr/bin/iadsim && test ! -e /usr/bin/iadmsd && test -d /var/lib/iadsim/kept && getent passwd iadsim")
	m.expect("# Mine.", "tail -n 1 /etc/iadsim/iadsim.conf.rpmsave")
}

// Package compose holds no code: it tests the laboratory of containers.
package compose

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/client"
	"example.com/iad/fleet/operations"
	"example.com/iad/internal/peers"
	"example.com/iad/manager"
)

// lab is the laboratory of lab.yaml, with the images that "make images" has built.
type lab struct {
	t, top  *testing.T // of the subtest, and of the laboratory
	project string
	env     []string
	input   string // what run passes to programs
	devices []container
}

type container struct{ id, ip4, ip6 string }

// up starts a laboratory whose devices download at most rate bytes per second; 0 is no limit.
func up(t *testing.T, devices, rate int) *lab {
	t.Helper()
	dir := os.Getenv("IAD_IMAGES")
	if dir == "" {
		t.Skip("make lab-test runs this test")
	}
	peers.Find(t, "docker")
	peers.Find(t, "docker-compose")
	l := &lab{t: t, top: t, project: "iadlab" + strconv.Itoa(os.Getpid())}
	for _, program := range []string{"iadms", "iadmsd", "iadsim"} {
		found, err := filepath.Glob(filepath.Join(dir, program+"-*-amd64.tar"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %d images of %s for amd64, want 1 (%v)", dir, len(found), program, err)
		}
		_, tag, _ := strings.Cut(l.run("docker", "load", "--input", found[0]), "Loaded image: "+program+":")
		l.env = []string{"IAD_VERSION=" + strings.TrimSpace(tag)}
	}
	n := l.freeNetwork()
	l.env = append(l.env, fmt.Sprintf("LAB_DEVICES=%d", devices), fmt.Sprintf("LAB_RATE_LIMIT=%d", rate),
		fmt.Sprintf("LAB_SUBNET=10.%d.0.0/16", n), fmt.Sprintf("LAB_SUBNET6=fd00:%d::/64", n))
	t.Cleanup(func() {
		var out []byte
		var err error
		for range 3 {
			// The context of the test has ended by now.
			down := exec.Command("docker-compose", l.compose("down", "--volumes", "--timeout", "2")...)
			down.Env = append(os.Environ(), l.env...)
			if out, err = down.CombinedOutput(); err == nil {
				return
			}
		}
		if strings.Contains(string(out), "has active endpoints") {
			// Docker 20.10 miscounts the endpoints of many containers that are removed at once, until it is started again.
			t.Logf("a network of %s is left: restart Docker and remove it", l.project)
			return
		}
		t.Errorf("docker-compose down: %v\n%s", err, out)
	})
	l.run("docker-compose", l.compose("up", "--detach")...)
	for id := range strings.FieldsSeq(l.run("docker-compose", l.compose("ps", "--quiet", "device")...)) {
		addresses := strings.Fields(l.run("docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}", id))
		if len(addresses) != 2 {
			t.Fatalf("%s has the addresses %q, want one of IPv4 and one of IPv6", id, addresses)
		}
		l.devices = append(l.devices, container{id, addresses[0], addresses[1]})
		// Its address is in the list of devices before it answers.
		l.run("docker", "exec", id, "sh", "-c", "until iadsim healthcheck --snmp 127.0.0.1:161 --read-community lab-read; do sleep 1; done")
	}
	if len(l.devices) != devices {
		t.Fatalf("%d devices, want %d", len(l.devices), devices)
	}
	return l
}

// freeNetwork returns a number that no network of the engine has as its second byte: a laboratory may be left.
func (l *lab) freeNetwork() int {
	l.t.Helper()
	ids := strings.Fields(l.run("docker", "network", "ls", "--quiet"))
	used := l.run("docker", append([]string{"network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}"}, ids...)...)
	for n := 161; n < 250; n++ {
		if !strings.Contains(used, fmt.Sprintf("10.%d.", n)) && !strings.Contains(used, fmt.Sprintf("fd00:%d:", n)) {
			return n
		}
	}
	l.t.Fatalf("no free network among\n%s", used)
	return 0
}

func (l *lab) compose(args ...string) []string {
	return append([]string{"--project-name", l.project, "--file", "lab.yaml"}, args...)
}

func (l *lab) command(name string, args ...string) (*exec.Cmd, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(l.t.Context(), 8*time.Minute)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), l.env...)
	return cmd, cancel
}

func (l *lab) run(name string, args ...string) string {
	l.t.Helper()
	cmd, cancel := l.command(name, args...)
	defer cancel()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.Stdin = strings.NewReader(l.input)
	out, err := cmd.Output()
	if err != nil {
		l.t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, &stderr)
	}
	return string(out)
}

// iadms runs the management system in the laboratory.
func (l *lab) iadms(args ...string) string {
	l.t.Helper()
	return l.run("docker-compose", l.compose(append([]string{"run", "--no-deps", "--rm", "-T", "iadms"}, args...)...)...)
}

// upgrade upgrades all devices and calls seen for every line of its JSON. It returns the exit status.
func (l *lab) upgrade(version string, seen func(line map[string]any), args ...string) int {
	l.t.Helper()
	args = append([]string{"run", "--no-deps", "--rm", "-T", "iadms", "upgrade", "--targets", "devices", "--image", "fw-" + version + ".iad",
		"--parallel", "20", "--json", "--notifications", "none", "--poll", "500ms"}, args...)
	cmd, cancel := l.command("docker-compose", l.compose(args...)...)
	defer cancel()
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	var last strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(&last, lines.Text())
		var line map[string]any
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			l.t.Errorf("%v: %s", err, lines.Text())
		} else if seen != nil {
			seen(line)
		}
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
	l.t.Logf("exit status %d\n%s%s", cmd.ProcessState.ExitCode(), &stderr, tail(last.String()))
	return cmd.ProcessState.ExitCode()
}

// tail returns the last lines of a text.
func tail(text string) string {
	if len(text) > 4000 {
		text = text[len(text)-4000:]
	}
	return text
}

// atVersion fails the test unless all devices run a version, with configuration data in force and nothing left to do: then
// another upgrade changes nothing.
func (l *lab) atVersion(version string) {
	l.t.Helper()
	unchanged := 0
	status := l.upgrade(version, func(line map[string]any) {
		if result, _ := line["result"].(map[string]any); result["unchanged"] == true && result["new_version"] == version {
			unchanged++
		}
	})
	if status != 0 || unchanged != len(l.devices) {
		l.t.Errorf("%d of %d devices are at %s, exit status %d", unchanged, len(l.devices), version, status)
	}
}

// finish resumes an upgrade that ended with an error because devices could not be reached.
func (l *lab) finish(status int, version string) {
	l.t.Helper()
	if status != 0 {
		if status = l.upgrade(version, nil, "--resume"); status != 0 {
			l.t.Errorf("upgrade --resume: exit status %d", status)
		}
	}
	l.atVersion(version)
}

// downloading returns the address of the device whose download of software a line reports.
func downloading(line map[string]any) (string, bool) {
	operation, _ := line["operation"].(map[string]any)
	done, _ := operation["bytes_done"].(float64)
	return host(line), line["step"] == 140.0 && operation["phase"] == "transferring" && done > 0
}

// host returns the address of the device that a line is about.
func host(line map[string]any) string {
	target, _ := line["target"].(string)
	return strings.TrimSuffix(target, ":161")
}

func TestLab(t *testing.T) {
	n := 4
	if s := os.Getenv("LAB_DEVICES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 2 {
			t.Fatalf("LAB_DEVICES=%s: must be a number from 2", s)
		}
	}
	l := up(t, n, 2_000_000) // a download takes five seconds

	t.Run("half of the devices cut off in step 140", func(t *testing.T) {
		l.t = t
		isCut, cut, connected := map[string]bool{}, false, false
		for i, d := range l.devices {
			isCut[d.ip4] = i%2 == 0
		}
		status := l.upgrade("2.0.0", func(line map[string]any) {
			switch address, is := downloading(line); {
			case !cut && is && isCut[address]:
				cut = true
				for _, d := range l.devices {
					if isCut[d.ip4] {
						l.run("docker", "network", "disconnect", l.project+"_devices", d.id)
					}
				}
			case cut && !connected && line["result"] != nil && !isCut[address]:
				connected = true
				if result := line["result"].(map[string]any); result["ok"] != true {
					t.Errorf("a device that was not cut off: %v", result)
				}
				l.reconnect(isCut)
			}
		})
		if !cut || !connected {
			t.Fatalf("devices were cut off: %v, and connected again: %v", cut, connected)
		}
		l.finish(status, "2.0.0")
	})

	t.Run("container killed in step 140 and created again with its volume", func(t *testing.T) {
		l.t = t
		killed := false
		status := l.upgrade("3.0.0", func(line map[string]any) {
			if address, is := downloading(line); is && !killed && address == l.devices[0].ip4 {
				killed = true
				l.replace(&l.devices[0])
			}
		})
		if !killed {
			t.Fatal("no container was killed")
		}
		l.finish(status, "3.0.0")
	})

	t.Run("TFTP and IPv6", func(t *testing.T) {
		l.t = t
		d := l.devices[len(l.devices)-1]
		for _, target := range []string{d.ip4 + ":161", "[" + d.ip6 + "]:161"} {
			for _, ports := range [][]string{{}, {"--single-port"}} {
				args := append([]string{"backup", target, "--notifications", "none"}, ports...)
				if out := l.iadms(args...); !strings.Contains(out, "OK") {
					t.Errorf("%q:\n%s", args, out)
				}
			}
		}
	})
}

// TestWorkerIsCutOff: a worker loses its cluster in step 140, while it reaches the devices. The other one continues them.
func TestWorkerIsCutOff(t *testing.T) {
	l := up(t, 2, 500_000) // a download takes long enough for a lease to end in it
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	c, password := l.service(ctx)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	l.input = password
	l.iadms("fleet", "login", "--account", "admin")
	l.input = ""
	for _, args := range [][]string{
		{"store-credentials", "default"}, {"import", "devices.csv"}, {"add-image", "fw-2.0.0.iad"}, {"create", "upgrade-2.0.0.json", "--id", "spring", "--submit"},
	} {
		l.iadms(append([]string{"fleet"}, args...)...)
	}
	runs := func() []operations.RunRow {
		t.Helper()
		page, err := c.Runs(ctx, operations.RunQuery{Campaign: "spring", Wave: -1})
		must(err)
		return page.Runs
	}
	wait := func(what string, done func() bool) {
		t.Helper()
		for !done() {
			select {
			case <-ctx.Done():
				t.Fatalf("%s: %+v", what, runs())
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	var lost string // the worker, and its container
	wait("no device downloads", func() bool {
		for _, r := range runs() {
			if r.Progress.Step == manager.StepUpdate || r.Progress.Step == manager.StepUpdateWatch {
				lost = r.Worker
			}
		}
		return lost != ""
	})
	id, _, _ := strings.Cut(lost, "-")
	l.run("docker", "network", "disconnect", l.project+"_fleet", id)
	wait("the other worker does not continue", func() bool {
		return !slices.ContainsFunc(runs(), func(r operations.RunRow) bool { return r.Worker == lost && !r.State.Final() })
	})
	if out, err := exec.Command("docker", "exec", id, "iadmsd", "healthcheck").CombinedOutput(); err == nil {
		t.Errorf("a worker without its cluster is ready: %s", out)
	}
	wait("the campaign does not end", func() bool {
		d, err := c.Campaign(ctx, "spring")
		must(err)
		return d.Campaign.State.Final()
	})
	for _, r := range runs() {
		if r.State != fleet.RunSucceeded || r.NewVersion != "2.0.0" || r.Worker == lost {
			t.Errorf("%+v", r)
		}
	}
	l.run("docker", "network", "connect", l.project+"_fleet", id)
	wait("the worker does not come back", func() bool { return exec.Command("docker", "exec", id, "iadmsd", "healthcheck").Run() == nil })
	l.atVersion("2.0.0")
}

// service returns access to the fleet service, and the first password of its admin.
func (l *lab) service(ctx context.Context) (c *client.Client, password string) {
	l.t.Helper()
	file := func(name string) string {
		return l.run("docker-compose", l.compose("exec", "-T", "iadmsd", "cat", "/data/service/"+name)...)
	}
	trust := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "iadmsd"}
	trust.RootCAs.AppendCertsFromPEM([]byte(file("tls/cert.pem")))
	api := "https://" + strings.TrimSpace(l.run("docker-compose", l.compose("port", "iadmsd", "8443")...))
	password = strings.TrimSpace(file("initial-password"))
	login, err := client.New(api, "", trust)
	if err != nil {
		l.t.Fatal(err)
	}
	token, err := login.Login(ctx, "admin", password, "test", time.Hour)
	if err != nil {
		l.t.Fatal(err)
	}
	if c, err = client.New(api, token, trust); err != nil {
		l.t.Fatal(err)
	}
	return c, password
}

func (l *lab) reconnect(which map[string]bool) {
	l.t.Helper()
	for _, d := range l.devices {
		if which[d.ip4] {
			l.run("docker", "network", "connect", "--ip", d.ip4, "--ip6", d.ip6, l.project+"_devices", d.id)
		}
	}
}

// replace kills a device's container, as a power cut does, and creates another with the same disks and address.
func (l *lab) replace(d *container) {
	l.t.Helper()
	l.run("docker", "kill", d.id)
	var old []struct {
		Config struct {
			Image           string
			Env, Entrypoint []string
			Cmd             []string
		}
	}
	if err := json.Unmarshal([]byte(l.run("docker", "inspect", d.id)), &old); err != nil {
		l.t.Fatal(err)
	}
	c := old[0].Config
	args := []string{"run", "--detach", "--read-only", "--cap-drop", "ALL", "--sysctl", "net.ipv4.ip_unprivileged_port_start=0", "--volumes-from", d.id,
		"--network", l.project + "_devices", "--ip", d.ip4, "--ip6", d.ip6, "--entrypoint", c.Entrypoint[0]}
	for _, variable := range c.Env {
		args = append(args, "--env", variable)
	}
	args = append(append(append(args, c.Image), c.Entrypoint[1:]...), c.Cmd...)
	id := strings.TrimSpace(l.run("docker", args...))
	l.top.Cleanup(func() { _ = exec.Command("docker", "rm", "--force", "--volumes", id).Run() })
	l.run("docker", "rm", d.id)
	d.id = id
}

// Package images holds no code: it tests the container images.
package images

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/iad/internal/peers"
)

func docker(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// load loads the image of a program for this machine and returns its name.
func load(t *testing.T, dir, program string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, program+"-*-amd64.tar"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %d images of %s for amd64, want 1 (%v)", dir, len(found), program, err)
	}
	_, name, ok := strings.Cut(docker(t, "load", "--input", found[0]), "Loaded image: ")
	if !ok {
		t.Fatalf("docker load: %q", name)
	}
	return name
}

// TestImages loads the images that "make images" has built, and runs an upgrade from one container to another, without root and on
// read-only file systems.
func TestImages(t *testing.T) {
	dir := os.Getenv("IAD_IMAGES")
	if dir == "" {
		t.Skip("make images-test runs this test")
	}
	peers.Find(t, "docker")
	image := map[string]string{}
	for _, program := range []string{"iad", "iadms", "iadsim", "iadlab", "iadmsd"} {
		image[program] = load(t, dir, program)
		var info []struct {
			Config struct {
				User, StopSignal, WorkingDir string
				Labels                       map[string]string
				ExposedPorts, Volumes        map[string]struct{}
				Healthcheck                  *struct{ Test []string }
			}
		}
		if err := json.Unmarshal([]byte(docker(t, "inspect", image[program])), &info); err != nil {
			t.Fatal(err)
		}
		c := info[0].Config
		if c.User != "65532:65532" || c.StopSignal != "SIGTERM" || len(c.ExposedPorts) == 0 || len(c.Volumes) != map[bool]int{false: 1, true: 2}[program == "iadmsd"] {
			t.Errorf("%s: %+v", program, c)
		}
		for _, label := range []string{"version", "revision", "source"} {
			if c.Labels["org.opencontainers.image."+label] == "" {
				t.Errorf("%s: no label %s", program, label)
			}
		}
		if (c.Healthcheck != nil) != slices.Contains([]string{"iad", "iadsim", "iadmsd"}, program) {
			t.Errorf("%s: health check: %+v", program, c.Healthcheck)
		}
	}

	volume := docker(t, "volume", "create")
	t.Cleanup(func() { _ = exec.Command("docker", "volume", "rm", "-f", volume).Run() })
	hardened := []string{"--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp", "--volume", volume + ":/data"}
	run := func(args ...string) string {
		t.Helper()
		return docker(t, append(append([]string{"run", "--rm"}, hardened...), args...)...)
	}
	// The maker's work, in the volume of the device.
	run(image["iadms"], "image", "keygen", "--no-password", "-o", "maker")
	for _, version := range []string{"1.0.0", "2.0.0"} {
		run(image["iadms"], "image", "build", "--version", version, "--hardware", "IAD-4FXS", "--key", "maker.key", "-o", "fw-"+version+".iad", "/etc/passwd")
	}
	run(image["iad"], "init", "--image", "fw-1.0.0.iad", "--trust", "maker.pub", "--hardware", "IAD-4FXS", "--device-id", "IAD-0001", "--manager", "credentials.toml")
	id := docker(t, append(append([]string{"run", "--detach"}, hardened...), image["iad"])...)
	t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", id).Run() })
	with := []string{"--network", "container:" + id, image["iadms"]}
	out := run(append(with, "upgrade", "127.0.0.1:1161", "--credentials", "credentials.toml", "--image", "fw-2.0.0.iad", "--notifications", "none")...)
	if !strings.Contains(out, "upgraded 1.0.0 -> 2.0.0") {
		t.Errorf("upgrade:\n%s", out)
	}
	if out := docker(t, "exec", id, "/usr/bin/iad", "healthcheck"); !strings.Contains(out, "IAD-0001 answers") {
		t.Errorf("healthcheck: %s", out)
	}
	if out := docker(t, "exec", id, "sh", "-c", "id -u; echo a | awk '{ print $1 \"b\" }'"); out != "65532\nab" {
		t.Errorf("the shell for self-tests: %q", out)
	}
	// A signal ends it in order: exit status 0.
	docker(t, "stop", id)
	if code := docker(t, "inspect", "--format", "{{.State.ExitCode}}", id); code != "0" {
		t.Errorf("exit status %s after docker stop\n%s", code, docker(t, "logs", id))
	}

	sim := docker(t, "run", "--detach", "--read-only", "--cap-drop", "ALL", "--env", "IADSIM_DEVICES=3", "--env", "IADSIM_LOG_LEVEL=info", image["iadsim"])
	t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", "-v", sim).Run() })
	docker(t, "exec", sim, "sh", "-c", "until iadsim healthcheck; do sleep 1; done")
	if out := docker(t, "run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "container:"+sim, image["iadlab"],
		"test", "127.0.0.1:16100", "--suite", "quick", "--test", "read*", "--json", "-"); !strings.Contains(out, `"verdict": "passed"`) {
		t.Errorf("iadlab test:\n%s", out)
	}

	// The fleet service, which finds its data and its key again in another container.
	key := docker(t, "volume", "create")
	t.Cleanup(func() { _ = exec.Command("docker", "volume", "rm", "-f", key).Run() })
	for range 2 {
		service := docker(t, append(append([]string{"run", "--detach", "--env", "IADMSD_NAME=one"}, hardened...), "--volume", key+":/key", image["iadmsd"])...)
		t.Cleanup(func() { _ = exec.Command("docker", "rm", "-f", service).Run() })
		docker(t, "exec", service, "sh", "-c", "until iadmsd healthcheck; do sleep 1; done")
		docker(t, "stop", "--time", "60", service)
		if code := docker(t, "inspect", "--format", "{{.State.ExitCode}}", service); code != "0" {
			t.Errorf("exit status %s after docker stop\n%s", code, docker(t, "logs", service))
		}
	}
	if out := run("--entrypoint", "ls", "--volume", key+":/key", image["iadmsd"], "/key", "service"); !strings.Contains(out, "iadmsd.key") || !strings.Contains(out, "initial-password") {
		t.Errorf("the volumes: %s", out)
	}
}

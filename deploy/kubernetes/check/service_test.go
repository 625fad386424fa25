package check

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// anyAddress is the value of a flag that listens on all addresses of the pod.
var anyAddress = regexp.MustCompile(`^(--[a-z-]+=):([0-9]+)$`)

// TestServiceStarts runs iadmsd as the pods do: three nodes and the workers, with their arguments, their probes and their secrets, on
// addresses of this machine. Ports stay as they are.
func TestServiceStarts(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "iadmsd")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/iadmsd")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	// The secrets, by the commands of kustomization.yaml.
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	run(program, "keygen", "iadmsd.key")
	run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650", "-subj", "/CN=iadmsd",
		"-addext", "subjectAltName=DNS:iadmsd-web.iad-lab.svc,DNS:localhost", "-out", "tls.crt", "-keyout", "tls.key")
	for name, text := range map[string]string{
		"secret":    "correct-horse-battery-staple\n",
		"maker.pub": "untrusted comment: minisign public key\nRWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// A pod's number is the end of its address.
	addresses := map[string]string{}
	var pods []func() *pod
	for _, w := range read(t).workloads {
		if c := w.pod.Spec.Containers[0]; strings.Contains(c.Image, "iadmsd") {
			for i := range w.replicas {
				name := fmt.Sprintf("%s-%d", w.name, i)
				addresses[name] = fmt.Sprintf("127.78.%d.%d", len(addresses), 1+len(pods))
				pods = append(pods, func() *pod { return start(ctx, t, program, dir, name, c, addresses) })
			}
		}
	}
	if len(pods) != 5 {
		t.Fatalf("%d pods, want three nodes and two workers", len(pods))
	}
	var running []*pod
	for _, begin := range pods {
		running = append(running, begin())
	}
	for _, p := range running {
		p.probe(ctx, p.container.LivenessProbe)
		p.probe(ctx, p.container.ReadinessProbe)
	}
	// A pod ends in order.
	for _, p := range running {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	for _, p := range running {
		if <-p.done; p.cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("%s: %v\n%s", p.name, p.cmd.ProcessState, p.log.String())
		}
	}
}

// pod is a container of one, without a container.
type pod struct {
	t             *testing.T
	name, address string
	container     corev1.Container
	cmd           *exec.Cmd
	log           bytes.Buffer
	done          chan struct{}
}

func start(ctx context.Context, t *testing.T, program, dir, name string, c corev1.Container, addresses map[string]string) *pod {
	t.Helper()
	p := &pod{t: t, name: name, address: addresses[name], container: c, done: make(chan struct{})}
	var names []string // of the nodes
	for other, address := range addresses {
		names = append(names, other+".iadmsd:", address+":")
	}
	hosts := strings.NewReplacer(append(names, "$(NAME)", name, "=/secrets/", "="+dir+"/", "=/maker/", "="+dir+"/")...)
	args := make([]string, len(c.Args))
	for i, arg := range c.Args {
		args[i] = anyAddress.ReplaceAllString(hosts.Replace(arg), "${1}"+p.address+":${2}")
	}
	p.cmd = exec.CommandContext(ctx, program, args...)
	p.cmd.Env = append(os.Environ(), "IADMSD_DATA="+filepath.Join(dir, name)) // set in the image
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// probe waits until a probe succeeds.
func (p *pod) probe(ctx context.Context, probe *corev1.Probe) {
	p.t.Helper()
	port := ""
	for _, candidate := range p.container.Ports {
		if candidate.Name == probe.HTTPGet.Port.String() {
			port = fmt.Sprint(candidate.ContainerPort)
		}
	}
	target := "http://" + p.address + ":" + port + probe.HTTPGet.Path
	for {
		status, err := get(ctx, target)
		if err == nil && status == http.StatusOK {
			return
		}
		select {
		case <-p.done:
			p.t.Fatalf("%s has ended: %v\n%s", p.name, p.cmd.ProcessState, p.log.String())
		case <-ctx.Done():
			_ = p.cmd.Process.Kill()
			<-p.done
			p.t.Fatalf("%s: %s: status %d, %v\n%s", p.name, target, status, err, p.log.String())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func get(ctx context.Context, target string) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}

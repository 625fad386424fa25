package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHealth: a worker answers probes while it waits for its nodes, and is ready as long as it reaches them.
func TestHealth(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l := newLab(t, ctx, 1)
	nodes, web, health := freeAddress(t), freeAddress(t), freeAddress(t)
	until := func(ok bool, text string, args ...string) {
		t.Helper()
		for {
			out, err := iadmsd(append([]string{"healthcheck"}, args...)...).CombinedOutput()
			if (err == nil) == ok && strings.Contains(string(out), text) {
				return
			}
			if !pause(ctx) {
				t.Fatalf("healthcheck %q: %v, %s; want success: %v, and %q", args, err, out, ok, text)
			}
		}
	}
	l.start("worker", "--roles", "worker", "--nats", "nats://"+nodes, "--notifications", "none", "--health", health)
	until(false, "waiting for the nodes", "--health", health)
	until(false, "refused", "--web", web)
	node := l.start("node", "--roles", "api,scheduler", "--listen", nodes, "--web", web)
	until(true, "ok", "--web", web)
	until(true, "ok", "--health", health)
	node.kill()
	until(false, "503", "--health", health, "--timeout", "1m")
	until(false, "refused", "--web", web)
}

func TestKeygen(t *testing.T) {
	name := filepath.Join(t.TempDir(), "etc", "iadmsd.key")
	if out, err := iadmsd("keygen", name).CombinedOutput(); err != nil || !strings.Contains(string(out), "keep a copy") {
		t.Fatalf("%v: %s", err, out)
	}
	first, err := os.ReadFile(name)
	if info, errStat := os.Stat(name); err != nil || errStat != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(err, errStat, info)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(name), ".key-*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if out, err := iadmsd("keygen", name).CombinedOutput(); err == nil || !strings.Contains(string(out), "is kept") {
		t.Errorf("%v: %s", err, out)
	}
	if second, err := os.ReadFile(name); err != nil || string(second) != string(first) {
		t.Errorf("%v, the key was replaced", err)
	}
}

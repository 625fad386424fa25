package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/iad/fleet/seal"
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
	for _, setting := range []string{"IADMSD_CLUSTER=192.0.2.1:6222", "IADMSD_NATS=nats://192.0.2.1:4222"} {
		other := filepath.Join(t.TempDir(), "iadmsd.key")
		c := iadmsd("keygen", other)
		c.Env = append(c.Env, setting)
		out, err := c.CombinedOutput()
		if _, created := os.Stat(other); err == nil || created == nil || !strings.Contains(string(out), "copy it from one of them to "+other) {
			t.Errorf("%s: %v: %s", setting, err, out)
		}
	}
}

// TestOtherKey: a process with a key that is not the one of the stored credentials is refused,
// and a node that has stored makes no key of its own. A lost key is replaced on demand.
func TestOtherKey(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l := newLab(t, ctx, 0)
	address := freeAddress(t)
	node := l.start("one", "--roles", "scheduler", "--listen", address, "--notifications", "none")
	l.connect("nats://" + address)
	other := filepath.Join(t.TempDir(), "other.key")
	if _, _, err := seal.ReadOrCreateKey(other); err != nil {
		t.Fatal(err)
	}
	refused := func(key string, args ...string) {
		t.Helper()
		out, err := iadmsd(append([]string{"run", "--key", key, "--secret-file", filepath.Join(l.dir, "secret")}, args...)...).CombinedOutput()
		if text := string(out); err == nil || !strings.Contains(text, key) || !strings.Contains(text, "--replace-key") || !strings.Contains(text, "copy") {
			t.Errorf("%q: %v: %s", args, err, out)
		}
	}
	refused(other, "--data", t.TempDir(), "--roles", "worker", "--nats", "nats://"+address)
	node.interrupt()
	data := filepath.Join(l.dir, "one")
	missing := filepath.Join(t.TempDir(), "missing.key")
	refused(missing, "--data", data)
	if _, err := os.Stat(missing); err == nil {
		t.Error("a key was created")
	}
	refused(other, "--data", data)
	node.args = append(node.args, "--key", missing, "--replace-key")
	node.run()
	key, err := seal.ReadKey(missing)
	for ; err != nil; key, err = seal.ReadKey(missing) {
		select {
		case <-time.After(50 * time.Millisecond): // files cannot be waited for portably
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
	l.key = key
	l.connect("nats://" + address)
}

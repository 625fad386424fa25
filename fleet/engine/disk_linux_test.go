package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"example.com/iad/fleet/engine"
)

// small is the variable with a directory on a small disk, which only this process sees.
const small = "IAD_SMALL_DISK"

// onSmallDisk runs the test again in a process that has a small disk, and returns its
// directory there; "": it was run.
func onSmallDisk(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv(small); dir != "" {
		return dir
	}
	dir := t.TempDir()
	mount := []string{"-Urm", "sh", "-c", `mount -t tmpfs -o size=96m tmpfs "$0" && exec "$@"`, dir}
	if out, err := exec.Command("unshare", append(mount, "true")...).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("a small disk cannot be mounted: %v, %s", err, out)
		}
		t.Skipf("a small disk cannot be mounted; permit user namespaces: %v, %s", err, out)
	}
	c := exec.Command("unshare", append(mount, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")...)
	c.Env = append(os.Environ(), small+"="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return ""
}

// fill writes until there is no room, and returns how to make room again.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size > 0; {
		if n, err := f.Write(make([]byte, size)); err != nil && n == 0 {
			size /= 2
		}
	}
	return func() {
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			t.Error(err)
		}
	}
}

// ready waits until a node stores, or does not.
func ready(ctx context.Context, t *testing.T, e *engine.Engine, wanted bool) {
	t.Helper()
	for {
		err := e.Ready(ctx)
		if (err == nil) == wanted && (wanted || errors.Is(err, engine.ErrNotStoring)) {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond): // a state that is not announced
		case <-ctx.Done():
			t.Fatalf("ready %v is not reached: %v", wanted, err)
		}
	}
}

// write stores entries, until ctx ends or there are so many that a third of the small disk
// has room for them, and returns how many were acknowledged.
func write(ctx context.Context, t *testing.T, b *engine.Bucket, name string) (acknowledged int) {
	t.Helper()
	value := make([]byte, 64<<10)
	for acknowledged < 200 {
		if _, err := b.Create(ctx, engine.Key(name, fmt.Sprint(acknowledged)), value); err != nil {
			break
		}
		acknowledged++
	}
	return acknowledged
}

// keeps checks that what was acknowledged is there.
func keeps(ctx context.Context, t *testing.T, b *engine.Bucket, name string, acknowledged int) {
	t.Helper()
	keys, err := b.Keys(ctx, engine.Key(name)+".*")
	if err != nil || len(keys) < acknowledged {
		t.Errorf("%s: %d of %d acknowledged entries are there, %v", name, len(keys), acknowledged, err)
	}
}

// TestOnlyDiskFull: without room the only node stores nothing and says so. What it has
// acknowledged is there, and it stores again once there is room.
func TestOnlyDiskFull(t *testing.T) {
	dir := onSmallDisk(t)
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e := start(t, engine.Config{Data: filepath.Join(dir, "engine"), Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	b, err := e.Bucket(ctx, engine.Devices)
	if err != nil {
		t.Fatal(err)
	}
	n := write(ctx, t, b, "before")
	free := fill(t, dir)
	waiting, stop := context.WithCancel(ctx)
	during := make(chan int)
	go func() { during <- write(waiting, t, b, "during") }()
	ready(ctx, t, e, false)
	free()
	ready(ctx, t, e, true)
	if _, err := b.Create(ctx, "after", nil); err != nil {
		t.Errorf("nothing is stored although there is room: %v", err)
	}
	stop()
	keeps(ctx, t, b, "before", n)
	keeps(ctx, t, b, "during", <-during)
}

// TestDiskFull: the two other nodes continue without the one whose disk is full. It says so,
// and catches up once there is room.
func TestDiskFull(t *testing.T) {
	dir := onSmallDisk(t)
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := threeNodes(t, func(c *cluster) { c.configs[1].Data = filepath.Join(dir, "engine") })
	buckets := make([]*engine.Bucket, len(c.nodes))
	for i, e := range c.nodes {
		var err error
		if buckets[i], err = e.Bucket(ctx, engine.Devices); err != nil {
			t.Fatal(err)
		}
	}
	free := fill(t, dir)
	waiting, stop := context.WithCancel(ctx)
	during := make([]chan int, len(buckets))
	for i, b := range buckets {
		during[i] = make(chan int)
		go func() { during[i] <- write(waiting, t, b, fmt.Sprint("during", i)) }()
	}
	ready(ctx, t, c.nodes[1], false)
	for _, i := range []int{0, 2} {
		ready(ctx, t, c.nodes[i], true)
	}
	// The process of the full node uses the others.
	for i, b := range buckets {
		after, stopAfter := context.WithTimeout(ctx, 10*time.Second)
		if _, err := b.Create(after, engine.Key("without", fmt.Sprint(i)), nil); err != nil {
			t.Errorf("node %d: %v", i+1, err)
		}
		stopAfter()
	}
	stop()
	acknowledged := make([]int, len(buckets))
	for i := range during {
		acknowledged[i] = <-during[i]
	}
	free()
	ready(ctx, t, c.nodes[1], true)
	current := func(nodes []engine.Node) bool {
		for _, n := range nodes {
			if !n.Current {
				return false
			}
		}
		return len(nodes) == 3
	}
	for {
		nodes, err := c.nodes[0].Nodes(ctx)
		if err == nil && current(nodes) {
			break
		}
		select {
		case <-time.After(100 * time.Millisecond): // a state that is not announced
		case <-ctx.Done():
			t.Fatalf("%+v, %v", nodes, err)
		}
	}
	c.stop(0) // the full one is needed now
	for i := range buckets {
		keeps(ctx, t, buckets[1], fmt.Sprint("during", i), acknowledged[i])
	}
	if _, err := buckets[1].Create(ctx, "again", nil); err != nil {
		t.Error(err)
	}
}

// TestDiskDamaged: a node that cannot write although there is room is started again with
// growing pauses. It stores once it can.
func TestDiskDamaged(t *testing.T) {
	dir := onSmallDisk(t)
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	data := filepath.Join(dir, "engine")
	if err := os.MkdirAll(data, 0o700); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(data, ".room-1")
	if err := os.WriteFile(left, []byte("of a process that was killed"), 0o600); err != nil {
		t.Fatal(err)
	}
	pauses := make(chan string, 100)
	e := start(t, engine.Config{Data: data, Log: slog.New(pauseHandler{slog.NewTextHandler(os.Stderr, nil), pauses})})
	if _, err := os.Stat(left); err == nil {
		t.Errorf("%s was not removed", left)
	}
	b, err := e.Bucket(ctx, engine.Devices)
	if err != nil {
		t.Fatal(err)
	}
	msgs := filepath.Join(data, "jetstream", "$G", "streams", "KV_device", "msgs")
	mount := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v, %s", args, err, out)
		}
	}
	mount("mount", "--bind", msgs, msgs)
	mount("mount", "-o", "remount,bind,ro", msgs)
	waiting, stop := context.WithCancel(ctx)
	written := make(chan int)
	go func() { written <- write(waiting, t, b, "during") }()
	ready(ctx, t, e, false)
	for _, want := range []string{"1s", "2s", "4s"} {
		select {
		case got := <-pauses:
			if got != want {
				t.Errorf("pause %s, want %s", got, want)
			}
		case <-ctx.Done():
			t.Fatal("not started again")
		}
	}
	mount("umount", "-l", msgs)
	ready(ctx, t, e, true)
	stop()
	keeps(ctx, t, b, "during", <-written)
}

// pauseHandler passes the attribute next_after on.
type pauseHandler struct {
	slog.Handler
	pauses chan<- string
}

func (h pauseHandler) Handle(ctx context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "next_after" {
			h.pauses <- a.Value.String()
		}
		return true
	})
	return h.Handler.Handle(ctx, r)
}

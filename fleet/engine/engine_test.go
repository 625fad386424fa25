package engine_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/fleet/engine"
)

const secret = "0123456789abcdef"

// startOne starts the only node.
func startOne(t *testing.T) *engine.Engine {
	t.Helper()
	return start(t, engine.Config{Data: t.TempDir()})
}

func start(t *testing.T, c engine.Config) *engine.Engine {
	t.Helper()
	e, err := engine.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// cluster is three nodes in this process.
type cluster struct {
	t       *testing.T
	configs [3]engine.Config
	nodes   [3]*engine.Engine
}

func startThree(t *testing.T) *cluster {
	t.Helper()
	return threeNodes(t, func(*cluster) {})
}

func threeNodes(t *testing.T, change func(*cluster)) *cluster {
	t.Helper()
	c := &cluster{t: t}
	var join []string
	for range c.configs {
		join = append(join, freeAddress(t))
	}
	for i := range c.configs {
		c.configs[i] = engine.Config{
			Name: fmt.Sprintf("node%d", i+1), Data: t.TempDir(), Listen: "127.0.0.1:0", Cluster: join[i], Join: join, Secret: secret, TLS: clusterTLS(t, secret),
		}
	}
	change(c)
	c.start(0, 1, 2)
	t.Cleanup(func() { c.stop(0, 1, 2) })
	return c
}

func clusterTLS(t *testing.T, secret string) *tls.Config {
	t.Helper()
	c, err := engine.ClusterTLS(secret)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (c *cluster) start(nodes ...int) {
	c.t.Helper()
	var running sync.WaitGroup
	for _, i := range nodes {
		running.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			var err error
			if c.nodes[i], err = engine.Start(ctx, c.configs[i]); err != nil {
				c.t.Errorf("node %d: %v", i+1, err)
			}
		})
	}
	running.Wait()
	if c.t.Failed() {
		c.t.FailNow()
	}
}

func (c *cluster) stop(nodes ...int) {
	for _, i := range nodes {
		if c.nodes[i] != nil {
			c.nodes[i].Close()
		}
		c.nodes[i] = nil
	}
}

func bucket(t *testing.T, e *engine.Engine, name engine.BucketName) *engine.Bucket {
	t.Helper()
	b, err := e.Bucket(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBucketComparesRevisions(t *testing.T) {
	b := bucket(t, startOne(t), engine.Runs)
	ctx, key := t.Context(), engine.Key("canary", "IAD 1/é")
	if _, err := b.Get(ctx, key); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	first, err := b.Create(ctx, key, []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(ctx, key, []byte("b")); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("created twice: %v", err)
	}
	second, err := b.Update(ctx, key, []byte("b"), first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Update(ctx, key, []byte("c"), first); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("updated an old revision: %v", err)
	}
	if err := b.Delete(ctx, key, first); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("deleted an old revision: %v", err)
	}
	got, err := b.Get(ctx, key)
	if err != nil || string(got.Value) != "b" || got.Revision != second || got.Key != key {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := b.Delete(ctx, key, second); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Get(ctx, key); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("after deletion: %v", err)
	}
	if _, err := b.Create(ctx, key, []byte("d")); err != nil {
		t.Errorf("created again: %v", err)
	}
	if _, err := b.Create(ctx, "large", make([]byte, 2<<20)); err == nil {
		t.Error("a value of 2 MiB was accepted")
	}
}

// TestBucketCreatesMany writes more entries than fit into one batch; of some batches one
// exists already.
func TestBucketCreatesMany(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *engine.Engine{
		"one node":    startOne,
		"three nodes": func(t *testing.T) *engine.Engine { return startThree(t).nodes[1] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, ctx := bucket(t, start(t), engine.Runs), t.Context()
			for _, key := range []string{"run.7", "run.1100"} {
				if _, err := b.Create(ctx, key, []byte("first")); err != nil {
					t.Fatal(err)
				}
			}
			revision, err := b.Create(ctx, "run.8", []byte("deleted"))
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Delete(ctx, "run.8", revision); err != nil {
				t.Fatal(err)
			}
			entries := make([]engine.Entry, 1500)
			for i := range entries {
				entries[i] = engine.Entry{Key: "run." + strconv.Itoa(i), Value: fmt.Append(nil, i)}
			}
			if err := b.CreateAll(ctx, entries); err != nil {
				t.Fatal(err)
			}
			for i, e := range entries {
				got, err := b.Get(ctx, e.Key)
				existed := i == 7 || i == 1100
				switch {
				case err != nil:
					t.Fatal(err)
				case existed && (e.Revision != 0 || string(got.Value) != "first"):
					t.Errorf("%s existed: revision %d, and the value is now %q", e.Key, e.Revision, got.Value)
				case !existed && (e.Revision != got.Revision || string(got.Value) != strconv.Itoa(i)):
					t.Errorf("%s: revision %d and %q, want revision %d and %d", e.Key, got.Revision, got.Value, e.Revision, i)
				}
			}
			if _, err := b.Update(ctx, "run.42", []byte("next"), entries[42].Revision); err != nil {
				t.Error(err)
			}
			large := []engine.Entry{{Key: "small", Value: []byte("x")}, {Key: "large", Value: make([]byte, 2<<20)}}
			if err := b.CreateAll(ctx, large); err == nil {
				t.Error("a value of 2 MiB was accepted")
			}
		})
	}
}

func TestKeysAreDistinct(t *testing.T) {
	seen := make(map[string][]string)
	for _, parts := range [][]string{{"a", "b"}, {"a.b"}, {"a", "b", ""}, {"a*"}, {"a>"}, {"a=2A"}, {"a "}, {"ä"}, {""}, {"a"}} {
		key := engine.Key(parts...)
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have the key %s", parts, other, key)
		}
		seen[key] = parts
		if strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEF0123456789=.") != "" {
			t.Errorf("%q: %s", parts, key)
		}
	}
}

func TestWatchReportsWhatIsThereAndWhatChanges(t *testing.T) {
	b := bucket(t, startOne(t), engine.Devices)
	ctx := t.Context()
	revision, err := b.Create(ctx, "x.1", []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(ctx, "y.1", []byte("other")); err != nil {
		t.Fatal(err)
	}
	if keys, err := b.Keys(ctx, "x.>"); err != nil || len(keys) != 1 || keys[0] != "x.1" {
		t.Errorf("keys: %q, %v", keys, err)
	}
	var seen []string
	done := errors.New("done")
	err = b.Watch(ctx, "x.>", func(c engine.Change) error {
		switch {
		case c.Synced:
			seen = append(seen, "synced")
			if revision, err = b.Update(ctx, "x.1", []byte("b"), revision); err != nil {
				return err
			}
			return nil
		case c.Deleted:
			seen = append(seen, "deleted "+c.Key)
			return done
		case string(c.Value) == "b":
			if err := b.Delete(ctx, "x.1", c.Revision); err != nil {
				return err
			}
		}
		seen = append(seen, c.Key+" "+string(c.Value))
		return nil
	})
	if want := "x.1 a, synced, x.1 b, deleted x.1"; !errors.Is(err, done) || strings.Join(seen, ", ") != want {
		t.Errorf("saw %q, want %s; %v", seen, want, err)
	}
}

func TestQueueDeliversToOneWorker(t *testing.T) {
	e := startOne(t)
	ctx := t.Context()
	for i := range 20 {
		p := engine.Normal
		if i == 19 {
			p = engine.Urgent
		}
		for range 2 { // the second is dropped
			if err := e.Publish(ctx, "pool", p, fmt.Sprintf("c/%d/1", i), fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := e.Publish(ctx, "other", engine.Normal, "o", nil); err != nil {
		t.Fatal(err)
	}
	q, err := e.Queue(ctx, "pool", engine.Urgent, engine.Normal)
	if err != nil {
		t.Fatal(err)
	}
	first, err := q.Next(ctx)
	if err != nil || string(first.Data) != "19" {
		t.Fatalf("first: %s, %v; want the urgent one", first.Data, err)
	}
	if err := first.Retry(0); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got := make(map[string]int)
	workers, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	for range 4 {
		q, err := e.Queue(ctx, "pool", engine.Urgent, engine.Normal)
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			for {
				task, err := q.Next(workers)
				if err != nil {
					return
				}
				if err := task.Done(ctx); err != nil {
					t.Error(err)
				}
				mu.Lock()
				if got[string(task.Data)]++; len(got) == 20 {
					stop()
				}
				mu.Unlock()
			}
		})
	}
	running.Wait()
	stop()
	for task, times := range got {
		if times != 1 {
			t.Errorf("task %s: done %d times", task, times)
		}
	}
}

func TestLogKeepsOrder(t *testing.T) {
	l := startOne(t).Log(engine.Audit)
	ctx := t.Context()
	if _, err := l.Last(ctx); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("empty: %v", err)
	}
	if err := l.Read(ctx, 1, ">", false, func(engine.Message) error { return errors.New("there is none") }); err != nil {
		t.Error(err)
	}
	var last uint64
	for i := range 5 {
		var err error
		if last, err = l.AppendAfter(ctx, last, "entry", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.AppendAfter(ctx, last-1, "entry", []byte("lost race")); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("appended after an old entry: %v", err)
	}
	if m, err := l.Last(ctx); err != nil || string(m.Data) != "4" || m.Sequence != last || m.Key != "entry" {
		t.Errorf("last: %+v, %v", m, err)
	}
	var seen []string
	err := l.Read(ctx, 3, ">", false, func(m engine.Message) error {
		seen = append(seen, fmt.Sprintf("%d:%s", m.Sequence, m.Data))
		return nil
	})
	if want := "3:2 4:3 5:4"; err != nil || strings.Join(seen, " ") != want {
		t.Errorf("read %q, want %s; %v", seen, want, err)
	}
}

func TestStoreKeepsBlobs(t *testing.T) {
	e := startOne(t)
	ctx := t.Context()
	s, err := e.Store(ctx, engine.ImageFiles)
	if err != nil {
		t.Fatal(err)
	}
	blob := bytes.Repeat([]byte("0123456789"), 100_000)
	if _, _, err := s.Put(ctx, "fw", func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil }); err != nil {
		t.Fatal(err)
	}
	size, digest, err := s.Digest(ctx, "fw")
	if want := sha256.Sum256(blob); err != nil || size != int64(len(blob)) || !bytes.Equal(digest, want[:]) {
		t.Errorf("read back %d bytes, %x, %v", size, digest, err)
	}
	if has, err := s.Has(ctx, "fw"); !has || err != nil {
		t.Errorf("has: %v, %v", has, err)
	}
	if err := s.Delete(ctx, "fw"); err != nil {
		t.Fatal(err)
	}
	if has, err := s.Has(ctx, "fw"); has || err != nil {
		t.Errorf("has after deletion: %v, %v", has, err)
	}
	if err := s.Get(ctx, "fw", io.Discard); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("after deletion: %v", err)
	}
	if err := s.Delete(ctx, "fw"); err != nil {
		t.Error(err)
	}
}

func TestNotifications(t *testing.T) {
	e := startOne(t)
	got := make(chan string, 2)
	stop, err := e.OnNotify(engine.Key("IAD-1"), func(key string, data []byte) { got <- key + " " + string(data) })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for _, key := range []string{"IAD-2", "IAD-1"} {
		if err := e.Notify(engine.Key(key), []byte("trap")); err != nil {
			t.Fatal(err)
		}
	}
	if s := <-got; s != "IAD-1 trap" {
		t.Errorf("got %q", s)
	}
}

func TestLeaseIsHeldByOne(t *testing.T) {
	t.Parallel()
	e := startOne(t)
	first, err := e.Acquire(t.Context(), "leader", []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	if !first.Held() {
		t.Error("not held")
	}
	second := make(chan *engine.Lease)
	go func() {
		l, err := e.Acquire(t.Context(), "leader", []byte("b"))
		if err != nil {
			t.Error(err)
		}
		second <- l
	}()
	b := bucket(t, e, engine.Leases)
	if got, err := b.Get(t.Context(), "leader"); err != nil || string(got.Value) != "a" {
		t.Errorf("%q, %v", got.Value, err)
	}
	select {
	case <-second:
		t.Fatal("two hold the lease")
	case <-time.After(engine.LeaseTime + time.Second): // it is renewed
	}
	first.Release()
	if first.Held() {
		t.Error("held after release")
	}
	l := <-second
	// Whoever takes the entry away ends the lease.
	got, err := b.Get(t.Context(), "leader")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Update(t.Context(), "leader", []byte("thief"), got.Revision); err != nil {
		t.Fatal(err)
	}
	<-l.Context().Done()
	if l.Held() {
		t.Error("held after it was lost")
	}
	l.Release()
}

func TestConfigurationsThatCannotWork(t *testing.T) {
	for name, c := range map[string]engine.Config{
		"two nodes":      {Data: "d", Name: "a", Cluster: "127.0.0.1:1", Join: []string{"127.0.0.1:1", "127.0.0.1:2"}, Secret: secret},
		"one of three":   {Data: "d", Name: "a", Cluster: "127.0.0.1:1", Join: []string{"127.0.0.1:1"}, Secret: secret},
		"no secret":      {Data: "d", Listen: "127.0.0.1:0"},
		"short secret":   {Data: "d", Listen: "127.0.0.1:0", Secret: "short"},
		"no own address": {Data: "d", Join: []string{"127.0.0.1:1"}},
		"no data":        {},
	} {
		if e, err := engine.Start(t.Context(), c); err == nil {
			t.Errorf("%s was accepted", name)
			e.Close()
		}
	}
}

func TestForeignWorkerIsRefused(t *testing.T) {
	e := start(t, engine.Config{Data: t.TempDir(), Listen: "127.0.0.1:0", Secret: secret})
	worker, err := engine.Connect(t.Context(), engine.Remote{URLs: []string{"nats://" + e.Address()}, Name: "w", Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	defer worker.Close()
	if err := worker.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	for _, wrong := range []string{"", "another secret 12345"} {
		if e, err := engine.Connect(t.Context(), engine.Remote{URLs: []string{"nats://" + e.Address()}, Name: "foreign", Secret: wrong}); err == nil {
			t.Errorf("secret %q was accepted", wrong)
			e.Close()
		} else if !strings.Contains(err.Error(), "secret") {
			t.Errorf("secret %q: %v", wrong, err)
		}
	}
}

// TestForeignCertificate: who knows the secret as a password, but has a certificate of another
// authority or none, is neither a node nor a worker.
func TestForeignCertificate(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	foreign := clusterTLS(t, "another secret 12345")
	c := startThree(t)
	c.stop(2) // which the foreign one stands for
	for _, wrong := range []*tls.Config{foreign, nil} {
		config := c.configs[2]
		config.Data, config.TLS = t.TempDir(), wrong
		short, stop := context.WithTimeout(ctx, 5*time.Second) // it never joins
		if e, err := engine.Start(short, config); err == nil {
			t.Errorf("a node with certificate %v has joined", wrong != nil)
			e.Close()
		}
		stop()
		remote := engine.Remote{URLs: []string{"nats://" + c.nodes[0].Address()}, Name: "foreign", Secret: secret, TLS: wrong}
		if e, err := engine.Connect(ctx, remote); err == nil {
			t.Errorf("a worker with certificate %v was accepted", wrong != nil)
			e.Close()
		} else if !strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	}
	// Nor does a worker show its secret to something in place of a node.
	impostor := engine.Config{Data: t.TempDir(), Listen: "127.0.0.1:0", Secret: secret}
	for _, wrong := range []*tls.Config{foreign, nil} {
		impostor.TLS = wrong
		remote := engine.Remote{URLs: []string{"nats://" + start(t, impostor).Address()}, Name: "worker", Secret: secret, TLS: clusterTLS(t, secret)}
		if e, err := engine.Connect(ctx, remote); err == nil {
			t.Errorf("a worker has connected to a node with certificate %v", wrong != nil)
			e.Close()
		}
		impostor.Data = t.TempDir()
	}
	c.start(2) // the right one joins
	nodes, err := c.nodes[2].Nodes(ctx)
	if err != nil || len(nodes) != 3 {
		t.Errorf("%+v, %v", nodes, err)
	}
}

// TestDeadNode: a node that is gone for good is removed, and one of another name takes its place.
func TestDeadNode(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := startThree(t)
	b := bucket(t, c.nodes[0], engine.Devices)
	if _, err := b.Create(ctx, "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	until := func(e *engine.Engine, wanted func([]engine.Node) bool) {
		t.Helper()
		for {
			nodes, err := e.Nodes(ctx)
			if err == nil && wanted(nodes) {
				return
			}
			select {
			case <-time.After(100 * time.Millisecond): // a state that is not announced
			case <-ctx.Done():
				t.Fatalf("%+v, %v", nodes, err)
			}
		}
	}
	c.stop(2)
	until(c.nodes[0], func(nodes []engine.Node) bool {
		return slices.ContainsFunc(nodes, func(n engine.Node) bool { return n.Name == "node3" && n.Offline })
	})
	for name, want := range map[string]error{"node2": engine.ErrConflict, "node9": engine.ErrNotFound} {
		if err := c.nodes[0].RemoveNode(ctx, name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if err := c.nodes[0].RemoveNode(ctx, "node3"); err != nil {
		t.Fatal(err)
	}
	c.configs[2].Name, c.configs[2].Data = "node4", t.TempDir()
	c.start(2)
	until(c.nodes[2], func(nodes []engine.Node) bool {
		for _, n := range nodes {
			if !n.Current || n.Offline || n.Name == "node3" {
				return false
			}
		}
		return len(nodes) == 3
	})
	c.stop(0) // the new one is needed now
	if entry, err := bucket(t, c.nodes[2], engine.Devices).Get(ctx, "a"); err != nil || string(entry.Value) != "1" {
		t.Errorf("%q, %v", entry.Value, err)
	}
	if _, err := bucket(t, c.nodes[1], engine.Devices).Create(ctx, "b", nil); err != nil {
		t.Error(err)
	}
}

// TestNodeRestarts stops and starts the only node: what it has acknowledged is there.
func TestNodeRestarts(t *testing.T) {
	dir := t.TempDir()
	e, err := engine.Start(t.Context(), engine.Config{Data: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket(t, e, engine.Campaigns).Create(t.Context(), "c", []byte("spec")); err != nil {
		t.Fatal(err)
	}
	if err := e.Publish(t.Context(), "pool", engine.Normal, "1", []byte("task")); err != nil {
		t.Fatal(err)
	}
	e.Close()
	e = start(t, engine.Config{Data: dir})
	if got, err := bucket(t, e, engine.Campaigns).Get(t.Context(), "c"); err != nil || string(got.Value) != "spec" {
		t.Errorf("%q, %v", got.Value, err)
	}
	q, err := e.Queue(t.Context(), "pool", engine.Urgent, engine.Normal)
	if err != nil {
		t.Fatal(err)
	}
	if task, err := q.Next(t.Context()); err != nil || string(task.Data) != "task" {
		t.Errorf("%v", err)
	}
}

// TestThreeNodesLoseOne writes while the leader of three nodes stops and starts again.
// Nothing that was acknowledged is lost, and no revision is given out twice.
func TestThreeNodesLoseOne(t *testing.T) {
	t.Parallel()
	c := startThree(t)
	urls := make([]string, 3)
	for i, n := range c.nodes {
		c.configs[i].Listen = n.Address() // the same after a restart
		urls[i] = "nats://" + n.Address()
	}
	w, err := engine.Connect(t.Context(), engine.Remote{URLs: urls, Name: "writer", Secret: secret, TLS: clusterTLS(t, secret)})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	b := bucket(t, w, engine.Runs)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	var mu sync.Mutex
	written := 0
	progress := sync.NewCond(&mu)
	stopped := false
	var writer sync.WaitGroup
	writer.Go(func() {
		var revision uint64
		var err error
		for i := 1; ; i++ {
			value := fmt.Append(nil, i)
			if i == 1 {
				revision, err = b.Create(ctx, "run", value)
			} else {
				revision, err = b.Update(ctx, "run", value, revision)
			}
			mu.Lock()
			end := stopped
			if err != nil {
				t.Errorf("write %d: %v", i, err)
				end = true
			} else {
				written = i
			}
			if end {
				stopped = true
			}
			mu.Unlock()
			progress.Broadcast()
			if end {
				return
			}
		}
	})
	// more waits until so many further writes were acknowledged.
	more := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		for end := written + n; written < end && !stopped; {
			progress.Wait()
		}
	}
	more(20)
	nodes, err := w.Nodes(ctx)
	if err != nil || len(nodes) != 3 || !nodes[0].Leader {
		t.Errorf("nodes: %+v, %v", nodes, err)
	}
	for i, config := range c.configs {
		if config.Name == nodes[0].Name {
			c.stop(i)
			more(20)
			c.start(i)
		}
	}
	more(20)
	mu.Lock()
	stopped = true
	mu.Unlock()
	writer.Wait()
	for i, n := range c.nodes {
		got, err := bucket(t, n, engine.Runs).Get(ctx, "run")
		if err != nil || string(got.Value) != fmt.Sprint(written) {
			t.Errorf("node %d: %q, %v; want %d", i+1, got.Value, err, written)
		}
	}
}

// A value that cannot be read from the disk any more does not keep a reader of all others
// waiting, although it is the newest one.
func TestValueDamagedOnDisk(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	data := t.TempDir()
	e := start(t, engine.Config{Data: data})
	b, err := e.Bucket(ctx, engine.Devices)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b", "c"} {
		if _, err := b.Create(ctx, key, []byte("value-of-"+key)); err != nil {
			t.Fatal(err)
		}
	}
	e.Close()
	list, err := filepath.Glob(filepath.Join(data, "jetstream", "*", "streams", "KV_device", "msgs", "*.blk"))
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	block, err := os.ReadFile(list[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list[0], bytes.ReplaceAll(block, []byte("value-of-c"), []byte("value-of-x")), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err = start(t, engine.Config{Data: data}).Bucket(ctx, engine.Devices); err != nil {
		t.Fatal(err)
	}
	if keys, err := b.Keys(ctx, ">"); err != nil || len(keys) != 2 {
		t.Errorf("%q, %v", keys, err)
	}
	// Nothing waits for it, and it is replaced.
	if _, err := b.Get(ctx, "c"); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if _, err := b.Create(ctx, "c", []byte("new")); err != nil {
		t.Errorf("Create: %v", err)
	}
	if got, err := b.Get(ctx, "c"); err != nil || string(got.Value) != "new" {
		t.Errorf("%q, %v", got.Value, err)
	}
	if _, err := b.Create(ctx, "c", []byte("newer")); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("Create again: %v", err)
	}
}

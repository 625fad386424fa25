package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/seal"
	"example.com/iad/fleet/store"
)

// node starts an engine and opens its store.
func node(t *testing.T) *store.Store {
	t.Helper()
	e, err := engine.Start(t.Context(), engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), e, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTables(t *testing.T) {
	s, ctx := node(t), t.Context()
	for _, name := range []string{"a.b", "a", "c"} {
		if _, err := s.Runs.Create(ctx, &fleet.Run{Campaign: "spring", Device: name, Pool: "default", State: fleet.RunPending}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Runs.Create(ctx, &fleet.Run{Campaign: "spring", Device: "a"}); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("created twice: %v", err)
	}
	if _, err := s.Runs.Create(ctx, &fleet.Run{Campaign: "autumn", Device: "a", State: fleet.RunPending}); err != nil {
		t.Fatal(err)
	}
	var changing sync.WaitGroup
	for range 8 {
		changing.Go(func() {
			_, err := s.Runs.Change(ctx, func(r *fleet.Run) error { r.Epoch++; return nil }, "spring", "a.b")
			if err != nil {
				t.Error(err)
			}
		})
	}
	changing.Wait()
	r, revision, err := s.Runs.Get(ctx, "spring", "a.b")
	if err != nil || r.Epoch != 8 {
		t.Errorf("%+v, %v; want all 8 changes", r, err)
	}
	if _, err := s.Runs.Change(ctx, func(*fleet.Run) error { return store.ErrUnchanged }, "spring", "a.b"); err != nil {
		t.Error(err)
	}
	if _, now, err := s.Runs.Get(ctx, "spring", "a.b"); err != nil || now != revision {
		t.Errorf("unchanged, yet revision %d became %d; %v", revision, now, err)
	}
	list, err := s.Runs.List(ctx, "spring")
	var names []string
	for _, r := range list {
		names = append(names, r.Device)
	}
	slices.Sort(names)
	if err != nil || strings.Join(names, " ") != "a a.b c" {
		t.Errorf("runs of spring: %q, %v", names, err)
	}
	if list, err := s.Runs.List(ctx); err != nil || len(list) != 4 {
		t.Errorf("%d runs, %v", len(list), err)
	}
	if _, err := s.Sites.Create(ctx, &fleet.Site{Name: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Groups.Create(ctx, &fleet.Group{Name: "x"}); err != nil {
		t.Fatal(err)
	}
	if sites, err := s.Sites.List(ctx); err != nil || len(sites) != 1 {
		t.Errorf("%d sites, %v", len(sites), err)
	}
}

func TestSecretsAreSealed(t *testing.T) {
	s, ctx := node(t), t.Context()
	secret := &fleet.Secret{Name: "default", WriteCommunity: "correct-horse"}
	for range 2 {
		if err := s.Secrets.Put(ctx, secret); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Secrets.Get(ctx, "default")
	if err != nil || got.WriteCommunity != secret.WriteCommunity {
		t.Errorf("%v, %v", got, err)
	}
	b, err := s.Engine.Bucket(ctx, engine.Secrets)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := b.Get(ctx, engine.Key("default"))
	if err != nil || bytes.Contains(entry.Value, []byte("correct-horse")) {
		t.Errorf("stored as %q, %v", entry.Value, err)
	}
	secret.WriteCommunity = "changed"
	if err := s.Secrets.Put(ctx, secret); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Secrets.Get(ctx, "default"); err != nil || got.WriteCommunity != "changed" {
		t.Errorf("after a change: %v, %v", got, err)
	}
	if names, err := s.Secrets.Names(ctx); err != nil || len(names) != 1 || names[0] != "default" {
		t.Errorf("names %q, %v", names, err)
	}
	other, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(ctx, s.Engine, other); !errors.Is(err, seal.ErrOtherKey) || !strings.Contains(err.Error(), other.Public()) {
		t.Errorf("opened with another key: %v", err)
	}
	if err := store.ReplaceKey(ctx, s.Engine, other); err != nil { // the key is lost
		t.Fatal(err)
	}
	stranger, err := store.Open(ctx, s.Engine, other)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := stranger.Secrets.Get(ctx, "default"); !errors.Is(err, engine.ErrDamaged) {
		t.Errorf("opened with another key: %v, %v", got, err)
	}
	if found := s.Engine.Damage(); len(found) != 1 || store.Removable(found[0]) || s.RemoveDamaged(ctx, found[0]) == nil {
		t.Errorf("what another key may open was removed: %+v", found)
	}
	if err := stranger.Secrets.Put(ctx, secret); err != nil { // entered again
		t.Fatal(err)
	}
	if got, err := stranger.Secrets.Get(ctx, "default"); err != nil || got.WriteCommunity != "changed" {
		t.Errorf("entered again: %v, %v", got, err)
	}
	if err := s.Secrets.Remove(ctx, "default"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Secrets.Get(ctx, "default"); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("after removal: %v", err)
	}
}

// The entry that says which key secrets are sealed with is damaged, or was never there: the
// secrets decide.
func TestKeyOfSecrets(t *testing.T) {
	s, ctx := node(t), t.Context()
	if err := s.Secrets.Put(ctx, &fleet.Secret{Name: "default"}); err != nil {
		t.Fatal(err)
	}
	settings, err := s.Engine.Bucket(ctx, engine.Settings)
	if err != nil {
		t.Fatal(err)
	}
	key := engine.Key("sealed-with")
	entry, err := settings.Get(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := settings.Update(ctx, key, []byte("{"), entry.Revision); err != nil {
		t.Fatal(err)
	}
	other, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(ctx, s.Engine, other); !errors.Is(err, seal.ErrOtherKey) {
		t.Errorf("opened with another key: %v", err)
	}
	if err := s.Secrets.Remove(ctx, "default"); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("removed without a mark: %v", err)
	}
	if err := s.Secrets.Change(ctx, "default", func(v *fleet.Secret) error { v.Removing = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.Secrets.Remove(ctx, "default"); err != nil { // nothing is sealed any more
		t.Fatal(err)
	}
	if _, err := store.Open(ctx, s.Engine, other); err != nil {
		t.Error(err)
	}
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// However images are added and removed at the same time, none is without its file.
func TestImagesAddedAndRemovedAtTheSameTime(t *testing.T) {
	s, ctx := node(t), t.Context()
	data := []byte("image")
	image := &fleet.Image{Digest: digestOf(data), File: "fw.iad", Size: int64(len(data))}
	for range 20 {
		var changing sync.WaitGroup
		for range 2 {
			changing.Go(func() {
				if err := s.AddImage(ctx, image, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }); err != nil {
					t.Error(err)
				}
			})
			changing.Go(func() {
				if err := s.RemoveImage(ctx, image.Digest); err != nil && !errors.Is(err, engine.ErrNotFound) {
					t.Error(err)
				}
			})
		}
		changing.Wait()
		if _, _, err := s.Images.Get(ctx, image.Digest); errors.Is(err, engine.ErrNotFound) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if _, err := s.ImageFile(ctx, image.Digest, t.TempDir()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestImagesAreCheckedByTheirDigest(t *testing.T) {
	s, ctx := node(t), t.Context()
	data := bytes.Repeat([]byte("firmware"), 50_000)
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	wrong := &fleet.Image{Digest: digestOf([]byte("other")), File: "fw.iad"}
	if err := s.AddImage(ctx, wrong, open); err == nil {
		t.Error("an image with another digest was accepted")
	}
	image := &fleet.Image{Digest: digestOf(data), File: "dir/fw 1.iad", Size: int64(len(data))}
	for range 2 {
		if err := s.AddImage(ctx, image, open); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for range 2 {
		name, err := s.ImageFile(ctx, image.Digest, dir)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, data) || filepath.Base(name) != "fw-1.iad" {
			t.Errorf("%s has %d bytes, %v", name, len(got), err)
		}
	}
	if err := s.RemoveImage(ctx, image.Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ImageFile(ctx, image.Digest, t.TempDir()); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("after removal: %v", err)
	}
}

func TestBackupsAreReadBack(t *testing.T) {
	s, ctx := node(t), t.Context()
	data := []byte("iad-config userData 1\nline = 1\n")
	b := &fleet.Backup{Device: "attic", ID: "20260131T120000Z-1", Files: []fleet.BackupFile{{Kind: "userData", Size: int64(len(data)), Digest: digestOf(data)}}}
	if err := s.AddBackup(ctx, b, map[string][]byte{"userData": []byte("other")}); err == nil {
		t.Error("other data than those of the digest were accepted")
	}
	if err := s.AddBackup(ctx, b, nil); err == nil {
		t.Error("a backup without its data was accepted")
	}
	if _, _, err := s.Backups.Get(ctx, "attic", b.ID); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("a failed backup is listed: %v", err)
	}
	for range 2 {
		if err := s.AddBackup(ctx, b, map[string][]byte{"userData": data}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.BackupFile(ctx, b, "userData"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := s.BackupFile(ctx, b, "portData"); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("another kind: %v", err)
	}
	if err := s.RemoveBackup(ctx, "attic", b.ID); err != nil {
		t.Fatal(err)
	}
	if list, err := s.Backups.List(ctx, "attic"); err != nil || len(list) != 0 {
		t.Errorf("%d backups, %v", len(list), err)
	}
}

func TestTasksWorkersAndEvents(t *testing.T) {
	s, ctx := node(t), t.Context()
	lease, err := s.Attend(ctx, &fleet.Worker{ID: "w1", Pool: "default"})
	if err != nil {
		t.Fatal(err)
	}
	if workers, err := s.Workers(ctx); err != nil || len(workers) != 1 || workers[0].ID != "w1" {
		t.Errorf("workers %+v, %v", workers, err)
	}
	lease.Release()
	if workers, err := s.Workers(ctx); err != nil || len(workers) != 0 {
		t.Errorf("workers %+v, %v", workers, err)
	}
	run := &fleet.Run{Campaign: "spring", Device: "attic", Pool: "default", Attempt: 1}
	for range 2 {
		if err := s.Queue(ctx, run, engine.Normal); err != nil {
			t.Fatal(err)
		}
	}
	q, err := s.Engine.Queue(ctx, "default", engine.Urgent, engine.Normal)
	if err != nil {
		t.Fatal(err)
	}
	task, err := q.Next(ctx)
	if err != nil || string(task.Data) != `{"campaign":"spring","device":"attic"}` {
		t.Fatalf("%s, %v", task.Data, err)
	}
	if err := task.Done(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := s.Record(ctx, &fleet.Event{Kind: fleet.EventRun, Device: fmt.Sprint(i), Time: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var seen []string
	err = s.Events(ctx, 2, func(sequence uint64, e *fleet.Event) error {
		if seen = append(seen, fmt.Sprintf("%d:%s", sequence, e.Device)); len(seen) == 2 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || strings.Join(seen, " ") != "2:1 3:2" {
		t.Errorf("events %q, %v", seen, err)
	}
}

// spoil stores what is not an object.
func spoil(t *testing.T, s *store.Store, bucket engine.BucketName, text string, key ...string) {
	t.Helper()
	b, err := s.Engine.Bucket(t.Context(), bucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(t.Context(), engine.Key(key...), []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// Damaged objects are skipped and reported until they are removed or replaced.
func TestDamaged(t *testing.T) {
	s, ctx := node(t), t.Context()
	if _, err := s.Runs.Create(ctx, &fleet.Run{Campaign: "spring", Device: "a", State: fleet.RunPending}); err != nil {
		t.Fatal(err)
	}
	spoil(t, s, engine.Runs, "{", "spring", "b.c")
	spoil(t, s, engine.Runs, `{"campaign":"spring","device":"x","state":"pending"}`, "spring", "other")
	spoil(t, s, engine.Runs, `{"campaign":"spring","device":"state","state":"?"}`, "spring", "state")
	spoil(t, s, engine.Campaigns, `{"id":"spring","state":"running","wave":-1}`, "spring")
	spoil(t, s, engine.Secrets, "{", "default")
	if err := s.Secrets.Put(ctx, &fleet.Secret{Name: "good"}); err != nil {
		t.Fatal(err)
	}
	list, damaged, err := s.Runs.ListAll(ctx, "spring")
	if err != nil || len(list) != 1 || len(damaged) != 3 || damaged[0][1] != "b.c" {
		t.Errorf("%d runs, damaged %q, %v", len(list), damaged, err)
	}
	if list, err := s.Campaigns.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("%d campaigns, %v", len(list), err)
	}
	if names, err := s.Secrets.Names(ctx); err != nil || len(names) != 1 {
		t.Errorf("secrets %q, %v", names, err)
	}
	_, revision, err := s.Runs.Get(ctx, "spring", "b.c")
	if !errors.Is(err, engine.ErrDamaged) {
		t.Error(err)
	}
	found := s.Engine.Damage()
	if len(found) != 5 || found[0].Place != "campaign" || found[1].Key != engine.Key("spring", "b.c") {
		t.Fatalf("reported: %+v", found)
	}
	d := found[1]
	d.Revision--
	if err := s.RemoveDamaged(ctx, d); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("another revision: %v", err)
	}
	if err := s.RemoveDamaged(ctx, found[1]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Runs.Get(ctx, "spring", "b.c"); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("revision %d: %v", revision, err)
	}
	if err := s.Secrets.Put(ctx, &fleet.Secret{Name: "default"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Secrets.All(ctx); err != nil {
		t.Fatal(err)
	}
	if found = s.Engine.Damage(); len(found) != 3 {
		t.Errorf("reported: %+v", found)
	}
}

// A damaged event does not keep those after it.
func TestDamagedEvent(t *testing.T) {
	s, ctx := node(t), t.Context()
	if _, err := s.Engine.Log(engine.Events).Append(ctx, "run", []byte("{")); err != nil {
		t.Fatal(err)
	}
	if err := s.Record(ctx, &fleet.Event{Kind: fleet.EventRun, Device: "gw1"}); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	err := s.Events(ctx, 1, func(sequence uint64, e *fleet.Event) error {
		if sequence != 2 || e.Device != "gw1" {
			t.Errorf("event %d: %+v", sequence, e)
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Error(err)
	}
	if found := s.Engine.Damage(); len(found) != 1 || found[0].Place != "EVENT" || found[0].Key != "1" {
		t.Errorf("reported: %+v", found)
	}
}

func TestParseKey(t *testing.T) {
	for _, parts := range [][]string{{"a"}, {"a.b", "c"}, {"", "x"}, {"=", "\x00\xff *>"}} {
		if got, ok := engine.ParseKey(engine.Key(parts...)); !ok || !slices.Equal(got, parts) {
			t.Errorf("%q became %q, %v", parts, got, ok)
		}
	}
	for _, key := range []string{"", "a..b", "=4", "=zz", "=2b", "=61"} {
		if parts, ok := engine.ParseKey(key); ok {
			t.Errorf("%q is a key of %q", key, parts)
		}
	}
}

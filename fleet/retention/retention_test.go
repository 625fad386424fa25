package retention_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/retention"
	"example.com/iad/fleet/seal"
	"example.com/iad/fleet/store"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func held(b *fleet.Backup) bool { return b.Campaign == "spring" }

// day is the age of backups in days.
func day(n int) time.Time { return now.Add(-time.Duration(n) * 24 * time.Hour) }

// Edited copies are kept as long as their originals, and at least for a month.
func TestEdited(t *testing.T) {
	list := []*fleet.Backup{
		{ID: "new", Good: true, Time: day(1)},
		{ID: "fresh", Good: true, EditOf: "gone", Time: day(29)},
		{ID: "of-pinned-edit", Good: true, EditOf: "pinned-edit", Time: day(40)},
		{ID: "pinned-edit", Good: true, EditOf: "old", Time: day(50), Pinned: true},
		{ID: "of-new", Good: true, EditOf: "new", Time: day(60)},
		{ID: "of-old", Good: true, EditOf: "old", Time: day(70)},
		{ID: "old", Good: true, Time: day(80)},
	}
	var gone []string
	for _, b := range retention.Expired(list, retention.Rule{Number: 1}, held, now) {
		gone = append(gone, b.ID)
	}
	if !slices.Equal(gone, []string{"of-old", "old"}) {
		t.Errorf("removed %q", gone)
	}
}

// Whatever the rule is, what must be kept is kept, and the rest is removed at once.
func TestExpired(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := retention.Rule{Number: rapid.IntRange(0, 3).Draw(t, "number"), Age: time.Duration(rapid.IntRange(0, 5).Draw(t, "age")) * 24 * time.Hour}
		var list []*fleet.Backup
		for i := range rapid.IntRange(0, 8).Draw(t, "backups") {
			list = append(list, &fleet.Backup{
				ID: fmt.Sprint("b", i), Good: rapid.Bool().Draw(t, "good"), Pinned: rapid.IntRange(0, 4).Draw(t, "pinned") == 0,
				EditOf: rapid.SampledFrom([]string{"", "", "x"}).Draw(t, "edit"), Campaign: rapid.SampledFrom([]string{"", "spring", "winter"}).Draw(t, "campaign"),
				Time: now.Add(-time.Duration(rapid.IntRange(0, 1000).Draw(t, "hours")) * time.Hour),
			})
		}
		gone := retention.Expired(list, rule, held, now)
		kept := slices.DeleteFunc(slices.Clone(list), func(b *fleet.Backup) bool { return slices.Contains(gone, b) })
		good := func(list []*fleet.Backup) (n int) {
			for _, b := range list {
				if b.Good && b.EditOf == "" {
					n++
				}
			}
			return n
		}
		if want := min(good(list), max(rule.Number, 1)); good(kept) < want {
			t.Fatalf("%+v: %d good backups are left of %d, want %d", rule, good(kept), good(list), want)
		}
		if len(list) > 0 && len(kept) == 0 {
			t.Fatal("nothing is left")
		}
		for _, b := range gone {
			newerGood := slices.ContainsFunc(kept, func(k *fleet.Backup) bool {
				return k.Good && k.EditOf == "" && (!b.Good || b.EditOf != "" || !k.Time.Before(b.Time))
			})
			if b.Pinned || b.Campaign == "spring" || rule.Age > 0 && now.Sub(b.Time) < rule.Age || b.EditOf != "" && now.Sub(b.Time) < retention.EditLife || !newerGood || rule == (retention.Rule{}) {
				t.Fatalf("%+v removes %+v", rule, b)
			}
		}
		if again := retention.Expired(kept, rule, held, now); len(again) > 0 {
			t.Fatalf("%+v removes more at the second look: %+v", rule, again[0])
		}
		// Nothing is kept that no reason keeps.
		if rule == (retention.Rule{}) {
			return
		}
		for _, b := range kept {
			counted := b.Good && b.EditOf == ""
			if !b.Pinned && b.Campaign != "spring" && (rule.Age == 0 || now.Sub(b.Time) >= rule.Age) && (b.EditOf == "" || now.Sub(b.Time) >= retention.EditLife) && !counted && good(list) > 0 {
				t.Fatalf("%+v keeps %+v", rule, b)
			}
		}
	})
}

// newStore returns a store with backups b0, the oldest, and so on of a device.
func newStore(t *testing.T, backups ...*fleet.Backup) *store.Store {
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
	sum := sha256.Sum256(content)
	for i, b := range backups {
		b.ID, b.Device, b.Good = fmt.Sprint("b", i), "attic", true
		b.Files = []fleet.BackupFile{{Kind: "userData", Size: int64(len(content)), Digest: hex.EncodeToString(sum[:])}}
		if err := s.AddBackup(t.Context(), b, map[string][]byte{"userData": content}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

var content = []byte("iad-config userData 1\n")

func left(t *testing.T, s *store.Store) []string {
	t.Helper()
	list, err := s.Backups.List(t.Context(), "attic")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, b := range list {
		ids = append(ids, b.ID)
		if data, err := s.BackupFile(t.Context(), b, "userData"); err != nil || string(data) != string(content) {
			t.Errorf("%s: %q, %v", b.ID, data, err)
		}
	}
	slices.Sort(ids)
	return ids
}

// What a run needs is kept, even though its campaign was stopped, until the run ends.
func TestRunsHold(t *testing.T) {
	ctx := t.Context()
	s := newStore(t,
		&fleet.Backup{Time: day(90)}, &fleet.Backup{Time: day(80)}, &fleet.Backup{Time: day(70), EditOf: "b0"}, // b0, b1, b2: named by the run
		&fleet.Backup{Time: day(60), Campaign: "spring"}, &fleet.Backup{Time: day(50), Campaign: "winter"}, // b3: of the run's campaign, b4: of another one
		&fleet.Backup{Time: day(1)})
	if _, err := s.Campaigns.Create(ctx, &fleet.Campaign{ID: "spring", State: fleet.CampaignStopped}); err != nil {
		t.Fatal(err)
	}
	run := &fleet.Run{
		Campaign: "spring", Device: "attic", State: fleet.RunWaiting, Backup: "b0", Question: &fleet.Question{Backup: "b1"}, Answer: &fleet.Answer{Backup: "b2"},
	}
	revision, err := s.Runs.Create(ctx, run)
	if err != nil {
		t.Fatal(err)
	}
	rule := retention.Rule{Number: 1}
	if n, err := retention.Remove(ctx, s, rule, now); n != 1 || err != nil || !slices.Equal(left(t, s), []string{"b0", "b1", "b2", "b3", "b5"}) {
		t.Errorf("removed %d (%v), left %q", n, err, left(t, s))
	}
	run.State = fleet.RunFailed
	if _, err := s.Runs.Update(ctx, run, revision); err != nil {
		t.Fatal(err)
	}
	if n, err := retention.Remove(ctx, s, rule, now); n != 4 || err != nil || !slices.Equal(left(t, s), []string{"b5"}) {
		t.Errorf("removed %d (%v), left %q", n, err, left(t, s))
	}
}

func TestRun(t *testing.T) {
	var backups []*fleet.Backup
	for i := range 5 {
		backups = append(backups, &fleet.Backup{Pinned: i == 1, Time: time.Now().Add(-time.Duration(5-i) * time.Hour)})
	}
	s := newStore(t, backups...)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error)
	go func() { ended <- retention.Run(ctx, s, retention.Rule{Number: 2}, slog.New(slog.DiscardHandler)) }()
	// b0 and b2 are removed.
	gone := 0
	_ = s.Backups.Watch(t.Context(), func(c store.Change[fleet.Backup]) error {
		list, err := s.Backups.List(t.Context(), "attic")
		if err != nil {
			return err
		}
		if gone = 5 - len(list); gone == 2 {
			return context.Canceled
		}
		return nil
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if ids := left(t, s); !slices.Equal(ids, []string{"b1", "b3", "b4"}) {
		t.Errorf("left %q", ids)
	}
}

// What is damaged may need backups, so nothing of its device or campaign is removed.
func TestDamageHolds(t *testing.T) {
	for name, c := range map[string]struct {
		bucket engine.BucketName
		key    []string
		left   int
	}{
		"nothing":          {engine.Runs, []string{"spring", "other"}, 1},
		"a run":            {engine.Runs, []string{"winter", "attic"}, 3},
		"a backup":         {engine.Backups, []string{"attic", "b9"}, 3},
		"their campaign":   {engine.Campaigns, []string{"spring"}, 3},
		"another campaign": {engine.Campaigns, []string{"winter"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, &fleet.Backup{Time: day(90), Campaign: "spring"}, &fleet.Backup{Time: day(80), Campaign: "spring"}, &fleet.Backup{Time: day(1)})
			b, err := s.Engine.Bucket(t.Context(), c.bucket)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Create(t.Context(), engine.Key(c.key...), []byte("{")); err != nil {
				t.Fatal(err)
			}
			if _, err := retention.Remove(t.Context(), s, retention.Rule{Number: 1}, now); err != nil {
				t.Fatal(err)
			}
			if ids := left(t, s); len(ids) != c.left {
				t.Errorf("left %q, want %d", ids, c.left)
			}
		})
	}
}

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

func running(id string) bool { return id == "spring" }

// Whatever the rule is, what must be kept is kept, and the rest is removed at once.
func TestExpired(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := retention.Rule{Number: rapid.IntRange(0, 3).Draw(t, "number"), Age: time.Duration(rapid.IntRange(0, 5).Draw(t, "age")) * 24 * time.Hour}
		var list []*fleet.Backup
		for i := range rapid.IntRange(0, 8).Draw(t, "backups") {
			list = append(list, &fleet.Backup{
				ID: fmt.Sprint("b", i), Good: rapid.Bool().Draw(t, "good"), Pinned: rapid.IntRange(0, 4).Draw(t, "pinned") == 0,
				EditOf: rapid.SampledFrom([]string{"", "", "x"}).Draw(t, "edit"), Campaign: rapid.SampledFrom([]string{"", "spring", "winter"}).Draw(t, "campaign"),
				Time: now.Add(-time.Duration(rapid.IntRange(0, 200).Draw(t, "hours")) * time.Hour),
			})
		}
		gone := retention.Expired(list, rule, running, now)
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
			if b.Pinned || b.Campaign == "spring" || rule.Age > 0 && now.Sub(b.Time) < rule.Age || !newerGood || rule == (retention.Rule{}) {
				t.Fatalf("%+v removes %+v", rule, b)
			}
		}
		if again := retention.Expired(kept, rule, running, now); len(again) > 0 {
			t.Fatalf("%+v removes more at the second look: %+v", rule, again[0])
		}
		// Nothing is kept that no reason keeps.
		if rule == (retention.Rule{}) {
			return
		}
		for _, b := range kept {
			counted := b.Good && b.EditOf == ""
			if !b.Pinned && b.Campaign != "spring" && (rule.Age == 0 || now.Sub(b.Time) >= rule.Age) && !counted && good(list) > 0 {
				t.Fatalf("%+v keeps %+v", rule, b)
			}
		}
	})
}

func TestRun(t *testing.T) {
	e, err := engine.Start(t.Context(), engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), e, key)
	if err != nil {
		t.Fatal(err)
	}
	content := []byte("iad-config userData 1\n")
	sum := sha256.Sum256(content)
	for i := range 5 {
		b := &fleet.Backup{
			ID: fmt.Sprint("b", i), Device: "attic", Good: true, Pinned: i == 1, Time: time.Now().Add(-time.Duration(5-i) * time.Hour),
			Files: []fleet.BackupFile{{Kind: "userData", Size: int64(len(content)), Digest: hex.EncodeToString(sum[:])}},
		}
		if err := s.AddBackup(t.Context(), b, map[string][]byte{"userData": content}); err != nil {
			t.Fatal(err)
		}
	}
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
	var left []string
	list, err := s.Backups.List(t.Context(), "attic")
	for _, b := range list {
		left = append(left, b.ID)
		if data, err := s.BackupFile(t.Context(), b, "userData"); err != nil || string(data) != string(content) {
			t.Errorf("%s: %q, %v", b.ID, data, err)
		}
	}
	if slices.Sort(left); !slices.Equal(left, []string{"b1", "b3", "b4"}) || err != nil {
		t.Errorf("left %q (%v)", left, err)
	}
}

package scheduler

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/seal"
	"example.com/iad/fleet/store"
)

// TestStoppedWhileDecided: a campaign that is stopped between the look at it and the
// decision stays stopped. Only from inside can the stop be placed there.
func TestStoppedWhileDecided(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := engine.Start(ctx, engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(ctx, e, key)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := s.Lead(ctx, "node")
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	c := &fleet.Campaign{ID: "spring", State: fleet.CampaignScheduled, Created: time.Now().UTC()}
	c.Spec = fleet.CampaignSpec{Title: "spring", Operation: fleet.OperationBackup, Filter: "true"}
	if err := c.Spec.Validate(); err != nil {
		t.Fatal(err)
	}
	revision, err := s.Campaigns.Create(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	l := &leader{cfg: Config{Store: s, Log: slog.New(slog.DiscardHandler)}, lease: lease, state: newState()}
	l.state.campaignChanged(store.Change[fleet.Campaign]{Key: "spring", Value: c, Revision: revision})
	seen := l.look("spring", time.Now())

	stopped := *c
	stopped.State = fleet.CampaignStopped
	if revision, err = s.Campaigns.Update(ctx, &stopped, revision); err != nil {
		t.Fatal(err)
	}
	l.state.campaignChanged(store.Change[fleet.Campaign]{Key: "spring", Value: &stopped, Revision: revision})
	if err := l.decide(ctx, seen); err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.Campaigns.Get(ctx, "spring"); err != nil || got.State != fleet.CampaignStopped {
		t.Errorf("the campaign is %s, %v", got.State, err)
	}
	// What it is now is looked at soon, not when the next decision would be due.
	if at := l.state.campaigns["spring"].decideAt; !at.IsZero() {
		t.Errorf("the next decision is at %v", at)
	}
}

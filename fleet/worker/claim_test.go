package worker

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

// TestClaimAnswerLost: a claim that was stored although nothing reported that is the
// worker's; one of another delivery of the task is not. Only from inside can the answer be
// lost.
func TestClaimAnswerLost(t *testing.T) {
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
	c := &fleet.Campaign{ID: "spring", State: fleet.CampaignRunning}
	if _, err := s.Campaigns.Create(ctx, c); err != nil {
		t.Fatal(err)
	}
	queued := &fleet.Run{Campaign: "spring", Device: "gw1", State: fleet.RunQueued, Attempt: 1}
	if _, err := s.Runs.Create(ctx, queued); err != nil {
		t.Fatal(err)
	}
	w := &Worker{cfg: Config{Store: s, ID: "w1"}, lease: "first"}
	task, log := store.Task{Campaign: "spring", Device: "gw1"}, slog.New(slog.DiscardHandler)
	claim := &fleet.Claim{Worker: "w1", Lease: "first", Time: time.Now().UTC()}
	if _, err := w.tryClaim(ctx, nil, task, claim, log); err != nil { // its answer is lost
		t.Fatal(err)
	}
	other := *claim // with the same epoch, but it has lost
	other.Time = claim.Time.Add(1)
	if r, err := w.tryClaim(ctx, nil, task, &other, log); r != nil || err != nil {
		t.Errorf("another delivery has got the run: %+v, %v", r, err)
	}
	r, err := w.tryClaim(ctx, nil, task, claim, log)
	if err != nil || r == nil {
		t.Fatalf("the run is not the worker's: %+v, %v", r, err)
	}
	defer r.lose()
	if _, revision, err := s.Runs.Get(ctx, "spring", "gw1"); err != nil || r.revision != revision || r.run.Epoch != 1 {
		t.Errorf("revision %d of epoch %d, stored is %d, %v", r.revision, r.run.Epoch, revision, err)
	}
}

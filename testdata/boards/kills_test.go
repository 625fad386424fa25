package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

var kills = flag.Int("kills", 0, "how often to kill QEMU during an upgrade")

// TestKills kills QEMU at random instants of upgrades. iadms, which is interrupted too, carries on once the board runs
// again.
func TestKills(t *testing.T) {
	if *kills == 0 {
		t.Skip("takes a minute for each: run it by make board-cuts, or with -args -kills 20")
	}
	x := newBench(t, t.TempDir(), arm)
	x.make()
	x.on("start", options{})
	x.see(`msg=ready`)
	// As long as an upgrade takes that is not interrupted.
	begun := time.Now()
	x.upgrade(good, 0)
	whole := time.Since(begun)
	before := x.state()
	if before.Version != good {
		t.Fatalf("the board runs %s", before.Version)
	}
	random := rand.New(rand.NewPCG(*seed, 2))
	done := timed(t, fmt.Sprintf("QEMU killed %d times, seed %d", *kills, *seed))
	ends := map[string]int{}
	for i := range *kills {
		to := map[string]string{good: first, first: good}[before.Version]
		args := append(x.upgradeArgs(x.network, to), "--yes", "--allow-downgrade")
		after := time.Duration(random.Int64N(int64(whole)))
		said := x.killedIn(after, args)
		x.on(fmt.Sprintf("kill-%d", i+1), options{})
		x.see(`msg=ready`)
		out, status := x.iadms(append([]string{"upgrade", "--resume"}, args[1:]...)...)
		now := x.state()
		if err := now.follows(before, to); status != 0 || err != nil {
			t.Fatalf("killed %.1f s into the upgrade to %s, when iadms said %q, and resumed: iadms ended with %d, %v: %s",
				after.Seconds(), to, said, status, err, out)
		}
		t.Logf("killed %4.1f s into the upgrade to %s (%s): the upgrade was completed, events %d to %d", after.Seconds(), to, said, before.Event, now.Event)
		ends[to]++
		before = now
	}
	done()
	t.Logf("kills: %d, bad: 0, completed upgrades: %v", *kills, ends)
}

// killedIn begins an upgrade, and kills QEMU after so long and then interrupts iadms. It returns the last step that iadms
// reported.
func (x *bench) killedIn(after time.Duration, args []string) string {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), upgradeLimit)
	defer cancel()
	var out bytes.Buffer
	cmd := x.iadmsCommand(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		x.Fatal(err)
	}
	<-time.After(after)
	if err := x.kill(); err != nil {
		x.Fatal(err)
	}
	cmd.Process.Signal(os.Interrupt) // it may have ended
	cmd.Wait()
	// Steps have numbers.
	steps := regexp.MustCompile(`(?m)^\s*\d+ .*$`).FindAllString(out.String(), -1)
	if len(steps) == 0 {
		return ""
	}
	return strings.TrimSpace(steps[len(steps)-1])
}

// iadmsCommand is a call of iadms.
func (x *bench) iadmsCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, x.program("iadms"), args...)
	cmd.Env = append(os.Environ(), "IADMS_CREDENTIALS="+x.credentials(), "IADMS_STORE="+x.path("store"), "XDG_CONFIG_HOME="+x.dir)
	return cmd
}

// A boardState is what must be right after each upgrade.
type boardState struct {
	Version string `json:"software_version"`
	Config  string `json:"config_sha256"`
	Banks   []struct {
		State   string `json:"state"`
		Version string `json:"version"`
	} `json:"banks"`
	Event uint32 `json:"-"` // the last one's number
	gap   error  // in the numbers of the events
}

// state asks the board.
func (x *bench) state() (s boardState) {
	x.Helper()
	out, status := x.iadms("status", x.board, "--json")
	if err := json.Unmarshal([]byte(out), &s); err != nil || status != 0 {
		x.Fatalf("iadms status ended with %d, %v: %s", status, err, out)
	}
	out, status = x.iadms("logs", x.board, "--json")
	if status != 0 {
		x.Fatalf("iadms logs ended with %d: %s", status, out)
	}
	for line := range strings.Lines(out) {
		var e struct {
			Kind string `json:"kind"`
			Seq  uint32 `json:"seq"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			x.Fatalf("%v: %s", err, line)
		}
		if e.Kind != "event" {
			continue
		}
		if s.Event != 0 && e.Seq != s.Event+1 {
			s.gap = fmt.Errorf("event %d follows event %d", e.Seq, s.Event)
		}
		s.Event = e.Seq
	}
	return s
}

// follows checks the state of a board after an upgrade.
func (s boardState) follows(before boardState, version string) error {
	switch {
	case s.Version != version:
		return fmt.Errorf("the board runs %s", s.Version)
	case s.Config != before.Config:
		return fmt.Errorf("the digest of the configuration data was %s and is %s", before.Config, s.Config)
	case s.Event <= before.Event:
		return fmt.Errorf("the last event was %d and is %d", before.Event, s.Event)
	}
	for i, b := range s.Banks {
		if b.State != "good" {
			return fmt.Errorf("bank %d with %s is %s", i+1, b.Version, b.State)
		}
	}
	return s.gap
}

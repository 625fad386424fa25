package board_test

import (
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/iad/agent/board"
)

// TestRestart: the program of the setting restart, and the system after it, may take their
// time, but not for ever.
func TestRestart(t *testing.T) {
	for _, c := range []struct {
		name, script string
		limit        time.Duration
		want         string // of the error, "" for none
		kicks        int32  // at least
	}{
		{"stopped by the system", "(sleep 0.2; kill -TERM $PPID) >/dev/null 2>&1 &", time.Minute, "", 0},
		{"stopped before the program ends", "kill -TERM $PPID; sleep 0.3", time.Minute, "", 3},
		{"fails although stopped", "kill -TERM $PPID; exit 3", time.Minute, "exit status 3", 0},
		{"hangs", "exec sleep 1000", time.Second, "not finished within 1s", 3},
		{"nothing happens", "exit 0", time.Second, "the system has not restarted", 3},
		{"leaves somebody behind who holds its output", "sleep 5 & kill -TERM $PPID", time.Minute, "", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			var kicks atomic.Int32
			err := board.Restart{
				Program: program(t, c.script), Limit: c.limit, Log: slog.New(slog.DiscardHandler),
				Kick: func() { kicks.Add(1) }, Interval: 20 * time.Millisecond,
			}.Run()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if got := kicks.Load(); got < c.kicks {
				t.Errorf("kicked %d times", got)
			}
		})
	}
}

package board

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// maxOutput is how many bytes of what the program prints go into the log.
const maxOutput = 512

// Restart restarts the board by a program, such as reboot, that makes the system stop
// everything in order.
type Restart struct {
	Program string
	// Limit is how long the program may take, and then the system to stop this process;
	// 2 min each if 0.
	Limit time.Duration
	// Kick is called every Interval, 10 s if 0, until Run returns, so that the watchdog
	// does not cut the shutdown short.
	Kick     func()
	Interval time.Duration
	Log      *slog.Logger
}

// Run runs the program and waits for SIGTERM, by which the system stops this process on its
// way down. One that comes before the program has ended counts as soon as it has. An error
// means that the system does not restart.
func (r Restart) Run() error {
	limit := cmp.Or(r.Limit, 2*time.Minute)
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(stopped)
	kick := time.NewTicker(cmp.Or(r.Interval, 10*time.Second))
	defer kick.Stop()
	ended := make(chan error, 1)
	go func() { ended <- r.start(limit) }()
	var over <-chan time.Time
	for stop := (<-chan os.Signal)(nil); ; {
		select {
		case <-kick.C:
			r.Kick()
		case err := <-ended:
			if err != nil {
				return err
			}
			stop, over = stopped, time.After(limit)
		case <-stop:
			return nil
		case <-over:
			return fmt.Errorf("%s ended %s ago, and the system has not restarted", r.Program, limit)
		}
	}
}

// start runs the program to its end.
func (r Restart) start(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.Program)
	cmd.WaitDelay = settle
	out, err := cmd.CombinedOutput()
	if len(out) > 0 {
		r.Log.Info("restart", "program", r.Program, "output", string(out[:min(len(out), maxOutput)]))
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: not finished within %s", r.Program, limit)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay): // it left somebody behind, who may be doing the work
		return fmt.Errorf("%s: %w", r.Program, err)
	}
	return nil
}

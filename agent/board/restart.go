package board

import (
	"fmt"
	"log/slog"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// maxOutput is how many bytes of what the program prints go into the log.
const maxOutput = 512

// restartWait is how long the system may take to restart after a program made it.
const restartWait = 2 * time.Minute

// RestartBy restarts the board by a program, such as reboot, that makes the system stop
// everything in order. It returns only if that fails.
func RestartBy(program string, log *slog.Logger) error {
	// The system stops this process on its way down: not before the program has ended.
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
	out, err := exec.Command(program).CombinedOutput()
	if len(out) > 0 {
		log.Info("restart", "program", program, "output", string(out[:min(len(out), maxOutput)]))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	<-time.After(restartWait)
	return fmt.Errorf("%s ended %s ago, and the system has not restarted", program, restartWait)
}

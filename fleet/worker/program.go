package worker

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"example.com/iad/manager"
)

// program is a command that an admin has registered on this worker.
type program struct{ name, command string }

func (w *Worker) program(name string) (*program, error) {
	command, ok := w.cfg.Programs[name]
	if !ok {
		return nil, fmt.Errorf("worker %s has no program %q; register it there with --program %s=COMMAND", w.cfg.ID, name, name)
	}
	return &program{name, command}, nil
}

// maxOutput is how much of a program's output an error quotes, in bytes.
const maxOutput = 1000

// run runs the program with further arguments and variables of the environment. The error
// has the end of its output.
func (p *program) run(ctx context.Context, args []string, env ...string) error {
	words := strings.Fields(p.command)
	cmd := exec.CommandContext(ctx, words[0], append(words[1:], args...)...)
	cmd.Env, cmd.WaitDelay = append(os.Environ(), env...), 5*time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Start()
	if err != nil {
		return fmt.Errorf("program %s: %w: %w", p.name, manager.ErrNotRun, err)
	}
	if err = cmd.Wait(); err == nil {
		return nil
	}
	text := strings.TrimSpace(string(out.Bytes()[max(0, out.Len()-maxOutput):]))
	if text == "" {
		return fmt.Errorf("program %s: %w", p.name, err)
	}
	return fmt.Errorf("program %s: %w: %s", p.name, err, strings.ToValidUTF8(text, "?"))
}

package command

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// verify returns the operator's own check of new software, nil if there is none.
func (r *upgradeRun) verify(target string) func(context.Context, *device.Device) error {
	if r.verifyWith == "" {
		return nil
	}
	return func(ctx context.Context, d *device.Device) error {
		return runProgram(ctx, r.inherited["verify-with"], r.verifyWith, nil,
			"IADMS_TARGET="+target, "IADMS_DEVICE="+d.ID, "IADMS_SOFTWARE_VERSION="+d.Version)
	}
}

// modifier returns what modifies configuration data on this machine, nil if nothing does.
func (r *upgradeRun) modifier(reporter report.Reporter) manager.Modifier {
	editor := cmp.Or(os.Getenv("VISUAL"), os.Getenv("EDITOR"))
	switch {
	case r.convertWith != "":
		return converter{command: r.convertWith, dir: r.inherited["convert-with"], store: r.store}
	case r.edit || r.asks && editor != "":
		return editing{command: cmp.Or(editor, "vi"), store: r.store, report: reporter}
	}
	return nil
}

// converter converts configuration data with a program.
type converter struct{ command, dir, store string }

var _ manager.Modifier = converter{}

// Modify implements manager.Modifier.
func (c converter) Modify(ctx context.Context, m manager.Modification) error {
	store, err := filepath.Abs(cmp.Or(m.Root, c.store)) // the program may run elsewhere
	if err != nil {
		return err
	}
	args := []string{
		strconv.FormatUint(uint64(m.From), 10), strconv.FormatUint(uint64(m.To), 10),
		filepath.Join(store, m.Original), filepath.Join(store, m.Draft),
	}
	return runProgram(ctx, c.dir, c.command, args, "IADMS_DEVICE="+m.Device)
}

// editing has a person edit configuration data.
type editing struct {
	command, store string
	report         report.Reporter
}

var _ manager.Modifier = editing{}

// Modify implements manager.Modifier.
func (e editing) Modify(ctx context.Context, m manager.Modification) error {
	if err := files.SetFormat(m.Files, m.Draft, m.To); err != nil {
		return err
	}
	if m.Failure != nil {
		e.report.Line("      last time: " + m.Failure.Error())
	}
	e.report.Line(fmt.Sprintf("      edit the files for format %d; their first lines already have it", m.To))
	list, err := afero.ReadDir(m.Files, m.Draft)
	if err != nil {
		return err
	}
	args := []string{"-c", e.command + ` "$@"`, "editor"}
	for _, info := range list {
		args = append(args, filepath.Join(cmp.Or(m.Root, e.store), m.Draft, info.Name()))
	}
	cmd := exec.CommandContext(ctx, "sh", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("editor %s: %w", e.command, err)
	}
	if same, err := m.Unchanged(); same && err == nil { // what cannot be read is found later
		return fmt.Errorf("editor %s: %w (the editor must not exit before the files are closed, like \"code --wait\")", e.command, manager.ErrUnchanged)
	}
	return nil
}

// programLimit is the time limit of an operator's program.
const programLimit = 10 * time.Minute

// runProgram runs an operator's command with arguments added. The error contains the last
// line of its output.
func runProgram(ctx context.Context, dir, command string, args []string, env ...string) error {
	ctx, cancel := context.WithTimeout(ctx, programLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", command + ` "$@"`, "sh"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.WaitDelay = time.Second
	var output tail
	cmd.Stdout, cmd.Stderr = &output, &output
	err := cmd.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		return nil // ended well, perhaps leaving somebody behind who holds its output open
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("still running after %s", programLimit)
	}
	// The status of sh if the command does not exist or cannot be run.
	var exit *exec.ExitError
	if errors.As(err, &exit) && (exit.ExitCode() == 126 || exit.ExitCode() == 127) {
		err = fmt.Errorf("%w: %w", manager.ErrNotRun, err)
	}
	if line := output.lastLine(); line != "" {
		return fmt.Errorf("%s (%w)", line, err)
	}
	return fmt.Errorf("%s: %w", command, err)
}

// tail keeps the end of what is written to it.
type tail struct{ kept []byte }

var _ io.Writer = (*tail)(nil)

const tailSize = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	t.kept = t.kept[max(0, len(t.kept)-tailSize):]
	return len(p), nil
}

func (t *tail) lastLine() string {
	lines := bytes.Split(bytes.TrimSpace(t.kept), []byte("\n"))
	return strings.ToValidUTF8(string(lines[len(lines)-1]), "?")
}

package report

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"example.com/iad/manager"
)

// Verdict is how an upgrade, or a part of one, ended.
type Verdict struct {
	Result manager.Result
	Err    error
	Done   string                       // last line of a success
	Target string                       // as the user named it
	Server string                       // that has the backup, if it is not this machine
	Resume func() string                // the command that resumes; nil: none
	Hint   func(words ...string) string // makes a command to paste
}

// interrupted reports whether the user interrupted it.
func (v Verdict) interrupted() bool { return errors.Is(v.Err, context.Canceled) }

// runs says what the device runs now, as far as is known.
func (v Verdict) runs() string {
	r := v.Result
	switch {
	case r.Rescue:
		return "has no usable software: rescue mode"
	case r.NewVersion == "":
		return fmt.Sprintf("does not answer now; it ran %s", manager.SoftwareText(r.OldVersion))
	case r.OnDefaults:
		return fmt.Sprintf("runs %s on its defaults", r.NewVersion)
	}
	return "runs " + r.NewVersion
}

// lines returns the summary: how long each operation took, the result, and what can be
// done about it.
func (v Verdict) lines() []string {
	r := v.Result
	var lines []string
	for _, o := range r.Operations {
		text := fmt.Sprintf("%d %-20s %8.1f s", o.Step, o.Kind, o.Elapsed.Seconds())
		if o.Bytes > 0 {
			text += "  " + Bytes(uint64(o.Bytes))
		}
		lines = append(lines, text)
	}
	switch {
	case v.Err == nil:
		return append(lines, v.Done)
	case r.Device == "":
		return lines // nothing was started; the error says why
	}
	word := "FAILED"
	if v.interrupted() {
		word = "INTERRUPTED"
	}
	took := r.Elapsed.Round(100 * time.Millisecond).Seconds()
	lines = append(lines, fmt.Sprintf("%s: %s %s (before: %s) after %.1f s", word, r.Device, v.runs(), manager.SoftwareText(r.OldVersion), took))
	return append(lines, v.advice()...)
}

// advice returns the commands that continue from here.
func (v Verdict) advice() (lines []string) {
	r := v.Result
	if op := r.StillRunning; op != nil {
		lines = append(lines, fmt.Sprintf("  operation %d (%s) is still running; to stop it: %s", op.ID, op.Kind, v.Hint("abort", v.Target)))
	}
	if r.OnDefaults {
		text := "  its configuration data are not in force"
		switch {
		case v.Server != "":
			lines = append(lines, text+"; the backup is on "+v.Server)
		case r.Directory != "":
			lines = append(lines, text+"; the backup is in "+r.Directory,
				"  to recover them: "+v.Hint("recover", v.Target, "--from", path.Base(r.Directory)))
		default:
			lines = append(lines, text)
		}
		if r.NewVersion != r.OldVersion && r.OldVersion != "" {
			lines = append(lines, fmt.Sprintf("  to roll back to %s with its data: %s", r.OldVersion, v.Hint("rollback", v.Target)))
		}
	}
	if v.Resume != nil {
		lines = append(lines, "  to resume: "+v.Resume())
	}
	return lines
}

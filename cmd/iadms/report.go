package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/iad/internal/cli"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// reporter shows how an upgrade goes on.
type reporter interface {
	start(target string, d *device.Device, img *files.Image)
	update(u manager.Update)
	finish(v verdict)
	// line shows a line of text as it is.
	line(text string)
}

func (g *globals) newReporter(w io.Writer) reporter {
	if g.json {
		return &jsonReporter{out: json.NewEncoder(lasting(w))}
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		cobra.OnFinalize(hideControls(f))
		bars := newBarReporter(w)
		g.logs.goAbove(bars.progress)
		return bars
	}
	return &plainReporter{w: lasting(w)}
}

// lasting is for what a procedure prints: it goes on when nobody reads that any more.
func lasting(w io.Writer) io.Writer {
	cli.SurviveClosedPipe()
	return cli.Lasting(w, func(err error) {
		fmt.Fprintln(os.Stderr, "iadms: output cannot be written any more; continuing without it:", err)
	})
}

// logWriter writes a log to standard error, above the bars while there are some on
// the same terminal: a line among them would be drawn over.
type logWriter struct {
	mu    sync.Mutex
	above io.Writer // nil: no bars
}

func (l *logWriter) goAbove(bars io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if term.IsTerminal(int(os.Stderr.Fd())) {
		l.above = bars
	}
}

func (l *logWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.above != nil {
		if n, err := l.above.Write(p); err == nil {
			return n, nil
		}
		l.above = nil // the bars are gone
	}
	return os.Stderr.Write(p)
}

// plainReporter prints lines; progress at most every tenth part.
type plainReporter struct {
	w     io.Writer
	shown string
}

func (p *plainReporter) line(text string) { fmt.Fprintln(p.w, text) }

func (p *plainReporter) start(target string, d *device.Device, img *files.Image) {
	p.line(startText(target, d, img))
}

func startText(target string, d *device.Device, img *files.Image) string {
	return fmt.Sprintf("%s at %s: %s, software %s, configuration format %d; image %s, version %s, format %d",
		d.ID, target, d.Model, manager.SoftwareText(d.Version), d.ConfigFormat, img.FileName(), img.Version(), img.Manifest.ConfigFormat)
}

func (p *plainReporter) update(u manager.Update) {
	if u.Kind != manager.Progressed {
		for _, text := range updateLines(u) {
			p.line(text)
		}
		return
	}
	// A line for each phase and each tenth of the way.
	key := fmt.Sprint(u.Step, u.Operation.ID, u.Operation.Phase, u.Operation.Percent/10)
	if key == p.shown {
		return
	}
	p.shown = key
	p.line(fmt.Sprintf("%d   %s", u.Step, progressText(u.Operation)))
}

func (p *plainReporter) finish(v verdict) {
	for _, text := range v.lines() {
		p.line(text)
	}
}

// updateLines are the lines for what is not progress.
func updateLines(u manager.Update) []string {
	step := "   "
	if u.Step != 0 {
		step = fmt.Sprint(int(u.Step))
	}
	switch u.Kind {
	case manager.StepFails:
		return []string{step + " FAILED: " + u.Text}
	case manager.Warned:
		return []string{step + "   warning: " + u.Text}
	case manager.Noted:
		return []string{step + "   " + u.Text}
	case manager.BackupListed:
		var lines []string
		for _, f := range u.Backup {
			lines = append(lines,
				fmt.Sprintf("%s   %s, %d octets, format %d", step, f.Name, f.Size, f.Format),
				fmt.Sprintf("%s     device SHA-256 %s", step, hex.EncodeToString(f.DeviceDigest)))
			if f.ServerDigest != nil {
				lines = append(lines, fmt.Sprintf("%s     server SHA-256 %s", step, hex.EncodeToString(f.ServerDigest)))
			} else {
				lines = append(lines, step+"     server SHA-256 not known")
			}
		}
		return lines
	}
	return []string{step + " " + u.Text}
}

func progressText(o *device.Operation) string {
	percent := "   ?"
	if o.Percent <= 100 {
		percent = fmt.Sprintf("%3d%%", o.Percent)
	}
	text := fmt.Sprintf("%s %-12s", percent, o.Phase)
	switch {
	case o.BytesTotal > 0:
		text += fmt.Sprintf(" %s of %s", octetsText(uint64(o.BytesDone)), octetsText(uint64(o.BytesTotal)))
	case o.BytesDone > 0:
		text += " " + octetsText(uint64(o.BytesDone))
	}
	if o.Attempt > 1 {
		text += fmt.Sprintf(", attempt %d", o.Attempt)
	}
	return text
}

// octetsText shows a number of octets in decimal units.
func octetsText(n uint64) string {
	switch {
	case n >= 10_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 10_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d octets", n)
}

// Package report shows the progress and the end of upgrades and other procedures: as lines, as
// lines above bars on a terminal, and as JSON lines for programs.
//
// [New] makes the [Reporter] for one device, [NewFleet] what shows several of them.
package report

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

// Reporter shows the progress of an upgrade.
type Reporter interface {
	Start(target string, d *device.Device, img *files.Image)
	Update(u manager.Update)
	Finish(v Verdict)
	// Line shows a line of text as it is.
	Line(text string)
}

// New returns the reporter for one device. While it draws bars, log lines go above them.
func New(w io.Writer, asJSON bool, log *Log) Reporter {
	if asJSON {
		return &jsonLines{out: json.NewEncoder(Lasting(w))}
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		cobra.OnFinalize(hideControls(f))
		bars := newBars(w)
		log.goAbove(bars.progress)
		return bars
	}
	return &plain{w: Lasting(w)}
}

// Lasting returns a writer for the output of a procedure, which continues if nobody reads
// the output any more.
func Lasting(w io.Writer) io.Writer {
	cli.SurviveClosedPipe()
	return cli.Lasting(w, func(err error) {
		fmt.Fprintln(os.Stderr, "iadms: output can no longer be written; continuing without it:", err)
	})
}

// Log writes a log to standard error. While there are bars on the same terminal it writes
// above them, because a line among them would be overwritten.
type Log struct {
	mu    sync.Mutex
	above io.Writer // nil: no bars
}

func (l *Log) goAbove(bars io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if term.IsTerminal(int(os.Stderr.Fd())) {
		l.above = bars
	}
}

func (l *Log) Write(p []byte) (int, error) {
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

// plain prints lines, and progress at most once per tenth of the way.
type plain struct {
	w     io.Writer
	shown string
}

func (p *plain) Line(text string) { fmt.Fprintln(p.w, text) }

func (p *plain) Start(target string, d *device.Device, img *files.Image) {
	p.Line(startText(target, d, img))
}

func startText(target string, d *device.Device, img *files.Image) string {
	return fmt.Sprintf("%s at %s: %s, software %s, configuration format %d; image %s, version %s, format %d",
		d.ID, target, d.Model, manager.SoftwareText(d.Version), d.ConfigFormat, img.FileName(), img.Version(), img.Manifest.ConfigFormat)
}

func (p *plain) Update(u manager.Update) {
	if u.Kind != manager.Progressed {
		for _, text := range updateLines(u) {
			p.Line(text)
		}
		return
	}
	// A line for each phase and each tenth of the way.
	key := fmt.Sprint(u.Step, u.Operation.ID, u.Operation.Phase, u.Operation.Percent/10)
	if key == p.shown {
		return
	}
	p.shown = key
	p.Line(fmt.Sprintf("%d   %s", u.Step, Progress(u.Operation)))
}

func (p *plain) Finish(v Verdict) {
	for _, text := range v.lines() {
		p.Line(text)
	}
}

// updateLines returns the lines for everything but progress.
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
				fmt.Sprintf("%s   %s, %d bytes, format %d", step, f.Name, f.Size, f.Format),
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

// Progress returns how far an operation is: percent, phase, bytes.
func Progress(o *device.Operation) string {
	percent := "   ?"
	if o.Percent <= 100 {
		percent = fmt.Sprintf("%3d%%", o.Percent)
	}
	text := fmt.Sprintf("%s %-12s", percent, o.Phase)
	switch {
	case o.BytesTotal > 0:
		text += fmt.Sprintf(" %s of %s", Bytes(uint64(o.BytesDone)), Bytes(uint64(o.BytesTotal)))
	case o.BytesDone > 0:
		text += " " + Bytes(uint64(o.BytesDone))
	}
	if o.Attempt > 1 {
		text += fmt.Sprintf(", attempt %d", o.Attempt)
	}
	return text
}

// Bytes formats a number of bytes in decimal units.
func Bytes(n uint64) string {
	switch {
	case n >= 10_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 10_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}

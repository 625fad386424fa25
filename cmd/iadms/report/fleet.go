package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"example.com/iad/manager"
	"example.com/iad/manager/batch"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// Fleet shows the upgrades of several devices: a line for each device when it has ended,
// and on a terminal a bar for each device in progress, as far as the terminal has lines
// for them, and one line for the others.
type Fleet struct {
	began time.Time
	check bool // devices are only asked whether they would accept the image
	retry func(targets []string) string
	json  *json.Encoder // nil: text for people
	bars  *mpb.Progress // nil: no terminal
	rest  *mpb.Bar      // the line for the devices without a bar

	mu    sync.Mutex
	w     io.Writer
	plain io.Writer // below the bars, when there are none any more

	count  sync.Mutex
	free   int // bars that the terminal still has lines for
	hidden int // devices being worked on without a bar
	good   int
	failed int

	unchanged int
}

// NewFleet returns the reporter for several devices; see New.
func NewFleet(w io.Writer, asJSON bool, log *Log, check bool, retry func(targets []string) string) *Fleet {
	r := &Fleet{began: time.Now(), check: check, retry: retry}
	r.w = &lockedWriter{mu: &r.mu, w: Lasting(w)}
	r.plain = r.w
	if asJSON {
		r.json = json.NewEncoder(r.w)
	} else if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		_, height, err := term.GetSize(int(f.Fd()))
		if err != nil || height <= 0 {
			height = 24
		}
		r.free = max(1, height-3)
		cobra.OnFinalize(hideControls(f))
		r.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(30), mpb.WithRefreshRate(200*time.Millisecond))
		r.w = r.bars
		r.rest = r.bars.New(1, mpb.NopStyle(), mpb.BarRemoveOnComplete(), mpb.BarPriority(math.MaxInt32),
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return r.restText() })))
		log.goAbove(r.bars)
	}
	return r
}

// restText is the line below the bars.
func (r *Fleet) restText() string {
	r.count.Lock()
	defer r.count.Unlock()
	text := fmt.Sprintf("%d done, %d failed", r.good, r.failed)
	if r.hidden > 0 {
		text = fmt.Sprintf("%d more in progress, ", r.hidden) + text
	}
	return text
}

// lockedWriter keeps the lines of several devices apart.
type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// Device returns the reporter for one device.
func (r *Fleet) Device(target string) Reporter {
	if r.json != nil {
		return &jsonLines{out: r.json, target: target}
	}
	d := &fleetDevice{fleet: r, target: target}
	if r.bars != nil {
		r.count.Lock()
		r.hidden++
		r.count.Unlock()
		r.give(d)
	}
	return d
}

// give shows a bar for a device if the terminal has a line for it.
func (r *Fleet) give(d *fleetDevice) {
	if r.bars == nil || d.bar != nil {
		return
	}
	r.count.Lock()
	defer r.count.Unlock()
	if r.free == 0 {
		return
	}
	r.free--
	r.hidden--
	d.bar = r.bars.AddBar(100, mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(d.target+" ", decor.WCSyncSpaceR), decor.Any(func(decor.Statistics) string { return d.left() }, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return d.right() })))
}

// take removes a device's bar when it has ended, and counts it.
func (r *Fleet) take(d *fleetDevice, err error) {
	if d.bar != nil {
		d.bar.Abort(true)
		d.bar.Wait() // or its line would be there beside that of the next device
	}
	r.count.Lock()
	defer r.count.Unlock()
	if err == nil {
		r.good++
	} else {
		r.failed++
	}
	switch {
	case d.bar != nil:
		r.free++
	case r.bars != nil:
		r.hidden--
	}
}

// Ended records how a device's upgrade ended, even if it never started.
func (r *Fleet) Ended(target string, of Reporter, err error) {
	d, ok := of.(*fleetDevice)
	if !ok {
		if j, ok := of.(*jsonLines); ok {
			if !j.finished {
				j.Finish(Verdict{Err: err})
			}
			r.countUnchanged(j.unchanged)
		}
		return
	}
	r.take(d, err)
	r.countUnchanged(d.Result.Unchanged)
	r.print(target, r.resultLine(d.Verdict, err))
}

func (r *Fleet) countUnchanged(unchanged bool) {
	if unchanged {
		r.count.Lock()
		r.unchanged++
		r.count.Unlock()
	}
}

// print prints a line of a device.
func (r *Fleet) print(target, text string) {
	fmt.Fprintf(r.w, "%-24s %s\n", target, text)
}

func (r *Fleet) resultLine(v Verdict, err error) string {
	result, took := v.Result, v.Result.Elapsed.Seconds()
	switch {
	case err == nil && (r.check || result.Unchanged):
		return v.Done
	case err == nil:
		return fmt.Sprintf("OK      %s -> %s in %.1f s, backup %s", manager.SoftwareText(result.OldVersion), result.NewVersion, took, result.Directory)
	case result.Device == "":
		return "FAILED  " + err.Error()
	case v.interrupted():
		return fmt.Sprintf("STOPPED %s after %.1f s: interrupted", v.runs(), took)
	}
	return fmt.Sprintf("FAILED  %s after %.1f s: %s", v.runs(), took, strings.ReplaceAll(err.Error(), "\n", "; "))
}

// Finish prints the summary, and returns an error that stands for all failures.
func (r *Fleet) Finish(targets []string, outcomes []error) error {
	var failed []error
	waiting := 0
	for i, err := range outcomes {
		switch {
		case errors.Is(err, batch.ErrNotStarted):
			waiting++
			if r.json == nil {
				r.print(targets[i], "not started")
			}
		case err != nil:
			failed = append(failed, err)
		}
	}
	good := len(outcomes) - len(failed) - waiting
	if r.bars != nil {
		r.rest.Abort(true)
		r.bars.Wait()
	}
	r.w = r.plain
	verb := "upgraded"
	if r.check {
		verb = "would accept it"
	}
	if r.json != nil {
		if err := r.json.Encode(map[string]any{
			"kind": "summary", "ok": good, "unchanged": r.unchanged, "failed": len(failed), "not_started": waiting, "elapsed_s": time.Since(r.began).Seconds(),
		}); err != nil {
			return err
		}
	} else {
		if r.unchanged > 0 {
			verb += fmt.Sprintf(", %d unchanged", r.unchanged)
		}
		fmt.Fprintf(r.w, "%d of %d %s, %d failed, %d not started, in %.1f s\n",
			good-r.unchanged, len(outcomes), verb, len(failed), waiting, time.Since(r.began).Seconds())
		for _, line := range r.failures(targets, outcomes) {
			fmt.Fprintln(r.w, line)
		}
	}
	if len(failed) == 0 && waiting == 0 {
		return nil
	}
	if r.check {
		return FleetError{Failures: failed, text: fmt.Sprintf("%d of %d devices would not accept it", len(outcomes)-good, len(outcomes))}
	}
	return FleetError{Failures: failed, text: fmt.Sprintf("%d of %d devices were not upgraded", len(outcomes)-good, len(outcomes))}
}

// MaxNamed is how many targets a line of the summary names.
const MaxNamed = 10

// failures returns lines with the devices that failed, by cause, and the command that
// retries them.
func (r *Fleet) failures(targets []string, outcomes []error) (lines []string) {
	by := make(map[string][]string)
	var all []string
	for i, err := range outcomes {
		if err == nil || errors.Is(err, batch.ErrNotStarted) {
			continue
		}
		by[shortCause(err)] = append(by[shortCause(err)], targets[i])
		all = append(all, targets[i])
	}
	for _, cause := range slices.Sorted(maps.Keys(by)) {
		lines = append(lines, fmt.Sprintf("  %d %s: %s", len(by[cause]), cause, someOf(by[cause], ", ")))
	}
	if len(all) > 0 && !r.check {
		lines = append(lines, "  to retry them: "+r.retry(all))
	}
	return lines
}

// someOf joins the first entries of a list and says how many more there are.
func someOf(list []string, separator string) string {
	if len(list) <= MaxNamed {
		return strings.Join(list, separator)
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:MaxNamed], separator), len(list)-MaxNamed)
}

// shortCause is a description that the failures of several devices may have in common.
func shortCause(err error) string {
	var failed *manager.Failure
	var refused *device.RefusalError
	switch {
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case errors.As(err, &failed) && failed.NoAnswer, errors.Is(err, device.ErrNoAnswer):
		return "failed, no answer"
	case errors.As(err, &failed) && failed.TimedOut:
		return "failed, the time limit has passed"
	case errors.As(err, &failed):
		return "failed, " + failed.Cause.String()
	case errors.As(err, &refused):
		return "refused, " + refused.Cause.String()
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return "failed, " + text
}

// FleetError stands for the failures of several devices.
type FleetError struct {
	Failures []error // of the devices that failed
	text     string
}

func (e FleetError) Error() string { return e.text }

// fleetDevice shows one of several devices.
type fleetDevice struct {
	fleet  *Fleet
	target string
	bar    *mpb.Bar
	Verdict

	mu   sync.Mutex
	step manager.Step
	op   device.Operation
}

func (d *fleetDevice) Line(text string) { d.fleet.print(d.target, strings.TrimSpace(text)) }

func (d *fleetDevice) Start(string, *device.Device, *files.Image) {}

func (d *fleetDevice) Update(u manager.Update) {
	switch u.Kind {
	case manager.StepBegins, manager.Progressed:
		d.fleet.give(d)
		d.mu.Lock()
		d.step = u.Step
		if u.Operation != nil {
			d.op = *u.Operation
		} else {
			d.op = device.Operation{}
		}
		d.mu.Unlock()
		if d.bar != nil && u.Operation != nil && u.Operation.Percent < 100 {
			d.bar.SetCurrent(int64(u.Operation.Percent))
		}
	}
}

func (d *fleetDevice) left() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.op.ID == 0 {
		return fmt.Sprintf("%d", d.step)
	}
	return fmt.Sprintf("%d %s", d.step, d.op.Phase)
}

func (d *fleetDevice) right() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.op.BytesTotal == 0 {
		return ""
	}
	return fmt.Sprintf("%s of %s", Bytes(uint64(d.op.BytesDone)), Bytes(uint64(d.op.BytesTotal)))
}

func (d *fleetDevice) Finish(v Verdict) { d.Verdict = v }

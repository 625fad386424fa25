package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"example.com/iad/manager"
)

// fleetReport shows how the upgrades of several devices go on: a line for
// each device when it has ended, and on a terminal a bar for each that is
// being worked on.
type fleetReport struct {
	began time.Time
	json  *json.Encoder // nil: for people
	bars  *mpb.Progress // nil: no terminal

	mu    sync.Mutex
	w     io.Writer
	plain io.Writer // below the bars, when there are none any more
}

func newFleetReport(w io.Writer, asJSON bool) *fleetReport {
	r := &fleetReport{began: time.Now()}
	r.w = &lockedWriter{mu: &r.mu, w: lasting(w)}
	r.plain = r.w
	if asJSON {
		r.json = json.NewEncoder(r.w)
	} else if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		r.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(30), mpb.WithRefreshRate(200*time.Millisecond))
		r.w = r.bars
	}
	return r
}

// lockedWriter lets several devices' lines not mix.
type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// device makes the reporter of one device.
func (r *fleetReport) device(target string) reporter {
	if r.json != nil {
		return &jsonReporter{out: r.json, target: target}
	}
	d := &fleetDevice{fleet: r, target: target}
	if r.bars != nil {
		d.bar = r.bars.AddBar(100, mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(target+" ", decor.WCSyncSpaceR), decor.Any(func(decor.Statistics) string { return d.left() }, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return d.right() })))
	}
	return d
}

// ended takes in how a device's upgrade ended, also before it began.
func (r *fleetReport) ended(target string, of reporter, err error) {
	d, ok := of.(*fleetDevice)
	if !ok {
		if j, ok := of.(*jsonReporter); ok && !j.finished {
			j.finish(verdict{err: err})
		}
		return
	}
	if d.bar != nil {
		d.bar.Abort(true)
	}
	r.print(target, resultLine(d.verdict, err))
}

// print shows a line of a device.
func (r *fleetReport) print(target, text string) {
	fmt.Fprintf(r.w, "%-24s %s\n", target, text)
}

func resultLine(v verdict, err error) string {
	result, took := v.result, v.result.Elapsed.Seconds()
	switch {
	case err == nil:
		return fmt.Sprintf("OK      %s -> %s in %.1f s, backup %s", result.OldVersion, result.NewVersion, took, result.Folder)
	case result.Device == "":
		return "FAILED  " + err.Error()
	case v.interrupted():
		return fmt.Sprintf("STOPPED %s after %.1f s: interrupted", v.runs(), took)
	}
	return fmt.Sprintf("FAILED  %s after %.1f s: %s", v.runs(), took, strings.ReplaceAll(err.Error(), "\n", "; "))
}

// finish sums up, and returns an error that stands for all.
func (r *fleetReport) finish(ctx context.Context, targets []string, outcomes []error) error {
	var failed []error
	waiting := 0
	for i, err := range outcomes {
		switch {
		case errors.Is(err, manager.ErrNotStarted):
			waiting++
			if r.json == nil {
				r.print(targets[i], "not begun")
			}
		case err != nil:
			failed = append(failed, err)
		}
	}
	good := len(outcomes) - len(failed) - waiting
	if r.bars != nil {
		r.bars.Wait()
	}
	r.w = r.plain
	if r.json != nil {
		if err := r.json.Encode(map[string]any{
			"kind": "summary", "ok": good, "failed": len(failed), "not_begun": waiting, "elapsed_s": time.Since(r.began).Seconds(),
		}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(r.w, "%d of %d upgraded, %d failed, %d not begun, in %.1f s\n",
			good, len(outcomes), len(failed), waiting, time.Since(r.began).Seconds())
	}
	if len(failed) == 0 && waiting == 0 {
		return nil
	}
	return fleetError{status: commonStatus(ctx, failed), text: fmt.Sprintf("%d of %d devices were not upgraded", len(outcomes)-good, len(outcomes))}
}

// fleetError stands for the failures of several devices.
type fleetError struct {
	status int
	text   string
}

func (e fleetError) Error() string { return e.text }

// commonStatus is the exit status of all failures if they have the same, else
// that of a failed operation.
func commonStatus(ctx context.Context, failed []error) int {
	status := 0
	for _, err := range failed {
		s := exitStatus(ctx, err)
		if status != 0 && s != status {
			return exitFailed
		}
		status = s
	}
	if status == 0 {
		return exitInterrupted // nothing failed, and some were not begun
	}
	return status
}

// fleetDevice shows one of several devices.
type fleetDevice struct {
	fleet  *fleetReport
	target string
	bar    *mpb.Bar
	verdict

	mu   sync.Mutex
	step manager.Step
	op   manager.Operation
}

func (d *fleetDevice) line(text string) { d.fleet.print(d.target, strings.TrimSpace(text)) }

func (d *fleetDevice) start(string, *manager.Device, *manager.Image) {}

func (d *fleetDevice) update(u manager.Update) {
	switch u.Kind {
	case manager.StepBegins, manager.Progressed:
		d.mu.Lock()
		d.step = u.Step
		if u.Operation != nil {
			d.op = *u.Operation
		} else {
			d.op = manager.Operation{}
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
	return fmt.Sprintf("%s of %s", octetsText(uint64(d.op.BytesDone)), octetsText(uint64(d.op.BytesTotal)))
}

func (d *fleetDevice) finish(v verdict) { d.verdict = v }

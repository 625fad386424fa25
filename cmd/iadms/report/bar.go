package report

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// Bars prints lines as plain does, and below them one bar for the operation in progress.
type Bars struct {
	progress *mpb.Progress
	bar      *mpb.Bar
	of       uint32 // the operation that the bar is for

	mu   sync.Mutex
	op   device.Operation
	step manager.Step
	rate rateMeter
}

func newBars(w io.Writer) *Bars {
	return &Bars{progress: mpb.New(mpb.WithOutput(w), mpb.WithWidth(40), mpb.WithRefreshRate(120*time.Millisecond))}
}

func (b *Bars) Line(text string) { fmt.Fprintln(b.progress, text) }

func (b *Bars) Start(target string, d *device.Device, img *files.Image) {
	b.Line(startText(target, d, img))
}

func (b *Bars) Update(u manager.Update) {
	if u.Kind != manager.Progressed {
		b.drop()
		for _, text := range updateLines(u) {
			b.Line(text)
		}
		return
	}
	b.mu.Lock()
	b.op, b.step = *u.Operation, u.Step
	b.rate.add(u.Time, u.Operation)
	b.mu.Unlock()
	if b.bar == nil || b.of != u.Operation.ID {
		b.drop()
		b.of = u.Operation.ID
		b.bar = b.progress.AddBar(100, mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return b.left() })),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return b.right() })))
	}
	if u.Operation.Percent < 100 {
		b.bar.SetCurrent(int64(u.Operation.Percent))
	}
}

// left is the text before the bar: step and phase.
func (b *Bars) left() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("%d   %-12s ", b.step, b.op.Phase)
}

// right is the text after it: percent, bytes, rate and time left.
func (b *Bars) right() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := "   ?"
	if b.op.Percent <= 100 {
		text = fmt.Sprintf(" %3d%%", b.op.Percent)
	}
	if b.op.BytesTotal > 0 {
		text += fmt.Sprintf("  %s of %s", Bytes(uint64(b.op.BytesDone)), Bytes(uint64(b.op.BytesTotal)))
	} else if b.op.BytesDone > 0 {
		text += "  " + Bytes(uint64(b.op.BytesDone))
	}
	if perSecond := b.rate.perSecond(); perSecond > 0 && b.op.BytesDone < b.op.BytesTotal {
		left := time.Duration(float64(b.op.BytesTotal-b.op.BytesDone) / perSecond * float64(time.Second))
		text += fmt.Sprintf("  %s/s  %s left", Bytes(uint64(perSecond)), left.Round(time.Second))
	}
	if b.op.Attempt > 1 {
		text += fmt.Sprintf("  attempt %d", b.op.Attempt)
	}
	return text
}

// drop removes the bar.
func (b *Bars) drop() {
	if b.bar != nil {
		b.bar.Abort(true)
		b.bar.Wait()
		b.bar = nil
	}
}

func (b *Bars) Finish(v Verdict) {
	b.drop()
	for _, text := range v.lines() {
		b.Line(text)
	}
	b.progress.Wait()
}

// rateMeter measures bytes per second over the current attempt.
type rateMeter struct {
	from        time.Time
	done        uint32
	attempt, op uint32
	rate        float64
}

func (m *rateMeter) add(at time.Time, o *device.Operation) {
	if o.ID != m.op || o.Attempt != m.attempt || o.BytesDone < m.done || m.from.IsZero() {
		*m = rateMeter{from: at, done: o.BytesDone, attempt: o.Attempt, op: o.ID}
		return
	}
	if passed := at.Sub(m.from).Seconds(); passed > 0.2 {
		m.rate = float64(o.BytesDone-m.done) / passed
	}
}

func (m *rateMeter) perSecond() float64 { return m.rate }

package agent_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/config"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// A conversion program that outlived the agent that started it, and goes on
// writing, gets nothing into the result of a later one.
func TestConversionsShareNoDirectory(t *testing.T) {
	var old string // where the first one writes
	hooks := func(c *sim.Config) {
		c.Hooks.Convert = func(ctx context.Context, conv agent.Conversion, work afero.Fs) error {
			if old == "" {
				old = conv.OutDir
				return errors.New("cut off")
			}
			if err := convert(ctx, conv, work); err != nil {
				return err
			}
			err := work.MkdirAll(old, 0o700)
			return errors.Join(err, afero.WriteFile(work, old+"/userData", settings(2, "old")[mib.FileTypeUserData], 0o600))
		}
	}
	onBench(t, hooks, func(b *bench) {
		b.server()
		b.upgrade(2)
		b.must(command(convertConfig))
		b.failed(mib.FailCauseConvertFailed)
		const left = "convert-left-by-a-killed-agent"
		if err := b.cfg.Disk.Work.MkdirAll(left+"/out", 0o700); err != nil {
			t.Fatal(err)
		}
		b.must(command(convertConfig))
		b.succeeded()
		b.wantText(mib.ConfigDigest, string(settings(2, "name").Digest()))
		if _, err := b.cfg.Disk.Work.Stat(left); err == nil {
			t.Error("what an earlier conversion left is still there")
		}
	})
}

// Configuration data that cannot be written for the software, at a start or after a
// failed recovery, are shown as not in use and handed over as soon as that works.
func TestHandOverIsTriedAgain(t *testing.T) {
	var full atomic.Bool
	var inUse atomic.Uint32
	hooks := func(c *sim.Config) {
		c.Hooks.Apply = func(g config.Generation, _ config.Set) (bool, error) {
			if full.Load() {
				return false, fmt.Errorf("%w: no space left", agent.ErrNotHandedOver)
			}
			inUse.Store(g.Number)
			return false, nil
		}
	}
	onBench(t, hooks, func(b *bench) {
		b.server()
		for _, cut := range []bool{true, false} {
			full.Store(true)
			inUse.Store(0)
			if cut {
				b.powerCut()
				last := uint32(b.num(mib.EventSeq))
				if got := b.text(mib.EventText, last); !strings.Contains(got, "no space left") {
					t.Errorf("the event of the start says %q", got)
				}
			} else {
				for k, data := range settings(1, "new") {
					b.upload(k.String(), data)
				}
				b.must(command(recoverConfig))
				b.failed(mib.FailCauseConfigApplyError)
				if got := b.text(mib.OpFailText); !strings.Contains(got, "not in use either") {
					t.Errorf("the operation says %q", got)
				}
			}
			b.want(mib.ConfigGeneration, 1)
			b.want(mib.ResetRequired, 1)
			time.Sleep(time.Hour)
			b.want(mib.ResetRequired, 1)
			full.Store(false)
			time.Sleep(10 * time.Minute)
			b.want(mib.ResetRequired, 2)
			if inUse.Load() != 1 {
				t.Errorf("the software uses generation %d", inUse.Load())
			}
		}
	})
}

// What is converted is what was in force before, not what was left for it.
func TestConvertConfigAfterGoingBack(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.image("1.1.0", 1)
		b.must(command(downloadSoftware), options(thenActivate, thenReset))
		b.succeeded()
		for k, data := range settings(1, "new") {
			b.upload(k.String(), data)
		}
		b.must(command(recoverConfig))
		b.succeeded()
		b.must(command(restoreOldSoftware))
		b.succeeded()
		b.wantText(mib.ConfigDigest, string(settings(1, "name").Digest()))
		b.upgrade(2)
		b.must(command(convertConfig))
		b.succeeded()
		b.wantText(mib.ConfigDigest, string(settings(2, "name").Digest()))
	})
}

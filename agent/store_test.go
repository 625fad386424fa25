package agent_test

import (
	"context"
	"errors"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// A conversion program that outlived the agent that started it, and goes on
// writing, gets nothing into the result of a later one.
func TestConversionsShareNoFolder(t *testing.T) {
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
			return errors.Join(err, afero.WriteFile(work, old+"/userData", settings(2, "old")[config.UserData], 0o600))
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

// What is converted is what was in force before, not what was left for it.
func TestConvertConfigAfterGoingBack(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		b.server()
		b.image("1.1.0", 1)
		b.must(command(downloadSoftware), options(thenActivate, thenReset))
		b.succeeded()
		for k, data := range settings(1, "new") {
			b.upload(procedure.FileKind(k).String(), data)
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

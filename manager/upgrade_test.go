package manager_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// wholeWay are the steps of a procedure in which everything succeeds.
var wholeWay = []manager.Step{100, 110, 120, 130, 140, 150, 170, 180, 190}

func TestUpgrade(t *testing.T) {
	for _, c := range []struct {
		name     string
		options  labOptions
		protocol device.Protocol
	}{
		{"TFTP", labOptions{}, device.TFTP},
		{"FTP", labOptions{}, device.FTP},
		{"notifications lost", labOptions{noNotifications: true}, device.TFTP},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, c.options)
			plan := l.plan(l.image("2.0.0", 2))
			plan.Protocol = c.protocol
			result, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe)
			if err != nil {
				t.Fatal(err)
			}
			if result.OldVersion != "1.0.0" || result.NewVersion != "2.0.0" {
				t.Errorf("upgraded %s -> %s", result.OldVersion, result.NewVersion)
			}
			if diff := cmp.Diff(wholeWay, l.steps()); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			l.checkBackup(result)
			d, err := l.client.Device(l.ctx)
			if err != nil {
				t.Fatal(err)
			}
			if d.ConfigFormat != 2 || d.Generation == 0 {
				t.Errorf("configuration data of format %d, generation %d", d.ConfigFormat, d.Generation)
			}
		})
	}
}

// checkBackup compares what both sides say of each file.
func (l *lab) checkBackup(r manager.Result) {
	l.t.Helper()
	if len(r.Backup) != len(files.ConfigKinds) {
		l.t.Errorf("%d files in the backup", len(r.Backup))
	}
	for _, f := range r.Backup {
		if len(f.DeviceDigest) != 32 || !slices.Equal(f.DeviceDigest, f.ServerDigest) {
			l.t.Errorf("%s: device %x, server %x", f.Name, f.DeviceDigest, f.ServerDigest)
		}
		if f.Format != 1 {
			l.t.Errorf("%s: format %d", f.Name, f.Format)
		}
	}
}

func TestSelfTestFails(t *testing.T) {
	l := newLab(t, labOptions{})
	l.failTest["2.0.0"] = true
	operator := &scripted{t: t, answers: []manager.Answer{{Choice: manager.OtherFile, Image: l.image("2.0.1", 2)}}}
	result, err := manager.Upgrade(l.ctx, l.plan(l.image("2.0.0", 2)), operator, l.observe)
	if err != nil {
		t.Fatal(err)
	}
	if result.NewVersion != "2.0.1" {
		t.Errorf("%s runs", result.NewVersion)
	}
	want := []manager.Step{100, 110, 120, 130, 140, 160, 130, 140, 150, 170, 180, 190}
	if diff := cmp.Diff(want, l.steps()); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	var failure *manager.Failure
	if !errors.As(operator.asked[0].Failure, &failure) || failure.Cause != mib.FailCauseSelfTestFailed {
		t.Errorf("the operator was shown %v", operator.asked[0].Failure)
	}
}

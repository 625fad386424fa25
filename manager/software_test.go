package manager_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// Two images of one version are two softwares: the device's word that it has
// the version is not taken for the other one.
func TestOtherContents(t *testing.T) {
	l := newLab(t, labOptions{})
	first, second := l.image("2.0.0", 2), l.open("again.iad", l.build("2.0.0", 2, true))
	if _, err := manager.Upgrade(l.ctx, l.plan(first), &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	if _, err := manager.Rollback(l.ctx, l.plan(nil), &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	for _, check := range []bool{true, false} {
		plan := l.plan(second)
		plan.CheckOnly = check
		_, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe)
		var refusal *device.RefusalError
		if !errors.As(err, &refusal) || refusal.Cause != mib.FailCauseAlreadyInstalled || !strings.Contains(err.Error(), "other contents") {
			t.Errorf("check %v: %v", check, err)
		}
	}
	if l.version() != "1.0.0" {
		t.Errorf("%s runs", l.version())
	}
	plan := l.plan(second)
	plan.Force = true
	if _, err := manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	banks, err := l.client.Banks(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range banks {
		if b.Running && string(b.Digest) != string(second.ManifestDigest) {
			t.Errorf("%s runs with the digest %x, not %x", b, b.Digest, second.ManifestDigest)
		}
	}
}

// What an upgrade left behind may have been changed since by somebody else:
// then it is not gone on with.
func TestResumeChanged(t *testing.T) {
	l := newLab(t, labOptions{})
	plan := l.plan(l.image("2.0.0", 2))
	plan.Journal = manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")
	l.interrupted(plan, &scripted{t: t}, 170, manager.StepBegins)
	if _, err := manager.Rollback(l.ctx, l.plan(nil), &scripted{t: t}, l.observe); err != nil {
		t.Fatal(err)
	}
	before, err := l.client.Device(l.ctx)
	if err != nil {
		t.Fatal(err)
	}
	plan.Resume = true
	_, err = manager.Upgrade(l.ctx, plan, &scripted{t: t}, l.observe)
	if err == nil || !strings.Contains(err.Error(), "changed since") {
		t.Errorf("resumed on the old software: %v", err)
	}
	if now, err := l.client.Device(l.ctx); err != nil || now.Generation != before.Generation || now.Version != "1.0.0" {
		t.Errorf("%+v, %v", now, err)
	}
}

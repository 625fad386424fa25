package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// Test judges requirements by what a device does.
type Test struct {
	Name  string `json:"name"`  // for instance repeated-request
	Title string `json:"title"` // a sentence
	// Quick: part of the suite quick.
	Quick bool `json:"quick"`
	needs need
	run   func(*T)
}

// need is what a test cannot do without.
type need uint16

const (
	needSoftware      need = 1 << iota // an image that is newer
	needKey                            // images of any kind
	needNotifications                  // a listener
	needFTP
	needTFTP
	needPrivacy   // SNMPv3 with privacy
	needNoPrivacy // requests without privacy
)

// T is what a test is written with. Its methods that end the test early do so for the test
// alone.
type T struct {
	*session
	test   *Test
	result *TestResult

	mu sync.Mutex // guards the result, which the listener and the servers add to
}

func (t *T) since() float64 { return time.Since(t.result.Started).Seconds() }

// record adds a line to the timeline.
func (t *T) record(kind EntryKind, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result.Timeline = append(t.result.Timeline, Entry{t.since(), kind, fmt.Sprintf(format, args...)})
}

// check counts a check of a requirement, and records a failure if it does not hold.
func (t *T) check(requirement string, holds bool, format string, args ...any) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result.Checks[requirement]++
	if !holds {
		text := fmt.Sprintf(format, args...)
		at := t.since()
		t.result.Failures = append(t.result.Failures, Failure{requirement, at, text})
		t.result.Timeline = append(t.result.Timeline, Entry{at, EntryFailure, requirement + ": " + text})
	}
	return holds
}

// must is check, and ends the test if the requirement does not hold.
func (t *T) must(requirement string, holds bool, format string, args ...any) {
	if !t.check(requirement, holds, format, args...) {
		panic(stop{})
	}
}

// skip ends the test without a verdict, unless something failed already.
func (t *T) skip(format string, args ...any) {
	t.mu.Lock()
	if len(t.result.Failures) == 0 {
		t.result.Verdict, t.result.Reason = Skipped, fmt.Sprintf(format, args...)
	}
	t.mu.Unlock()
	panic(stop{})
}

// answered ends the test with an error of SNMP access.
func (t *T) answered(err error) {
	t.must(reqAnswers, err == nil, "%v", err)
}

// prepare skips a test that the device or the arguments do not permit, and brings the
// device into the state in which every test begins: no operation runs, no software is on
// trial.
func (t *T) prepare() {
	n := t.test.needs
	user := t.cfg.Target.Credentials.User
	private := user != nil && user.Priv != ""
	switch {
	case n&needKey != 0 && t.cfg.Key == nil:
		t.skip("needs a key that the device trusts, to make images")
	case n&needSoftware != 0 && t.software.newer == nil:
		t.skip("needs software that is newer than %s: an image or a key", t.first.Version)
	case n&needNotifications != 0 && t.listener == nil:
		t.skip("needs notifications: an address to receive them on")
	case n&needFTP != 0 && !t.first.Speaks(mib.ProtocolFtp):
		t.skip("the device does not support FTP")
	case n&needTFTP != 0 && !t.first.Speaks(mib.ProtocolTftp):
		t.skip("the device does not support TFTP")
	case n&needPrivacy != 0 && !private:
		t.skip("needs an SNMPv3 user with privacy")
	case n&needNoPrivacy != 0 && private:
		t.skip("needs a user without privacy, or a community")
	}
	t.settle()
	t.watch.begin(t)
}

// settle waits until no operation runs and returns to the first software.
func (t *T) settle() {
	op, err := t.patiently(func() (*device.Operation, error) { return t.client.Operation(t.ctx) })
	t.answered(err)
	if !final(op.State) {
		_ = t.client.Set(t.ctx, t.v(mib.ReqCommand, mib.OperationKindAbort.Value()))
		t.awaitEnd(op.ID)
	}
	if m, err := t.client.ConfirmMode(t.ctx); err == nil && m != mib.ConfirmModeAutomatic {
		t.answered(t.client.Set(t.ctx, t.v(mib.ConfirmMode, mib.ConfirmModeAutomatic.Value())))
	}
	d, err := t.client.Device(t.ctx)
	t.answered(err)
	if d.Version != t.first.Version {
		t.record(EntryNote, "returning from %s to %s", d.Version, t.first.Version)
		t.execute(request{kind: mib.OperationKindRestoreOldSoftware})
	}
	t.until("no bank is on trial", func() bool {
		banks, err := t.client.Banks(t.ctx)
		return err == nil && banks[0].State != mib.BankStateTrial && banks[1].State != mib.BankStateTrial
	})
}

// finish checks what must hold after each test.
func (t *T) finish() {
	op, err := t.patiently(func() (*device.Operation, error) { return t.client.Operation(t.ctx) })
	t.answered(err)
	if !final(op.State) {
		_ = t.client.Set(t.ctx, t.v(mib.ReqCommand, mib.OperationKindAbort.Value()))
		t.servers.reset()
		t.awaitEnd(op.ID)
	}
	t.watch.end(t)
}

// patiently repeats a read while the device does not answer, for Config.Limit.
func (t *T) patiently(read func() (*device.Operation, error)) (op *device.Operation, err error) {
	for until := time.Now().Add(t.cfg.Limit); ; {
		if op, err = read(); !noAnswer(err) || time.Now().After(until) || !t.wait(poll) {
			return op, err
		}
	}
}

// poll is the interval of looking at the device.
const poll = 20 * time.Millisecond

// wait waits; false if the run ends.
func (t *T) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.ctx.Done():
		return false
	}
}

// until waits for something for at most Config.Limit, and reports whether it came.
func (t *T) until(what string, holds func() bool) bool {
	return t.within(t.cfg.Limit, what, holds)
}

func (t *T) within(limit time.Duration, what string, holds func() bool) bool {
	for until := time.Now().Add(limit); ; {
		if holds() {
			return true
		}
		if time.Now().After(until) || !t.wait(poll) {
			t.record(EntryNote, "waited %v in vain: %s", limit, what)
			return false
		}
	}
}

// v is a varbind of a scalar, or of a row.
func (t *T) v(o *mib.Object, value mib.Value, index ...uint32) mib.Varbind {
	if len(index) == 0 {
		index = []uint32{0}
	}
	return mib.Varbind{OID: t.client.OID(o, index...), Value: value}
}

// get reads one instance.
func (t *T) get(o *mib.Object, index ...uint32) mib.Value {
	if len(index) == 0 {
		index = []uint32{0}
	}
	vbs, err := t.client.Get(t.ctx, t.client.OID(o, index...))
	t.answered(err)
	return vbs[0].Value
}

// number reads a number.
func (t *T) number(o *mib.Object, index ...uint32) int64 { return t.get(o, index...).Int }

// device reads identity and capabilities.
func (t *T) device() *device.Device {
	d, err := t.client.Device(t.ctx)
	t.answered(err)
	return d
}

// operation reads the running or the last operation.
func (t *T) operation() *device.Operation {
	op, err := t.client.Operation(t.ctx)
	t.answered(err)
	t.watch.see(t, op)
	return op
}

// banks reads the running bank and the other one.
func (t *T) banks() (running, other device.Bank) {
	b, err := t.client.Banks(t.ctx)
	t.answered(err)
	if b[1].Running {
		return b[1], b[0]
	}
	return b[0], b[1]
}

// set writes varbinds in one SET and returns the error-status and the error-index.
func (t *T) set(vbs ...mib.Varbind) (mib.Status, int) {
	t.record(EntrySet, "%s", t.describe(vbs))
	err := t.client.Set(t.ctx, vbs...)
	var refused *device.SetError
	if errors.As(err, &refused) {
		t.record(EntryAnswer, "%s, error-index %d", refused.Status, refused.Index)
		return refused.Status, refused.Index
	}
	t.answered(err)
	t.record(EntryAnswer, "noError")
	return mib.NoError, 0
}

// write is a set that has to succeed.
func (t *T) write(vbs ...mib.Varbind) {
	status, index := t.set(vbs...)
	t.must("SET-OK", status == mib.NoError, "%s: %s, error-index %d; want noError", t.describe(vbs), status, index)
}

// refuses is a set that has to fail.
func (t *T) refuses(requirement string, want mib.Status, index int, vbs ...mib.Varbind) bool {
	status, at := t.set(vbs...)
	ok := t.check(requirement, status == want, "%s: %s; want %s", t.describe(vbs), status, want)
	if ok && index > 0 {
		ok = t.check("SET-INDEX", at == index, "%s: error-index %d; want %d", t.describe(vbs), at, index)
	}
	return ok
}

// describe shows varbinds with names and labels. A password is not shown.
func (t *T) describe(vbs []mib.Varbind) string {
	var b bytes.Buffer
	module := mib.NewModule(t.client.Root())
	for i, vb := range vbs {
		if i > 0 {
			b.WriteString(", ")
		}
		o, index, ok := module.Lookup(vb.OID)
		if !ok {
			fmt.Fprintf(&b, "%s = %s", vb.OID, vb.Value)
			continue
		}
		fmt.Fprintf(&b, "%s%s = %s", o.Name, suffix(index), show(o, vb.Value))
	}
	return b.String()
}

func suffix(index mib.OID) string {
	var b bytes.Buffer
	for _, n := range index {
		fmt.Fprintf(&b, ".%d", n)
	}
	return b.String()
}

// show shows a value with its labels.
func show(o *mib.Object, v mib.Value) string {
	switch {
	case o == mib.ServerPassword && len(v.Bytes) > 0:
		return "(not shown)"
	case o.IsBits && v.Type == mib.OctetString:
		text := "{"
		for _, e := range o.Enums {
			if mib.HasBit(v.Bytes, int(e.Number)) {
				text += " " + e.Name
			}
		}
		return text + " }"
	case len(o.Enums) > 0 && v.Type == mib.Integer:
		if label := o.Label(v.Int); label != "" {
			return label
		}
	case o.TC == "IadUpgDigest", o.TC == "DateAndTime", o.TC == "InetAddress":
		if v.Type == mib.OctetString {
			return fmt.Sprintf("%x", v.Bytes)
		}
	}
	if v.Type == mib.OctetString && len(v.Bytes) > 150 {
		return fmt.Sprintf("%q... (%d bytes)", v.Bytes[:30], len(v.Bytes))
	}
	return v.String()
}

// deadline returns a context for one wait.
func (t *T) deadline(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.ctx, d)
}

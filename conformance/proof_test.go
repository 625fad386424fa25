package conformance_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/conformance"
	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// defect is what a wire does wrong.
type defect struct {
	// request may change a request; it returns a response if the device is not to see it.
	request func(w *wire, p *snmp.PDU) *snmp.PDU
	// response may change the response to a request.
	response func(w *wire, request, response *snmp.PDU)
	// trap may change a notification; false: it is lost.
	trap func(w *wire, kind *mib.Notification, p *snmp.PDU) bool
}

// wire stands between the suite and a device and changes what goes over it, as SNMPv2c.
type wire struct {
	defect
	mu     sync.Mutex
	count  int // for the functions
	device *net.UDPConn
}

var module = mib.NewModule(nil)

// value returns the value of the first instance of an object in a PDU, nil if it is not there.
func value(p *snmp.PDU, o *mib.Object, index ...uint32) *mib.Value {
	for i, vb := range p.Vars {
		found, at, ok := module.Lookup(vb.OID)
		if ok && found == o && (len(index) == 0 || slices.Equal(at, index)) {
			return &p.Vars[i].Value
		}
	}
	return nil
}

// without removes the varbinds of an object.
func without(p *snmp.PDU, o *mib.Object) {
	p.Vars = slices.DeleteFunc(p.Vars, func(vb mib.Varbind) bool {
		found, _, ok := module.Lookup(vb.OID)
		return ok && found == o
	})
}

func encode(community []byte, p snmp.PDU) []byte {
	return snmp.AppendCommunityMessage(nil, snmp.Version2c, string(community), p, snmp.EncodeVars(p.Vars))
}

// exchange sends a request to the device and returns its response.
func (w *wire) exchange(community []byte, p snmp.PDU) (snmp.PDU, error) {
	if _, err := w.device.Write(encode(community, p)); err != nil {
		return p, err
	}
	buf := make([]byte, 65535)
	for {
		if err := w.device.SetReadDeadline(time.Now().Add(250 * time.Millisecond)); err != nil {
			return p, err
		}
		n, err := w.device.Read(buf)
		if err != nil {
			return p, err
		}
		if _, response, err := snmp.ReadCommunityMessage(buf[:n]); err == nil && response.RequestID == p.RequestID {
			return response, nil
		}
	}
}

// relay answers requests at address until the test ends.
func (w *wire) relay(t *testing.T, address, deviceAddress string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	to, err := net.ResolveUDPAddr("udp", deviceAddress)
	if err != nil {
		t.Fatal(err)
	}
	if w.device, err = net.DialUDP("udp", nil, to); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65535)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			community, p, err := snmp.ReadCommunityMessage(buf[:n])
			if err != nil {
				continue
			}
			if answer := w.answer(community, p); answer != nil {
				_, _ = conn.WriteTo(encode(community, *answer), from)
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
		w.device.Close()
	})
}

func (w *wire) answer(community []byte, p snmp.PDU) *snmp.PDU {
	w.mu.Lock()
	defer w.mu.Unlock()
	sent := p
	sent.Vars = slices.Clone(p.Vars)
	if w.request != nil {
		if answer := w.request(w, &sent); answer != nil {
			return answer
		}
	}
	response, err := w.exchange(community, sent)
	if err != nil {
		return nil
	}
	if p.Kind == snmp.PDUSet {
		response.Vars = p.Vars
	}
	if w.response != nil {
		w.response(w, &p, &response)
	}
	return &response
}

// carry passes notifications on from address to another one.
func (w *wire) carry(t *testing.T, address, to string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := net.ResolveUDPAddr("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 65535)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			community, p, err := snmp.ReadCommunityMessage(buf[:n])
			if err != nil {
				continue
			}
			w.mu.Lock()
			keep := true
			if w.trap != nil && len(p.Vars) > 1 {
				if kind, ok := module.NotificationByOID(p.Vars[1].Value.OID); ok {
					keep = w.trap(w, kind, &p)
				}
			}
			w.mu.Unlock()
			if keep {
				_, _ = conn.WriteTo(encode(community, p), receiver)
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
}

// commands reports whether a SET commands an operation.
func commands(p *snmp.PDU, kind mib.OperationKind) bool {
	v := value(p, mib.ReqCommand)
	return p.Kind == snmp.PDUSet && v != nil && v.Int == int64(kind)
}

// running reports whether a response has an operation that is running.
func running(p *snmp.PDU) bool {
	v := value(p, mib.OpState)
	return v != nil && v.Int == int64(mib.OperationStateRunning)
}

func done(request *snmp.PDU) *snmp.PDU {
	answer := *request
	answer.Kind = snmp.PDUResponse
	return &answer
}

// on changes the value of an object in responses.
func on(o *mib.Object, change func(w *wire, v *mib.Value, response *snmp.PDU)) defect {
	return defect{response: func(w *wire, request, response *snmp.PDU) {
		if v := value(response, o); v != nil && request.Kind != snmp.PDUSet && !v.IsException() {
			change(w, v, response)
		}
	}}
}

func flipped(_ *wire, v *mib.Value, _ *snmp.PDU) {
	if len(v.Bytes) > 0 {
		v.Bytes = bytes.Clone(v.Bytes)
		v.Bytes[0] ^= 1
	}
}

// defects are devices that break a rule on the wire, with the requirement that each
// breaks and a test that finds it.
var defects = []struct {
	name        string
	requirement string
	test        string
	defect      defect
}{
	{"the percentage goes backwards", "OP-PERCENT", "busy", on(mib.OpPercent, func(w *wire, v *mib.Value, p *snmp.PDU) {
		if running(p) {
			w.count++
			v.Int = int64(90 - w.count%90)
		}
	})},
	{"100 percent before the end", "OP-PERCENT-100", "busy", on(mib.OpPercent, func(_ *wire, v *mib.Value, p *snmp.PDU) {
		if running(p) {
			v.Int = 100
		}
	})},
	{"the number of an event is reused", "NOTIFY-REUSED", "backup-some", defect{trap: func(_ *wire, kind *mib.Notification, p *snmp.PDU) bool {
		if kind == mib.NotifyOpCompleted {
			value(p, mib.EventSeq).Int--
		}
		return true
	}}},
	{"the end of an operation is never sent", "NOTIFY-SENT", "backup-some", defect{trap: func(_ *wire, kind *mib.Notification, _ *snmp.PDU) bool {
		return kind != mib.NotifyOpCompleted
	}}},
	{"a notification lacks an object", "NOTIFY-OBJECTS", "delay", defect{trap: func(_ *wire, kind *mib.Notification, p *snmp.PDU) bool {
		if kind == mib.NotifyOpFailed {
			without(p, mib.OpReqId)
		}
		return true
	}}},
	{"progress has a number of its own", "NOTIFY-PROGRESS-NUMBER", "download", defect{trap: func(_ *wire, kind *mib.Notification, p *snmp.PDU) bool {
		if kind == mib.NotifyOpProgress {
			value(p, mib.EventSeq).Int += 100
		}
		return true
	}}},
	{"a SET is applied in part", "SET-ATOMIC", "atomic-set", defect{response: func(w *wire, request, response *snmp.PDU) {
		if request.Kind != snmp.PDUSet || response.Status == 0 || len(request.Vars) < 2 {
			return
		}
		for i, vb := range request.Vars {
			if o, _, ok := module.Lookup(vb.OID); ok && i+1 != int(response.Index) && o != mib.ReqCommand {
				w.count++
				_, _ = w.exchange([]byte("private"), snmp.PDU{Kind: snmp.PDUSet, RequestID: int32(1<<30 + w.count), Vars: []mib.Varbind{vb}})
			}
		}
	}}},
	{"a wrong value is a general error", "SET-VALUE", "wrong-values", defect{response: func(_ *wire, request, response *snmp.PDU) {
		if request.Kind == snmp.PDUSet && response.Status == int32(mib.WrongValue) {
			response.Status = int32(mib.CommitFailed)
		}
	}}},
	{"error-index is always 0", "SET-INDEX", "atomic-set", defect{response: func(_ *wire, request, response *snmp.PDU) {
		if request.Kind == snmp.PDUSet {
			response.Index = 0
		}
	}}},
	{"the lock is ignored", "LOCK-WRONG", "lock", defect{request: func(_ *wire, p *snmp.PDU) *snmp.PDU {
		if p.Kind == snmp.PDUSet {
			without(p, mib.ReqLock)
			if len(p.Vars) == 0 {
				return done(p)
			}
		}
		return nil
	}}},
	{"the lock is not incremented without it", "LOCK-INCREMENT", "lock", defect{request: func(w *wire, p *snmp.PDU) *snmp.PDU {
		if v := value(p, mib.ReqLock); v != nil && p.Kind == snmp.PDUSet {
			v.Int += int64(w.count)
		}
		return nil
	}, response: func(w *wire, request, response *snmp.PDU) {
		if request.Kind == snmp.PDUSet && response.Status == 0 && value(request, mib.ReqLock) == nil {
			w.count++
		}
		if v := value(response, mib.ReqLock); v != nil && request.Kind == snmp.PDUGet {
			v.Int -= int64(w.count)
		}
	}}},
	{"a repeated request starts again", "REPEAT-SAME", "repeated-request", defect{request: func(w *wire, p *snmp.PDU) *snmp.PDU {
		if v := value(p, mib.ReqId); v != nil && p.Kind == snmp.PDUSet {
			w.count++
			v.Int = v.Int/2 + int64(w.count)
		}
		return nil
	}}},
	{"abort does nothing", "ABORT", "abort-transfer", defect{request: func(_ *wire, p *snmp.PDU) *snmp.PDU {
		if commands(p, mib.OperationKindAbort) {
			return done(p)
		}
		return nil
	}}},
	{"the digest is that of something else", "FILE-DIGEST", "backup", on(mib.FileLastDigest, flipped)},
	{"the digest of the configuration data is wrong", "CONFIG-DIGEST", "backup", on(mib.ConfigDigest, flipped)},
	{"the password can be read", "SRV-PASSWORD", "password", on(mib.ServerPassword, func(_ *wire, v *mib.Value, _ *snmp.PDU) { v.Bytes = []byte("geheim") })},
	{"a refusal has no cause", "REFUSE-BAD", "refusals", on(mib.ReqRefusal, func(_ *wire, v *mib.Value, _ *snmp.PDU) {
		if v.Int > 1 {
			v.Int = int64(mib.FailCauseOther)
		}
	})},
	{"the bank that is being written starts next", "BANK-NEXT", "busy", defect{response: func(_ *wire, request, response *snmp.PDU) {
		state, roles := value(response, mib.BankState, 2), value(response, mib.BankRoles, 2)
		if state != nil && roles != nil && state.Int == int64(mib.BankStateWriting) {
			roles.Bytes = mib.Bits(mib.BankRolesNextBoot)
		}
	}}},
	{"a damaged bank is shown as ready", "BANK-UNBOOTABLE", "abort-transfer", on(mib.BankState, func(_ *wire, v *mib.Value, p *snmp.PDU) {
		if v.Int != int64(mib.BankStateGood) {
			v.Int = int64(mib.BankStateReady)
		}
	})},
	{"the history has another cause", "HIST-ROW", "download-other-version", on(mib.HistFailCause, func(_ *wire, _ *mib.Value, p *snmp.PDU) {
		for i, vb := range p.Vars {
			if o, _, ok := module.Lookup(vb.OID); ok && o == mib.HistFailCause {
				p.Vars[i].Value.Int = int64(mib.FailCauseOther)
			}
		}
	})},
	{"parameters are left for the next request", "REQ-RESET", "parameters-reset", on(mib.ReqRetries, func(_ *wire, v *mib.Value, _ *snmp.PDU) { v.Int = 0 })},
	{"checkOnly is ignored", "CHECK-ONLY", "backup-check-only", defect{request: func(_ *wire, p *snmp.PDU) *snmp.PDU {
		if p.Kind == snmp.PDUSet {
			without(p, mib.ReqOptions)
		}
		return nil
	}}},
	{"there are no retries", "RETRIES", "retries", defect{request: func(_ *wire, p *snmp.PDU) *snmp.PDU {
		if v := value(p, mib.ReqRetries); v != nil && p.Kind == snmp.PDUSet {
			v.Int = 0
		}
		return nil
	}}},
	{"notifications cannot be disabled", "NOTIFY-ENABLE", "notify-enable", defect{request: func(_ *wire, p *snmp.PDU) *snmp.PDU {
		if p.Kind == snmp.PDUSet && value(p, mib.NotifyEnable) != nil {
			return done(p)
		}
		return nil
	}}},
	{"a restart is not counted", "RESTART-COUNT", "reset", on(mib.RestartCount, func(_ *wire, v *mib.Value, _ *snmp.PDU) { v.Int = 1 })},
	{"the verdict is lost by a restart", "RESET", "reset", defect{response: func(_ *wire, request, response *snmp.PDU) {
		state, kind := value(response, mib.OpState), value(response, mib.OpKind)
		if state != nil && kind != nil && request.Kind == snmp.PDUGet && kind.Int == int64(mib.OperationKindReset) && state.Int == int64(mib.OperationStateSucceeded) {
			state.Int = int64(mib.OperationStateFailed)
			value(response, mib.OpFailCause).Int = int64(mib.FailCauseInterrupted)
		}
	}}},
}

// TestDefectsAreFound judges devices with a defect on the wire: each is found by its
// requirement. TestSimulatedDevice shows that the tests pass without it.
func TestDefectsAreFound(t *testing.T) {
	for _, d := range defects {
		t.Run(d.name, func(t *testing.T) {
			// Beside others, each on addresses of its own.
			t.Parallel()
			judge := func(w *wire) *conformance.Run {
				sink, front := loopback(11162), loopback(11161)
				b := simulated(t, func(c *sim.Config) { c.SNMP.Sinks[0].Address = sink })
				w.carry(t, sink, b.cfg.Listen)
				w.relay(t, front, b.cfg.Target.Address)
				b.cfg.Target.Address, b.cfg.Only, b.cfg.Limit = front, []string{d.test}, 5*time.Second
				run, err := conformance.Execute(t.Context(), b.cfg)
				if err != nil {
					t.Fatal(err)
				}
				return run
			}
			run := judge(&wire{defect: d.defect})
			found := map[string]bool{}
			for _, test := range run.Tests {
				for _, f := range test.Failures {
					found[f.Requirement] = true
				}
			}
			if !found[d.requirement] {
				t.Errorf("%s is not found by %s:\n%s", d.requirement, d.test, failures(run))
			}
		})
	}
}

// mutations are small changes of the source of iad. They were chosen by reading the agent
// for conditions and numbers, not by what the suite judges.
var mutations = []struct {
	file, old, new string
	requirement    string
	tests          []string
	sample         bool // without IAD_LAB=full too
}{
	{"bank/install.go", "if expectsFile(w.fetch, opt) && string(sum) != string(opt.ExpectDigest) {", "if false && string(sum) != string(opt.ExpectDigest) {", "FILE-EXPECT", []string{"download-expected"}, true},
	{"agent/procedure/operation.go", "op.Attempt <= uint32(op.Params.Retries)", "op.Attempt < uint32(op.Params.Retries)", "RETRIES", []string{"retries"}, false},
	{"agent/procedure/refusals.go", "if st.OnTrial() {\n\t\t\treturn refuse(Inconsistent, mib.FailCauseBankUnavailable, \"the software in bank %d is on trial, bank %d is", "if false {\n\t\t\treturn refuse(Inconsistent, mib.FailCauseBankUnavailable, \"the software in bank %d is on trial, bank %d is", "TRIAL-FALLBACK", []string{"confirm"}, false},
	{"agent/procedure/journal.go", "j.Seq = next(j.Seq)", "j.Seq = next(next(j.Seq))", "EVENT-SEQ", []string{"notify-enable"}, false},
	{"agent/procedure/progress.go", "op.Percent >= p.percent+e.s.Notify.Step", "false", "PROGRESS-STEP", []string{"progress"}, false},
	{"agent/procedure/task.go", "op.Percent = max(op.Percent, p)", "op.Percent = 99 - p", "OP-PERCENT", []string{"download*"}, false},
	{"agent/procedure/request.go", "\t\ts.Params = defaultParams\n", "", "REQ-RESET", []string{"parameters-reset"}, false},
	{"agent/procedure/journal.go", "\tj.History = append(j.History, op)\n", "\tif op.State == mib.OperationStateSucceeded {\n\t\tj.History = append(j.History, op)\n\t}\n", "HIST-ONCE", []string{"download-other-version"}, false},
	{"agent/procedure/restart.go", "j.Restarts = next(j.Restarts)", "j.Restarts = max(j.Restarts, 1)", "RESTART-COUNT", []string{"reset"}, false},
	{"agent/procedure/steps_software.go", "CheckOnly: t.op.Params.Options.Has(CheckOnly),", "CheckOnly: false,", "CHECK-ONLY", []string{"download-check-only"}, false},
	{"agent/procedure/refusals.go", "case p.TargetOp != 0 && p.TargetOp != op.ID:", "case false:", "REFUSE-TARGET", []string{"abort-nothing"}, false},
	{"bank/install.go", "opt.ExpectSize != 0 && opt.ExpectSize != size", "false", "FILE-EXPECT", []string{"download-expected"}, false},
}

// TestMutationsAreFound judges iad built from changed source, as a process of its own.
func TestMutationsAreFound(t *testing.T) {
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutations {
		t.Run(m.requirement+" "+m.file, func(t *testing.T) {
			if !m.sample && !fullLab {
				t.Skip("a sample; all mutations with IAD_LAB=full")
			}
			file := filepath.Join(top, filepath.FromSlash(m.file))
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(string(source), m.old) != 1 {
				t.Fatalf("%s has %q %d times; want once", m.file, m.old, strings.Count(string(source), m.old))
			}
			dir := t.TempDir()
			changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
			text, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
			if err := errors.Join(err, os.WriteFile(changed, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600), os.WriteFile(overlay, text, 0o600)); err != nil {
				t.Fatal(err)
			}
			cfg := process(t, build(t, "-overlay", overlay), false)
			cfg.Only, cfg.Limit = m.tests, 20*time.Second
			run, err := conformance.Execute(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(failures(run), ": "+m.requirement+": ") {
				t.Errorf("not found by %v:\n%s", m.tests, failures(run))
			}
		})
	}
}

// build builds iad and returns the program.
func build(t *testing.T, flags ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "iad")
	args := append(append([]string{"build"}, flags...), "-o", program, "example.com/iad/cmd/iad")
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return program
}

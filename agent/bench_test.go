package agent_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/bank/image"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

const hardware = "IAD-4FXS"

// bench is a virtual device in a bubble of package synctest, driven by the
// objects of its tree: time passes only when everybody waits. Its file server
// is a map.
type bench struct {
	t      *testing.T
	device *sim.Device
	cfg    sim.Config
	cancel context.CancelFunc
	ended  chan error

	mu       sync.Mutex
	files    map[string][]byte
	gate     chan struct{} // transfers wait for it, if not nil
	broken   error         // what Open returns
	selfTest error         // by software other than 1.0.0
	puts     int
}

// maker signs software; its key is made once for all tests.
var maker = sync.OnceValue(func() minisign.PrivateKey {
	_, priv, err := image.GenerateKey("")
	if err != nil {
		panic(err)
	}
	key, err := image.ReadPrivateKey(priv, "")
	if err != nil {
		panic(err)
	}
	return key
})

// build makes an image.
func build(t testing.TB, m image.Manifest) []byte {
	t.Helper()
	if m.Hardware == nil {
		m.Hardware = []string{hardware}
	}
	contents := map[string]string{"firmware": strings.Repeat("software "+m.Version+"\n", 50)}
	if m.SelfTest != "" {
		contents[m.SelfTest] = "#!/bin/sh\nexit 0\n"
	}
	for _, c := range m.Converters {
		contents[c.Payload] = "#!/bin/sh\nfor f in \"$3\"/*; do sed \"1s/ $1\\$/ $2/\" \"$f\" > \"$4/${f##*/}\" || exit 1; done\n"
	}
	var payloads []image.PayloadFile
	for _, name := range slices.Sorted(maps.Keys(contents)) {
		payloads = append(payloads, image.PayloadFile{Name: name, Mode: 0o755, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(contents[name])), nil
		}})
	}
	var b bytes.Buffer
	if err := image.Build(&b, m, payloads, maker()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// factory is the software that devices are made with.
var factory = sync.OnceValue(func() []byte {
	return build(&testing.T{}, image.Manifest{Version: "1.0.0", ConfigFormat: 1, SelfTest: "selftest", NoReset: true})
})

// settings is a complete set of configuration data.
func settings(format uint32, text string) config.Set {
	set := config.Set{}
	for _, k := range config.Kinds() {
		set[k] = config.WithHeader(k, format, []byte(text+" = "+k.String()+"\n"))
	}
	return set
}

// onBench makes a device, which change may alter before, starts it and calls f.
func onBench(t *testing.T, change func(*sim.Config), f func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)))
		b := &bench{t: t, files: map[string][]byte{}, ended: make(chan error, 1)}
		b.cfg = sim.Config{
			ID: "IAD-0001", Model: "Four lines", Hardware: hardware, Disk: sim.Memory(), BankSize: 1 << 20,
			Trust: image.TrustKeys(maker().Public().(minisign.PublicKey)), Fetcher: memServer{b},
			Hooks: sim.Hooks{SelfTest: b.runSelfTest, Convert: convert},
		}
		if change != nil {
			change(&b.cfg)
		}
		b.device = sim.New(b.cfg)
		if err := b.device.Provision(bytes.NewReader(factory()), settings(1, "name")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		b.cancel = cancel
		go func() { b.ended <- b.device.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-b.ended; err != nil {
				t.Errorf("device: %v", err)
			}
		}()
		synctest.Wait()
		f(b)
	})
}

// runSelfTest is the self-test of all software but 1.0.0, which is healthy.
func (b *bench) runSelfTest(_ context.Context, t agent.SelfTest, _ afero.Fs) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.Version == "1.0.0" {
		return nil
	}
	return b.selfTest
}

// convert is the conversion program of the virtual board.
func convert(_ context.Context, c agent.Conversion, work afero.Fs) error {
	list, err := afero.ReadDir(work, c.InDir)
	if err != nil {
		return err
	}
	for _, f := range list {
		data, err := afero.ReadFile(work, c.InDir+"/"+f.Name())
		if err != nil {
			return err
		}
		kind, _, err := config.ParseHeader(data)
		if err != nil {
			return err
		}
		if err := afero.WriteFile(work, c.OutDir+"/"+f.Name(), config.WithHeader(kind, c.To, config.Body(data)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// tree is that of the running agent.
func (b *bench) tree() *mib.Tree {
	a := b.device.Agent(b.t.Context(), 1)
	return a.Tree()
}

func index(i []uint32) []uint32 {
	if len(i) == 0 {
		return []uint32{0}
	}
	return i
}

// vb is a varbind of an instance, of scalar 0 without an index.
func vb(o *mib.Object, v mib.Value, i ...uint32) mib.Varbind {
	return mib.Varbind{OID: mib.NewModule(nil).OID(o, index(i)...), Value: v}
}

// num and text are values of the usual types of an object.
func num(o *mib.Object, n int64, i ...uint32) mib.Varbind {
	return vb(o, mib.Value{Type: o.Type, Int: n}, i...)
}
func text(o *mib.Object, s string, i ...uint32) mib.Varbind { return vb(o, mib.Str(s), i...) }
func bits(o *mib.Object, n ...int) mib.Varbind              { return vb(o, mib.Octets(mib.Bits(n...))) }
func command(k mib.OperationKind) mib.Varbind               { return vb(mib.ReqCommand, k.Value()) }

// get reads an instance once everybody waits.
func (b *bench) get(o *mib.Object, i ...uint32) mib.Value {
	b.t.Helper()
	synctest.Wait()
	return b.tree().Get([]mib.OID{mib.NewModule(nil).OID(o, index(i)...)})[0].Value
}

func (b *bench) num(o *mib.Object, i ...uint32) int64 { b.t.Helper(); return b.get(o, i...).Int }
func (b *bench) text(o *mib.Object, i ...uint32) string {
	b.t.Helper()
	return string(b.get(o, i...).Bytes)
}

// want checks numbers and texts.
func (b *bench) want(o *mib.Object, n int64, i ...uint32) {
	b.t.Helper()
	if got := b.num(o, i...); got != n {
		b.t.Errorf("%s.%v is %s (%s), want %s", o.Name, index(i), o.Label(got), b.text(mib.OpFailText), o.Label(n))
	}
}

func (b *bench) wantText(o *mib.Object, s string, i ...uint32) {
	b.t.Helper()
	if got := b.text(o, i...); got != s {
		b.t.Errorf("%s.%v is %q, want %q", o.Name, index(i), got, s)
	}
}

// set makes a SET; nil if it succeeded.
func (b *bench) set(vbs ...mib.Varbind) *mib.SetError {
	b.t.Helper()
	tx, err := b.tree().Set(mib.Caller{Private: true, Name: "test"}, vbs)
	if err != nil {
		return err
	}
	tx.Done()
	synctest.Wait()
	return nil
}

// must is set that has to succeed.
func (b *bench) must(vbs ...mib.Varbind) {
	b.t.Helper()
	if err := b.set(vbs...); err != nil {
		b.t.Fatalf("%v (refusal %d: %s)", err, b.num(mib.ReqRefusal), b.text(mib.ReqRefusalText))
	}
}

// refused is a SET with a command that has to be refused.
func (b *bench) refused(status mib.Status, cause mib.FailCause, vbs ...mib.Varbind) {
	b.t.Helper()
	err := b.set(vbs...)
	if err == nil {
		b.t.Fatal("accepted")
	}
	if err.Status != status || err.Index < 1 || err.Index > len(vbs) {
		b.t.Errorf("%v, want %s", err, status)
	}
	b.want(mib.ReqRefusal, int64(cause))
	if b.text(mib.ReqRefusalText) == "" {
		b.t.Error("no text with the refusal")
	}
}

// server writes server 1 and the names of all files.
func (b *bench) server() {
	b.t.Helper()
	vbs := []mib.Varbind{
		num(mib.ServerAddressType, int64(mib.InetAddressTypeIpv4), 1),
		vb(mib.ServerAddress, mib.Octets([]byte{127, 0, 0, 1}), 1),
	}
	for k := mib.FileTypeSoftware; k <= mib.FileTypeOtherData; k++ {
		vbs = append(vbs, text(mib.FileName, k.String(), uint32(k)))
	}
	b.must(vbs...)
}

// upload puts a file on the server.
func (b *bench) upload(name string, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.files[name] = data
}

// image puts software on the server.
func (b *bench) image(version string, format uint32, change ...func(*image.Manifest)) {
	m := image.Manifest{Version: version, ConfigFormat: format, SelfTest: "selftest"}
	for _, f := range change {
		f(&m)
	}
	b.upload("software", build(b.t, m))
}

// hold makes transfers wait until release.
func (b *bench) hold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gate = make(chan struct{})
}

func (b *bench) release() {
	b.mu.Lock()
	close(b.gate)
	b.gate = nil
	b.mu.Unlock()
	synctest.Wait()
}

// succeeded and failed check how the operation ended.
func (b *bench) succeeded() {
	b.t.Helper()
	b.ended1(mib.OperationStateSucceeded, mib.FailCauseNone)
}

func (b *bench) failed(cause mib.FailCause) {
	b.t.Helper()
	b.ended1(mib.OperationStateFailed, cause)
}

func (b *bench) ended1(state mib.OperationState, cause mib.FailCause) {
	b.t.Helper()
	time.Sleep(10 * time.Second) // grace of a restart included
	b.want(mib.OpState, int64(state))
	b.want(mib.OpFailCause, int64(cause))
}

// memServer is the device's way to its file server.
type memServer struct{ b *bench }

func (m memServer) Supports(p mib.Protocol) bool { return p != mib.ProtocolFtps }

func (m memServer) Open(ctx context.Context, _ procedure.Server) (procedure.Files, error) {
	m.b.mu.Lock()
	gate, err := m.b.gate, m.b.broken
	m.b.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return m, err
}

func (m memServer) Get(_ context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	data, ok := m.b.files[name]
	if !ok {
		return nil, 0, &procedure.Failure{Code: mib.FailCauseFileNotFound, Text: name + " not found"}
	}
	if offset > int64(len(data)) {
		return nil, 0, errors.New("offset beyond the end")
	}
	return io.NopCloser(bytes.NewReader(data[offset:])), int64(len(data)), nil
}

func (m memServer) Put(_ context.Context, name string, r io.ReadSeeker, _ int64) error {
	data, err := io.ReadAll(r)
	m.b.upload(name, data)
	m.b.mu.Lock()
	defer m.b.mu.Unlock()
	m.b.puts++
	return err
}

func (m memServer) Close() error { return nil }

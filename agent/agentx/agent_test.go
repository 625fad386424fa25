package agentx_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
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

// maker signs software.
var maker = sync.OnceValue(func() minisign.PrivateKey {
	_, key, err := minisign.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	return key
})

func build(t *testing.T, version string) []byte {
	t.Helper()
	var b bytes.Buffer
	err := image.Build(&b, image.Manifest{Version: version, Hardware: []string{hardware}, ConfigFormat: 1},
		[]image.PayloadFile{{Name: "firmware", Mode: 0o644, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(strings.Repeat(version+"\n", 10000))), nil
		}}}, maker())
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// iad is a device with a real agent, in memory.
type iad struct {
	*sim.Device
	t     *testing.T
	disk  sim.Disk
	full  *atomic.Bool // the partition of the state
	files *slowServer
}

// fullFs refuses writes while it is full.
type fullFs struct {
	afero.Fs
	full *atomic.Bool
}

func (f fullFs) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	if f.full.Load() && flag != os.O_RDONLY {
		return nil, syscall.ENOSPC
	}
	return f.Fs.OpenFile(name, flag, perm)
}

func (f fullFs) Create(name string) (afero.File, error) {
	return f.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// startIAD makes a device with software 1.0.0, which change gives its front
// ends, and runs it until the test ends.
func startIAD(t *testing.T, change func(*sim.Config)) *iad {
	t.Helper()
	d := &iad{t: t, disk: sim.Memory(), full: new(atomic.Bool), files: &slowServer{files: map[string][]byte{}, granted: 1 << 40, changed: make(chan struct{})}}
	d.disk.State = fullFs{d.disk.State, d.full}
	cfg := sim.Config{
		ID: "IAD-0001", Model: hardware, Hardware: hardware, Disk: d.disk,
		Trust: image.TrustKeys(maker().Public().(minisign.PublicKey)), Fetcher: d.files,
		Grace: 100 * time.Millisecond,
	}
	change(&cfg)
	d.Device = sim.New(cfg)
	set := config.Set{}
	for _, k := range config.Kinds() {
		set[k] = config.WithHeader(k, 1, []byte("name = "+k.String()+"\n"))
	}
	if err := d.Provision(bytes.NewReader(build(t, "1.0.0")), set); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("device: %v", err)
		}
	})
	return d
}

// await waits until cond holds of the state of the agent that has started n
// times.
func (d *iad) await(n int, what string, cond func(*procedure.Snapshot) bool) *agent.Agent {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	a := d.Agent(ctx, n)
	if a == nil {
		d.t.Fatal("the agent does not start")
	}
	changed, stop := a.Engine().Watch()
	defer stop()
	for {
		s := a.Engine().Snapshot()
		if cond(s) {
			return a
		}
		select {
		case <-changed:
		case <-ctx.Done():
			d.t.Fatalf("%s: operation %d is %s in %s: %s", what, s.Op.ID, s.Op.State, s.Op.Phase, s.Op.Text)
		}
	}
}

// slowServer is a file server in memory that gives out no more bytes of a
// file than it was granted.
type slowServer struct {
	mu      sync.Mutex
	files   map[string][]byte
	granted int64
	given   int64
	changed chan struct{} // closed and replaced when granted or given changes
}

func (s *slowServer) update(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// upload puts a file on the server.
func (s *slowServer) upload(name string, data []byte) { s.update(func() { s.files[name] = data }) }

// grant lets the first n bytes of a file out.
func (s *slowServer) grant(n int64) { s.update(func() { s.granted = n }) }

// wait waits until n bytes of a file were given out.
func (s *slowServer) wait(t *testing.T, n int64) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		s.mu.Lock()
		given, changed := s.given, s.changed
		s.mu.Unlock()
		if given >= n {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("the transfer stands still at %d octets, want %d", given, n)
		}
	}
}

func (s *slowServer) Supports(p mib.Protocol) bool { return p != mib.ProtocolFtps }

func (s *slowServer) Open(context.Context, procedure.Server) (procedure.Files, error) { return s, nil }

func (s *slowServer) Close() error { return nil }

func (s *slowServer) Put(_ context.Context, name string, r io.ReadSeeker, _ int64) error {
	data, err := io.ReadAll(r)
	s.upload(name, data)
	return err
}

func (s *slowServer) Get(ctx context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	s.mu.Lock()
	data, ok := s.files[name]
	s.mu.Unlock()
	if !ok {
		return nil, 0, &procedure.Failure{Code: mib.FailCauseFileNotFound, Text: name + " not found"}
	}
	return io.NopCloser(&slowReader{ctx, s, data, offset}), int64(len(data)), nil
}

type slowReader struct {
	ctx  context.Context
	s    *slowServer
	data []byte
	at   int64
}

func (r *slowReader) Read(p []byte) (int, error) {
	for {
		r.s.mu.Lock()
		granted, changed := r.s.granted, r.s.changed
		r.s.mu.Unlock()
		if r.at >= int64(len(r.data)) {
			return 0, io.EOF
		}
		if n := copy(p, r.data[r.at:min(granted, int64(len(r.data)))]); granted > r.at && n > 0 {
			r.at += int64(n)
			r.s.update(func() { r.s.given = r.at })
			return n, nil
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
			return 0, context.Cause(r.ctx)
		}
	}
}

// messages counts what is logged.
type messages struct {
	slog.Handler
	mu    sync.Mutex
	times map[string]int
	added chan struct{} // closed and replaced when one comes
}

func newMessages() *messages {
	return &messages{Handler: slog.DiscardHandler, times: map[string]int{}, added: make(chan struct{})}
}

func (m *messages) Enabled(context.Context, slog.Level) bool { return true }
func (m *messages) WithAttrs([]slog.Attr) slog.Handler       { return m }
func (m *messages) WithGroup(string) slog.Handler            { return m }

func (m *messages) Handle(_ context.Context, r slog.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.times[r.Message]++
	close(m.added)
	m.added = make(chan struct{})
	return nil
}

// count is how often a message was logged until now.
func (m *messages) count(message string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.times[message]
}

// await waits until a message was logged more than n times.
func (m *messages) await(t *testing.T, message string, n int) {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		m.mu.Lock()
		times, added := m.times[message], m.added
		m.mu.Unlock()
		if times > n {
			return
		}
		select {
		case <-added:
		case <-limit:
			t.Fatalf("%q was logged %d times, want more than %d: %v", message, times, n, m.times)
		}
	}
}

// logger is one whose messages are counted.
func (m *messages) logger() *slog.Logger { return slog.New(m) }

// name is that of an instance, as gosnmp has it.
func name(o *mib.Object, index uint32) string {
	return fmt.Sprintf(".%v", mib.NewModule(nil).OID(o, index))
}

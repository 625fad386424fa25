package agent_test

import (
	"bytes"
	"context"
	"net"
	"slices"
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

// listener is a front end that only listens.
type listener struct {
	mu    sync.Mutex
	heard []*mib.Notification
}

func (l *listener) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (l *listener) Notify(_ context.Context, n mib.Notice) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = append(l.heard, n.Notification)
	return nil
}

// count returns how often a notification came.
func (l *listener) count(n *mib.Notification) (times int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.heard {
		if h == n {
			times++
		}
	}
	return times
}

// idleBoard does nothing.
type idleBoard struct{ agent.Platform }

func (idleBoard) SelfTest(context.Context, agent.SelfTest) error { return nil }
func (idleBoard) CheckConfig(config.Set) error                   { return nil }
func (idleBoard) ApplyConfig(context.Context, config.Generation, config.Set) (bool, error) {
	return false, nil
}
func (idleBoard) Calls() int                               { return 0 }
func (idleBoard) Capacity(int) int64                       { return 0 }
func (idleBoard) Free(int) (int64, error)                  { return 1 << 30, nil }
func (idleBoard) DropCache(afero.File) error               { return nil }
func (idleBoard) DropRange(afero.File, int64, int64) error { return nil }
func (idleBoard) Checkpoint(int) error                     { return nil }
func (idleBoard) Kick()                                    {}
func (idleBoard) BootReason() mib.RestartReasonEnum        { return mib.RestartReasonPowerOn }

// runAgent provisions an agent with a front end of the test and runs it until the
// test ends.
func runAgent(t *testing.T, change func(*agent.Config)) *agent.Agent {
	t.Helper()
	return runAgentWith(t, settings(1, "name"), change)
}

// runAgentWith does the same with configuration data of the test.
func runAgentWith(t *testing.T, set config.Set, change func(*agent.Config)) *agent.Agent {
	t.Helper()
	disk := sim.Memory()
	cfg := agent.Config{
		DeviceID: "IAD-0001", Hardware: hardware, Trust: image.TrustKeys(maker().Public().(minisign.PublicKey)),
		Banks: disk.Banks, State: disk.State, Data: disk.Data, Work: disk.Work, Platform: idleBoard{},
	}
	change(&cfg)
	if err := agent.Provision(cfg, bytes.NewReader(factory()), set); err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("agent: %v", err)
		}
	})
	return a
}

// operate makes a SET that starts an operation, and waits for its end.
func operate(t *testing.T, a *agent.Agent, vbs ...mib.Varbind) procedure.Operation {
	t.Helper()
	before := a.Engine().Snapshot().Op.ID
	tx, refused := a.Tree().Set(mib.Caller{}, vbs)
	if refused != nil {
		t.Fatal(refused)
	}
	tx.Done()
	changed, stop := a.Engine().Watch()
	defer stop()
	for {
		if op := a.Engine().Snapshot().Op; op.ID != before && op.State.Final() {
			return op
		}
		<-changed
	}
}

// server1 has the file of user data.
func server1(protocol mib.Protocol, port, timeout int) []mib.Varbind {
	return []mib.Varbind{
		num(mib.ServerAddressType, int64(mib.InetAddressTypeIpv4), 1),
		vb(mib.ServerAddress, mib.Octets([]byte{127, 0, 0, 1}), 1),
		num(mib.ServerProtocol, int64(protocol), 1),
		num(mib.ServerPort, int64(port), 1),
		num(mib.ServerTimeout, int64(timeout), 1),
		text(mib.FileName, "user", 2),
		bits(mib.ReqFiles, 1),
	}
}

// slow takes a second to connect, in which everybody hears of that phase.
type slow struct{ procedure.Fetcher }

func (s slow) Open(ctx context.Context, server procedure.Server) (procedure.Files, error) {
	time.Sleep(time.Second)
	return s.Fetcher.Open(ctx, server)
}

// The bit progress of iadUpgNotifyEnable keeps iadUpgOpProgress back, and
// nothing else; without the other bits it comes alone.
func TestNotifyEnableProgress(t *testing.T) {
	all := make([]int, len(mib.NotifyEnable.Enums))
	for i := range all {
		all[i] = i
	}
	without := slices.DeleteFunc(slices.Clone(all), func(n int) bool { return n == mib.NotifyEnableProgress })
	for name, c := range map[string]struct {
		enabled          []int
		progress, events bool
	}{
		"all":              {all, true, true},
		"without progress": {without, false, true},
		"progress alone":   {[]int{mib.NotifyEnableProgress}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &listener{}
				a := runAgent(t, func(cfg *agent.Config) {
					cfg.Fronts = []agent.FrontEnd{l}
					cfg.Fetcher = slow{memServer{&bench{t: t, files: map[string][]byte{}}}}
				})
				op := operate(t, a, append(server1(mib.ProtocolTftp, 69, 30), bits(mib.NotifyEnable, c.enabled...),
					num(mib.NotifyMinInterval, 0), num(mib.NotifyStep, 1), command(backupConfig))...)
				if op.State != mib.OperationStateSucceeded {
					t.Fatalf("%s: %s", op.State, op.Text)
				}
				synctest.Wait()
				if n := l.count(mib.NotifyOpProgress); (n > 0) != c.progress {
					t.Errorf("iadUpgOpProgress came %d times", n)
				}
				if n := l.count(mib.NotifyOpCompleted); (n > 0) != c.events {
					t.Errorf("iadUpgOpCompleted came %d times", n)
				}
			})
		})
	}
}

// iadUpgServerTimeout is how long a server may say nothing. The shortest one is
// noticed within the least time limit of an operation.
func TestServerTimeout(t *testing.T) {
	silent, err := net.Listen("tcp4", "127.0.0.1:0") // the system accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	a := runAgent(t, func(*agent.Config) {})
	began := time.Now()
	op := operate(t, a, append(server1(mib.ProtocolFtp, silent.Addr().(*net.TCPAddr).Port, 1),
		num(mib.ReqRetries, 0), num(mib.ReqTimeLimit, 10), command(recoverConfig))...)
	if op.Cause != mib.FailCauseServerUnreachable && op.Cause != mib.FailCauseTransferTimeout {
		t.Errorf("%s: %s (%s)", op.State, op.Cause, op.Text)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("given up after %v", took)
	}
}

// As the textual convention TestAndIncr demands, iadUpgReqLock does not have
// after a restart a value that it had before.
func TestLockOverRestarts(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		had := map[int64]bool{}
		for start := range 4 {
			n := b.num(mib.ReqLock)
			if had[n] || had[n+1] {
				t.Errorf("start %d: iadUpgReqLock is %d again", start+1, n)
			}
			b.must(num(mib.ReqLock, n), num(mib.NotifyStep, 20))
			had[n], had[n+1] = true, true
			b.powerCut()
		}
	})
}

package procedure_test

import (
	"bytes"
	"context"
	"io"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// fakeBanks are two banks without contents.
type fakeBanks struct{ l *lab }

func (b fakeBanks) Known() procedure.BankStatus { return b.Status() }

func (b fakeBanks) Status() procedure.BankStatus {
	b.l.mu.Lock()
	defer b.l.mu.Unlock()
	s := b.l.banks
	for i := range s.Banks {
		s.Banks[i].Running, s.Banks[i].Next, s.Banks[i].Fallback = s.Running == i+1, s.Next == i+1, s.Fallback == i+1
	}
	return s
}

func (b fakeBanks) Install(ctx context.Context, files procedure.Files, name string, opt procedure.Install) (procedure.Installed, error) {
	opt.Progress(mib.OperationPhaseErasing, 0, 0)
	if err := b.l.at(ctx, "erase"); err != nil {
		return procedure.Installed{}, err
	}
	if !opt.CheckOnly {
		b.l.set(func() {
			s := &b.l.banks
			s.Banks[1], s.Next, s.Fallback = procedure.Bank{State: mib.BankStateWriting, Cause: mib.FailCauseNone}, s.Running, s.Running
		})
	}
	r, size, err := files.Get(ctx, name, 0)
	if err != nil {
		return procedure.Installed{}, err
	}
	defer r.Close()
	opt.Progress(mib.OperationPhaseTransferring, 0, uint64(max(size, 0)))
	var done uint64
	for buf := make([]byte, b.l.chunk); ; {
		n, err := r.Read(buf)
		done += uint64(n)
		opt.Progress(mib.OperationPhaseTransferring, done, uint64(max(size, 0)))
		if err == io.EOF {
			break
		}
		if err != nil {
			return procedure.Installed{}, err
		}
	}
	for part := uint64(0); part <= 4; part++ {
		opt.Progress(mib.OperationPhaseVerifying, part, 4)
		time.Sleep(b.l.pace) //bubble: that of run, in fakes_test.go
	}
	if err := b.l.at(ctx, "verify"); err != nil {
		return procedure.Installed{Digest: make([]byte, 32)}, err
	}
	b.l.mu.Lock()
	defer b.l.mu.Unlock()
	if !opt.CheckOnly {
		b.l.banks.Banks[1] = procedure.Bank{State: mib.BankStateReady, Version: "2.0.0", NeedsReset: true, Cause: mib.FailCauseNone}
	}
	return procedure.Installed{Bank: 2, Version: "2.0.0", Size: done, Digest: make([]byte, 32)}, nil
}

func (b fakeBanks) Check(ctx context.Context, n int, _ bool) error { return b.l.at(ctx, "check") }

func (b fakeBanks) change(step string, f func(*procedure.BankStatus)) error {
	if err := b.l.at(context.Background(), step); err != nil {
		return err
	}
	b.l.mu.Lock()
	defer b.l.mu.Unlock()
	f(&b.l.banks)
	return nil
}

func (b fakeBanks) Activate(n int) error {
	return b.change("activate", func(s *procedure.BankStatus) {
		s.Banks[n-1].State, s.Next, s.Fallback = mib.BankStateTrial, n, s.Running
	})
}

func (b fakeBanks) CheckFallback() (int, error) {
	s := b.Status()
	if s.Fallback == s.Running {
		return s.Running, nil
	}
	if old := 3 - s.Running; s.Bank(old).State == mib.BankStateGood {
		return old, nil
	}
	return 0, coded(mib.FailCauseNoFallback)
}

func (b fakeBanks) Restore() (n int, err error) {
	if n, err = b.CheckFallback(); err != nil {
		return 0, err
	}
	return n, b.change("restore", func(s *procedure.BankStatus) {
		if r := &s.Banks[s.Running-1]; n != s.Running && r.State == mib.BankStateTrial {
			r.State = mib.BankStateFailed
		}
		if o := &s.Banks[2-n]; o.State == mib.BankStateTrial {
			o.State = mib.BankStateReady
		}
		s.Next, s.Fallback = n, n
	})
}

func (b fakeBanks) Tested() error { return b.change("tested", func(*procedure.BankStatus) {}) }

func (b fakeBanks) Confirm() error {
	return b.change("confirm", func(s *procedure.BankStatus) { s.Banks[s.Running-1].State = mib.BankStateGood })
}

func (b fakeBanks) GiveUp(c mib.FailCause, text string) error {
	return b.change("giveup", func(s *procedure.BankStatus) {
		r := &s.Banks[s.Running-1]
		r.State, r.Cause, r.Text = mib.BankStateFailed, c, text
		s.Next, s.Fallback = 3-s.Running, 3-s.Running
	})
}

func (b fakeBanks) TakeOver(n int) error {
	return b.change("takeover", func(s *procedure.BankStatus) { s.Running = n })
}

func (b fakeBanks) RewriteRecord() error {
	return b.change("settle", func(s *procedure.BankStatus) { s.Unsaved, s.Recorded = false, 0 })
}

// fakeFetcher is one server that takes part in a transfer chunk by chunk.
type fakeFetcher struct{ l *lab }

func (f fakeFetcher) Supports(p mib.Protocol) bool { return p != mib.ProtocolFtps }
func (f fakeFetcher) Open(ctx context.Context, _ procedure.Server) (procedure.Files, error) {
	return f, f.l.at(ctx, "connect")
}
func (f fakeFetcher) Close() error { return nil }

func (f fakeFetcher) Get(ctx context.Context, name string, _ int64) (io.ReadCloser, int64, error) {
	if err := f.l.at(ctx, "get"); err != nil {
		return nil, 0, err
	}
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	data, ok := f.l.remote[name]
	if !ok {
		return nil, 0, coded(mib.FailCauseFileNotFound)
	}
	size := int64(-1)
	if f.l.sizes {
		size = int64(len(data))
	}
	return io.NopCloser(&slowReader{f.l, ctx, data}), size, nil
}

func (f fakeFetcher) Put(ctx context.Context, name string, r io.ReadSeeker, _ int64) error {
	if err := f.l.at(ctx, "put"); err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	f.l.remote[name] = data
	return err
}

type slowReader struct {
	l    *lab
	ctx  context.Context
	data []byte
}

func (r *slowReader) Read(p []byte) (int, error) {
	time.Sleep(r.l.pace) //bubble: that of run, in fakes_test.go
	if err := r.l.at(r.ctx, "read"); err != nil {
		return 0, err
	}
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.l.chunk)], r.data)
	r.data = r.data[n:]
	return n, nil
}

// fakeStore understands files whose text begins with their kind and format.
type fakeStore struct{ l *lab }

func (s fakeStore) Status() procedure.ConfigStatus {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	return s.l.config
}

func (s fakeStore) Collect(ctx context.Context, kinds procedure.FileSet) (procedure.ConfigFiles, uint32, error) {
	files := procedure.ConfigFiles{}
	for _, k := range kinds.Kinds() {
		files[k] = configFile(k, 1)
	}
	return files, 1, s.l.at(ctx, "collect")
}

func (s fakeStore) Examine(files procedure.ConfigFiles) (procedure.ConfigFiles, uint32, error) {
	format := uint32(0)
	for k, data := range files {
		rest, ok := bytes.CutPrefix(data, []byte(k.String()+" "))
		if !ok || len(rest) == 0 {
			return nil, 0, coded(mib.FailCauseConfigParseError)
		}
		format = uint32(rest[0] - '0')
	}
	return files, format, nil
}

func (s fakeStore) HasOtherFormat() bool { return s.l.other }
func (s fakeStore) OtherFormat(ctx context.Context) (procedure.ConfigFiles, uint32, bool, error) {
	return procedure.ConfigFiles{mib.FileTypeUserData: configFile(mib.FileTypeUserData, 2), mib.FileTypePortData: configFile(mib.FileTypePortData, 2)},
		2, s.l.other, s.l.at(ctx, "other")
}

func (s fakeStore) Convert(ctx context.Context, _, to uint32, files procedure.ConfigFiles) (procedure.ConfigFiles, error) {
	out := procedure.ConfigFiles{}
	for k := range files {
		out[k] = configFile(k, int(to))
	}
	return out, s.l.at(ctx, "convert")
}

func (s fakeStore) Check(ctx context.Context, _ procedure.ConfigFiles) error {
	return s.l.at(ctx, "check config")
}

func (s fakeStore) Apply(ctx context.Context, files procedure.ConfigFiles) (bool, error) {
	if err := s.l.at(ctx, "apply"); err != nil {
		return false, err
	}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.l.config.Generation += uint32(len(files))
	return s.l.fails["needs reset"] != nil, nil
}

func (s fakeStore) MaxFile() int64 { return 10000 }

type fakeDevice struct{ l *lab }

func (d fakeDevice) SelfTest(ctx context.Context) error { return d.l.at(ctx, "selftest") }
func (d fakeDevice) Calls() int {
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	return d.l.inUse
}
func (d fakeDevice) TakesOver() bool { return d.l.over }

package procedure

import (
	"context"
	"io"
	"time"

	"example.com/iad/mib"
)

// Bank describes a software bank to the engine.
type Bank struct {
	State      mib.BankStateEnum
	Running    bool
	Next       bool
	Fallback   bool
	Version    string
	NeedsReset bool // its manifest asks for a restart
	Cause      mib.FailCause
	Text       string
}

// BankStatus is the state of both banks. Numbers are 1 and 2, 0 is none. Without usable
// software none is running: rescue mode.
type BankStatus struct {
	Banks                   [2]Bank
	Running, Next, Fallback int
	Spare                   int // the bank to write in rescue mode
	// Recorded is the bank that starts after a power cut, where that is not Next
	// because it cannot be recorded; else 0.
	Recorded int
	// Unsaved is true while RewriteRecord has to be called again.
	Unsaved bool
}

// Bank returns bank n, which is 1 or 2; for 0, no bank, an empty one.
func (s BankStatus) Bank(n int) Bank {
	if n == 0 {
		return Bank{}
	}
	return s.Banks[n-1]
}

// Other is the bank that a request without one means: the one that does not run. In
// rescue mode it is the one to write, or the one with software to start.
func (s BankStatus) Other(write bool) int {
	switch {
	case s.Running != 0:
		return 3 - s.Running
	case write || s.Next == 0:
		return s.Spare
	}
	return s.Next
}

// OnTrial reports whether the running software is on trial.
func (s BankStatus) OnTrial() bool {
	return s.Running != 0 && s.Bank(s.Running).State == mib.BankStateTrial
}

// Banks are the two software banks. Errors carry a cause (see Failure).
type Banks interface {
	// Status may be called from anywhere. It looks whether the banks are there.
	Status() BankStatus
	// Known is Status from memory, without a look at the banks. It is cheap.
	Known() BankStatus
	// Install fetches software into a bank that does not run and verifies it.
	// With an error the result has the digest if the whole file came.
	Install(ctx context.Context, files Files, name string, opt Install) (Installed, error)
	// Check judges, without a change, whether bank n may be activated.
	Check(ctx context.Context, n int, allowDowngrade bool) error
	// Activate makes bank n the next to boot, on trial, with the running one
	// as the fallback.
	Activate(n int) error
	// CheckFallback returns the bank that Restore would select, which may be
	// the running one. It is cheap.
	CheckFallback() (int, error)
	// Restore makes the fallback bank the next to boot and returns it. If
	// the software to go back to runs already it takes an activation back.
	Restore() (int, error)
	// Tested gives the running software on trial the starts back that it used up:
	// its self-test has passed.
	Tested() error
	// Confirm accepts the running software.
	Confirm() error
	// GiveUp ends the trial of the running software; the fallback is next.
	GiveUp(cause mib.FailCause, text string) error
	// RewriteRecord writes the boot record once more.
	RewriteRecord() error
	// TakeOver puts the software of bank n to use without a restart.
	TakeOver(n int) error
}

// Install are the options of Banks.Install.
type Install struct {
	Bank      int // 0: the one that does not run
	Options   Options
	Version   string // that it must have, "" for any
	Size      uint32 // that the file must have, 0 for any
	Digest    []byte // SHA-256 that the file must have, empty for any
	Progress  func(phase mib.OperationPhase, done, total uint64)
	CheckOnly bool
}

// Installed is the result of Banks.Install.
type Installed struct {
	Bank    int
	Version string
	Size    uint64 // bytes of the file; if it was not wanted whole, those that came
	Digest  []byte // SHA-256 of the file fetched
	Format  uint32 // configuration data format of the software
}

// Files is a file server in use by an operation.
type Files interface {
	// Get opens a file at an offset; size is -1 if it is not known. Reading
	// ends with io.EOF only if the file is complete.
	Get(ctx context.Context, name string, offset int64) (r io.ReadCloser, size int64, err error)
	// Put stores size bytes of r. It may go back in r and send them again.
	Put(ctx context.Context, name string, r io.ReadSeeker, size int64) error
	Close() error
}

// Fetcher reaches file servers.
type Fetcher interface {
	// Supports reports whether a protocol can be used.
	Supports(mib.Protocol) bool
	// Open connects to a server.
	Open(ctx context.Context, s Server) (Files, error)
}

// ConfigFiles are configuration files by their kind.
type ConfigFiles map[mib.FileType][]byte

// ConfigStatus describes the configuration data in force to the engine.
type ConfigStatus struct {
	Generation uint32 // 0: the defaults of the software
	Format     uint32 // that the running software reads and writes
	Digest     []byte
	Applied    time.Time
	// NeedsReset is true while the software does not use these data and a
	// restart would give it them.
	NeedsReset bool
}

// ConfigStore holds the configuration data. Errors carry a cause.
type ConfigStore interface {
	// Status is cheap and may be called from anywhere.
	Status() ConfigStatus
	// Collect returns files of the kinds asked for, all of one generation, as they are
	// to be sent, which may be encrypted, and their format.
	Collect(ctx context.Context, kinds FileSet) (ConfigFiles, uint32, error)
	// Examine decrypts files that came encrypted, and checks that each is of its kind and
	// all are of one format, which it returns.
	Examine(files ConfigFiles) (plain ConfigFiles, format uint32, err error)
	// HasOtherFormat reports, without delay, whether OtherFormat would find something.
	HasOtherFormat() bool
	// OtherFormat returns the newest configuration data in another format than
	// that of the running software; ok is false if there are none.
	OtherFormat(ctx context.Context) (files ConfigFiles, format uint32, ok bool, err error)
	// Convert runs the conversion program.
	Convert(ctx context.Context, from, to uint32, files ConfigFiles) (ConfigFiles, error)
	// Check reports whether Apply would be refused; it changes nothing.
	Check(ctx context.Context, files ConfigFiles) error
	// Apply puts files in force: all of them, or nothing is changed.
	// needsReset is true if they take effect only after a restart.
	Apply(ctx context.Context, files ConfigFiles) (needsReset bool, err error)
	// MaxFile is the greatest size of a file in bytes, encrypted or not.
	MaxFile() int64
}

// Device is what the engine needs of the device itself.
type Device interface {
	// SelfTest reports whether the running software is healthy. Its error says
	// why not.
	SelfTest(ctx context.Context) error
	// Calls is the number of calls in progress.
	Calls() int
	// TakesOver reports whether the device can change software without a
	// restart.
	TakesOver() bool
}

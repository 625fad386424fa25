package bank

import (
	"encoding/hex"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/mib"
)

// Info is what iadUpgBankTable shows of one bank.
type Info struct {
	Number                  int // 1 or 2
	State                   mib.BankStateEnum
	Running, Next, Fallback bool
	Version                 string // "" if not known
	ConfigFormat            uint32 // 0 if not known
	Size                    int64  // bytes of all files of the software
	Capacity                int64  // bytes that fit, 0 if there is no limit of ours
	Digest                  []byte // SHA-256 of the manifest, nil if not known
	Written                 time.Time
	TriesLeft               int           // starts left while on trial
	Cause                   mib.FailCause // what last went wrong with the content; 1 for nothing
	Text                    string        // detail to Cause, up to 128 bytes
	Generation              uint32        // of configuration data it last ran with, 0 none
	NeedsReset              bool          // the software takes effect only after a reset
}

// Status describes both banks.
type Status struct {
	Banks    [2]Info
	Running  int    // 0 in rescue mode, and from Peek when no software ever started
	Next     int    // the bank that starts next, 0 if neither can
	Fallback int    // 0 none
	Spare    int    // the bank that Install chooses
	Floor    string // no version below is accepted; "" any
	// Trust is the serial of the trust document that says who may sign software, 0 for
	// public keys alone.
	Trust uint32
	// Recorded is the bank that starts after a power cut, where that is not Next
	// because the record cannot be written; else 0.
	Recorded int
	// Unsaved reports whether the boot record could not be written; RewriteRecord tries
	// again.
	Unsaved bool
}

// Bank returns the Info of bank n, 1 or 2; for 0, no bank, an empty one.
func (s *Status) Bank(n int) *Info {
	if n == 0 {
		return new(Info)
	}
	return &s.Banks[n-1]
}

// Status returns the present state. It asks the system how much the banks hold, and
// whether they are there.
func (b *Banks) Status() Status {
	s := b.Known()
	b.Look(&s)
	return s
}

// Look adds to what Known returned what only the system knows.
func (b *Banks) Look(s *Status) { s.look(&b.opt) }

// Known is Status from memory alone: no Capacity is known, and a bank that is missing
// looks as it did when it was last used.
func (b *Banks) Known() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := describeBanks(&b.opt, b.rec, b.heads, b.running)
	s.Spare = b.rec.spare(b.running, b.intact)
	s.Trust = b.trust.Serial
	if b.verifying != 0 {
		s.Bank(b.verifying).State = mib.BankStateVerifying
	}
	if b.disk.Next != b.rec.Next {
		s.Recorded = b.disk.Next
	}
	// A record that was lost may only have been unreadable: no hurry to replace it.
	s.Unsaved = b.rec != b.disk && !b.disk.lost()
	return s
}

// Peek reads the record and the manifests of a device without checking hashes or
// changing anything; another process may be running the device. findings lists what is
// damaged. If the record is missing, Next is 0.
func Peek(opt Options) (s Status, findings []string) {
	rec, findings := peekRecord(opt.State)
	var heads [2]*image.Head
	for i, fs := range opt.Banks {
		if h, err := image.ReadInstalled(fs); err == nil && h.Parse() == nil {
			heads[i] = h
		}
	}
	s = describeBanks(&opt, rec, heads, rec.Running)
	s.look(&opt)
	trust, found := opt.peekTrust()
	s.Trust = trust.Serial
	return s, append(findings, found...)
}

func describeBanks(opt *Options, rec Record, heads [2]*image.Head, running int) Status {
	if running == 0 {
		rec.Next = rec.ready()
	}
	s := Status{Running: running, Next: rec.Next, Fallback: rec.Fallback, Floor: rec.Floor}
	for i := range s.Banks {
		n, r, info := i+1, rec.Banks[i], &s.Banks[i]
		*info = Info{
			Number: n, State: max(r.State, mib.BankStateEmpty),
			Running: running == n, Next: rec.Next == n, Fallback: rec.Fallback == n,
			TriesLeft: r.TriesLeft,
			Cause:     max(r.Cause, mib.FailCauseNone), Text: r.Text, Generation: r.Generation,
		}
		if r.Written != 0 {
			info.Written = time.Unix(r.Written, 0).UTC()
		}
		if h := heads[i]; h != nil && h.Manifest != nil {
			info.Version, info.ConfigFormat = h.Manifest.Version, h.Manifest.ConfigFormat
			info.Size, info.NeedsReset = h.StoredSize(), !h.Manifest.NoReset || opt.Loader != nil
			info.Digest, _ = hex.DecodeString(h.Digest)
		}
	}
	return s
}

// look adds what only the system knows.
func (s *Status) look(opt *Options) {
	for i := range s.Banks {
		info := &s.Banks[i]
		info.Capacity = opt.wholeCapacity(info.Number)
		if !info.Running && absent(opt.Banks[i]) != nil {
			info.Cause = mib.FailCauseBankUnavailable
		}
	}
}

// head is what bank n holds, nil if that is not known or n is 0.
func (b *Banks) head(n int) *image.Head {
	if n == 0 || b.heads[n-1] == nil || b.heads[n-1].Manifest == nil {
		return nil
	}
	return b.heads[n-1]
}

// Manifest returns the manifest of the software that bank n holds or is getting.
// The caller must not change it.
func (b *Banks) Manifest(n int) (*image.Manifest, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n < 0 || n > 2 || b.head(n) == nil {
		return nil, refuse(mib.FailCauseBankUnavailable, "bank %d has no manifest", n)
	}
	return b.heads[n-1].Manifest, nil
}

// Open opens a payload of bank n, one in a file, for reading.
func (b *Banks) Open(n int, payload string) (afero.File, error) {
	m, err := b.Manifest(n)
	if err != nil {
		return nil, err
	}
	if p := m.Payload(payload); p == nil || p.Target != image.TargetFile {
		return nil, refuse(mib.FailCauseBadRequest, "bank %d has no file %q", n, payload)
	}
	return b.fs(n).Open(payload)
}

// Fs is the file system of bank n, 1 or 2, in whose root the payloads lie under
// their names. It must not be written.
func (b *Banks) Fs(n int) afero.Fs { return afero.NewReadOnlyFs(b.fs(n)) }

package bank

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// Options describe the banks and the device.
type Options struct {
	// Banks are the file systems of bank 1 and bank 2; all of each is the bank's.
	Banks [2]afero.Fs
	// Partitions are the raw partitions of bank 1 and bank 2, nil where a bank has none:
	// then software with a payload for it is refused.
	Partitions [2]Partition
	// State is the file system that holds the boot record.
	State afero.Fs
	// Loader is the boot loader, nil where Boot chooses the software that starts.
	Loader Loader
	// Verified says that the boot loader or the kernel refuses a bank whose software is not
	// whole: Boot does not hash again what has been started.
	Verified bool
	// Capacity returns how many bytes may be stored in bank n, 0 for no limit
	// of ours. Nil means no limit.
	Capacity func(n int) int64
	// Free returns how many bytes are free on the file system of bank n. Nil means
	// that this is not known.
	Free func(n int) (int64, error)
	// Reserve returns how many bytes on the file system of bank n Install must leave
	// free. Nil means none.
	Reserve func(n int) int64
	// Trust says who may sign software as long as the device holds no newer trust document.
	// Nil trusts nobody.
	Trust *image.Trust
	// Keys decrypt encrypted software, while it is fetched only.
	Keys []agefile.Identity
	// Hardware is the device's model.
	Hardware string
	// Now is the wall clock, nil for the system's.
	Now func() time.Time
	// DropCache makes the next reading of a synced file come from the medium, not
	// from memory. Nil where the platform cannot.
	DropCache func(afero.File) error
	// DropRange waits until n bytes of a file from offset on, which need not be synced, are on the
	// medium, and makes the next reading of them come from there. Nil where the platform cannot;
	// an error says that it cannot for this file.
	DropRange func(f afero.File, offset, n int64) error
	// Checkpoint makes what is synced in bank n readable without the journal of its file
	// system, for a boot loader. Nil where nothing is to be done.
	Checkpoint func(n int) error
	// PassesUnsaved says that the next Boot gets what Banks.Unsaved returns. Then the
	// device can go back to the old software without a writable state.
	PassesUnsaved bool
	// Unsaved is what Banks.Unsaved returned before the restart, nil for nothing.
	Unsaved []byte
	// Alive is called over and over while a bank is read that a decision waits for, such as that to go back to the other
	// software: a caller that is watched shows by it that it still works. Nil for nothing.
	Alive func()
	// Log, nil to discard.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// capacity is the limit of bank n, 0 for none.
func (o *Options) capacity(n int) int64 {
	if o.Capacity == nil {
		return 0
	}
	return o.Capacity(n)
}

// admit judges software that is in a bank already: its signature, hardware and the
// version floor.
func (o *Options) admit(h *image.Head, trust *image.Trust, floor string) error {
	if err := h.VerifySignature(trust); err != nil {
		return err
	}
	if err := o.checkHardware(h.Manifest); err != nil {
		return err
	}
	return checkFloor(h.Manifest, floor)
}

// checkHardware refuses software for other models.
func (o *Options) checkHardware(m *image.Manifest) error {
	if slices.Contains(m.Hardware, o.Hardware) {
		return nil
	}
	return refuse(mib.FailCauseIncompatibleHardware, "the software is for %q, this device is %q", m.Hardware, o.Hardware)
}

// checkFloor refuses what is below the lowest version that the device accepts.
func checkFloor(m *image.Manifest, floor string) error {
	if floor != "" && image.Older(m.Version, floor) {
		return refuse(mib.FailCauseDowngradeRefused, "version %s is below %s, the lowest that this device accepts", m.Version, floor)
	}
	return nil
}

// foreign are names that a file system itself may put into its root.
var foreign = []string{"lost+found"}

// Foreign reports whether name is one that a file system itself may put into its root.
// Such a file or directory does not belong to the content and is never removed.
func Foreign(name string) bool { return slices.Contains(foreign, name) }

// readAttempts is how many times a bank that cannot be read is read.
const readAttempts = 3

// checkBank compares the content of a bank with its manifest, and the manifest with the
// recorded digest unless that is "". It reads again after an error, because a medium
// may fail once and then work.
func checkBank(m medium, digest string) (c CheckResult, h *image.Head) {
	for range readAttempts {
		var err error
		c, h, err = inspectBank(m)
		if refused := new(image.Error); err == nil || errors.Is(err, os.ErrNotExist) || errors.As(err, &refused) {
			break
		}
	}
	if c.Contents == ContentsComplete && digest != "" && digest != c.Digest {
		c.Contents, c.Text = ContentsForeign, "the bank holds other software than recorded"
	}
	return c, h
}

// inspectBank compares the content of a bank with its manifest. The error says why it is
// damaged.
func inspectBank(m medium) (CheckResult, *image.Head, error) {
	h, err := image.ReadInstalled(m.fs)
	if err != nil {
		if empty(m.fs) {
			return CheckResult{Contents: ContentsNone, Text: "the bank is empty"}, nil, nil
		}
		return CheckResult{Contents: ContentsDamaged, Text: err.Error()}, nil, err
	}
	c := CheckResult{Digest: h.Digest}
	if err := h.Parse(); err != nil {
		c.Contents, c.Text = ContentsDamaged, err.Error()
		return c, nil, err
	}
	c.Version, c.Floor, c.ConfigFormat = h.Manifest.Version, h.Manifest.Floor, h.Manifest.ConfigFormat
	for _, p := range h.Manifest.Payloads {
		if err := m.check(p); err != nil {
			c.Contents, c.Text = ContentsDamaged, err.Error()
			return c, h, err
		}
	}
	c.Contents = ContentsComplete
	return c, h, nil
}

func empty(fs afero.Fs) bool {
	infos, err := afero.ReadDir(fs, ".")
	return err == nil && !slices.ContainsFunc(infos, func(i os.FileInfo) bool { return !Foreign(i.Name()) })
}

// eraseBank removes everything from a bank but what keep wants.
func eraseBank(fs afero.Fs, keep map[string]bool) error {
	err := durable.Clear(fs, ".", func(name string) bool { return keep[name] || Foreign(name) })
	if err != nil {
		return &Error{Code: mib.FailCauseEraseError, Text: "the bank could not be erased", Err: err}
	}
	return nil
}

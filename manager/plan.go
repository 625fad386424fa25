package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"example.com/iad/internal/clock"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

// Step is a step of the procedure; docs/procedure.md has a diagram.
type Step int

// The steps; the package comment describes them.
const (
	StepBackup       Step = 100
	StepBackupWatch  Step = 110
	StepBackupJudge  Step = 120
	StepUpdate       Step = 130
	StepUpdateWatch  Step = 140
	StepUpdateJudge  Step = 150
	StepRestore      Step = 160
	StepRecover      Step = 170
	StepRecoverWatch Step = 180
	StepRecoverJudge Step = 190
)

// Limits are the time limits of the steps. With 0 the device sets the limit, and
// iadUpgOpTimeLeft says how long to wait.
type Limits struct {
	Backup, Update, Restore, Recover time.Duration
}

// Listener is where the notifications of devices arrive.
type Listener interface {
	// Subscribe starts a stream of notifications; see trap.Hub.Subscribe.
	Subscribe(f trap.Filter, size int) *trap.Subscription
	// Addr is the address to which devices have to send them.
	Addr() netip.AddrPort
}

var _ Listener = (*trap.Listener)(nil)

// Plan describes an upgrade.
type Plan struct {
	// Client is the access to the device. Required.
	Client *device.Client
	// Listener receives notifications; nil: polling only.
	Listener Listener
	// Files keeps the backup and serves the image. Required.
	Files files.FileServer
	// Protocol of all transfers; 0: TFTP.
	Protocol device.Protocol
	// Image is the new software. Required by Upgrade.
	Image *files.Image
	// Owner is the name of the person or program in the device's history, up to 32 bytes;
	// empty: "iadms".
	Owner string
	// Kinds of configuration data to back up and recover; none: all.
	Kinds []mib.FileType
	// SkipBackup makes no backup, so nothing can be recovered.
	SkipBackup bool
	// Force installs a version that is already present, and updates while calls are in
	// progress; AllowDowngrade permits an older version.
	Force, AllowDowngrade bool
	// CheckOnly has the device check the image and changes nothing, in the journal neither.
	CheckOnly bool
	// Limits are the time limits.
	Limits Limits
	// Reserve is how long to wait beyond a limit for the device to report its own time-out;
	// 0: 15 s.
	Reserve time.Duration
	// Poll is the maximum polling interval, for when no notifications arrive; 0: 2 s. The
	// first intervals are shorter.
	Poll time.Duration
	// DeviceRetries is how often the device itself retries a failed transfer, 0 to 10.
	DeviceRetries int
	// Pace is how often the device reports progress during the upgrade; nil: as before.
	Pace *device.Pace
	// Verify is the operator's own check of the new software at step 150, after the
	// device's self-test. After an error the old software is restored. Nil: no check.
	Verify func(ctx context.Context, d *device.Device) error
	// Keys decrypt encrypted backups: to modify them, or to give them to another device. The
	// backup of a device is recovered on it without them.
	Keys files.Keys
	// Modifier modifies configuration data at step 170; nil: only the device converts.
	Modifier Modifier
	// ModifyFirst calls the Modifier instead of the device's conversion. Otherwise it is
	// called only if the operator chooses it after a failure.
	ModifyFirst bool
	// Journal records the progress of the procedure; nil: it cannot be resumed.
	Journal Journal
	// Options are kept in the journal for resuming: how the procedure was called. They must
	// not contain secrets.
	Options map[string][]string
	// Resume continues the procedure that the journal records.
	Resume bool
	// RetryFaulty installs again, without a question, software that the journal records as
	// faulty: the operator knows that, and has changed something.
	RetryFaulty bool
	// OtherDevice permits data of a device with another identity, for a replacement unit,
	// and a device that returns with another SNMP engine ID.
	OtherDevice bool
	// Accept asks whether to continue with a device that is not the expected one, before
	// anything but a read; nil: it is refused with ErrIdentity.
	Accept func(ctx context.Context, question string) bool
	// Target is the name of the device in the operator's configuration.
	Target files.ConfiguredTarget
	// Clock is the clock; nil: the system's.
	Clock clock.Clock
	// Log gets details; nil: they are dropped.
	Log *slog.Logger
}

// Check returns an error for values out of their range. It sends nothing.
func (p *Plan) Check() error {
	switch {
	case len(p.Owner) > 32:
		return fmt.Errorf("the owner's name %q is longer than 32 bytes", p.Owner)
	case !utf8.ValidString(p.Owner):
		return fmt.Errorf("the owner's name %q is not UTF-8", p.Owner)
	case p.DeviceRetries < 0 || p.DeviceRetries > 10:
		return fmt.Errorf("the device can retry a transfer 0 to 10 times, not %d", p.DeviceRetries)
	case p.Poll < 0:
		return fmt.Errorf("the polling interval cannot be %s", p.Poll)
	}
	for _, d := range []time.Duration{p.Limits.Backup, p.Limits.Update, p.Limits.Restore, p.Limits.Recover} {
		if d != 0 && (d < 10*time.Second || d > 24*time.Hour) {
			return fmt.Errorf("a time limit must be between 10s and 24h, not %s", d)
		}
	}
	if p.Pace != nil && (p.Pace.Step < 1 || p.Pace.Step > 100 || p.Pace.MinInterval < 0 || p.Pace.MinInterval > time.Hour) {
		return errors.New("progress is reported every 1 to 100 percent, at intervals of 0 to 1h")
	}
	for _, k := range p.Kinds {
		if !slices.Contains(files.ConfigKinds, k) {
			return errors.New(k.String() + " is not a kind of configuration data")
		}
	}
	return nil
}

// complete fills in defaults and returns an error for a plan that cannot work.
func (p *Plan) complete() error {
	if p.Client == nil || p.Files == nil {
		return errors.New("plan: Client and Files are required")
	}
	if err := p.Check(); err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	if p.ModifyFirst && p.Modifier == nil {
		return errors.New("plan: ModifyFirst requires a Modifier")
	}
	p.Kinds = orElse(p.Kinds, files.ConfigKinds)
	setDefault(&p.Protocol, device.TFTP)
	setDefault(&p.Owner, "iadms")
	setDefault(&p.Reserve, 15*time.Second)
	setDefault(&p.Poll, 2*time.Second)
	if p.Clock == nil {
		p.Clock = clock.System{}
	}
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

func orElse[T any](list, other []T) []T {
	if len(list) == 0 {
		return other
	}
	return list
}

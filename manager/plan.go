package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// The steps. The package comment tells what each is.
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

// Limits are the scheduled times of the steps; 0 leaves the limit to the
// device, whose iadUpgOpTimeLeft then tells how long to wait.
type Limits struct {
	Backup, Update, Restore, Recover time.Duration
}

// Plan says what Upgrade is to do.
type Plan struct {
	// Client reaches the device. Required.
	Client *device.Client
	// Listener brings notifications; nil: polling alone.
	Listener *trap.Listener
	// Files keeps the backup and hands out the image. Required.
	Files files.FileServer
	// Protocol of all transfers; 0: TFTP.
	Protocol device.Protocol
	// Image is the new software. Required by Upgrade.
	Image *files.Image
	// Owner names who commands, up to 32 bytes; empty: "iadms".
	Owner string
	// Kinds of configuration data to back up and recover; none: all.
	Kinds []mib.FileType
	// SkipBackup updates without a backup, and so without recovery.
	SkipBackup bool
	// Force installs a version that is there already, or with calls in
	// progress; AllowDowngrade an older one.
	Force, AllowDowngrade bool
	// CheckOnly has the device check what it can and changes nothing; there is
	// nothing to resume then, and the journal stays as it is.
	CheckOnly bool
	// Limits are the scheduled times.
	Limits Limits
	// Reserve is waited beyond a limit, for the device to report its own
	// time-out first; 0: 15 s.
	Reserve time.Duration
	// Poll is the longest pause between two looks at the device when no
	// notification comes; 0: 2 s. The first ones are shorter.
	Poll time.Duration
	// DeviceRetries is how often the device repeats a failed transfer by
	// itself, 0 to 10.
	DeviceRetries int
	// Pace is how often the device is to report progress during the upgrade;
	// nil: as it is used to.
	Pace *device.Pace
	// Verify is the operator's own check of the new software at step 150, after
	// the device's self-test; an error sends the device back to the old
	// software. Nil: none.
	Verify func(ctx context.Context, d *device.Device) error
	// Modifier modifies configuration data at step 170; nil: only the device
	// converts.
	Modifier Modifier
	// ModifyFirst has the modifier do what else the device would convert;
	// otherwise it is there for when the operator wants it after a failure.
	ModifyFirst bool
	// Journal remembers how far the procedure got; nil: nothing is kept.
	Journal *Journal
	// Options are kept in the journal as they are, for who resumes: how the
	// procedure was called. No secrets.
	Options map[string][]string
	// Resume continues what the journal tells.
	Resume bool
	// RetryFaulty installs software once more that the journal says is at fault, without
	// a question: the operator knows that, and has changed something.
	RetryFaulty bool
	// OtherDevice permits data of a device with another identity, for a replacement
	// unit, and a device that comes back with another SNMP engine ID.
	OtherDevice bool
	// Accept is asked with a question about a device that is not the one expected,
	// before anything but a read; nil: it is refused with ErrIdentity.
	Accept func(ctx context.Context, question string) bool
	// Target is what the operator's configuration calls the device.
	Target files.ConfiguredTarget
	// Clock tells the time; nil: the system's.
	Clock clock.Clock
	// Log gets details; nil: nothing.
	Log *slog.Logger
}

// Check refuses values out of their range; it asks nobody.
func (p *Plan) Check() error {
	switch {
	case len(p.Owner) > 32:
		return fmt.Errorf("the owner's name %q has more than 32 bytes", p.Owner)
	case !utf8.ValidString(p.Owner):
		return fmt.Errorf("the owner's name %q is not UTF-8", p.Owner)
	case p.DeviceRetries < 0 || p.DeviceRetries > 10:
		return fmt.Errorf("the device repeats a transfer 0 to 10 times, not %d", p.DeviceRetries)
	case p.Poll < 0:
		return fmt.Errorf("the pause between two looks at the device cannot be %s", p.Poll)
	}
	for _, d := range []time.Duration{p.Limits.Backup, p.Limits.Update, p.Limits.Restore, p.Limits.Recover} {
		if d != 0 && (d < 10*time.Second || d > 24*time.Hour) {
			return fmt.Errorf("a time limit lies between 10s and 24h; %s does not", d)
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

// complete fills in defaults and refuses what cannot work.
func (p *Plan) complete() error {
	if p.Client == nil || p.Files == nil {
		return errors.New("plan: client and file server are needed")
	}
	if err := p.Check(); err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	if p.ModifyFirst && p.Modifier == nil {
		return errors.New("plan: nothing is there to modify configuration data with")
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

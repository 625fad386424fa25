package command

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/internal/cli"
	"example.com/iad/internal/textfile"
	"example.com/iad/manager"
	"example.com/iad/manager/batch"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/manager/trap"
)

// upgradeOptions are the flags of upgrade.
type upgradeOptions struct {
	*globals
	image            string
	files            fileServerOptions
	notifications    string
	progressStep     uint32
	progressInterval time.Duration
	check            bool
	skipBackup       bool
	force            bool
	downgrade        bool
	retries          int
	deviceRetries    int
	yes              bool
	onFail           []string
	edit             bool
	convertWith      string
	identity         keyOptions
	verifyWith       string
	resume           bool
	limits           []string
	poll             time.Duration
	owner            string
	targets          string
	parallel         int
	stopOnFailure    bool
	otherDevice      bool
}

func newUpgrade(g *globals) *cobra.Command {
	o := &upgradeOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "upgrade TARGET... --image FILE",
		Short: "Back up, update the software, recover the configuration data",
		Long: `Upgrade devices: steps 100 to 120 back up the configuration data, 130 to 150 update
the software, 160 restores the old software if that fails, and 170 to 190 recover the
configuration data, converted if the new software needs another format.

A device that already runs this image, with configuration data in force and no unfinished
upgrade, is left unchanged, with exit status 0.

Without --server, this command serves the files itself on a free port.

After a failure it asks what to do. Without a terminal, with --yes or with several targets
it follows the device's advice, retries up to --retries times, and then restores the old
software rather than leave the device out of service. Software that is itself at fault
(its self-test or --verify-with fails) is rolled back and not retried unless --retries is
given. --on-fail sets the policies; they are tried in order, and the first one that fits
the failure applies:
  advice      retry if the device advises it, up to --retries times
  ask         ask, at a terminal
  other=FILE  restore the old software (160), then install FILE (130), once
  edit        edit the configuration data, then retry step 170
  restore     restore the old software, and end
  service     like restore if the recovery failed and leaves the device out of
              service, but not if only the file server failed (default without
              a terminal: advice,service)
  keep        keep configuration data that are newer than the backup, and end
              with status 0
  give-up     end; the device keeps what it runs

The device converts configuration data whose format differs from that of the new software.
Use --edit to edit them yourself, or --convert-with for a program, which is called
as CMD FROM TO INDIR OUTDIR like the converters in software images.

--verify-with runs your own check at step 150, with IADMS_DEVICE, IADMS_TARGET and
IADMS_SOFTWARE_VERSION in its environment. If it fails, the old software is restored.`,
		Example: `  iadms upgrade 192.0.2.10 --image fw-2.0.0.iad
  iadms upgrade 192.0.2.10 --image fw-2.0.0.iad --protocol ftp \
    --advertise 198.51.100.1
  iadms upgrade 192.0.2.10 --image fw-2.0.0.iad --check
  iadms upgrade --resume 192.0.2.10
  iadms upgrade attic cellar --image fw-2.0.0.iad --on-fail advice,restore
  iadms upgrade --targets branch-offices.txt --parallel 20 --image fw-2.0.0.iad`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	o.register(cmd.Flags())
	return cmd
}

// register defines the flags.
func (o *upgradeOptions) register(f *pflag.FlagSet) {
	f.StringVar(&o.image, "image", "", "image `file`, or the manifest of an image in split form")
	o.files.register(f)
	f.StringVar(&o.notifications, "notifications", "", "receive notifications on `HOST:PORT`; none: poll only (default: that of the configuration, or :162 if permitted)")
	f.Uint32Var(&o.progressStep, "progress-step", 10, "have the device report every so many `percent`, during the upgrade")
	f.DurationVar(&o.progressInterval, "progress-interval", 2*time.Second, "minimum time between two progress notifications")
	f.BoolVar(&o.check, "check", false, "check only: have the device check what it can, and change nothing")
	f.BoolVar(&o.skipBackup, "skip-backup", false, "make no backup and recover nothing: configuration data may be lost")
	f.BoolVar(&o.force, "force", false, "install even if this version is already present or calls are in progress")
	f.BoolVar(&o.downgrade, "allow-downgrade", false, "accept an older version")
	f.IntVar(&o.retries, "retries", 2, "maximum number of retries of a failed step before asking")
	f.IntVar(&o.deviceRetries, "device-retries", 2, "maximum number of retries that the device itself makes of a failed transfer")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask: follow the device's advice")
	f.StringSliceVar(&o.onFail, "on-fail", nil, "`policies` after a failure, see above")
	f.BoolVar(&o.edit, "edit", false, "edit configuration data in another format with VISUAL or EDITOR")
	f.StringVar(&o.convertWith, "convert-with", "", "convert configuration data in another format with `command`")
	o.identity.register(f)
	f.StringVar(&o.verifyWith, "verify-with", "", "check the new software with `command`")
	f.BoolVar(&o.resume, "resume", false, "resume interrupted devices and start the rest; --image is then optional")
	f.StringSliceVar(&o.limits, "time-limit", nil, "time limit of a step, `STEP=DURATION`; steps are backup, update, restore and recover")
	f.DurationVar(&o.poll, "poll", 0, "maximum polling interval (default: 2s)")
	f.StringVar(&o.owner, "owner", defaultOwner(), "`name` shown in the device's history, up to 32 bytes")
	f.StringVar(&o.targets, "targets", "", "`file` with a target on each line; - is standard input")
	f.IntVar(&o.parallel, "parallel", 10, "maximum number of devices to upgrade at the same time")
	f.BoolVar(&o.otherDevice, "other-device", false, "permit a device whose identity differs from the recorded one")
	f.BoolVar(&o.stopOnFailure, "stop-on-failure", false, "do not start further devices after a failure")
	cli.Group(f, "Failure handling", "retries", "device-retries", "yes", "on-fail", "resume", "time-limit")
	cli.Group(f, "Configuration data", "skip-backup", "edit", "convert-with", "identity")
	cli.Group(f, "Software", "image", "check", "force", "allow-downgrade", "verify-with")
	cli.Group(f, "Notifications and progress", "notifications", "progress-step", "progress-interval", "poll")
	cli.Group(f, "Multiple devices", "targets", "parallel", "stop-on-failure")
	cli.Group(f, "Identity", "other-device", "owner")
}

func defaultOwner() string {
	name := cmp.Or(os.Getenv("USER"), os.Getenv("LOGNAME"), "iadms")
	for name = strings.ToValidUTF8(name, ""); len(name) > 32; {
		_, last := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-last]
	}
	return cmp.Or(name, "iadms")
}

// upgradeRun is what all devices of a call share.
type upgradeRun struct {
	*upgradeOptions
	log      *slog.Logger
	settings *settings
	image    *files.Image // nil: that of the journal
	limits   manager.Limits
	policies []manager.Policy
	pace     *device.Pace
	flags    *pflag.FlagSet
	flagsMu  *sync.Mutex
	servers  *fileServers
	listener *trap.Listener
	asks     bool // a human can be asked
	// inherited has, for each option from the journal, the directory in which it was given.
	inherited map[string]string
	claims    *claims
	arguments []string // targets on the command line
}

func (o *upgradeOptions) run(cmd *cobra.Command, args []string) error {
	targets, err := o.allTargets(args)
	if err != nil {
		return cli.Usage(err)
	}
	r := &upgradeRun{upgradeOptions: o, flags: cmd.Flags(), flagsMu: new(sync.Mutex), claims: new(claims), arguments: args}
	r.asks = len(targets) == 1 && !o.yes && !o.json && term.IsTerminal(int(os.Stdin.Fd()))
	if r.log, err = o.logger(); err != nil {
		return err
	}
	if r.settings, err = o.loadSettings(); err != nil {
		return err
	}
	if err := r.parse(); err != nil {
		return err
	}
	r.servers = &fileServers{store: o.store, log: r.log}
	defer r.servers.close()
	if !o.resume {
		if _, err := r.servers.open(&o.files); err != nil {
			return err
		}
	}
	t, err := o.target(r.settings, targets[0])
	if err != nil {
		return err
	}
	if r.listener, err = listen(cmp.Or(o.notifications, r.settings.Notifications), r.settings, t.Root, o.store, r.log); err != nil {
		return err
	}
	if r.listener != nil {
		defer r.listener.Close()
	}
	if len(targets) == 1 {
		return r.one(cmd.Context(), targets[0], report.New(cmd.OutOrStdout(), o.json, &o.logs))
	}
	reporter := report.NewFleet(cmd.OutOrStdout(), o.json, &o.logs, o.check, r.retryLine)
	fleet := batch.Runner{Parallel: o.parallel, StopOnFailure: o.stopOnFailure}
	outcomes := fleet.Run(cmd.Context(), targets, func(ctx context.Context, target string) error {
		dev := reporter.Device(target)
		err := r.one(ctx, target, dev)
		reporter.Ended(target, dev, err)
		return err
	})
	return reporter.Finish(targets, outcomes)
}

// parse validates the flags and converts them.
func (r *upgradeRun) parse() (err error) {
	o := r.upgradeOptions
	if r.limits, err = parseLimits(o.limits); err != nil {
		return cli.Usage(err)
	}
	for _, text := range o.onFail {
		p, err := manager.ParsePolicy(text, openImageFile)
		if err != nil {
			return cli.Usage(fmt.Errorf("--on-fail: %w", err))
		}
		if p.Kind == manager.PolicyAsk && !r.asks {
			return cli.Usage(errors.New("--on-fail ask: needs a terminal, a single target and neither --yes nor --json"))
		}
		r.policies = append(r.policies, p)
	}
	switch {
	case len(r.policies) > 0:
	case r.asks:
		r.policies = []manager.Policy{{Kind: manager.PolicyAdvice}, {Kind: manager.PolicyAsk}}
	default:
		r.policies = []manager.Policy{{Kind: manager.PolicyAdvice}, {Kind: manager.PolicyService}}
	}
	switch {
	case o.image != "":
		if r.image, err = openImageFile(o.image); err != nil {
			return cli.Usage(err)
		}
	case !o.resume:
		return cli.Usage(errors.New("upgrade requires --image"))
	}
	switch {
	case o.edit && o.convertWith != "":
		return cli.Usage(errors.New("--edit and --convert-with cannot be combined"))
	case o.check && o.resume:
		return cli.Usage(errors.New("--check and --resume cannot be combined: a check changes nothing that could be resumed"))
	case o.retries < 0:
		return cli.Usage(fmt.Errorf("--retries %d: the number of retries must be 0 or more", o.retries))
	case o.parallel < 1:
		return cli.Usage(fmt.Errorf("--parallel %d: the number of devices must be 1 or more", o.parallel))
	}
	if r.flags.Changed("progress-step") || r.flags.Changed("progress-interval") {
		r.pace = &device.Pace{Step: o.progressStep, MinInterval: o.progressInterval}
	}
	plan := manager.Plan{Owner: o.owner, DeviceRetries: o.deviceRetries, Poll: o.poll, Limits: r.limits, Pace: r.pace}
	if err := plan.Check(); err != nil {
		return cli.Usage(err)
	}
	return nil
}

// one upgrades one device.
func (r *upgradeRun) one(ctx context.Context, target string, reporter report.Reporter) error {
	client, err := r.dialWith(r.settings, target)
	if err != nil {
		return err
	}
	defer client.Close()
	retryLine := r.retryLine
	insists := r.flags.Changed("retries") // in this call, not only in the interrupted one
	retryFaulty := insists || r.flags.Changed("verify-with")
	dev, err := r.find(ctx, client, reporter)
	if err != nil {
		return err
	}
	if err := r.claims.claim(target, client.Identity()); err != nil {
		return err
	}
	journal, unlock, err := openJournal(r.store, dev.ID)
	if err != nil {
		return err
	}
	defer unlock()
	image, resume, err := r.choose(ctx, client, journal, reporter)
	if err != nil {
		return err
	}
	if resume {
		if r, err = r.asBefore(journal, reporter); err != nil {
			return err
		}
	}
	list, err := r.servers.open(&r.upgradeOptions.files)
	if err != nil {
		return err
	}
	poll := r.poll
	if _, moving := reporter.(*report.Bars); moving && poll == 0 {
		poll = 500 * time.Millisecond // notifications come seldom enough to stutter
	}
	reporter.Start(target, dev, image)
	keys, err := r.identity.keys()
	if err != nil {
		return err
	}
	plan := manager.Plan{
		Keys: keys, Client: client, Files: list, Protocol: r.upgradeOptions.files.chosen(), Image: image, Owner: r.owner,
		SkipBackup: r.skipBackup, Force: r.force, AllowDowngrade: r.downgrade, CheckOnly: r.check,
		Limits: r.limits, Poll: poll, DeviceRetries: r.deviceRetries, Journal: journal, Resume: resume, RetryFaulty: retryFaulty, Log: r.log, Pace: r.pace,
		Verify: r.verify(target), Modifier: r.modifier(reporter), ModifyFirst: r.edit || r.convertWith != "",
		Options: r.kept(), OtherDevice: r.otherDevice, Target: r.settings.configured(target),
	}
	if r.listener != nil {
		plan.Listener = r.listener
	}
	operator := &manager.Policies{List: r.policies, Automatic: manager.Automatic{Retries: r.retries, RetrySoftware: insists}}
	if r.asks {
		human := &terminalOperator{in: os.Stdin, out: reporter}
		operator.Human, plan.Accept = human, human.accept
	}
	result, err := manager.Upgrade(ctx, plan, operator, reporter.Update)
	done := fmt.Sprintf("OK: %s upgraded %s -> %s in %.1f s", result.Device, manager.SoftwareText(result.OldVersion), result.NewVersion, result.Elapsed.Seconds())
	switch {
	case result.Unchanged:
		done = fmt.Sprintf("OK: %s is unchanged: it runs %s already, from this image", result.Device, result.NewVersion)
	case r.check:
		done = fmt.Sprintf("OK: %s would accept %s", result.Device, image.FileName())
	}
	v := report.Verdict{Result: result, Err: err, Done: done, Target: target, Hint: r.hint, Server: r.upgradeOptions.files.server}
	if !r.check && (r.otherDevice || !errors.Is(err, device.ErrIdentity)) { // the error says what permits it
		v.Resume = func() string { return retryLine([]string{target}) }
	}
	reporter.Finish(v)
	return err
}

// patience is how long a resumed upgrade waits for a device that may be restarting.
const patience = 2 * time.Minute

// find reads the device's identity. When an upgrade is resumed, the device may be
// restarting.
func (r *upgradeRun) find(ctx context.Context, client *device.Client, reporter report.Reporter) (*device.Device, error) {
	dev, err := client.Device(ctx)
	if !r.resume {
		return dev, err
	}
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for reported := false; errors.Is(err, device.ErrNoAnswer) && limit.Err() == nil; dev, err = client.Device(limit) {
		if !reported {
			reporter.Line(fmt.Sprintf("    %s does not answer; waiting %s for it", client.Address(), patience))
			reported = true
		}
		time.Sleep(time.Second / 4)
	}
	if err != nil && limit.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%s: %w in %s", client.Address(), device.ErrNoAnswer, patience)
	}
	return dev, err
}

// choose returns the image, from the command line or the journal, and whether to resume.
// With --resume and an image, a device without an upgrade to resume starts one. Without
// --resume, an upgrade is resumed if it cannot start again because its software is
// already running.
func (r *upgradeRun) choose(ctx context.Context, client *device.Client, journal *manager.FileJournal, reporter report.Reporter) (image *files.Image, resume bool, err error) {
	record, err := journal.Load()
	none := errors.Is(err, manager.ErrNoRecord)
	begun := err == nil && (record.Stage == manager.StageUpdate || record.Stage == manager.StageRecover)
	if begun && !r.resume && !r.check && !r.force && bytes.Equal(record.ImageDigest, r.image.Digest) {
		runs, err := manager.Runs(ctx, client, r.image)
		if err != nil {
			return nil, false, err
		}
		if runs {
			reporter.Line(fmt.Sprintf("    the device runs this software already, and its upgrade, started %s, was not finished (stage %q) and is resumed",
				record.Started.Local().Format(time.DateTime), record.Stage))
			return r.image, true, nil
		}
	}
	switch {
	case err != nil && !none && r.resume, none && r.resume && r.image == nil:
		return nil, false, err
	case err == nil && !r.resume && !r.check && !record.Ended && record.Stage != manager.StageDone:
		reporter.Line(fmt.Sprintf("    an upgrade to %s, started %s, was interrupted in stage %q; --resume would continue it, this command starts a new one",
			filepath.Base(record.Image), record.Started.Local().Format(time.DateTime), record.Stage))
	}
	if r.image == nil {
		image, err = openImageFile(record.Image)
		return image, true, err
	}
	other := err == nil && record.Stage == manager.StageDone && !bytes.Equal(record.ImageDigest, r.image.Digest)
	return r.image, r.resume && !none && !other, nil
}

// allTargets returns the targets on the command line and in --targets.
func (o *upgradeOptions) allTargets(args []string) ([]string, error) {
	targets := args
	if o.targets != "" {
		more, err := readTargets(o.targets)
		if err != nil {
			return nil, err
		}
		targets = append(targets, more...)
	}
	seen := make(map[string]bool)
	for _, t := range targets {
		if seen[t] {
			return nil, fmt.Errorf("target %s is named twice", t)
		}
		seen[t] = true
	}
	if len(targets) == 0 {
		return nil, errors.New("name a target: HOST, HOST:PORT or a device of the configuration, or --targets FILE")
	}
	return targets, nil
}

// readTargets reads a file with a target on each line and comments after #.
func readTargets(name string) ([]string, error) {
	data, err := []byte(nil), error(nil)
	if name == "-" {
		name = "standard input"
		data, err = textfile.ReadFrom(os.Stdin, name)
	} else {
		data, err = textfile.Read(name)
	}
	if err != nil {
		return nil, err
	}
	var targets []string
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		targets = append(targets, strings.Fields(line)...)
	}
	return targets, nil
}

func parseLimits(texts []string) (manager.Limits, error) {
	var l manager.Limits
	for _, text := range texts {
		name, value, _ := strings.Cut(text, "=")
		d, err := time.ParseDuration(value)
		if err != nil {
			return l, fmt.Errorf("--time-limit %q: use STEP=DURATION, such as update=20m", text)
		}
		switch name {
		case "backup":
			l.Backup = d
		case "update":
			l.Update = d
		case "restore":
			l.Restore = d
		case "recover":
			l.Recover = d
		default:
			return l, fmt.Errorf("--time-limit %q: the steps are backup, update, restore and recover", text)
		}
	}
	return l, nil
}

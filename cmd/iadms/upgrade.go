package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/afero"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/iad/manager"
)

// upgradeOptions are the flags of upgrade.
type upgradeOptions struct {
	*globals
	image         string
	files         fileServerOptions
	notifications string
	check         bool
	skipBackup    bool
	force         bool
	downgrade     bool
	retries       int
	deviceRetries int
	yes           bool
	resume        bool
	limits        []string
	poll          time.Duration
	owner         string
}

func newUpgrade(g *globals) *cobra.Command {
	o := &upgradeOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "upgrade TARGET --image FILE",
		Short: "Back up, update the software, give the configuration data back",
		Long: `Takes a device through the whole procedure: 100-120 backup of its configuration
data, 130-150 update of the software, 160 back to the old software if that fails, 170-190
recovery of the configuration data, converted if the new software needs that.

Without --server this command serves the files itself, by TFTP or FTP, on a free port.
After a failure it asks how to go on; with --yes, or without a terminal, it follows the
advice of the device and retries up to --retries times.`,
		Example: `  iadms upgrade 192.0.2.10 --image fw-2.0.0.iad
  iadms upgrade 192.0.2.10 --image fw-2.0.0.iad --protocol ftp --advertise 198.51.100.1
  iadms upgrade 192.0.2.10 --image fw-2.0.0.iad --check`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.image, "image", "", "image `file`, or the manifest of an image in split form")
	o.files.register(f)
	f.StringVar(&o.notifications, "notifications", os.Getenv("IADMS_TRAP_LISTEN"), "receive notifications on `HOST:PORT`; none: poll only (default trap_listen of the configuration, else :162 if permitted)")
	f.BoolVar(&o.check, "check", false, "have the device check what it can, and change nothing")
	f.BoolVar(&o.skipBackup, "skip-backup", false, "do not back up, and so do not recover: configuration data may be lost")
	f.BoolVar(&o.force, "force", false, "also if the version is there already or calls are in progress")
	f.BoolVar(&o.downgrade, "allow-downgrade", false, "accept an older version")
	f.IntVar(&o.retries, "retries", 2, "how often a failed step is repeated without asking")
	f.IntVar(&o.deviceRetries, "device-retries", 2, "how often the device itself repeats a failed transfer")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask: follow the device's advice")
	f.BoolVar(&o.resume, "resume", false, "go on where an interrupted upgrade stopped")
	f.StringSliceVar(&o.limits, "time-limit", nil, "scheduled time, `STEP=DURATION` with backup, update, restore or recover")
	f.DurationVar(&o.poll, "poll", 0, "pause between looks at the device while no notification comes (default 2s)")
	f.StringVar(&o.owner, "owner", defaultOwner(), "`name` that the device's history shows, up to 32 octets")
	if err := cmd.MarkFlagRequired("image"); err != nil {
		panic(err) // a name that is not defined above
	}
	return cmd
}

func defaultOwner() string {
	name := firstOf(os.Getenv("USER"), os.Getenv("LOGNAME"), "iadms")
	return name[:min(len(name), 32)]
}

func (o *upgradeOptions) run(cmd *cobra.Command, name string) (err error) {
	log, err := o.logger()
	if err != nil {
		return err
	}
	limits, err := parseLimits(o.limits)
	if err != nil {
		return usageError{err}
	}
	image, err := manager.OpenImage(afero.NewOsFs(), o.image)
	if err != nil {
		return usageError{err}
	}
	client, settings, err := o.dial(name)
	if err != nil {
		return err
	}
	defer client.Close()
	device, err := client.Device(cmd.Context())
	if err != nil {
		return err
	}
	files, stop, err := o.files.open(o.store, log)
	if err != nil {
		return err
	}
	defer stop()
	listener, err := listen(firstOf(o.notifications, settings.TrapListen), settings, client, log)
	if err != nil {
		return err
	}
	if listener != nil {
		defer listener.Close()
	}
	journal, err := openJournal(o.store, device.ID)
	if err != nil {
		return err
	}
	report := newReporter(cmd.OutOrStdout(), o.json)
	if _, moving := report.(*barReporter); moving && o.poll == 0 {
		o.poll = 500 * time.Millisecond // notifications come seldom enough to stutter
	}
	report.start(name, device, image)
	plan := manager.Plan{
		Client: client, Listener: listener, Files: files, Protocol: o.files.chosen(), Image: image, Owner: o.owner,
		SkipBackup: o.skipBackup, Force: o.force, AllowDowngrade: o.downgrade, CheckOnly: o.check,
		Limits: limits, Poll: o.poll, DeviceRetries: o.deviceRetries, Journal: journal, Resume: o.resume, Log: log,
	}
	result, err := manager.Upgrade(cmd.Context(), plan, o.operator(report), report.update)
	done := fmt.Sprintf("OK: %s upgraded %s -> %s in %.1f s", result.Device, result.OldVersion, result.NewVersion, result.Elapsed.Seconds())
	if o.check {
		done = fmt.Sprintf("OK: %s would accept %s", result.Device, image.FileName())
	}
	report.finish(result, err, done)
	return err
}

// operator is the human at the terminal, or the device's advice.
func (o *upgradeOptions) operator(r reporter) manager.Operator {
	automatic := manager.Automatic{Retries: o.retries}
	if o.yes || o.json || !term.IsTerminal(int(os.Stdin.Fd())) {
		return automatic
	}
	return &terminalOperator{in: os.Stdin, out: r, automatic: automatic}
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

// listen opens the notification listener. Without an explicit address a port
// that is not permitted or in use means polling alone.
func listen(address string, s *settings, c *manager.Client, log *slog.Logger) (*manager.Listener, error) {
	if address == "none" {
		return nil, nil
	}
	cfg := listenerConfig(firstOf(address, ":162"), s, c.Root(), log)
	l, err := manager.Listen(cfg)
	if err != nil && address == "" {
		log.Info("no notifications: the device is polled instead", "cause", err)
		return nil, nil
	}
	return l, err
}

func openJournal(store, device string) (*manager.Journal, error) {
	dir := filepath.Join(store, "journal")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return manager.NewJournal(afero.NewBasePathFs(afero.NewOsFs(), dir), device), nil
}

// fileServerOptions choose the file server.
type fileServerOptions struct {
	server    string
	listen    string
	advertise string
	protocol  string
	bandwidth string
}

func (o *fileServerOptions) register(f interface {
	StringVar(p *string, name, value, usage string)
}) {
	f.StringVar(&o.server, "server", "", "use this file server instead of serving: `URL` such as tftp://192.0.2.1/iad or ftp://user@192.0.2.1/iad (password in IADMS_SERVER_PASSWORD)")
	f.StringVar(&o.listen, "listen", "", "serve files on `HOST[:PORT]` (default any address, a free port)")
	f.StringVar(&o.advertise, "advertise", "", "`host` that the device is told to use (default this machine's address towards it)")
	f.StringVar(&o.protocol, "protocol", "tftp", "tftp or ftp")
	f.StringVar(&o.bandwidth, "bandwidth", "", "limit of all transfers together, in octets a second, with k or M (`RATE`)")
}

// chosen is the protocol; with --server it is that of the URL.
func (o *fileServerOptions) chosen() manager.Protocol {
	if scheme, _, ok := strings.Cut(o.server, "://"); ok {
		o.protocol = scheme
	}
	p, err := manager.ParseProtocol(o.protocol)
	if err != nil {
		return 0 // open has refused it
	}
	return p
}

// open starts or describes the file server; stop ends it.
func (o *fileServerOptions) open(store string, log *slog.Logger) (fs manager.FileServer, stop func(), err error) {
	if o.server != "" {
		external, err := externalServer(o.server)
		return external, func() {}, err
	}
	p, err := manager.ParseProtocol(o.protocol)
	if err != nil || p == manager.FTPS {
		return nil, nil, usageError{fmt.Errorf("--protocol %q: this server speaks tftp and ftp", o.protocol)}
	}
	rate, err := parseRate(o.bandwidth)
	if err != nil {
		return nil, nil, usageError{err}
	}
	address := o.listen
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), "0")
	}
	if err := os.MkdirAll(store, 0o700); err != nil {
		return nil, nil, err
	}
	cfg := manager.ServersConfig{
		Files: afero.NewBasePathFs(afero.NewOsFs(), store), Advertise: o.advertise, Bandwidth: rate, Log: log,
	}
	if p == manager.TFTP {
		cfg.TFTP = address
	} else {
		cfg.FTP = address
	}
	servers, err := manager.StartServers(cfg)
	if err != nil {
		return nil, nil, err
	}
	return servers, func() {
		if err := servers.Close(); err != nil {
			log.Warn("file server", "cause", err)
		}
	}, nil
}

func externalServer(text string) (*manager.ExternalServer, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, usageError{fmt.Errorf("--server: %w", err)}
	}
	p, err := manager.ParseProtocol(u.Scheme)
	if err != nil || u.Hostname() == "" {
		return nil, usageError{fmt.Errorf("--server %q: use PROTOCOL://[USER@]HOST[:PORT][/FOLDER]", u.Redacted())}
	}
	if _, inURL := u.User.Password(); inURL {
		return nil, usageError{fmt.Errorf("--server: the command line is no place for a password: set IADMS_SERVER_PASSWORD")}
	}
	port, err := strconv.ParseUint(firstOf(u.Port(), "0"), 10, 16)
	if err != nil {
		return nil, usageError{fmt.Errorf("--server %q: %w", u.Redacted(), err)}
	}
	return &manager.ExternalServer{
		Server: manager.FileServerAddress{
			Protocol: p, Host: u.Hostname(), Port: uint16(port), User: u.User.Username(),
			Password: os.Getenv("IADMS_SERVER_PASSWORD"), Timeout: 30 * time.Second,
		},
		Folder: strings.TrimPrefix(u.Path, "/"),
	}, nil
}

// parseRate reads octets a second, with k for 1000 or M for 1000000.
func parseRate(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	factor := 1
	number := text
	if n, ok := strings.CutSuffix(text, "k"); ok {
		number, factor = n, 1000
	} else if n, ok := strings.CutSuffix(text, "M"); ok {
		number, factor = n, 1_000_000
	}
	n, err := strconv.Atoi(number)
	if err != nil || n <= 0 || n > 1<<30/factor {
		return 0, fmt.Errorf("--bandwidth %q: use octets a second, such as 800k or 2M", text)
	}
	return n * factor, nil
}

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/afero"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"example.com/iad/bank/image"
	"example.com/iad/fleet"
	"example.com/iad/fleet/archive"
	"example.com/iad/fleet/audit"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/notify"
	"example.com/iad/fleet/retention"
	"example.com/iad/fleet/scheduler"
	"example.com/iad/fleet/seal"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/traps"
	"example.com/iad/fleet/worker"
	"example.com/iad/internal/cli"
	"example.com/iad/internal/textfile"
	"example.com/iad/manager/files"
	"example.com/iad/manager/trap"
)

// The roles of a process.
const (
	roleAPI       = "api"
	roleScheduler = "scheduler"
	roleWorker    = "worker"
	roleTraps     = "traps"
)

var allRoles = []string{roleAPI, roleScheduler, roleWorker, roleTraps}

// options are the flags of run.
type options struct {
	logs       cli.LogFlags
	data       string
	name       string
	roles      []string
	listen     string
	cluster    string
	join       []string
	nats       []string
	replicas   int
	secretFile string
	keyFile    string
	replaceKey bool
	health     string

	pool          string
	slots         int
	programs      []string
	tftp          string
	ftp           string
	advertise     string
	onePort       bool
	notifications string
	poll          time.Duration

	webOptions
	trusted     *image.Trust // by --trust, nil without it
	notify      string
	keepBackups int
	keepFor     time.Duration
	refresh     time.Duration
}

func runCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the service, or a part of it",
		Long: `Run the service until it is interrupted.

With --data alone, one process does everything. Three processes on three machines
form a cluster: each has --cluster with its own address and --join with all three
addresses, and stores everything, so that one of the three may fail. A cluster of
two is refused: it would stop when either of them stops.

Workers near the devices need no --cluster: --roles worker --nats URL connects
them to the nodes, which listen there with --listen.

Nodes and workers recognize each other by the secret in --secret-file, and
encrypt their connections with certificates that they derive from it. The
credentials of devices are stored encrypted with the key in --key, which is not
stored in --data: keep a copy of it elsewhere. The only node creates it at its
first start; iadmsd keygen creates one for all nodes and workers. A process with
another key is refused.`,
		Example: `  iadmsd run --data /var/lib/iadmsd
  iadmsd run --data /var/lib/iadmsd --name a --secret-file secret \
    --listen 192.0.2.1:4222 --cluster 192.0.2.1:6222 \
    --join 192.0.2.1:6222,192.0.2.2:6222,192.0.2.3:6222
  iadmsd run --data /var/lib/iadmsd --roles worker --pool north \
    --secret-file secret --nats nats://192.0.2.1:4222,nats://192.0.2.2:4222`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := o.logs.Logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return o.run(cmd.Context(), log)
		},
	}
	o.register(cmd.Flags())
	return cmd
}

func (o *options) register(f *pflag.FlagSet) {
	f.StringVar(&o.data, "data", "", "keep everything in `directory`")
	f.StringVar(&o.name, "name", "", "name of this process, different from all others (default: that of the machine)")
	f.StringSliceVar(&o.roles, "roles", allRoles, "what this process does: api, scheduler, worker and traps")
	f.StringVar(&o.listen, "listen", "", "let workers connect to `HOST:PORT` (default: only this process)")
	f.StringVar(&o.cluster, "cluster", "", "let the other nodes connect to `HOST:PORT`, an address of this machine")
	f.StringSliceVar(&o.join, "join", nil, "addresses for --cluster of all three nodes, `HOST:PORT`,...")
	f.StringSliceVar(&o.nats, "nats", nil, "store nothing here; connect to the nodes, or to another NATS cluster, at `URL`,...")
	f.IntVar(&o.replicas, "nats-replicas", 0, "--nats is a NATS cluster of other origin: create what is missing there, with 1 or 3 replicas")
	f.StringVar(&o.secretFile, "secret-file", "", "`file` with the secret of the cluster, at least 16 characters in one line")
	f.StringVar(&o.keyFile, "key", "", "`file` with the key for stored credentials (default: iadmsd.key in the credentials directory of systemd, or in the user's configuration directory)")
	f.BoolVar(&o.replaceKey, "replace-key", false, "seal credentials with the key in --key from now on, because the key until now is lost; enter all credentials again")
	f.StringVar(&o.pool, "pool", fleet.DefaultPool, "work on the devices of pool `NAME`")
	f.IntVar(&o.slots, "slots", 100, "maximum number of devices to work on at the same time")
	f.StringArrayVar(&o.programs, "program", nil, "let campaigns use a command by its name, `NAME=COMMAND`; may be given several times")
	f.StringVar(&o.tftp, "tftp", ":0", "serve files by TFTP on `HOST:PORT`; none: do not (default: any address, a free port)")
	f.StringVar(&o.ftp, "ftp", "", "serve files by FTP and FTPS on `HOST:PORT`")
	f.StringVar(&o.advertise, "advertise", "", "`host` that devices connect to (default: that of --tftp, or this machine's address on the route to the device)")
	f.BoolVar(&o.onePort, "single-port", false, "transfer TFTP files on the server's own port, for firewalls that let only that port through")
	f.StringVar(&o.notifications, "notifications", ":162", "receive notifications of devices on `HOST:PORT`; none: poll only")
	f.DurationVar(&o.poll, "poll", 0, "maximum polling interval (default: 2s)")
	f.StringVar(&o.health, "health", "", "answer /healthz and /readyz on `HOST:PORT` without TLS, in every role (default: only with --web)")
	o.webOptions.register(f)
	f.StringVar(&o.notify, "notify", "", "send webhooks and mail as `file` says")
	f.IntVar(&o.keepBackups, "keep-backups", 0, "keep this `number` of good backups of each device and remove older ones (default: keep all)")
	f.DurationVar(&o.keepFor, "keep-backups-for", 0, "keep backups that are not older than this `duration`, such as 2160h (default: keep all)")
	f.DurationVar(&o.refresh, "refresh", 24*time.Hour, "read each device after `duration` without contact, spread over time; 0: never")
	o.logs.Register(f, "info")
	cli.Group(f, "Cluster", "name", "roles", "listen", "cluster", "join", "nats", "nats-replicas", "secret-file")
	cli.Group(f, "Scheduler", "refresh", "notify", "keep-backups", "keep-backups-for")
	cli.Group(f, "Worker", "pool", "slots", "program", "tftp", "ftp", "advertise", "single-port", "poll")
}

// check returns an error for a command line that cannot work, and completes the rest.
func (o *options) check() error {
	for _, role := range o.roles {
		if !slices.Contains(allRoles, role) {
			return fmt.Errorf("--roles %s: the roles are %s", role, strings.Join(allRoles, ", "))
		}
	}
	switch {
	case o.data == "":
		return errors.New("name a directory with --data")
	case len(o.nats) > 0 && (o.cluster != "" || o.listen != ""):
		return errors.New("--nats stores nothing here, so it cannot be combined with --cluster or --listen")
	case len(o.nats) == 0 && !slices.Contains(o.roles, roleScheduler):
		return fmt.Errorf("a node that stores also schedules: add %s to --roles, or connect to the nodes with --nats", roleScheduler)
	case o.slots < 1:
		return fmt.Errorf("--slots %d: the number of devices must be 1 or more", o.slots)
	case o.refresh < 0 || o.refresh > 0 && o.refresh < time.Second:
		return fmt.Errorf("--refresh %s: must be 1s or more, or 0", o.refresh)
	case o.keepBackups < 0 || o.keepFor < 0:
		return errors.New("--keep-backups and --keep-backups-for must be 0 or more")
	case o.replicas != 0 && o.replicas != 1 && o.replicas != 3:
		return fmt.Errorf("--nats-replicas %d: must be 1 or 3", o.replicas)
	case o.replicas != 0 && len(o.nats) == 0:
		return errors.New("--nats-replicas is for --nats")
	}
	if err := fleet.CheckName(o.pool); err != nil {
		return fmt.Errorf("--pool: %w", err)
	}
	if err := o.webOptions.check(); err != nil {
		return err
	}
	if o.name == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("name this process with --name: %w", err)
		}
		o.name = host
	}
	if err := fleet.CheckName(o.name); err != nil {
		return fmt.Errorf("--name: %w", err)
	}
	return nil
}

// run does what the roles say until ctx ends.
func (o *options) run(ctx context.Context, log *slog.Logger) error {
	if err := o.check(); err != nil {
		return cli.Usage(err)
	}
	var notifier *notify.Config
	if o.notify != "" {
		var err error
		if notifier, err = notify.Read(o.notify); err != nil {
			return cli.Usage(err)
		}
	}
	copies := filepath.Join(o.data, "backups")
	if err := os.MkdirAll(copies, 0o700); err != nil {
		return err
	}
	key, keyFile, err := o.key(log)
	if err != nil {
		return err
	}
	if o.trusted, err = readTrust(o.trust); err != nil {
		return err
	}
	probes := new(probes)
	if o.health != "" {
		stop, err := probes.serve(o.health, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	e, err := o.engine(ctx, log)
	if err != nil {
		return err
	}
	defer e.Close()
	if o.replaceKey {
		if err := store.ReplaceKey(ctx, e, key); err != nil {
			return err
		}
	}
	s, err := store.Open(ctx, e, key)
	if errors.Is(err, seal.ErrOtherKey) {
		return fmt.Errorf("%w; copy the key file of another node or worker, or your copy of it, to %s. If the key is lost, start once with --replace-key and enter all credentials again", err, keyFile)
	}
	if err != nil {
		return err
	}
	var w *worker.Worker
	if slices.Contains(o.roles, roleWorker) {
		if w, err = o.worker(s, log); err != nil {
			return err
		}
	}
	probes.engine.Store(e)
	log.Info("iadmsd is ready", "name", o.name, "roles", strings.Join(o.roles, ","), "workers_connect_to", e.Address())
	group, ctx := errgroup.WithContext(ctx)
	task := func(name string, do func(context.Context) error) {
		group.Go(func() error {
			if err := do(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	if len(o.nats) == 0 { // copies in plain files beside what is stored
		task("audit", func(ctx context.Context) error {
			return copyAudit(ctx, e, filepath.Join(o.data, "audit"), log)
		})
		task("copies of backups", func(ctx context.Context) error {
			return archive.Copy(ctx, s, afero.NewBasePathFs(afero.NewOsFs(), copies), log)
		})
	}
	if slices.Contains(o.roles, roleScheduler) {
		task("scheduler", func(ctx context.Context) error {
			return scheduler.Run(ctx, scheduler.Config{Store: s, Name: o.name, Refresh: o.refresh, Log: log})
		})
		task("retention", func(ctx context.Context) error {
			return retention.Run(ctx, s, retention.Rule{Number: o.keepBackups, Age: o.keepFor}, log)
		})
		if notifier != nil {
			task("webhooks and mail", func(ctx context.Context) error { return notify.New(notifier, s, log).Run(ctx) })
		}
	}
	if slices.Contains(o.roles, roleAPI) {
		task("web", func(ctx context.Context) error { return o.web(ctx, s, probes, log) })
	}
	if w != nil {
		task("worker", func(ctx context.Context) error { return errors.Join(w.Run(ctx), w.Close()) })
	}
	if slices.Contains(o.roles, roleTraps) && o.notifications != "none" {
		task("notifications", func(ctx context.Context) error { return o.traps(ctx, s, log) })
	}
	return group.Wait()
}

// copyPause is the pause before the audit is copied again that could not be written.
const copyPause = 10 * time.Second

// copyAudit copies the audit until ctx ends, again after an error such as that of a full
// disk, or of files that somebody has changed: the entries are in the engine.
func copyAudit(ctx context.Context, e *engine.Engine, dir string, log *slog.Logger) error {
	for {
		err := audit.New(e.Log(engine.Audit)).Copy(ctx, dir)
		if err == nil || ctx.Err() != nil {
			return err
		}
		log.Error("the audit is not copied to plain files; this is tried again", "retry_in", copyPause.String(), "err", err)
		select {
		case <-time.After(copyPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// engine starts a node or connects to nodes.
func (o *options) engine(ctx context.Context, log *slog.Logger) (*engine.Engine, error) {
	secret := ""
	if o.secretFile != "" {
		text, err := textfile.Read(o.secretFile)
		if err != nil {
			return nil, err
		}
		secret = strings.TrimSpace(string(text))
	}
	var encryption *tls.Config
	if secret != "" && o.replicas == 0 { // a NATS cluster of other origin has its own
		var err error
		if encryption, err = engine.ClusterTLS(secret); err != nil {
			return nil, err
		}
	}
	if len(o.nats) > 0 {
		return engine.Connect(ctx, engine.Remote{URLs: o.nats, Name: o.name, Secret: secret, TLS: encryption, Provision: o.replicas, Log: log})
	}
	return engine.Start(ctx, engine.Config{
		Name: o.name, Data: o.engineDir(), Listen: o.listen, Cluster: o.cluster, Join: o.join, Secret: secret, TLS: encryption, Log: log,
	})
}

// key reads the key for stored credentials, and returns the name of its file too. It creates
// the key at the first start of the only node.
func (o *options) key(log *slog.Logger) (key *seal.Key, name string, err error) {
	name = o.keyFile
	if name == "" {
		name = "iadmsd.key"
		if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
			name = filepath.Join(dir, name)
		} else if dir, err := os.UserConfigDir(); err == nil {
			name = filepath.Join(dir, "iadmsd", name)
		} else {
			return nil, "", cli.Usage(fmt.Errorf("name the file with the key with --key: %w", err))
		}
	}
	if inside(o.data, name) {
		return nil, "", cli.Usage(fmt.Errorf("--key %s is in --data: a copy of the data would reveal the credentials; put the key elsewhere", name))
	}
	key, err = seal.ReadKey(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, name, err
	}
	if o.cluster != "" || len(o.nats) > 0 {
		return nil, "", fmt.Errorf("%w; copy the key file of another node there, or create the first one with iadmsd keygen", err)
	}
	if _, stored := os.Stat(o.engineDir()); stored == nil && !o.replaceKey {
		return nil, "", fmt.Errorf("%w; credentials in %s are sealed with it: copy your copy of it there. If it is lost, start once with --replace-key and enter all credentials again", err, o.data)
	}
	key, created, err := seal.ReadOrCreateKey(name)
	if created && err == nil {
		log.Warn("created the key for stored credentials; keep a copy of it elsewhere", "file", name)
	}
	return key, name, err
}

// engineDir is where a node stores.
func (o *options) engineDir() string { return filepath.Join(o.data, "engine") }

// inside reports whether a file is in a directory.
func inside(dir, name string) bool {
	dir, errDir := filepath.Abs(dir)
	name, errName := filepath.Abs(name)
	rel, err := filepath.Rel(dir, name)
	return errDir == nil && errName == nil && err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

func (o *options) worker(s *store.Store, log *slog.Logger) (*worker.Worker, error) {
	c := worker.Config{
		Store: s, Pool: o.pool, Slots: o.slots, Dir: filepath.Join(o.data, "worker"), Poll: o.poll, Version: version, Log: log,
		ID:       o.name + "-" + time.Now().UTC().Format("20060102T150405.000"),
		Programs: make(map[string]string),
		Servers:  files.ServersConfig{FTP: o.ftp, SinglePort: o.onePort},
	}
	for _, text := range o.programs {
		name, command, ok := strings.Cut(text, "=")
		if err := fleet.CheckName(name); err != nil || !ok || strings.TrimSpace(command) == "" {
			return nil, cli.Usage(fmt.Errorf("--program %q: use NAME=COMMAND", text))
		}
		c.Programs[name] = command
	}
	if o.tftp != "none" {
		c.Servers.TFTP = o.tftp
	}
	host, _, err := net.SplitHostPort(cmp.Or(c.Servers.TFTP, o.ftp))
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("--tftp and --ftp: use HOST:PORT: %w", err))
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		c.Servers.Advertise = host
	}
	c.Servers.Advertise = cmp.Or(o.advertise, c.Servers.Advertise)
	if o.notifications != "none" {
		if address, err := net.ResolveUDPAddr("udp", o.notifications); err == nil {
			c.Notifications = address.AddrPort()
		}
	}
	return worker.New(c)
}

// traps receives notifications. If the port of the default is not permitted or in use,
// devices are polled.
func (o *options) traps(ctx context.Context, s *store.Store, log *slog.Logger) error {
	err := traps.Run(ctx, traps.Config{Store: s, Log: log, Listener: trap.ListenerConfig{
		Listen: o.notifications, Files: afero.NewBasePathFs(afero.NewOsFs(), o.data), Log: log,
	}})
	if err != nil && ctx.Err() == nil && o.notifications == ":162" {
		log.Warn("no notifications are received, devices are polled: permit the port, or name another one with --notifications", "err", err)
		<-ctx.Done()
		return nil
	}
	return err
}

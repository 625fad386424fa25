package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/spf13/afero"
	"github.com/spf13/cobra"

	"example.com/iad/manager"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

// operationOptions are the flags of commands for one operation.
type operationOptions struct {
	*globals
	files         fileServerOptions
	notifications string
	retries       int
	limit         time.Duration
	force         bool
	from          string
	otherDevice   bool
}

// partFunc carries out one part of the procedure.
type partFunc func(context.Context, manager.Plan, manager.Operator, manager.Observer) (manager.Result, error)

// operation makes a command for one part of the procedure.
func (o *operationOptions) operation(use, short, example string, needsFiles bool, do partFunc) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example, Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0], do) },
	}
	f := cmd.Flags()
	if needsFiles {
		o.files.register(f)
	} else {
		o.files.protocol = "tftp" // a server is started, and nothing asks it
	}
	f.StringVar(&o.notifications, "notifications", "", "receive notifications on `HOST:PORT`; none: poll only")
	f.IntVar(&o.retries, "retries", 2, "how often to repeat what the device says may work again")
	f.DurationVar(&o.limit, "time-limit", 0, "scheduled `duration`, 10s to 24h (default: the device's)")
	return cmd
}

func (o *operationOptions) run(cmd *cobra.Command, name string, do partFunc) error {
	log, err := o.logger()
	if err != nil {
		return err
	}
	plan := manager.Plan{
		Protocol: o.files.chosen(), Owner: defaultOwner(), Force: o.force, DeviceRetries: o.retries, OtherDevice: o.otherDevice,
		Limits: manager.Limits{Backup: o.limit, Update: o.limit, Restore: o.limit, Recover: o.limit},
	}
	if err := plan.Check(); err != nil {
		return usageError{err}
	}
	client, settings, err := o.dial(name)
	if err != nil {
		return err
	}
	defer client.Close()
	files, stop, err := o.files.open(o.store, log)
	if err != nil {
		return err
	}
	defer stop()
	listener, err := listen(firstOf(o.notifications, os.Getenv("IADMS_TRAP_LISTEN"), settings.TrapListen), settings, client.Root(), o.store, log)
	if err != nil {
		return err
	}
	if listener != nil {
		defer listener.Close()
	}
	report := o.newReporter(cmd.OutOrStdout())
	plan.Client, plan.Listener, plan.Files, plan.Log = client, listener, files, log
	plan.Target = settings.configured(name)
	result, err := do(cmd.Context(), plan, manager.Automatic{Retries: o.retries}, report.update)
	report.finish(verdict{result: result, err: err, done: doneText(cmd.Name(), result), target: name, hint: o.hint})
	return err
}

// doneText is the last line of a success.
func doneText(command string, r manager.Result) string {
	switch command {
	case "backup":
		return fmt.Sprintf("OK: %s backed up to %s", r.Device, r.Place)
	case "recover":
		return fmt.Sprintf("OK: %s has its configuration data back from %s", r.Device, r.Folder)
	case "rollback":
		if r.Unchanged {
			return fmt.Sprintf("OK: nothing to do: %s runs the software to fall back on, %s, already", r.Device, r.NewVersion)
		}
		return fmt.Sprintf("OK: %s went back %s -> %s", r.Device, r.OldVersion, r.NewVersion)
	}
	return fmt.Sprintf("OK: %s of %s done", command, r.Device)
}

func newBackup(g *globals) *cobra.Command {
	o := &operationOptions{globals: g}
	cmd := o.operation("backup TARGET", "Back up the configuration data of a device",
		"  iadms backup 192.0.2.10\n  iadms backup 192.0.2.10 --server ftp://iad@192.0.2.1/backups", true, manager.Backup)
	o.registerOtherDevice(cmd)
	return cmd
}

func newConvert(g *globals) *cobra.Command {
	o := &operationOptions{globals: g}
	cmd := o.operation("convert TARGET", "Have a device convert its configuration data to its software's format",
		"  iadms convert 192.0.2.10", false, manager.Convert)
	o.registerOtherDevice(cmd)
	return cmd
}

func newRollback(g *globals) *cobra.Command {
	o := &operationOptions{globals: g}
	cmd := o.operation("rollback TARGET", "Go back to the software in the other bank, with its configuration data",
		"  iadms rollback 192.0.2.10", false, manager.Rollback)
	o.registerOtherDevice(cmd)
	return cmd
}

func newReset(g *globals) *cobra.Command {
	o := &operationOptions{globals: g}
	cmd := o.operation("reset TARGET", "Restart a device", "  iadms reset 192.0.2.10", false, manager.Reset)
	cmd.Flags().BoolVar(&o.force, "force", false, "also if calls are in progress")
	return cmd
}

// listenerConfig lets all users of the configuration vouch for notifications, those
// too that have the same name: "iad init" names each device's alike. SNMPv2c is accepted
// if a community is configured, or nothing is.
func listenerConfig(address string, s *settings, root mib.OID, store string, log *slog.Logger) trap.ListenerConfig {
	cfg := trap.ListenerConfig{Listen: address, Root: root, Files: afero.NewBasePathFs(afero.NewOsFs(), store), Log: log}
	add := func(a accessSettings) {
		c := a.credentials()
		if c.User != nil && !slices.Contains(cfg.Users, *c.User) {
			cfg.Users = append(cfg.Users, *c.User)
		}
		for _, community := range []string{c.Read, c.Write} {
			if c.User == nil && community != "" && !slices.Contains(cfg.Communities, community) {
				cfg.Communities = append(cfg.Communities, community)
			}
		}
	}
	add(s.accessSettings)
	for _, d := range s.Devices {
		add(d.accessSettings)
	}
	if len(cfg.Users) == 0 && len(cfg.Communities) == 0 {
		cfg.Communities = []string{"public", "private"} // as target has it
	}
	cfg.AnyCommunity = len(cfg.Communities) > 0 // snmpd may have one of its own for traps
	return cfg
}

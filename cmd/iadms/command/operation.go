package command

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/internal/cli"
	"example.com/iad/manager"
)

// operationOptions is a command that runs one part of the procedure, with its flags. A
// flag of one command only is registered in that command's file and used in run.
type operationOptions struct {
	*globals
	// perform runs the part of the procedure.
	perform func(context.Context, manager.Plan, manager.Operator, manager.Observer) (manager.Result, error)
	// transfersFiles: the device needs a file server.
	transfersFiles bool

	files         fileServerOptions
	notifications string
	retries       int
	limit         time.Duration
	force         bool
	from          string
	otherDevice   bool
	identity      keyOptions
}

// register adds the flags that all of these commands have, and runs the command.
func (o *operationOptions) register(cmd *cobra.Command) {
	cmd.Args = exactly(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0]) }
	f := cmd.Flags()
	if o.transfersFiles {
		o.files.register(f)
	} else {
		o.files.protocol = "tftp" // a server is started, and no device uses it
	}
	f.StringVar(&o.notifications, "notifications", "", "receive notifications on `HOST:PORT`; none: poll only")
	f.IntVar(&o.retries, "retries", 2, "maximum number of retries if the device advises retrying")
	f.DurationVar(&o.limit, "time-limit", 0, "time limit of the operation, a `duration` of 10s to 24h (default: the device's)")
	cli.Group(f, "Failure handling", "retries", "time-limit")
}

func (o *operationOptions) run(cmd *cobra.Command, name string) error {
	log, err := o.logger()
	if err != nil {
		return err
	}
	plan := manager.Plan{
		Protocol: o.files.chosen(), Owner: defaultOwner(), Force: o.force, DeviceRetries: o.retries, OtherDevice: o.otherDevice,
		Limits: manager.Limits{Backup: o.limit, Update: o.limit, Restore: o.limit, Recover: o.limit},
	}
	if err := plan.Check(); err != nil {
		return cli.Usage(err)
	}
	if plan.Keys, err = o.identity.keys(); err != nil {
		return err
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
	listener, err := listen(cmp.Or(o.notifications, settings.Notifications), settings, client.Root(), o.store, log)
	if err != nil {
		return err
	}
	if listener != nil {
		defer listener.Close()
	}
	reporter := report.New(cmd.OutOrStdout(), o.json, &o.logs)
	plan.Client, plan.Files, plan.Log = client, files, log
	if listener != nil {
		plan.Listener = listener
	}
	plan.Target = settings.configured(name)
	result, err := o.perform(cmd.Context(), plan, manager.Automatic{Retries: o.retries}, reporter.Update)
	reporter.Finish(report.Verdict{Result: result, Err: err, Done: doneText(cmd.Name(), result), Target: name, Hint: o.hint})
	return err
}

// doneText is the last line of a success.
func doneText(command string, r manager.Result) string {
	switch command {
	case "backup":
		return fmt.Sprintf("OK: %s backed up to %s", r.Device, r.Place)
	case "recover":
		return fmt.Sprintf("OK: %s has recovered its configuration data from %s", r.Device, r.Directory)
	case "convert":
		if r.Unchanged {
			return fmt.Sprintf("OK: nothing to do: %s has no configuration data in another format than that of its software", r.Device)
		}
	case "rollback":
		if r.Unchanged {
			return fmt.Sprintf("OK: nothing to do: %s already runs the fallback software, %s", r.Device, r.NewVersion)
		}
		return fmt.Sprintf("OK: %s rolled back %s -> %s", r.Device, r.OldVersion, r.NewVersion)
	}
	return fmt.Sprintf("OK: %s of %s done", command, r.Device)
}

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"example.com/iad/conformance"
	"example.com/iad/conformance/bench"
	"example.com/iad/internal/cli"
)

func powercutCommand() *cobra.Command {
	var o struct {
		targetFlags
		reportFlags
		power   string
		cuts    int
		seed    uint64
		offTime time.Duration
		resume  bool
	}
	cmd := &cobra.Command{
		Use:   "powercut TARGET",
		Short: "Cut the power of a device at many moments and check that it recovers",
		Long: `powercut learns how long each phase of an upgrade, of a return to the old software,
of a recovery and of a backup takes, and spreads power cuts over all phases,
restarts and the moment after the end. After each cut the device has to answer,
run complete software with legal configuration data, have ended the interrupted
operation once, have kept what it had reported, and carry out the same command.

The same seed gives the same plan. With --json, the results are written after
each cut; after ^C, --resume continues with them.

Power switches:
` + indent(bench.PowerForms),
		Example: `  iadlab powercut 192.0.2.7 --credentials lab.toml --key maker.key \
    --power 'exec:./relay 3' --console /dev/ttyUSB0 --cuts 200 --json cuts.json
  iadlab powercut 127.0.0.1:16100 --key iadsim.key \
    --power iadsim:./control/SIM-00001
  iadlab powercut board-7 --credentials lab.toml --image fw-2.0.0.iad \
    --power pdudaemon:pdu/board-7 --json cuts.json --resume`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := o.config(args[0])
			if err != nil {
				return err
			}
			if o.cuts < 1 {
				return cli.Usage(errors.New("--cuts must be 1 or more"))
			}
			if o.resume && o.pcap != "" {
				return cli.Usage(errors.New("--pcap would overwrite the packets of the run that --resume continues: leave it out"))
			}
			if cfg.Key == nil && cfg.Image == nil {
				return cli.Usage(errors.New("powercut upgrades the device: give --image or --key"))
			}
			power, err := bench.OpenPower(o.power, bench.Secrets{Community: os.Getenv("IADLAB_PDU_COMMUNITY"), Token: os.Getenv("IADLAB_IADSIM_TOKEN")})
			if err != nil {
				return cli.Usage(err)
			}
			closeConsole, err := o.openConsole(cmd.Context(), &cfg)
			if err != nil {
				return err
			}
			defer closeConsole()
			p := conformance.PowerCuts{Power: power, Cuts: o.cuts, Seed: o.seed, OffTime: o.offTime}
			if o.resume {
				if o.json == "" || o.json == "-" {
					return cli.Usage(errors.New("--resume needs the file of --json"))
				}
				run, err := conformance.ReadFile(o.json)
				if err != nil {
					return cli.Usage(err)
				}
				p.Done = slices.DeleteFunc(run.Tests, func(t *conformance.TestResult) bool { return t.Name == "learn" })
			}
			if o.json != "" && o.json != "-" {
				p.Saved = func(run *conformance.Run) error { return (&reportFlags{json: o.json}).save(cmd, run) }
			}
			stop, err := o.openCapture(&cfg)
			if err != nil {
				return err
			}
			out := o.output(cmd)
			lines := printer{w: out, colour: colour(out), total: o.cuts + 1 - len(p.Done)}
			cfg.Progress = lines.progress
			run, err := p.Execute(cmd.Context(), cfg)
			if err := errors.Join(err, stop()); err != nil {
				return err
			}
			run.PacketFile = o.pcap
			if err := o.reportFlags.save(cmd, run); err != nil {
				return err
			}
			lines.summary(run)
			phases := run.Phases()
			fmt.Fprintln(out, "power cuts by phase:")
			for _, phase := range slices.Sorted(maps.Keys(phases)) {
				fmt.Fprintf(out, "  %4d  %s\n", phases[phase], phase)
			}
			switch {
			case run.Failed() > 0:
				return verdictError(fmt.Sprintf("%s failed %d of %d power cuts", run.Device.ID, run.Failed(), len(run.Tests)))
			case run.Problem != "":
				return errors.New(run.Problem)
			}
			return nil
		},
	}
	o.targetFlags.register(cmd)
	o.reportFlags.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.power, "power", "", "power switch of the device, see above")
	f.IntVar(&o.cuts, "cuts", 200, "how many power cuts")
	f.Uint64Var(&o.seed, "seed", 1, "decides when they happen")
	f.DurationVar(&o.offTime, "off-time", time.Second, "how long the power stays off")
	f.BoolVar(&o.resume, "resume", false, "continue with the results in the file of --json")
	_ = cmd.MarkFlagRequired("power")
	cli.Group(f, "Reports", "report", "junit", "json")
	cli.Group(f, "Device", "credentials", "read-community", "write-community", "root-oid", "timeout", "listen", "advertise", "image", "key", "console", "pcap")
	return cmd
}

// indent indents lines by two columns.
func indent(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") }

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"example.com/iad/internal/cli"
	"example.com/iad/sim"
	"example.com/iad/sim/control"
)

// remote are the flags of commands that talk to a running simulator.
type remote struct {
	address, tokenFile string
	asJSON             bool
}

func (r *remote) register(cmd *cobra.Command) *cobra.Command {
	f := cmd.Flags()
	f.StringVar(&r.address, "control", "", "where iadsim run serves its control interface: HOST:PORT, or the path of a socket")
	f.StringVar(&r.tokenFile, "token-file", defaultTokenFile, "file with the token, for HOST:PORT")
	f.BoolVar(&r.asJSON, "json", false, "print JSON")
	if err := cmd.MarkFlagRequired("control"); err != nil {
		panic(err)
	}
	return cmd
}

func (r *remote) client() (*control.Client, error) {
	if control.IsSocket(r.address) {
		return control.NewClient(r.address, ""), nil
	}
	if err := checkHostPort(r.address); err != nil {
		return nil, err
	}
	token, err := readToken(r.tokenFile)
	if errors.Is(err, os.ErrNotExist) {
		err = cli.Usage(fmt.Errorf("--token-file %s does not exist; name the file that iadsim run wrote", r.tokenFile))
	}
	return control.NewClient(r.address, token), err
}

// print prints a device.
func (r *remote) print(cmd *cobra.Command, d control.Device) error {
	out := cmd.OutOrStdout()
	if r.asJSON {
		return json.NewEncoder(out).Encode(d)
	}
	state, software, faults := d.State, "-", "-"
	switch d.Starts {
	case 0:
	case 1:
		state += ", 1 start"
	default:
		state += fmt.Sprintf(", %d starts", d.Starts)
	}
	if d.Software != "" {
		software = d.Software
	}
	if d.Bank != 0 {
		software += fmt.Sprintf(" in bank %d", d.Bank)
	}
	if len(d.Faults) > 0 {
		faults = ""
	}
	for i, f := range d.Faults {
		if i > 0 {
			faults += "\n\t"
		}
		faults += f.Fault
		if f.Fired > 0 {
			faults += fmt.Sprintf("  (%d so far)", f.Fired)
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "device\t%s\naddress\t%s\nstate\t%s\nsoftware\t%s\noperation\t%s\ncalls\t%d\nfaults\t%s\n",
		d.Device, d.Address, state, software, operation(d), d.Calls, faults)
	return w.Flush()
}

// operation describes what a device does.
func operation(d control.Device) string {
	if d.Operation == "" {
		return "-"
	}
	text := d.Operation + ", " + d.Phase
	if d.Percent != nil {
		text += fmt.Sprintf(", %d %%", *d.Percent)
	}
	return text
}

// table prints devices, a line each.
func (r *remote) table(cmd *cobra.Command, list []control.Device) error {
	out := cmd.OutOrStdout()
	if r.asJSON {
		for _, d := range list {
			if err := json.NewEncoder(out).Encode(d); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DEVICE\tADDRESS\tSTATE\tSOFTWARE\tOPERATION\tFAULTS")
	for _, d := range list {
		faults := "-"
		for i, f := range d.Faults {
			if i == 0 {
				faults = ""
			} else {
				faults += " "
			}
			faults += f.Fault
		}
		software := d.Software
		if software == "" {
			software = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", d.Device, d.Address, d.State, software, operation(d), faults)
	}
	return w.Flush()
}

// controlCommands are the commands that talk to a running simulator.
func controlCommands() []*cobra.Command {
	return []*cobra.Command{listCommand(), showCommand(), faultCommand(), clearCommand(), powerCommand(), restartCommand(), setCommand(), eventsCommand()}
}

// deviceCommand is a command about one device, which it prints afterwards.
func deviceCommand(cmd *cobra.Command, do func(cmd *cobra.Command, c *control.Client, args []string) (control.Device, error)) *cobra.Command {
	var r remote
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := r.client()
		if err != nil {
			return err
		}
		d, err := do(cmd, c, args)
		if err != nil {
			return err
		}
		return r.print(cmd, d)
	}
	return r.register(cmd)
}

func listCommand() *cobra.Command {
	var r remote
	return r.register(&cobra.Command{
		Use: "list", Short: "List the devices of a running simulator",
		Long:    `list prints the devices of "iadsim run --control ADDRESS": where each answers, what it does, and its faults.`,
		Example: `  iadsim list --control /tmp/lab.sock`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			list, err := c.Devices(cmd.Context())
			if err != nil {
				return err
			}
			return r.table(cmd, list)
		},
	})
}

func showCommand() *cobra.Command {
	return deviceCommand(&cobra.Command{
		Use: "show ID", Short: "Show one device of a running simulator",
		Example: `  iadsim show SIM-00007 --control /tmp/lab.sock`,
		Args:    cobra.ExactArgs(1),
	}, func(cmd *cobra.Command, c *control.Client, args []string) (control.Device, error) {
		return c.Device(cmd.Context(), args[0])
	})
}

func faultCommand() *cobra.Command {
	return deviceCommand(&cobra.Command{
		Use: "fault ID FAULT", Short: "Give a device a fault",
		Long: `fault gives a device a fault, which happens at once if its occasion is there.

` + faultHelp(),
		Example: `  iadsim fault SIM-00007 stall --control /tmp/lab.sock
  iadsim fault SIM-00007 silent,for=30s --control /tmp/lab.sock
  iadsim fault SIM-00007 powercut@transferring,at=50 --control /tmp/lab.sock`,
		Args: cobra.ExactArgs(2),
	}, func(cmd *cobra.Command, c *control.Client, args []string) (control.Device, error) {
		if _, err := sim.ParseFault(args[1]); err != nil {
			return control.Device{}, cli.Usage(err)
		}
		return c.Inject(cmd.Context(), args[0], args[1])
	})
}

// faultHelp describes faults, as sim has them.
func faultHelp() string {
	var b strings.Builder
	b.WriteString("A fault is KIND[@PHASE][,KEY=VALUE...]:\n")
	for _, i := range sim.FaultInfos {
		text := i.Effect
		if i.Once {
			text += " (once)"
		}
		if i.Delay != 0 && i.Kind != sim.PowerCut {
			text += fmt.Sprintf(" (delay=%s)", i.Delay)
		}
		fmt.Fprintf(&b, "  %-14s %s\n", i.Kind, strings.Join(wrap(text, 60), "\n"+strings.Repeat(" ", 17)))
	}
	b.WriteString(`Keys: op=OPERATION and @PHASE restrict it, such as op=downloadSoftware and
@transferring; nth=N is the first occasion, times=N how often, for=TIME how long
it lasts from now on, delay=TIME how much it delays.`)
	return b.String()
}

// wrap breaks a text into lines of a width, if its words permit.
func wrap(text string, width int) (lines []string) {
	for _, word := range strings.Fields(text) {
		if last := len(lines) - 1; last >= 0 && len(lines[last])+1+len(word) <= width {
			lines[last] += " " + word
			continue
		}
		lines = append(lines, word)
	}
	return lines
}

func clearCommand() *cobra.Command {
	var r remote
	var kind string
	cmd := r.register(&cobra.Command{
		Use: "clear ID", Short: "Remove the faults of a device",
		Long:    `clear removes all faults of a device, or those of one kind.`,
		Example: `  iadsim clear SIM-00007 --kind silent --control /tmp/lab.sock`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			n, err := c.Clear(cmd.Context(), args[0], kind)
			if err != nil {
				return err
			}
			if r.asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(control.Cleared{Cleared: n})
			}
			faults := "faults"
			if n == 1 {
				faults = "fault"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d %s removed\n", n, faults)
			return nil
		},
	})
	cmd.Flags().StringVar(&kind, "kind", "", "only faults of this kind")
	return cmd
}

func powerCommand() *cobra.Command {
	return deviceCommand(&cobra.Command{
		Use: "power ID off|on|cut", Short: "Switch the power of a device",
		Long: `power switches a device off or on; cut is off for a second, unless somebody
switches it meanwhile.`,
		Example: `  iadsim power SIM-00007 cut --control /tmp/lab.sock`,
		Args:    cobra.ExactArgs(2),
	}, func(cmd *cobra.Command, c *control.Client, args []string) (control.Device, error) {
		switch args[1] {
		case "off", "on", "cut":
			return c.Power(cmd.Context(), args[0], args[1])
		}
		return control.Device{}, cli.Usage(fmt.Errorf("unknown power %q (want off, on or cut)", args[1]))
	})
}

func restartCommand() *cobra.Command {
	return deviceCommand(&cobra.Command{
		Use: "restart ID", Short: "Switch a device off and on again",
		Example: `  iadsim restart SIM-00007 --control /tmp/lab.sock`,
		Args:    cobra.ExactArgs(1),
	}, func(cmd *cobra.Command, c *control.Client, args []string) (control.Device, error) {
		return c.Restart(cmd.Context(), args[0])
	})
}

func setCommand() *cobra.Command {
	return deviceCommand(&cobra.Command{
		Use: "set ID KEY=VALUE...", Short: "Change a device that runs",
		Long:    `set changes what a device is doing: calls=N is how many calls are in progress.`,
		Example: `  iadsim set SIM-00007 calls=2 --control /tmp/lab.sock`,
		Args:    cobra.MinimumNArgs(2),
	}, func(cmd *cobra.Command, c *control.Client, args []string) (control.Device, error) {
		var s control.Settings
		for _, arg := range args[1:] {
			key, value, _ := strings.Cut(arg, "=")
			n, err := strconv.Atoi(value)
			if key != "calls" || err != nil || n < 0 {
				return control.Device{}, cli.Usage(fmt.Errorf("%q is not a setting (want calls=N)", arg))
			}
			s.Calls = &n
		}
		return c.Set(cmd.Context(), args[0], s)
	})
}

func eventsCommand() *cobra.Command {
	var r remote
	var follow bool
	var after uint64
	cmd := r.register(&cobra.Command{
		Use: "events", Short: "Print what happened to the devices",
		Long: `events prints the faults that happened, power cuts and restarts. The last 10,000
are kept.`,
		Example: `  iadsim events --follow --control /tmp/lab.sock`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			return c.Events(cmd.Context(), after, follow, func(e control.Event) error {
				if r.asJSON {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(e)
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d  %s  %s\n", e.Number, e.Time.Format("15:04:05.000"), e)
				return err
			})
		},
	})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more events")
	cmd.Flags().Uint64Var(&after, "after", 0, "only events with a greater number")
	return cmd
}

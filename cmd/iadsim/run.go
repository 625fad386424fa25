package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"example.com/iad/internal/cli"
	"example.com/iad/internal/textfile"
	"example.com/iad/sim"
	"example.com/iad/sim/control"
	"example.com/iad/sim/fleet"
)

type runOptions struct {
	fleet              fleet.Config
	file               string
	control, tokenFile string
	asJSON             bool
	log                cli.LogFlags
}

func runCommand() *cobra.Command {
	o := runOptions{fleet: fleet.Default()}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run virtual devices until interrupted",
		Long: `run starts devices that listen on consecutive UDP ports, the first on that of
--snmp. Without --image they start with small software of version 1.0.0, or
--software, signed with the key MAKER.key, which is created if it does not exist.
Sign the software to upgrade to with the same key.

--fleet FILE describes the devices in a file of TOML: each flag down to
--bank-size without its dashes is a setting, such as devices = 100, and
[[group]] sections have devices that differ. Flags override the file.

--fault FAULT:PERCENT gives exactly that percentage of the devices a fault; the
seed decides which. "iadsim fault --help" lists the faults. With --control,
faults can also be injected and removed while the devices run: see "iadsim list",
"iadsim fault", "iadsim power" and "iadsim events".`,
		Example: `  iadsim run
  iadsim run --devices 100 --seed 7 \
    --fault stall:5 --fault powercut@transferring:5
  iadsim run --devices 50 --software 1.0.0:70 --software 1.1.0:30 \
    --manager credentials.toml
  iadms image build --version 2.0.0 --hardware IAD-SIM --key iadsim.key \
    -o fw-2.0.0.iad README.md
  iadms upgrade 127.0.0.1:16100 --image fw-2.0.0.iad --credentials FILE`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.readFile(cmd.Flags()); err != nil {
				return err
			}
			return o.run(cmd)
		},
	}
	f, c := cmd.Flags(), &o.fleet
	f.StringVar(&o.file, "fleet", "", "TOML file that describes the devices")
	f.IntVar(&c.Devices, "devices", c.Devices, "how many devices")
	f.StringVar(&c.SNMP, "snmp", c.SNMP, "UDP address of the first device; the others use the ports after it; port 0: any free ports")
	f.StringVar(&c.Addresses, "addresses", "", "range such as 127.1.0.0/16: each device has its own address in it, and the port of --snmp")
	f.StringArrayVar(&c.TrapSinks, "trap-sink", nil, "send SNMPv2c traps to HOST:PORT; may be repeated")
	f.StringVar(&c.Root, "root", "", "directory for the disks, one subdirectory per device (default: in memory)")
	f.StringArrayVar(&c.Software, "software", c.Software, "version of generated software to start with; VERSION:PERCENT, repeated, for a mix")
	f.StringVar(&c.Image, "image", "", "image of the software to start with (default: generated)")
	f.StringArrayVar(&c.Trust, "trust", nil, "public key that software is signed with, with --image; may be repeated")
	f.StringVar(&c.Maker, "maker", c.Maker, "without --image: sign with MAKER.key, created if missing")
	f.StringVar(&c.ConfigDir, "config-dir", "", "directory with configuration files, as for iad init (default: built-in ones)")
	f.StringVar(&c.Hardware, "hardware", c.Hardware, "model that software must name")
	f.StringVar(&c.Model, "model", "", "model to report, such as \"IAD-4FXS rev. B\" (default: the hardware)")
	f.StringVar(&c.SysObjectID, "sys-object-id", "", "sysObjectID of the devices (default: 0.0)")
	f.StringVar(&c.MIBRoot, "mib-root", "", "place of IAD-UPGRADE-MIB, which iadms needs too (--root-oid) (default: its usual one)")
	f.StringVar(&c.DeviceID, "device-id", c.DeviceID, "prefix of the device IDs, before the number")
	f.StringVar(&c.ReadCommunity, "read-community", c.ReadCommunity, "community that may read, empty for none")
	f.StringVar(&c.WriteCommunity, "write-community", c.WriteCommunity, "community that may write, empty for none")
	f.StringVar(&c.Manager, "manager", "", "credentials file for iadms with an SNMPv3 user of all devices; created if missing")
	f.StringSliceVar(&c.Protocols, "protocols", c.Protocols, "file transfer protocols: tftp, ftp, ftps")
	f.StringVar(&c.FTPSPin, "ftps-pin", "", "SHA-256 digest of the only certificate of an FTPS server to accept")
	f.BoolVar(&c.PlainPasswords, "plain-passwords", false, "accept passwords of file servers in requests without privacy, as FTP over SNMPv2c needs")
	f.StringArrayVar(&c.Faults, "fault", nil, "FAULT:PERCENT, such as stall:5; may be repeated")
	f.Uint64Var(&c.Seed, "seed", c.Seed, "decides which devices get the faults, and which are of which kind")
	f.DurationVar((*time.Duration)(&c.RestartTime), "restart-time", 0, "how long a restart takes")
	f.IntVar(&c.RateLimit, "rate-limit", 0, "limit of each device's transfers in bytes per second (default: none)")
	f.IntVar(&c.BankSize, "bank-size", 0, "capacity of a bank in bytes (default: no limit)")
	f.StringVar(&o.control, "control", "", "serve the control interface at the path of a socket, or at HOST:PORT with a token")
	f.StringVar(&o.tokenFile, "token-file", defaultTokenFile, "file with the token for HOST:PORT, created if missing")
	f.BoolVar(&o.asJSON, "json", false, "print the devices as JSON lines")
	o.log.Register(f, "error")
	return cmd
}

// readFile reads the file of --fleet, whose settings flags override.
func (o *runOptions) readFile(flags *pflag.FlagSet) error {
	if o.file == "" {
		return nil
	}
	text, err := textfile.Read(o.file)
	if err != nil {
		return err
	}
	read, err := fleet.Parse(text)
	if err != nil {
		return cli.Usage(fmt.Errorf("%s: %w", o.file, err))
	}
	// Setting a flag again sets it in what the file says.
	var again []func() error
	flags.Visit(func(f *pflag.Flag) {
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values := list.GetSlice()
			again = append(again, func() error { return list.Replace(values) })
			return
		}
		text := f.Value.String()
		again = append(again, func() error { return f.Value.Set(text) })
	})
	o.fleet = *read
	for _, set := range again {
		if err := set(); err != nil {
			return err
		}
	}
	return nil
}

// flagMistake words a mistake in the description of a fleet for a command line.
func flagMistake(err error) error {
	var m *fleet.Mistake
	if errors.As(err, &m) {
		return cli.Usage(fmt.Errorf("--%s %s", m.Setting, m.Text))
	}
	return err
}

func (o *runOptions) run(cmd *cobra.Command) error {
	if err := o.fleet.Check(); err != nil {
		return flagMistake(err)
	}
	// Devices continue when nobody reads where they are.
	out := cli.Lasting(cmd.OutOrStdout(), func(error) {})
	log, err := o.log.Logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	saveMemory()
	events := &control.Log{}
	lines := &printer{w: out, asJSON: o.asJSON}
	f, err := fleet.New(o.fleet, fleet.Options{
		Version: version, Log: log, Notes: cmd.ErrOrStderr(),
		OnEvent: func(e sim.Event) { lines.event(events.Add(e)) },
	})
	if err != nil {
		return flagMistake(err)
	}
	defer f.Close()
	var serving sync.WaitGroup // what runs beside the devices
	defer serving.Wait()
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	if o.control != "" {
		s := &control.Server{Device: f.Device, Devices: f.Devices, Log: events}
		if err := serve(ctx, &serving, s, o.control, o.tokenFile, cmd.ErrOrStderr()); err != nil {
			return err
		}
	}
	return f.Run(ctx, fleet.Observer{
		Running: func(i int, d *sim.Device, addr netip.AddrPort) error {
			return o.printDevice(out, d.ID(), addr, f.Faults(i))
		},
		Ready: func() {
			o.printReady(out)
			lines.begin()
			serving.Go(func() { trimWhenIdle(ctx) })
		},
		Failed: func(err error) {
			fmt.Fprintf(cmd.ErrOrStderr(), "iadsim: %v; the other devices keep running\n", err)
		},
	})
}

// printReady prints that all devices are running.
func (o *runOptions) printReady(w io.Writer) {
	switch {
	case o.asJSON:
		_ = json.NewEncoder(w).Encode(map[string]any{"ready": true, "devices": o.fleet.Devices})
	case o.fleet.Devices == 1:
		fmt.Fprintln(w, "1 device is running; interrupt to stop")
	default:
		fmt.Fprintf(w, "%d devices are running; interrupt to stop\n", o.fleet.Devices)
	}
}

// printDevice prints where a device listens.
func (o *runOptions) printDevice(w io.Writer, id string, addr netip.AddrPort, drawn []sim.Fault) error {
	names := []string{}
	for _, f := range drawn {
		names = append(names, f.String())
	}
	if o.asJSON {
		return json.NewEncoder(w).Encode(map[string]any{"device": id, "address": addr.String(), "faults": names})
	}
	_, err := fmt.Fprintf(w, "%s  %s  %s\n", id, addr, strings.Join(names, " "))
	return err
}

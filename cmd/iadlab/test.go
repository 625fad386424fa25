package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/afero"
	"github.com/spf13/cobra"

	"example.com/iad/bank/image"
	"example.com/iad/conformance"
	"example.com/iad/conformance/bench"
	"example.com/iad/internal/cli"
	"example.com/iad/internal/credentials"
	"example.com/iad/internal/durable"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// targetFlags say which device, and how to reach it and be reached.
type targetFlags struct {
	credentials, rootOID string
	read, write          string
	listen, advertise    string
	image, key           string
	console, pcap        string
	timeout              time.Duration
}

func (o *targetFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.credentials, "credentials", "", "file with SNMP credentials, as of iadms (default: the communities)")
	f.StringVar(&o.read, "read-community", "public", "community that may read, without --credentials")
	f.StringVar(&o.write, "write-community", "private", "community that may write, without --credentials")
	f.StringVar(&o.rootOID, "root-oid", "", "OID of IAD-UPGRADE-MIB on the device (default: the module's)")
	f.StringVar(&o.listen, "listen", "", "receive notifications on HOST:PORT, where the device sends them (default: none, and their tests are skipped)")
	f.StringVar(&o.advertise, "advertise", "", "IP address of this machine for the device's file transfers (default: the one on the route to the device)")
	f.StringVar(&o.image, "image", "", "image of newer software that the device accepts (default: made with --key)")
	f.StringVar(&o.key, "key", "", "private key that the device trusts, to make good and bad images (default: their tests are skipped)")
	f.StringVar(&o.console, "console", "", "console of the device, for the timelines: /dev/ttyUSB0@115200, tcp:HOST:PORT or file:PATH")
	f.StringVar(&o.pcap, "pcap", "", "record the packets from and to the device into this file, as pcapng (needs root or CAP_NET_RAW)")
	f.DurationVar(&o.timeout, "timeout", 0, "time to wait for an answer before a request is repeated (default: 2s)")
}

// config returns what the flags say of a target.
func (o *targetFlags) config(target string) (conformance.Config, error) {
	cfg := conformance.Config{Listen: o.listen, Advertise: o.advertise}
	cfg.Target = device.Target{Address: target, Timeout: o.timeout, Retries: 3, Credentials: device.Credentials{Read: o.read, Write: o.write}}
	if o.credentials != "" {
		file, err := credentials.Read(o.credentials)
		if err != nil {
			return cfg, cli.Usage(err)
		}
		access := file.Access
		if dev, known := file.Devices[target]; known {
			cfg.Target.Address = cmp.Or(dev.Address, target)
			o.rootOID = cmp.Or(o.rootOID, dev.RootOID)
			if !dev.Empty() {
				access = dev.Access
			}
		}
		cfg.Target.Credentials = device.Credentials{Read: access.ReadCommunity, Write: cmp.Or(access.WriteCommunity, access.ReadCommunity)}
		if u := access.User; u != nil {
			cfg.Target.Credentials.User = &device.User{
				Name: u.Name, Auth: u.Auth, AuthPassphrase: u.AuthPassphrase, Priv: u.Priv, PrivPassphrase: u.PrivPassphrase, Context: u.Context,
			}
		}
	}
	if o.rootOID != "" {
		oid, err := mib.ParseOID(o.rootOID)
		if err != nil {
			return cfg, cli.Usage(fmt.Errorf("--root-oid: %w", err))
		}
		cfg.Target.Root = oid
	}
	if cfg.Advertise == "" {
		host, err := ownAddress(cfg.Target.Address)
		if err != nil {
			return cfg, cli.Usage(err)
		}
		cfg.Advertise = host
	}
	if o.image != "" {
		data, err := os.ReadFile(o.image)
		if err != nil {
			return cfg, cli.Usage(err)
		}
		cfg.Image = data
	}
	if o.key != "" {
		data, err := os.ReadFile(o.key)
		if err != nil {
			return cfg, cli.Usage(err)
		}
		if image.KeyEncrypted(data) {
			return cfg, cli.Usage(fmt.Errorf("%s is encrypted: use a key for the laboratory, which has no password", o.key))
		}
		key, err := image.ReadPrivateKey(data, "")
		if err != nil {
			return cfg, cli.Usage(fmt.Errorf("%s: %w", o.key, err))
		}
		cfg.Key = &key
	}
	return cfg, nil
}

// openConsole opens the console, if there is one.
func (o *targetFlags) openConsole(ctx context.Context, cfg *conformance.Config) (closeConsole func(), err error) {
	if o.console == "" {
		return func() {}, nil
	}
	c, err := bench.OpenConsole(ctx, o.console)
	if err != nil {
		return nil, err
	}
	cfg.Console = c
	return func() { c.Close() }, nil
}

// openCapture starts to record packets, if that is asked for.
func (o *targetFlags) openCapture(cfg *conformance.Config) (stop func() error, err error) {
	if o.pcap == "" {
		return func() error { return nil }, nil
	}
	own, device, err := addresses(cfg)
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("--pcap: %w", err))
	}
	f, err := os.Create(o.pcap)
	if err != nil {
		return nil, err
	}
	c, err := bench.OpenCapture(f, own, device)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--pcap: %w", err), f.Close(), os.Remove(o.pcap))
	}
	cfg.Packets = c
	return func() error {
		if err := errors.Join(c.Close(), f.Close()); err != nil {
			return fmt.Errorf("--pcap: %w", err)
		}
		return nil
	}, nil
}

// addresses returns the addresses of this machine and of the device.
func addresses(cfg *conformance.Config) (own, device netip.Addr, err error) {
	host, _, err := net.SplitHostPort(cfg.Target.Address)
	if err != nil {
		host = strings.Trim(cfg.Target.Address, "[]")
	}
	found, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return own, device, err
	}
	device, _ = netip.AddrFromSlice(found.IP)
	own, err = netip.ParseAddr(cfg.Advertise)
	return own, device, err
}

// ownAddress returns the address of this machine on the route to a device.
func ownAddress(target string) (string, error) {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		host = strings.Trim(target, "[]")
	}
	c, err := net.Dial("udp", net.JoinHostPort(host, "161"))
	if err != nil {
		return "", fmt.Errorf("no route to %s: %w; give --advertise", host, err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).IP.String(), nil
}

func testCommand() *cobra.Command {
	var o struct {
		targetFlags
		reportFlags
		suite   string
		only    []string
		verbose bool
	}
	cmd := &cobra.Command{
		Use:   "test TARGET",
		Short: "Run the conformance tests on a device and write reports",
		Long: `test runs the tests of a suite on the device at TARGET, a HOST or HOST:PORT, or a
name in the file of --credentials. The device is one for tests: its files are
sent and recovered, its second bank is overwritten, and it restarts many times.
At the end it runs the software that it ran at the start, if it works.

The tests that need software use --image, or make images with --key in the
format of this project. Without either they are skipped, as are those of
notifications without --listen. Configure the device to send its notifications
there, as informs if it can.

Suites:
  quick  ` + conformance.Suites["quick"] + `
  full   ` + conformance.Suites["full"],
		Example: `  iadsim run --trap-sink 127.0.0.1:11162 &
  iadlab test 127.0.0.1:16100 --key iadsim.key --listen 127.0.0.1:11162 \
    --report report.html --junit report.xml --json report.json
  iadlab test gateway-7 --credentials lab.toml --image fw-2.0.0.iad \
    --suite quick`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := o.config(args[0])
			if err != nil {
				return err
			}
			closeConsole, err := o.openConsole(cmd.Context(), &cfg)
			if err != nil {
				return err
			}
			defer closeConsole()
			cfg.Suite, cfg.Only = o.suite, o.only
			selected, err := cfg.Select()
			if err != nil {
				return cli.Usage(err)
			}
			stop, err := o.openCapture(&cfg)
			if err != nil {
				return err
			}
			out := o.output(cmd)
			p := printer{w: out, colour: colour(out), total: len(selected), verbose: o.verbose}
			cfg.Progress = p.progress
			run, err := conformance.Execute(cmd.Context(), cfg)
			if err := errors.Join(err, stop()); err != nil {
				return err
			}
			run.PacketFile = o.pcap
			if err := o.reportFlags.save(cmd, run); err != nil {
				return err
			}
			p.summary(run)
			switch {
			case run.Failed() > 0:
				return verdictError(fmt.Sprintf("%s failed %d of %d tests", run.Device.ID, run.Failed(), len(run.Tests)))
			case run.Problem != "":
				return errors.New(run.Problem)
			}
			return nil
		},
	}
	o.targetFlags.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.suite, "suite", "full", "tests to run: quick or full")
	f.StringArrayVar(&o.only, "test", nil, "run the tests whose names match a pattern such as 'download*', instead of a suite; may be repeated")
	o.reportFlags.register(cmd)
	f.BoolVarP(&o.verbose, "verbose", "v", false, "show the timeline of tests that failed")
	cli.Group(f, "Reports", "report", "junit", "json", "verbose")
	cli.Group(f, "Device", "credentials", "read-community", "write-community", "root-oid", "timeout", "listen", "advertise", "image", "key", "console", "pcap")
	return cmd
}

// reportFlags say where reports go.
type reportFlags struct {
	report, junit, json string
}

func (o *reportFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.report, "report", "", "write an HTML report to this file, - for standard output")
	f.StringVar(&o.junit, "junit", "", "write a JUnit report to this file, - for standard output")
	f.StringVar(&o.json, "json", "", "write a JSON report to this file, - for standard output")
}

// output returns where lines for people go: not among a report.
func (o *reportFlags) output(cmd *cobra.Command) io.Writer {
	out := cmd.OutOrStdout()
	if o.json == "-" || o.junit == "-" || o.report == "-" {
		out = cmd.ErrOrStderr()
	}
	return cli.Lasting(out, func(error) {})
}

// save writes the reports.
func (o *reportFlags) save(cmd *cobra.Command, run *conformance.Run) error {
	run.Tool = version
	for _, r := range []struct {
		name   string
		format func(io.Writer) error
	}{{o.report, run.WriteHTML}, {o.junit, run.WriteJUnit}, {o.json, run.WriteJSON}} {
		var b bytes.Buffer
		if r.name == "" {
			continue
		}
		if err := r.format(&b); err != nil {
			return err
		}
		if r.name == "-" {
			if _, err := cmd.OutOrStdout().Write(b.Bytes()); err != nil {
				return err
			}
		} else if err := durable.ReplaceFile(afero.NewOsFs(), r.name, b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"

	"aead.dev/minisign"
	"github.com/spf13/afero"
	"github.com/spf13/cobra"

	"example.com/iad/agent/board"
	"example.com/iad/agent/config"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/internal/cli"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

type runOptions struct {
	devices             int
	snmp, addresses     string
	control, tokenFile  string
	sinks               []string
	root, image, maker  string
	trust               []string
	hardware, idPrefix  string
	read, write         string
	faults              []string
	seed                uint64
	asJSON              bool
	log                 cli.LogFlags
	rateLimit, bankSize int
}

func runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run virtual devices until interrupted",
		Long: `run starts devices that listen on consecutive UDP ports, the first on that of
--snmp. Without --image they start with small software of version 1.0.0, signed
with the key MAKER.key, which is created if it does not exist. Sign the software
to upgrade to with the same key.

--fault FAULT:PERCENT gives exactly that percentage of the devices a fault; the
seed decides which. "iadsim fault --help" lists the faults. With --control,
faults can also be injected and removed while the devices run: see "iadsim list",
"iadsim fault", "iadsim power" and "iadsim events".`,
		Example: `  iadsim run
  iadsim run --devices 100 --seed 7 \
    --fault stall:5 --fault powercut@transferring:5
  iadms image build --version 2.0.0 --hardware IAD-SIM --key iadsim.key \
    -o fw-2.0.0.iad README.md
  iadms upgrade 127.0.0.1:16100 --image fw-2.0.0.iad --credentials FILE`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDevices(cmd, &o) },
	}
	f := cmd.Flags()
	f.IntVar(&o.devices, "devices", 1, "how many devices")
	f.StringVar(&o.snmp, "snmp", "127.0.0.1:16100", "UDP address of the first device; the others use the ports after it; port 0: any free ports")
	f.StringVar(&o.addresses, "addresses", "", "range such as 127.1.0.0/16: each device has its own address in it, and the port of --snmp")
	f.StringVar(&o.control, "control", "", "serve the control interface at the path of a socket, or at HOST:PORT with a token")
	f.StringVar(&o.tokenFile, "token-file", defaultTokenFile, "file with the token for HOST:PORT, created if missing")
	f.StringArrayVar(&o.sinks, "trap-sink", nil, "send SNMPv2c traps to HOST:PORT; may be repeated")
	f.StringVar(&o.root, "root", "", "directory for the disks, one subdirectory per device (default: in memory)")
	f.StringVar(&o.image, "image", "", "image of the software to start with (default: generated)")
	f.StringArrayVar(&o.trust, "trust", nil, "public key that software is signed with, with --image; may be repeated")
	f.StringVar(&o.maker, "maker", "iadsim", "without --image: sign with MAKER.key, created if missing")
	f.StringVar(&o.hardware, "hardware", "IAD-SIM", "model that software must name")
	f.StringVar(&o.idPrefix, "device-id", "SIM-", "prefix of the device IDs, before the number")
	f.StringVar(&o.read, "read-community", "public", "community that may read")
	f.StringVar(&o.write, "write-community", "private", "community that may write")
	f.StringArrayVar(&o.faults, "fault", nil, "FAULT:PERCENT, such as stall:5; may be repeated")
	f.Uint64Var(&o.seed, "seed", 1, "decides which devices get the faults")
	f.IntVar(&o.rateLimit, "rate-limit", 0, "limit of each device's transfers in bytes per second (default: none)")
	f.IntVar(&o.bankSize, "bank-size", 0, "capacity of a bank in bytes (default: no limit)")
	f.BoolVar(&o.asJSON, "json", false, "print the devices as JSON lines")
	o.log.Register(f, "error")
	return cmd
}

func runDevices(cmd *cobra.Command, o *runOptions) error {
	if o.devices < 1 || o.devices > 20000 {
		return cli.Usage(errors.New("--devices must be 1 to 20000"))
	}
	var shares []sim.Share
	for _, s := range o.faults {
		share, err := sim.ParseShare(s)
		if err != nil {
			return cli.Usage(err)
		}
		shares = append(shares, share)
	}
	faults := sim.Draw(shares, o.seed, o.devices)
	if o.root != "" {
		lock, err := lockRoot(o.root)
		if err != nil {
			return err
		}
		defer lock.Release()
	}
	// Devices continue when nobody reads where they are.
	out := cli.Lasting(cmd.OutOrStdout(), func(error) {})
	img, trust, err := o.software(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	log, err := o.log.Logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	place, err := o.places()
	if err != nil {
		return err
	}
	defer place.close()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	disks := &disks{img: img}
	lines := &printer{w: out, asJSON: o.asJSON}
	f := &fleet{devices: make([]*sim.Device, o.devices)}
	start := func(i int) (*sim.Device, error) {
		cfg, err := o.device(i, trust, log)
		if err != nil {
			return nil, err
		}
		place.of(i, &cfg)
		if err := disks.prepare(&cfg); err != nil {
			return nil, fmt.Errorf("%s: %w", cfg.ID, err)
		}
		cfg.Faults = faults[i]
		cfg.OnEvent = func(e sim.Event) { lines.event(f.log.Add(e)) }
		return sim.New(cfg), nil
	}
	running := func(i int, d *sim.Device, addr netip.AddrPort) error {
		return o.printDevice(out, d.ID(), addr, faults[i])
	}
	serve := func(ctx context.Context) error {
		if o.control == "" {
			return nil
		}
		return f.serve(ctx, o.control, o.tokenFile, cmd.ErrOrStderr())
	}
	return f.run(cmd.Context(), serve, start, running, func() {
		o.printReady(out)
		lines.begin()
		trim()
	}, func(err error) {
		fmt.Fprintf(cmd.ErrOrStderr(), "iadsim: %v; the other devices keep running\n", err)
	})
}

// garbagePercent is GOGC: idle devices cause little garbage, and memory decides how many
// there can be.
const garbagePercent = 25

// trim gives back the memory that only the start needed. A collection halves a stack at
// most.
func trim() {
	runtime.GC()
	runtime.GC()
	debug.FreeOSMemory()
}

// printReady prints that all devices are running.
func (o *runOptions) printReady(w io.Writer) {
	switch {
	case o.asJSON:
		_ = json.NewEncoder(w).Encode(map[string]any{"ready": true, "devices": o.devices})
	case o.devices == 1:
		fmt.Fprintln(w, "1 device is running; interrupt to stop")
	default:
		fmt.Fprintf(w, "%d devices are running; interrupt to stop\n", o.devices)
	}
}

// lockRoot creates the directory of the disks and locks it against other simulators.
func lockRoot(root string) (*board.Lock, error) {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	return board.LockRoot(root)
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

// device returns the configuration of device i.
func (o *runOptions) device(i int, trust []minisign.PublicKey, log *slog.Logger) (sim.Config, error) {
	id := fmt.Sprintf("%s%05d", o.idPrefix, i+1)
	cfg := sim.Config{
		ID: id, Model: o.hardware, Hardware: o.hardware, Trust: trust,
		BankSize: int64(o.bankSize), Log: log.With("device", id),
		SNMP: &snmp.Config{
			System: snmp.System{Descr: "virtual IAD " + version, Name: id},
		},
	}
	cfg.Transfer.RateLimit = o.rateLimit
	if o.read != "" {
		cfg.SNMP.Communities = append(cfg.SNMP.Communities, snmp.Community{Name: o.read})
	}
	if o.write != "" {
		cfg.SNMP.Communities = append(cfg.SNMP.Communities, snmp.Community{Name: o.write, Write: true})
	}
	for _, s := range o.sinks {
		cfg.SNMP.Sinks = append(cfg.SNMP.Sinks, snmp.Sink{Address: s, Community: o.read})
	}
	if o.root != "" {
		var err error
		if cfg.Disk, err = sim.Directory(filepath.Join(o.root, id)); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

// software returns the initial image and the keys that devices trust.
func (o *runOptions) software(w io.Writer) ([]byte, []minisign.PublicKey, error) {
	if o.image != "" {
		img, err := os.ReadFile(o.image)
		if err != nil {
			return nil, nil, err
		}
		if len(o.trust) == 0 {
			return nil, nil, cli.Usage(errors.New("--image needs --trust KEY.pub"))
		}
		trust, err := readKeys(o.trust)
		return img, trust, err
	}
	key, err := o.makerKey(w)
	if err != nil {
		return nil, nil, err
	}
	trust, err := readKeys([]string{o.maker + ".pub"})
	if err != nil {
		return nil, nil, err
	}
	var img bytes.Buffer
	err = image.Build(&img, image.Manifest{Version: "1.0.0", Hardware: []string{o.hardware}, ConfigFormat: 1},
		[]image.PayloadFile{{Name: "firmware", Mode: 0o644, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("software 1.0.0 of a virtual device\n")), nil
		}}}, key)
	return img.Bytes(), trust, err
}

// makerKey reads MAKER.key, or creates the key pair.
func (o *runOptions) makerKey(w io.Writer) (minisign.PrivateKey, error) {
	file := o.maker + ".key"
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		pub, priv, err := image.GenerateKey("")
		if err != nil {
			return minisign.PrivateKey{}, err
		}
		host := afero.NewOsFs()
		if err := errors.Join(
			durable.ReplaceFile(host, o.maker+".pub", pub, 0o644),
			durable.ReplaceFile(host, file, priv, 0o600),
		); err != nil {
			return minisign.PrivateKey{}, err
		}
		fmt.Fprintf(w, "made %s and %s.pub: sign software for these devices with it\n", file, o.maker)
		data = priv
	} else if err != nil {
		return minisign.PrivateKey{}, err
	}
	if image.KeyEncrypted(data) {
		return minisign.PrivateKey{}, fmt.Errorf("%s is encrypted: use --image, or another --maker", file)
	}
	return image.ReadPrivateKey(data, "")
}

func readKeys(files []string) (keys []minisign.PublicKey, err error) {
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		key, err := image.ReadPublicKey(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// settings are configuration data to start with.
func settings() config.Set {
	set := config.Set{}
	for k, body := range map[mib.FileType]string{
		mib.FileTypeUserData:       "line.1 = +49 30 5550101\nline.2 = +49 30 5550102\n",
		mib.FileTypePortData:       "port.1 = fxs\nport.2 = fxs\n",
		mib.FileTypeProtocolParams: "protocol = mgcp\ncall_agent = 192.0.2.1\n",
		mib.FileTypeDefaultParams:  "codec = g711a\n",
		mib.FileTypeOtherData:      "contact = noc@example.com\n",
	} {
		set[k] = config.WithHeader(k, 1, []byte(body))
	}
	return set
}

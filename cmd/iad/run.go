package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"example.com/iad/agent"
	"example.com/iad/agent/board"
	"example.com/iad/agent/procedure"
	"example.com/iad/agent/settings"
	"example.com/iad/agent/snmp"
	"example.com/iad/internal/cli"
)

func runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run --root DIR",
		Short: "Start the device and serve it until stopped",
		Long: `run decides which bank boots and serves IAD-UPGRADE-MIB: by the embedded SNMP
engine, as a subagent of snmpd, or both. A reset executes this program again on
the same root directory, which only one agent at a time can use.

run counts the starts of software on trial, unless a boot loader does.

If ROOT/iad.toml is damaged, cut off or missing, run uses the settings of the last
good start, which are in ROOT/iad.toml.good. A file whose last line is "# end" is
complete. A file without that line and with fewer settings than the copy replaces
the copy only after "iad settings accept".`,
		Example: `  iad run --root /var/lib/iad
  iad run --root /var/lib/iad --snmp 127.0.0.1:1161 --trap-sink 127.0.0.1:1162
  iad run --root /var/lib/iad --agentx unix:/var/agentx/master`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDevice(cmd, &o) },
	}
	deviceFlags(cmd, &o.root, &o.config)
	f := cmd.Flags()
	f.StringVar(&o.snmp, "snmp", "", "UDP address of the embedded SNMP engine, 'none' for no engine (default: snmp.listen of the settings)")
	f.StringVar(&o.agentx, "agentx", "", "master agent: unix:PATH or tcp:HOST:PORT")
	f.StringArrayVar(&o.sinks, "trap-sink", nil, "send notifications to HOST:PORT too, as SNMPv2c traps with the read community, or without one as SNMPv3 informs of the first user; may be repeated")
	o.log.Register(f, "info")
	return cmd
}

type runOptions struct {
	root, config, snmp, agentx string
	sinks                      []string
	log                        cli.LogFlags
}

// lockDevice locks a root for the one process that may change it.
func lockDevice(root string) (*board.Lock, error) {
	if _, err := os.Stat(root); err != nil {
		return nil, makeFirst(err)
	}
	return board.LockRoot(root)
}

// makeFirst adds the remedy to the error of what does not exist because there is no
// device.
func makeFirst(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; make a device with 'iad init' first", err)
	}
	return err
}

func runDevice(cmd *cobra.Command, o *runOptions) error {
	log, err := o.log.Logger(os.Stderr)
	if err != nil {
		return err
	}
	lock, err := lockDevice(o.root)
	if err != nil {
		return err
	}
	defer lock.Release()
	file := cmp.Or(o.config, filepath.Join(o.root, settings.Name))
	s, err := o.settings(file)
	if err != nil {
		return err
	}
	c, platform, err := s.Config(o.root, version)
	if err != nil {
		return err
	}
	root, err := s.Root(o.root)
	if err != nil {
		return err
	}
	root.Open(&c)
	c.PassesUnsaved, c.Unsaved = s.Restarts() == settings.RestartExec, []byte(os.Getenv(unwrittenVariable))
	if err := os.Unsetenv(unwrittenVariable); err != nil {
		return err
	}
	c.Log = log.With("device", s.DeviceID)
	if s.BadKeys() != nil {
		c.Log.Error("a key or certificate cannot be used; software and servers that depend on it are refused", "err", s.BadKeys())
	}
	if f := s.Finding(); f != "" {
		c.Log.Error("settings", "err", f)
		c.Findings = append(c.Findings, f)
	}
	platform.Log = c.Log
	if err := platform.Tidy(); err != nil {
		c.Log.Warn("the work directory could not be cleared", "err", err)
	}
	c.Findings = append(c.Findings, platform.Unreachable()...)
	if c.Loader != nil {
		c.Findings = append(c.Findings, platform.NoCheckpoint()...)
	}
	if s.Paths.Watchdog != "" {
		if platform.Dog, err = board.OpenWatchdog(s.Paths.Watchdog); err != nil {
			c.Findings = append(c.Findings, err.Error()) // no reason to stay down
		}
	}
	conn, err := openSocket(s.SNMP.Listen)
	if err != nil {
		return err
	}
	if c.SNMP != nil {
		c.SNMP.Conn, c.SNMP.Log = conn, c.Log
	}
	if c.AgentX != nil {
		c.AgentX.Log = c.Log
	}
	a, err := agent.New(c)
	switch {
	case errors.Is(err, agent.ErrWrongBank):
		c.Log.Error("restart", "err", err)
		return restart(s.Restarts(), platform, func() error { return lock.Restart(conn, s.SNMP.Listen) })
	case err != nil:
		return err
	}
	if err := s.KeepGood(o.root, file); err != nil {
		c.Log.Warn("the settings could not be copied", "err", err)
	}
	if err := root.KeepPlaces(false); err != nil {
		c.Log.Warn("the mounts of the device could not be recorded", "err", err)
	}
	serving := []any{"version", version}
	if e := a.SNMP(); e != nil {
		serving = append(serving, "snmp", e.Addr())
	}
	if s.AgentX != "" {
		serving = append(serving, "agentx", s.AgentX)
	}
	c.Log.Info("ready", serving...)
	err = a.Run(cmd.Context())
	var reset *procedure.RestartError
	if !errors.As(err, &reset) {
		if err == nil {
			// Only now: an agent that fails leaves the watchdog running, which restarts
			// the board.
			err = platform.Dog.Stop()
		}
		return err
	}
	c.Log.Info("restart", "reason", reset.Reason)
	if u := a.Unsaved(); u != nil {
		if err := os.Setenv(unwrittenVariable, string(u)); err != nil {
			c.Log.Error("state that could not be written is lost", "err", err)
		}
	}
	return restart(s.Restarts(), platform, func() error { return lock.Restart(conn, s.SNMP.Listen) })
}

// restart restarts the device in one of the ways of the setting restart; exec is the first
// of them. It returns nil if the system stops this process for the restart. The watchdog
// stays on: it restarts a board whose shutdown hangs.
func restart(how string, platform *board.Platform, exec func() error) error {
	var err error
	switch how {
	case settings.RestartExec:
		err = exec()
	case settings.RestartReboot:
		err = board.Reboot()
	default:
		if err = (board.Restart{Program: how, Kick: platform.Kick, Log: platform.Log}).Run(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("restart: %w", err)
}

// openSocket opens the socket of the SNMP engine, or takes over the one that the program
// before this one left open. Without an address it returns nil.
func openSocket(address string) (net.PacketConn, error) {
	if conn := board.InheritedSocket(address); conn != nil || address == "" {
		return conn, nil
	}
	return snmp.Listen(address)
}

// unwrittenVariable passes agent.Config.Unsaved to the program that replaces this one.
const unwrittenVariable = "IAD_UNWRITTEN"

// settings returns the settings of the file, changed by the command line.
func (o *runOptions) settings(file string) (*settings.Settings, error) {
	s, err := settings.LoadOrGood(o.root, file)
	if err != nil {
		return nil, err
	}
	switch o.snmp {
	case "":
	case "none":
		s.SNMP.Listen = ""
	default:
		s.SNMP.Listen = o.snmp
	}
	if o.agentx != "" {
		s.AgentX = o.agentx
	}
	for _, address := range o.sinks {
		sink := settings.Sink{Address: address, Community: s.SNMP.ReadCommunity}
		if sink.Community == "" && len(s.SNMP.Users) > 0 {
			sink.User, sink.Inform = s.SNMP.Users[0].Name, true
		}
		if sink.Community == "" && sink.User == "" {
			return nil, cli.Usage(fmt.Errorf("--trap-sink %s: %s has neither a user nor a read community to send with", address, file))
		}
		s.SNMP.Sinks = append(s.SNMP.Sinks, sink)
	}
	if s.SNMP.Listen == "" && s.AgentX == "" {
		return nil, cli.Usage(errors.New("nothing to serve: give --snmp or --agentx"))
	}
	return s, nil
}

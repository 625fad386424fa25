package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/afero"
	"github.com/spf13/cobra"

	"example.com/iad/agent"
	"example.com/iad/agent/board"
	"example.com/iad/agent/config"
	"example.com/iad/internal/durable"
)

const settingsName = "iad.toml"

func initCommand() *cobra.Command {
	var root, image, configDir string
	var trust []string
	s := settings{Protocols: []string{"tftp", "ftp"}}
	cmd := &cobra.Command{
		Use:   "init --root DIR --image FILE --trust KEY.pub --hardware MODEL --device-id ID",
		Short: "Make a device: software into bank 1, keys, settings, configuration data",
		Long: `init makes the root folder of a device: it checks the image with the given
keys, puts its software into bank 1, takes over configuration data, and writes
ROOT/iad.toml, which may be edited afterwards.

The embedded SNMP engine listens on loopback unless --snmp says otherwise, and
SNMPv1 and v2c are off unless communities are given.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.Model == "" {
				s.Model = s.Hardware
			}
			return initDevice(cmd, root, image, configDir, trust, &s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&root, "root", "", "folder of the device")
	f.StringVar(&image, "image", "", "software to start with, made by 'iadms image build'")
	f.StringArrayVar(&trust, "trust", nil, "public key that software is signed with; may be repeated")
	f.StringVar(&s.Hardware, "hardware", "", "model that software must name, such as IAD-4FXS")
	f.StringVar(&s.Model, "model", "", "model to report (default: the hardware)")
	f.StringVar(&s.DeviceID, "device-id", "", "serial number or other identity, 1 to 32 octets")
	f.StringVar(&configDir, "config-dir", "", "folder with configuration files, named userData, portData, protocolParams, defaultParams, otherData")
	f.Int64Var(&s.BankSize, "bank-size", 0, "capacity of a bank in octets (default: its partition)")
	f.StringSliceVar(&s.Protocols, "protocols", s.Protocols, "file transfer protocols: tftp, ftp, ftps")
	f.StringVar(&s.SNMP.Listen, "snmp", "127.0.0.1:1161", "UDP address of the embedded SNMP engine, empty for none")
	f.StringVar(&s.SNMP.ReadCommunity, "read-community", "", "community that may read (SNMPv1, v2c)")
	f.StringVar(&s.SNMP.WriteCommunity, "write-community", "", "community that may read and write (SNMPv1, v2c)")
	f.IntVar(&s.RateLimit, "rate-limit", 0, "octets a second for transfers (default: no limit)")
	for _, name := range []string{"root", "image", "trust", "hardware", "device-id"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

func initDevice(cmd *cobra.Command, dir, image, configDir string, trust []string, s *settings) (err error) {
	file := filepath.Join(dir, settingsName)
	if _, err := os.Stat(file); err == nil {
		return fmt.Errorf("%s exists: %s is a device already; take another folder, or remove this one", file, dir)
	}
	if err := os.MkdirAll(filepath.Join(dir, "keys"), 0o755); err != nil {
		return err
	}
	host := afero.NewOsFs()
	for i, k := range trust {
		data, err := os.ReadFile(k)
		if err != nil {
			return err
		}
		name := filepath.Join("keys", fmt.Sprintf("%d-%s", i+1, filepath.Base(k)))
		if err := durable.ReplaceFile(host, filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
		s.Trust = append(s.Trust, name)
	}
	c, _, err := s.config(dir)
	if err != nil {
		return err
	}
	lock, err := board.LockRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	set, err := readSet(configDir)
	if err != nil {
		return err
	}
	in, err := os.Open(image)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := agent.Provision(c, in, set); err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	data, err := toml.Marshal(s)
	if err != nil {
		return err
	}
	// Last, so that a folder with iad.toml is a complete device.
	if err := durable.ReplaceFile(host, file, data, 0o600); err != nil {
		return err
	}
	st := agent.Peek(c)
	fmt.Fprintf(cmd.OutOrStdout(), "device %s: software %s in bank 1, settings in %s\n", s.DeviceID, st.Banks.Bank(1).Version, file)
	return nil
}

// readSet reads the configuration files of a folder.
func readSet(dir string) (config.Set, error) {
	set := config.Set{}
	if dir == "" {
		return set, nil
	}
	for _, k := range config.Kinds() {
		data, err := os.ReadFile(filepath.Join(dir, k.String()))
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, err
		default:
			set[k] = data
		}
	}
	if len(set) == 0 {
		return nil, fmt.Errorf("%s has none of the files %v", dir, config.Kinds())
	}
	return set, nil
}

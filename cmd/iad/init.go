package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/afero"
	"github.com/spf13/cobra"

	"example.com/iad/agent"
	"example.com/iad/agent/board"
	"example.com/iad/agent/config"
	"example.com/iad/agent/settings"
	"example.com/iad/bank"
	"example.com/iad/bank/image"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/cli"
	"example.com/iad/internal/credentials"
	"example.com/iad/internal/durable"
)

// keysDir is the directory of the keys in the root directory.
const keysDir = "keys"

func initCommand() *cobra.Command {
	var root, img, configDir, manager string
	var trust, imageKeys []string
	s := settings.Settings{Protocols: []string{"tftp", "ftp"}}
	cmd := &cobra.Command{
		Use:   "init --root DIR --image FILE --trust KEY.pub --hardware MODEL --device-id ID",
		Short: "Set up a device: software in bank 1, keys, settings, configuration data",
		Long: `init creates the root directory of a device: it verifies the image with the given
keys, installs its software in bank 1, copies the configuration data, and writes
ROOT/iad.toml, which lists all settings, unused ones commented out, and may be
edited. While that file is missing, init has not finished and may be run again.

The embedded SNMP engine listens on loopback unless --snmp says otherwise.
--manager adds an SNMPv3 user with random passphrases and writes a credentials
file for iadms. SNMPv1 and v2c are off unless communities are given.`,
		Example: `  iad init --root /var/lib/iad --image fw-1.0.0.iad --trust maker.pub \
           --hardware IAD-4FXS --device-id IAD-0001 --manager credentials.toml
  iadms status 127.0.0.1:1161 --credentials credentials.toml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.Model == "" {
				s.Model = s.Hardware
			}
			if err := check(&s); err != nil {
				return cli.Usage(err)
			}
			if manager != "" {
				if err := addManager(&s, root, manager); err != nil {
					return err
				}
			}
			return initDevice(cmd, root, img, configDir, manager, trust, imageKeys, &s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&root, "root", "", "root directory of the device")
	f.StringVar(&img, "image", "", "software to start with, made by 'iadms image build'")
	f.StringArrayVar(&trust, "trust", nil, "public key that software is signed with, or trust chain; may be repeated")
	f.StringVar(&s.Hardware, "hardware", "", "model that software must name, such as IAD-4FXS")
	f.StringVar(&s.Model, "model", "", "model to report (default: the hardware)")
	f.StringVar(&s.DeviceID, "device-id", "", "serial number or other identity, 1 to 32 bytes")
	f.StringVar(&configDir, "config-dir", "", "directory with configuration files, named userData, portData, protocolParams, defaultParams, otherData; the first line of each is \"iad-config NAME FORMAT\", such as \"iad-config userData 1\", with the format of the image")
	f.Int64Var(&s.BankSize, "bank-size", 0, "capacity of a bank in bytes (default: its partition)")
	f.StringVar(&s.Paths.Partition1, "partition1", "", "raw partition of bank 1, for software that needs one: a device, or a file of its size that stands for it")
	f.StringVar(&s.Paths.Partition2, "partition2", "", "raw partition of bank 2")
	f.StringSliceVar(&s.Protocols, "protocols", s.Protocols, "file transfer protocols: tftp, ftp, ftps")
	f.StringVar(&s.SNMP.Listen, "snmp", "127.0.0.1:1161", "UDP address of the embedded SNMP engine, empty for none")
	f.StringVar(&s.SNMP.ReadCommunity, "read-community", "", "community that may read (SNMPv1, v2c)")
	f.StringVar(&s.SNMP.WriteCommunity, "write-community", "", "community that may read and write (SNMPv1, v2c)")
	f.StringVar(&manager, "manager", "", "add an SNMPv3 user for iadms and write its credentials to this new file")
	f.StringArrayVar(&imageKeys, "image-key", nil, "private key (age) that decrypts images; may be repeated")
	f.StringArrayVar(&s.Backup.Recipients, "backup-recipient", nil, "encrypt backups to this age recipient (age1...) and to the device; may be repeated")
	f.BoolVar(&s.PlainPasswords, "plain-passwords", false, "accept passwords of file servers in requests without privacy")
	f.IntVar(&s.RateLimit, "rate-limit", 0, "limit of transfers in bytes per second (default: none)")
	for _, name := range []string{"root", "image", "trust", "hardware", "device-id"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

// addManager adds a user with all rights, at authPriv only. Its passphrases are those of the
// file if an init of this device that did not finish has written it.
func addManager(s *settings.Settings, root, file string) error {
	u := settings.User{Name: "iadms", Auth: "SHA-256", AuthPassphrase: rand.Text(), Priv: "AES", PrivPassphrase: rand.Text(), Write: true}
	if _, err := os.Stat(file); err == nil {
		if f, err := credentials.Read(file); err == nil && f.User != nil && begun(root) {
			u.AuthPassphrase, u.PrivPassphrase = f.User.AuthPassphrase, f.User.PrivPassphrase
			if *f.User == *credentialsOf(u) {
				s.SNMP.Users = append(s.SNMP.Users, u)
				return nil
			}
		}
		return fmt.Errorf("%s exists: name another file, or remove it", file)
	}
	s.SNMP.Users = append(s.SNMP.Users, u)
	return nil
}

// credentialsOf is u as iadms needs it.
func credentialsOf(u settings.User) *credentials.User {
	return &credentials.User{Name: u.Name, Auth: u.Auth, AuthPassphrase: u.AuthPassphrase, Priv: u.Priv, PrivPassphrase: u.PrivPassphrase}
}

// check returns an error for settings that a device could not run with.
func check(s *settings.Settings) error {
	switch {
	case len(s.DeviceID) < 1 || len(s.DeviceID) > 32 || strings.IndexFunc(s.DeviceID, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0:
		return fmt.Errorf("--device-id %q: must have 1 to 32 bytes of printable characters", s.DeviceID)
	case s.BankSize < 0:
		return fmt.Errorf("--bank-size %d: must be a number of bytes, or 0 for all of the partition", s.BankSize)
	case s.RateLimit < 0:
		return fmt.Errorf("--rate-limit %d: must be a number of bytes per second, or 0 for no limit", s.RateLimit)
	}
	for _, r := range s.Backup.Recipients {
		if _, err := agefile.ParseRecipient(r); err != nil {
			return fmt.Errorf("--backup-recipient: %w", err)
		}
	}
	if s.SNMP.Listen != "" {
		if _, err := net.ResolveUDPAddr("udp", s.SNMP.Listen); err != nil {
			return fmt.Errorf("--snmp: %w", err)
		}
	}
	return nil
}

// begun reports whether an init has begun in a directory: it creates the directory of the
// keys first.
func begun(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, keysDir))
	return err == nil
}

// unused returns an error for a directory whose contents would be overwritten, unless it
// is from an init that did not finish.
func unused(dir string) error {
	if begun(dir) {
		return nil
	}
	for _, part := range []string{"bank1", "bank2", "state", "config"} {
		list, err := os.ReadDir(filepath.Join(dir, part))
		if err == nil && slices.ContainsFunc(list, func(e os.DirEntry) bool { return !bank.Foreign(e.Name()) }) {
			return fmt.Errorf("%s is not empty: choose another directory for the device, or empty %s", filepath.Join(dir, part), dir)
		}
	}
	return nil
}

func initDevice(cmd *cobra.Command, dir, img, configDir, manager string, trust, imageKeys []string, s *settings.Settings) (err error) {
	file := filepath.Join(dir, settings.Name)
	for _, name := range []string{file, filepath.Join(dir, settings.GoodName)} {
		if _, err := os.Lstat(name); err == nil {
			return fmt.Errorf("%s exists: %s is already a device; choose another directory, or remove this one", name, dir)
		}
	}
	if err := unused(dir); err != nil {
		return err
	}
	keys, err := readTrust(trust)
	if err != nil {
		return err
	}
	decrypting, err := readImageKeys(imageKeys)
	if err != nil {
		return err
	}
	set, err := readSet(configDir)
	if err != nil {
		return err
	}
	for _, name := range []*string{&s.Paths.Partition1, &s.Paths.Partition2} {
		// In the settings a relative name would be within the device's directory.
		if *name != "" {
			if *name, err = filepath.Abs(*name); err != nil {
				return err
			}
		}
	}
	in, err := os.Open(img)
	if err != nil {
		return err
	}
	defer in.Close()
	// From here on files are written.
	if err := board.MakeDirectory(filepath.Join(dir, keysDir), 0o755); err != nil {
		return err
	}
	host := afero.NewOsFs()
	for i, data := range keys {
		name := filepath.Join(keysDir, fmt.Sprintf("%d-%s", i+1, filepath.Base(trust[i])))
		if err := durable.ReplaceFile(host, filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
		s.Trust = append(s.Trust, name)
	}
	for i, data := range decrypting {
		name := filepath.Join(keysDir, fmt.Sprintf("image-%d-%s", i+1, filepath.Base(imageKeys[i])))
		if err := durable.ReplaceFile(host, filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
		s.ImageKeys = append(s.ImageKeys, name)
	}
	c, _, err := s.Config(dir, version)
	if err = errors.Join(err, s.BadKeys()); err != nil {
		return err
	}
	root, err := s.Root(dir)
	if err != nil {
		return err
	}
	root.Open(&c)
	lock, err := board.LockRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	if err := agent.Provision(c, in, set); err != nil {
		return fmt.Errorf("%s, with the files of --config-dir: %w", img, err)
	}
	if err := root.KeepPlaces(true); err != nil {
		return err
	}
	text, err := s.Marshal()
	if err != nil {
		return err
	}
	if manager != "" {
		u := s.SNMP.Users[len(s.SNMP.Users)-1]
		file := credentials.File{Access: credentials.Access{User: credentialsOf(u)}}
		if err := credentials.Write(manager, &file); err != nil {
			return err
		}
	}
	// Last, so that a directory with iad.toml is a complete device.
	if err := durable.ReplaceFile(host, file, text, 0o600); err != nil {
		return err
	}
	if err := settings.WriteGood(dir, file, text); err != nil {
		return err
	}
	st := agent.Peek(c)
	fmt.Fprintf(cmd.OutOrStdout(), "device %s: software %s in bank 1, settings in %s\n", s.DeviceID, st.Banks.Bank(1).Version, file)
	return nil
}

// readTrust reads public keys and trust chains; anything else must not get into the device.
func readTrust(files []string) (keys [][]byte, err error) {
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("--trust: %w", err)
		}
		if _, err := image.TrustKeys().With(data); err != nil {
			return nil, fmt.Errorf("--trust %s: %w", name, err)
		}
		keys = append(keys, bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))) // earlier releases refuse the mark
	}
	return keys, nil
}

// readImageKeys reads private keys that decrypt images.
func readImageKeys(files []string) (keys [][]byte, err error) {
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err == nil {
			_, err = agefile.ReadIdentities(data)
		}
		if err != nil {
			return nil, fmt.Errorf("--image-key %s: %w", name, err)
		}
		keys = append(keys, data)
	}
	return keys, nil
}

// readSet reads the configuration files in a directory.
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

// Package settings is iad.toml, the file with a device's settings: its schema,
// the copy of the last good start that takes the place of a damaged file, and the
// conversion to agent.Config.
package settings

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"example.com/iad/agent"
	"example.com/iad/agent/agentx"
	"example.com/iad/agent/board"
	"example.com/iad/bank/image"
	"example.com/iad/bank/partition"
	"example.com/iad/internal/agefile"
	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// Name is the name of the file in the device's root directory.
const Name = "iad.toml"

// Load reads iad.toml without comparing it with the copy.
func Load(file string) (*Settings, error) {
	data, err := read(file)
	if err != nil {
		return nil, err
	}
	return parse(file, data)
}

// parse decodes the content of file.
func parse(file string, data []byte) (*Settings, error) {
	if isUTF16(data) {
		return nil, fmt.Errorf("%s is in UTF-16: save it as UTF-8", file)
	}
	s := &Settings{file: file, text: data}
	dec := toml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, byteOrderMark)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(s); err != nil {
		return nil, decodeError(file, err)
	}
	if err := s.identify(); err != nil {
		return nil, err
	}
	return s, nil
}

// serves reports whether the settings name the device and a way to reach it.
func (s *Settings) serves() bool {
	return s.DeviceID != "" && (s.SNMP.Listen != "" || s.AgentX != "")
}

// Root is where the parts of the device in dir are.
func (s *Settings) Root(dir string) (board.Root, error) {
	root, err := board.RootIn(dir)
	if err != nil {
		return root, err
	}
	for part, given := range map[*string]string{
		&root.Banks[0]: s.Paths.Bank1, &root.Banks[1]: s.Paths.Bank2, &root.State: s.Paths.State,
		&root.Data: s.Paths.Config, &root.Work: s.Paths.Work, &root.Applied: s.Paths.Applied,
	} {
		if given != "" {
			*part = filepath.Clean(within(dir, given))
		}
	}
	return root, nil
}

// BadKeys names the keys and certificates that Config could not use.
func (s *Settings) BadKeys() error { return s.badKeys }

// Config turns settings into the agent's configuration; dir is the directory of the
// device, whose parts are neither looked at nor made: that is for board.Root.
func (s *Settings) Config(dir, version string) (agent.Config, *board.Platform, error) {
	root, err := s.Root(dir)
	if err != nil {
		return agent.Config{}, nil, err
	}
	p := &board.Platform{
		Banks: root.Banks, BankSize: s.BankSize, Work: root.Work, Applied: root.Applied, State: root.State, Data: root.Data,
		SelfTestProgram: s.Programs.SelfTest, ConverterProgram: s.Programs.Convert, CheckProgram: s.Programs.Check,
		ApplyProgram: s.Programs.Apply, CallsProgram: s.Programs.Calls, NoReset: s.Programs.NoReset,
	}
	if s.Programs.UID != 0 {
		p.As = &board.User{UID: s.Programs.UID, GID: s.Programs.GID}
	}
	if s.Programs.Limit != "" {
		if p.Limit, err = time.ParseDuration(s.Programs.Limit); err != nil {
			return agent.Config{}, nil, s.mistake("programs.limit", 0)
		}
	}
	c := agent.Config{
		DeviceID: s.DeviceID, Model: s.Model, Hardware: s.Hardware, Platform: p,
		PlainPasswords: s.PlainPasswords, MaxConfigFile: s.MaxConfigFile,
	}
	// A start hashes both banks, and runs the programs that check and apply configuration data.
	c.StartLimit = startLimit + 2*cmp.Or(p.Limit, board.DefaultLimit)
	c.Transfer.RateLimit = s.RateLimit
	c.Trust, s.badKeys = readTrust(dir, s.Trust)
	var bad error
	if c.ImageKeys, bad = readImageKeys(dir, s.ImageKeys); bad != nil {
		s.badKeys = errors.Join(s.badKeys, bad)
	}
	if err := s.ftps(&c.Transfer, dir); err != nil {
		s.badKeys = errors.Join(s.badKeys, err)
	}
	for _, name := range s.Protocols {
		proto, ok := map[string]mib.Protocol{"tftp": mib.ProtocolTftp, "ftp": mib.ProtocolFtp, "ftps": mib.ProtocolFtps}[name]
		if !ok {
			return c, nil, s.mistake("protocols", 0)
		}
		if proto == mib.ProtocolFtps && !transfer.HasFTPS {
			return c, nil, fmt.Errorf("%s: protocols has ftps, but this program was built without FTPS (deploy/build -noftps); "+
				"remove ftps from protocols, or install a program with FTPS", s.file)
		}
		c.Protocols = append(c.Protocols, proto)
	}
	if s.MIBRoot != "" {
		if c.Root, err = mib.ParseRoot(s.MIBRoot); err != nil {
			return c, nil, s.mistake("mib_root", 0)
		}
	}
	for _, text := range s.Backup.Recipients {
		r, err := agefile.ParseRecipient(text)
		if err != nil {
			return c, nil, s.mistake("backup.recipients", 0)
		}
		c.Encryption.Recipients = append(c.Encryption.Recipients, r)
	}
	c.Encryption.AcceptPlain = s.Backup.AcceptPlain
	if c.SNMP, err = s.SNMP.config(s, version); err != nil {
		return c, nil, err
	}
	if c.Loader, err = s.loader(dir); err != nil {
		return c, nil, err
	}
	c.Verified = s.Loader.Verified
	if p := s.Paths; p.Partition1 != "" || p.Partition2 != "" {
		if p.Partition1 == "" || p.Partition2 == "" {
			return c, nil, fmt.Errorf("%s: paths.partition1 and paths.partition2 must both be set, or neither", s.file)
		}
		c.Partitions, c.Findings = partition.Pair([2]string{within(dir, p.Partition1), within(dir, p.Partition2)})
	}
	if s.AgentX != "" {
		c.AgentX = &agentx.Config{Address: s.AgentX, Private: s.AgentXPrivate, Description: "iad " + s.DeviceID}
	}
	return c, p, nil
}

// startLimit is how long the watchdog is kicked while a start reads the banks: enough for
// two of 150 MiB at 1 MB/s.
const startLimit = 5 * time.Minute

// ftps puts into o how servers are recognized; after an error none is.
func (s *Settings) ftps(o *transfer.Options, dir string) (err error) {
	p := &s.FTPS
	defer func() {
		if err != nil {
			o.Pin = nil
			o.TLS, _ = transfer.TrustOnly(nil)
		}
	}()
	if !transfer.HasFTPS && p.CA+p.Pin != "" {
		return errors.New("[ftps] has settings, but this program was built without FTPS (deploy/build -noftps)")
	}
	if p.CA != "" {
		data, err := os.ReadFile(within(dir, p.CA))
		if err != nil {
			return fmt.Errorf("ftps.ca: %w", err)
		}
		var found bool
		if o.TLS, found = transfer.TrustOnly(bytes.TrimPrefix(data, byteOrderMark)); !found {
			return fmt.Errorf("ftps.ca: %s has no certificate", p.CA)
		}
	}
	if p.Pin != "" {
		if o.Pin, err = hex.DecodeString(strings.ReplaceAll(p.Pin, ":", "")); err != nil || len(o.Pin) != sha256.Size {
			return s.mistake("ftps.pin", 0)
		}
	}
	return nil
}

func within(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// readImageKeys reads the keys that can be read; the error is about the others.
func readImageKeys(dir string, files []string) (keys []agefile.Identity, errs error) {
	for _, f := range files {
		if info, err := os.Stat(within(dir, f)); err == nil && info.Mode().IsRegular() {
			closeToOthers(within(dir, f), info, "keys")
		}
		data, err := os.ReadFile(within(dir, f))
		var ids []agefile.Identity
		if err == nil {
			ids, err = agefile.ReadIdentities(data)
		}
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("image_keys: %s: %w", f, err))
		}
		keys = append(keys, ids...)
	}
	return keys, errs
}

// readTrust reads the keys and trust chains that can be read; the error is about the others.
// A lost key keeps new software out, never a device from starting.
func readTrust(dir string, files []string) (trust *image.Trust, errs error) {
	trust = image.TrustKeys()
	for _, f := range files {
		data, err := os.ReadFile(within(dir, f))
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("trust: %w", err))
			continue
		}
		if trust, err = trust.With(data); err != nil {
			errs = errors.Join(errs, fmt.Errorf("trust: %s: %w", f, err))
		}
	}
	return trust, errs
}

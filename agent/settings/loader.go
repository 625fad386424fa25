package settings

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/afero"

	"example.com/iad/bank"
	"example.com/iad/bank/uboot"
)

// Ways to restart a device, besides a program.
const (
	RestartExec   = "exec"
	RestartReboot = "reboot"
)

// Restarts is how a reset restarts the device: RestartExec, RestartReboot, or the path of
// a program.
func (s *Settings) Restarts() string { return cmp.Or(s.Restart, RestartExec) }

// loader is the boot loader that the settings describe, nil for none.
func (s *Settings) loader(dir string) (bank.Loader, error) {
	if r := s.Restart; r != "" && r != RestartExec && r != RestartReboot && !filepath.IsAbs(r) {
		return nil, s.mistake("restart", 0)
	}
	l := &s.Loader
	if l.Kind == "" {
		return nil, nil
	}
	if s.Restarts() == RestartExec {
		return nil, fmt.Errorf("%w: with a boot loader the board has to restart", s.mistake("restart", 0))
	}
	scheme, err := s.scheme()
	if err != nil {
		return nil, err
	}
	u := &uboot.Loader{Scheme: scheme}
	if u.Cmdline, err = s.cmdline(dir); err != nil {
		return nil, err
	}
	if u.Environment, err = s.environment(dir); err != nil {
		return nil, err
	}
	return u, nil
}

// scheme is how variables stand for the loader's choice.
func (s *Settings) scheme() (uboot.Scheme, error) {
	l := &s.Loader
	if n := len(l.Banks); n != 0 && (n != 2 || l.Banks[0] == l.Banks[1] || l.Banks[0] == "" || l.Banks[1] == "") {
		return nil, s.mistake("loader.banks", 0)
	}
	switch l.Kind {
	case "script", "uboot":
		return uboot.Script{}, nil
	case "rauc":
		var r uboot.RAUC
		copy(r.Names[:], l.Banks)
		return r, nil
	case "bootcount":
		if len(l.Banks) == 0 {
			return nil, s.mistake("loader.banks", 0)
		}
		if l.Variable == "" || strings.ContainsAny(l.Variable, "= ") {
			return nil, s.mistake("loader.variable", 0)
		}
		return uboot.Bootcount{Variable: l.Variable, Values: [2]string(l.Banks)}, nil
	}
	return nil, s.mistake("loader.kind", 0)
}

// cmdline is where the loader says which bank it started.
func (s *Settings) cmdline(dir string) (c uboot.Cmdline, err error) {
	l := &s.Loader
	c = uboot.Cmdline{Fs: afero.NewOsFs(), Path: "/proc/cmdline", Parameter: "iad.bank", Values: [2]string{"1", "2"}, Why: "iad.why"}
	if l.Cmdline != "" {
		c.Path = within(dir, l.Cmdline)
	}
	if l.Kind == "rauc" {
		c.Parameter, c.Values = "rauc.slot", [2]string{"A", "B"}
		copy(c.Values[:], l.Banks)
	}
	if l.Parameter != "" {
		c.Parameter = l.Parameter
	}
	switch len(l.Started) {
	case 0:
	case 2:
		c.Values = [2]string(l.Started)
	default:
		return c, s.mistake("loader.started", 0)
	}
	return c, nil
}

const (
	defaultCopySize = 4096
	minCopySize     = 64
	maxCopySize     = 1 << 20
	defaultEnvFile  = "/etc/fw_env.config"
)

// environment is where the variables are.
func (s *Settings) environment(dir string) (*uboot.Environment, error) {
	l := &s.Loader
	var order binary.ByteOrder = binary.NativeEndian
	switch l.ByteOrder {
	case "":
	case "little":
		order = binary.LittleEndian
	case "big":
		order = binary.BigEndian
	default:
		return nil, s.mistake("loader.byte_order", 0)
	}
	if l.Kind != "script" {
		name := defaultEnvFile
		if l.Config != "" {
			name = within(dir, l.Config)
		}
		file, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("loader.config: %w", err)
		}
		defer file.Close()
		e, err := uboot.ReadConfig(file, order)
		if err != nil {
			return nil, fmt.Errorf("loader.config: %s: %w", name, err)
		}
		e.Lock = uboot.LockTools
		return e, nil
	}
	if len(l.Copies) != 2 {
		return nil, s.mistake("loader.copies", 0)
	}
	e := uboot.Environment{Size: defaultCopySize, Order: order}
	if l.Size != 0 {
		if l.Size < minCopySize || l.Size > maxCopySize {
			return nil, s.mistake("loader.size", 0)
		}
		e.Size = int(l.Size)
	}
	var at [2]int64
	for i, c := range l.Copies {
		device, offset, _ := cutLast(c, ":")
		n, err := strconv.ParseInt(offset, 0, 64)
		if err != nil || n < 0 || device == "" {
			return nil, s.mistake("loader.copies", 0)
		}
		at[i] = n
		e.Copies = append(e.Copies, uboot.Open(afero.NewOsFs(), within(dir, device), n, 0))
	}
	if e.Copies[0].String() == e.Copies[1].String() || sameDevice(l.Copies) && max(at[0], at[1])-min(at[0], at[1]) < int64(e.Size) {
		return nil, fmt.Errorf("%w: the copies overlap", s.mistake("loader.copies", 0))
	}
	return uboot.ScriptEnvironment(e), nil
}

func sameDevice(copies []string) bool {
	a, _, _ := cutLast(copies[0], ":")
	b, _, _ := cutLast(copies[1], ":")
	return a == b
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

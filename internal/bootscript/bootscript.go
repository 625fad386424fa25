// Package bootscript is test support: it does what boot loaders do with the variables of
// package uboot, so that devices without U-Boot can be started as a board starts. Run
// carries out the boot script itself.
package bootscript

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/afero"

	"example.com/iad/bank"
	"example.com/iad/bank/uboot"
)

// Places and size of the two copies in a file.
const (
	copySize = 0x1000
	second   = 0x2000
	FileSize = second + copySize
)

// Board is a board whose boot loader keeps its state in a file.
type Board struct {
	Environment *uboot.Environment
	Scheme      uboot.Scheme
	// Broken reports whether the loader fails to load a bank; nil for never.
	Broken func(bank int) bool

	choose func(*uboot.Variables) (n int, why string)
	reset  func(*uboot.Variables) // the environment that was compiled into the loader
}

// Script is a board with the boot script of deploy/uboot.
func Script(fs afero.Fs, name string) *Board {
	b := &Board{Environment: environment(fs, name), Scheme: uboot.Script{}, choose: runScript}
	b.Environment = uboot.ScriptEnvironment(*b.Environment)
	b.reset = func(v *uboot.Variables) {
		for name, value := range map[string]string{"iad_next": "1", "iad_left": "1", "iad_fallback": "2", "iad_lost": "1"} {
			v.Set(name, value)
		}
	}
	return b
}

// RAUC is a board with a boot script as RAUC's documentation has it.
func RAUC(fs afero.Fs, name string) *Board {
	return &Board{
		Environment: environment(fs, name), Scheme: uboot.RAUC{}, choose: runRAUC,
		reset: func(v *uboot.Variables) {
			v.Set("BOOT_ORDER", "A B")
			v.Set("BOOT_A_LEFT", "3")
			v.Set("BOOT_B_LEFT", "3")
		},
	}
}

// Bootcount is a board with U-Boot's boot counter and an altbootcmd.
func Bootcount(fs afero.Fs, name string) *Board {
	return &Board{
		Environment: environment(fs, name), Scheme: uboot.Bootcount{Variable: "part", Values: [2]string{"2", "3"}}, choose: runBootcount,
		reset: func(v *uboot.Variables) { v.Set("part", "2") },
	}
}

func environment(fs afero.Fs, name string) *uboot.Environment {
	return &uboot.Environment{
		Size: copySize, Order: binary.NativeEndian, Create: true,
		Copies: []uboot.Copy{uboot.File{Fs: fs, Name: name}, uboot.File{Fs: fs, Name: name, Offset: second}},
	}
}

// Settings is the section [loader] of iad.toml for the state of Script in a file, with a
// command line in another file.
func Settings(state, cmdline string) string {
	return fmt.Sprintf("[loader]\nkind = 'script'\ncopies = ['%s:0', '%s:%#x']\nsize = %d\ncmdline = '%s'\n", state, state, second, copySize, cmdline)
}

// Start starts the board. It returns the bank that starts, and why. An error means that
// the count of a start could not be saved, as when the power fails.
func (b *Board) Start() (n int, why string, err error) {
	lost := false
	if _, _, err := b.Environment.Load(); err != nil {
		lost = true
	}
	err = b.Environment.Update(func(v *uboot.Variables) {
		if lost {
			b.reset(v)
		}
		n, why = b.choose(v)
	})
	if lost {
		why = bank.WhyLost
	}
	if err == nil && b.Broken != nil && b.Broken(n) {
		n, why = 3-n, "load"
	}
	return n, why, err
}

// runScript chooses by the rules of deploy/uboot/boot.cmd.
func runScript(v *uboot.Variables) (n int, why string) {
	n, _ = strconv.Atoi(v.Get("iad_next"))
	left, err := strconv.ParseUint(v.Get("iad_left"), 16, 8)
	switch fallback := v.Get("iad_fallback"); {
	case err == nil && left > 0:
		v.Set("iad_left", strconv.FormatUint(left-1, 16))
	case err == nil && fallback != "0":
		n, _ = strconv.Atoi(fallback)
		return n, "tries"
	}
	return n, "next"
}

// runRAUC takes the first bank of BOOT_ORDER with starts left, and one off that. If no bank
// has any, all get them back.
func runRAUC(v *uboot.Variables) (n int, why string) {
	for {
		for i, name := range strings.Fields(v.Get("BOOT_ORDER")) {
			left, _ := strconv.Atoi(v.Get("BOOT_" + name + "_LEFT"))
			if left == 0 {
				continue
			}
			v.Set("BOOT_"+name+"_LEFT", strconv.Itoa(left-1))
			return 1 + strings.Index("AB", name), []string{"next", "tries"}[i]
		}
		v.Set("BOOT_A_LEFT", "3")
		v.Set("BOOT_B_LEFT", "3")
	}
}

// runBootcount counts while an upgrade is available, and goes back beyond the limit.
func runBootcount(v *uboot.Variables) (n int, why string) {
	n, _ = strconv.Atoi(v.Get("part"))
	n--
	if v.Get("upgrade_available") != "1" {
		return n, "next"
	}
	count, _ := strconv.Atoi(v.Get("bootcount"))
	v.Set("bootcount", strconv.Itoa(count+1))
	if limit, _ := strconv.Atoi(v.Get("bootlimit")); count+1 <= limit {
		return n, "next"
	}
	n = 3 - n
	v.Set("part", strconv.Itoa(n+1))
	v.Set("upgrade_available", "0")
	v.Set("bootcount", "0")
	return n, "tries"
}

// Loader is the agent's view of the board after it has started bank n.
func (b *Board) Loader(n int, why string) bank.Loader {
	return started{&uboot.Loader{Environment: b.Environment, Scheme: b.Scheme}, n, why}
}

type started struct {
	*uboot.Loader
	bank int
	why  string
}

func (s started) Started() (int, string) { return s.bank, s.why }

// Package bootscript is test support: it does what the boot script in deploy/uboot does,
// so that devices without U-Boot can be started as a board starts.
package bootscript

import (
	"encoding/binary"
	"fmt"
	"strconv"

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
	// Broken reports whether the loader fails to load a bank; nil for never.
	Broken func(bank int) bool
}

// New makes a board whose state is in the file name of fs.
func New(fs afero.Fs, name string) *Board {
	return &Board{Environment: uboot.ScriptEnvironment(uboot.Environment{
		Size: copySize, Order: binary.NativeEndian,
		Copies: []uboot.Copy{uboot.File{Fs: fs, Name: name}, uboot.File{Fs: fs, Name: name, Offset: second}},
	})}
}

// Settings is the section [loader] of iad.toml for a state in a file, with a command line
// in another file.
func Settings(state, cmdline string) string {
	return fmt.Sprintf("[loader]\nkind = 'script'\ncopies = ['%s:0', '%s:%#x']\nsize = %d\ncmdline = '%s'\n", state, state, second, copySize, cmdline)
}

// Start starts the board. It returns the bank that starts, and why. An error means that
// the count of a start could not be saved, as when the power fails.
func (b *Board) Start() (n int, why string, err error) {
	why = "next"
	if _, _, err := b.Environment.Load(); err != nil {
		why = bank.WhyLost
	}
	err = b.Environment.Update(func(v *uboot.Variables) {
		if why == bank.WhyLost {
			v.Set("iad_next", "1")
			v.Set("iad_left", "1")
			v.Set("iad_fallback", "2")
			v.Set("iad_lost", "1")
		}
		n, _ = strconv.Atoi(v.Get("iad_next"))
		left, err := strconv.ParseUint(v.Get("iad_left"), 16, 8)
		switch fallback := v.Get("iad_fallback"); {
		case err == nil && left > 0:
			v.Set("iad_left", strconv.FormatUint(left-1, 16))
		case err == nil && fallback != "0":
			n, _ = strconv.Atoi(fallback)
			why = "tries"
		}
	})
	if err == nil && b.Broken != nil && b.Broken(n) {
		n, why = 3-n, "load"
	}
	return n, why, err
}

// Loader is the agent's view of the board after it has started bank n.
func (b *Board) Loader(n int, why string) bank.Loader {
	return started{&uboot.Loader{Environment: b.Environment, Scheme: uboot.Script{}}, n, why}
}

type started struct {
	*uboot.Loader
	bank int
	why  string
}

func (s started) Started() (int, string) { return s.bank, s.why }

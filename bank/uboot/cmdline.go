package uboot

import (
	"io"
	"strings"

	"github.com/spf13/afero"
)

// Cmdline finds in the kernel's command line which bank the loader started.
type Cmdline struct {
	Fs        afero.Fs
	Path      string    // the file, usually /proc/cmdline
	Parameter string    // whose value names the bank, such as iad.bank, rauc.slot or root
	Values    [2]string // of the parameter, for bank 1 and bank 2
	Why       string    // parameter that says why the loader chose that bank, such as iad.why; "" for none
}

// maxCmdline is more than a kernel accepts.
const maxCmdline = 64 << 10

func (c Cmdline) started() (n int, why string) {
	file, err := c.Fs.Open(c.Path)
	if err != nil {
		return 0, ""
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxCmdline))
	if err != nil {
		return 0, ""
	}
	for word := range strings.FieldsSeq(string(text)) {
		name, value, ok := strings.Cut(word, "=")
		switch {
		case !ok:
		case name == c.Parameter && value == c.Values[0]: // the last one counts, as for the kernel
			n = 1
		case name == c.Parameter && value == c.Values[1]:
			n = 2
		case name == c.Why && c.Why != "":
			why = value
		}
	}
	return n, why
}

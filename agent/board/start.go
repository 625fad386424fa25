package board

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"example.com/iad/internal/executable"
)

// startError is the system's error for a program that could not be started, with
// what is wrong with the program.
type startError struct {
	path, text string
	err        error
}

func (e *startError) Error() string { return e.path + ": " + e.text }
func (e *startError) Unwrap() error { return e.err }

// whyNotStarted says what is wrong with a program that the system did not start, ""
// if its error says it well enough: of a script whose interpreter is missing it says
// that there is no such file.
func whyNotStarted(path string, err error) string {
	if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOEXEC) && !errors.Is(err, syscall.EACCES) {
		return ""
	}
	f, openErr := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) //durable: only read
	if openErr != nil {
		return ""
	}
	defer f.Close()
	p, readErr := executable.Read(f)
	switch {
	case errors.Is(readErr, executable.ErrInvalid):
		return readErr.Error()
	case readErr != nil:
		return ""
	case p.Interpreter != "":
		info, statErr := os.Stat(p.Interpreter)
		switch {
		case errors.Is(statErr, os.ErrNotExist):
			return fmt.Sprintf("its interpreter %s does not exist on this device", p.Interpreter)
		case statErr == nil && !info.Mode().IsRegular():
			return fmt.Sprintf("its interpreter %s is not a program", p.Interpreter)
		}
	}
	if own, ok := ownProgram(); ok && !p.Script && errors.Is(err, syscall.ENOEXEC) && (own.Machine != p.Machine || own.Bits < p.Bits) {
		return fmt.Sprintf("it is made for %s (%d bits), and this device is %s (%d bits)", p.MachineName(), p.Bits, own.MachineName(), own.Bits)
	}
	return ""
}

func ownProgram() (executable.File, bool) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return executable.File{}, false
	}
	defer f.Close()
	p, err := executable.Read(f)
	return p, err == nil
}

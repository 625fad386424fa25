package bootscript

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"

	"example.com/iad/bank/uboot"
)

// Hardware is what a script of U-Boot works on.
type Hardware struct {
	// Disk is the first virtio disk, in blocks of 512 bytes.
	Disk interface {
		io.ReaderAt
		io.WriterAt
	}
	// Load returns the size of a file in a partition, 0 if it cannot be loaded.
	Load func(partition int, name string) int
	// Partition returns where a partition begins on the disk and how large it is, in bytes; 0, 0 if there is none.
	Partition func(number int) (begin, size int64)
	// Intact reports whether U-Boot finds a FIT image with good hashes at the beginning of data.
	Intact func(data []byte) bool
}

var forPartitions = regexp.MustCompile(`(?m)^#(setenv iad_(?:fit|load|start) .*)$`)

// ForPartitions returns the boot script of deploy/uboot as it is for FIT images on raw partitions: with the lines that
// are comments for files.
func ForPartitions(script string) string { return forPartitions.ReplaceAllString(script, "$1") }

// Errors of Run.
var (
	ErrReset    = errors.New("the script resets the board")
	ErrNoKernel = errors.New("the script ends without a kernel")
)

// Run carries out a script of U-Boot until it starts a kernel, and returns the kernel's
// command line. It knows the commands and the grammar that deploy/uboot/boot.cmd uses; a
// command that it does not know is an error, not a command that fails.
func Run(ctx context.Context, script string, hw Hardware) (bootargs string, err error) {
	// The grammar of U-Boot's shell is that of a small POSIX shell.
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(script), "boot.cmd")
	if err != nil {
		return "", err
	}
	s := &session{hw: hw, memory: map[uint64][]byte{}, ended: ErrNoKernel}
	r, err := interp.New(interp.CallHandler(s.call), interp.StdIO(nil, io.Discard, io.Discard),
		interp.Env(expand.ListEnviron("filesize=", "fdtcontroladdr=41000000")))
	if err != nil {
		return "", err
	}
	if err := r.Run(ctx, file); s.failed == nil && err != nil {
		var status interp.ExitStatus
		if !errors.As(err, &status) {
			s.failed = err
		}
	}
	if s.failed != nil {
		return "", s.failed
	}
	return s.bootargs, s.ended
}

// A session is a run of a script.
type session struct {
	hw       Hardware
	memory   map[uint64][]byte // by address
	bootargs string
	ended    error // nil once a kernel was started
	failed   error
}

const blockSize = 512

// call carries out a command of U-Boot, and returns what the shell has to do for it.
func (s *session) call(ctx context.Context, args []string) ([]string, error) {
	env := interp.HandlerCtx(ctx).Env
	done, err := s.command(args, func(name string) string { return env.Get(name).String() })
	if err != nil {
		s.failed = fmt.Errorf("%s: %w", strings.Join(args, " "), err)
		return []string{"exit", "1"}, nil
	}
	return done, nil
}

var (
	succeeded = []string{"true"}
	refused   = []string{"false"}
)

func (s *session) command(args []string, get func(string) string) ([]string, error) {
	switch name := strings.Join(args[:min(2, len(args))], " "); {
	case args[0] == "setenv" && len(args) > 1:
		return assign(args[1], strings.Join(args[2:], " ")), nil
	case args[0] == "setexpr" && len(args) == 5:
		return setexpr(args)
	case args[0] == "run" && len(args) == 2:
		return []string{"eval", get(args[1])}, nil
	case args[0] == "test":
		return decimal(args)
	case name == "env import" && len(args) > 5 && args[2] == "-c":
		return s.importVariables(args[3], args[4], args[5:])
	case name == "env export" && len(args) > 6 && args[2] == "-c" && args[3] == "-s":
		return s.exportVariables(args[5], args[4], args[6:], get)
	case (name == "virtio read" || name == "virtio write") && len(args) == 5:
		return s.transfer(args[1], args[2:])
	case args[0] == "load" && len(args) == 5 && args[1] == "virtio":
		return s.load(args[2], args[4])
	case (name == "part start" || name == "part size") && len(args) == 6 && args[2] == "virtio" && args[3] == "0":
		return s.part(args[1], args[4], args[5])
	case args[0] == "bootm" && len(args) == 4:
		return s.bootm(args[1], get)
	case args[0] == "bootz":
		return s.start(get), nil
	case args[0] == "reset":
		s.ended = ErrReset
		return []string{"exit", "0"}, nil
	case args[0] == "sleep":
		return succeeded, nil
	case args[0] == "true", args[0] == "false", args[0] == "echo":
		return args, nil
	}
	return nil, errors.New("not a command that is known here")
}

// assign sets a variable, or removes it if there is no value.
func assign(name, value string) []string {
	return []string{"eval", name + "='" + strings.ReplaceAll(value, "'", `'\''`) + "'"}
}

func number(text string) (uint64, error) {
	return strconv.ParseUint(strings.TrimPrefix(text, "0x"), 16, 64)
}

// setexpr adds and subtracts hexadecimal numbers.
func setexpr(args []string) ([]string, error) {
	a, err := number(args[2])
	if err != nil {
		return nil, err
	}
	b, err := number(args[4])
	if err != nil {
		return nil, err
	}
	switch args[3] {
	case "+":
		a += b
	case "-":
		a -= b
	default:
		return nil, errors.New("not an operator that is known here")
	}
	return assign(args[1], strconv.FormatUint(a, 16)), nil
}

// decimal makes the hexadecimal numbers of a test decimal, which a shell understands.
func decimal(args []string) ([]string, error) {
	out := append([]string(nil), args...)
	for i, a := range out {
		if strings.HasPrefix(a, "0x") {
			n, err := number(a)
			if err != nil {
				return nil, err
			}
			out[i] = strconv.FormatUint(n, 10)
		}
	}
	return out, nil
}

// transfer reads or writes blocks of the disk.
func (s *session) transfer(direction string, args []string) ([]string, error) {
	var n [3]uint64 // address, block, number of blocks
	for i, text := range args {
		var err error
		if n[i], err = number(text); err != nil {
			return nil, err
		}
	}
	address, offset := n[0], int64(n[1])*blockSize
	if direction == "read" {
		data := make([]byte, n[2]*blockSize)
		if _, err := s.hw.Disk.ReadAt(data, offset); err != nil {
			return refused, nil
		}
		s.memory[address] = data
		return succeeded, nil
	}
	if _, err := s.hw.Disk.WriteAt(s.memory[address], offset); err != nil {
		return refused, nil
	}
	return succeeded, nil
}

// start starts a kernel, which does not return.
func (s *session) start(get func(string) string) []string {
	s.bootargs, s.ended = get("bootargs"), nil
	return []string{"exit", "0"}
}

// bootm starts a FIT image, if it is one and intact.
func (s *session) bootm(image string, get func(string) string) ([]string, error) {
	address, _, named := strings.Cut(image, "#")
	at, err := number(address)
	if err != nil || !named {
		return nil, errors.New("not an address and a configuration")
	}
	if !s.hw.Intact(s.memory[at]) {
		return refused, nil
	}
	return s.start(get), nil
}

// part sets a variable to the first block of a partition, or how many it has.
func (s *session) part(what, partition, variable string) ([]string, error) {
	n, err := strconv.ParseUint(partition, 16, 8)
	if err != nil {
		return nil, err
	}
	begin, size := s.hw.Partition(int(n))
	switch {
	case size == 0:
		return refused, nil
	case what == "start":
		return assign(variable, strconv.FormatInt(begin/blockSize, 16)), nil
	}
	return assign(variable, strconv.FormatInt(size/blockSize, 16)), nil
}

func (s *session) load(partition, name string) ([]string, error) {
	n, ok := strings.CutPrefix(partition, "0:")
	number, err := strconv.ParseUint(n, 16, 8)
	if !ok || err != nil {
		return nil, errors.New("not a partition of the first disk")
	}
	size := s.hw.Load(int(number), name)
	if size == 0 {
		return refused, nil
	}
	return assign("filesize", strconv.FormatInt(int64(size), 16)), nil
}

// importVariables sets the variables that a copy of an environment has, and removes those
// that it does not have.
func (s *session) importVariables(address, size string, names []string) ([]string, error) {
	at, err := number(address)
	if err != nil {
		return nil, err
	}
	n, err := number(size)
	if err != nil || int(n) != len(s.memory[at]) {
		return nil, fmt.Errorf("%d bytes at %s", len(s.memory[at]), address)
	}
	// A U-Boot that was built for two copies of its environment leaves room for a flags byte.
	e := uboot.ScriptEnvironment(uboot.Environment{Copies: []uboot.Copy{buffer(s.memory[at])}, Size: int(n), Order: binary.NativeEndian})
	v, _, err := e.Load()
	if err != nil {
		return refused, nil
	}
	var all []string
	for _, name := range names {
		all = append(all, assign(name, v.Get(name))[1])
	}
	return []string{"eval", strings.Join(all, "; ")}, nil
}

func (s *session) exportVariables(address, size string, names []string, get func(string) string) ([]string, error) {
	at, err := number(address)
	if err != nil {
		return nil, err
	}
	n, err := number(size)
	if err != nil {
		return nil, err
	}
	data := make([]byte, n)
	e := uboot.Environment{Copies: []uboot.Copy{buffer(data)}, Size: int(n), Order: binary.NativeEndian, Create: true}
	err = e.Update(func(v *uboot.Variables) {
		for _, name := range names {
			v.Set(name, get(name))
		}
	})
	s.memory[at] = data
	return succeeded, err
}

// A buffer is a copy of an environment in memory.
type buffer []byte

func (b buffer) String() string { return "memory" }

func (b buffer) Read(data []byte) error {
	copy(data, b)
	return nil
}

func (b buffer) Write(data []byte) error {
	copy(b, data)
	return nil
}

func (b buffer) PutByte(offset int64, value byte) error {
	b[offset] = value
	return nil
}

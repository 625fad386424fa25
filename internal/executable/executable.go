// Package executable reads from the beginning of a file whether Linux can run it, and on
// which processor: for the programs of a board and for those that an image brings.
package executable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// ErrInvalid is wrapped by errors of Read about files that no Linux system can execute.
var ErrInvalid = errors.New("not a program that Linux can run")

// A File is what the beginning of an executable file says about it.
type File struct {
	// Interpreter is the absolute path of the program that a script or a
	// dynamically linked program is run by, "" for a static one.
	Interpreter string
	// Script is false for a program in ELF.
	Script bool
	// Machine is e_machine of a program in ELF, 64-bit or not.
	Machine uint16
	Bits    int
}

// maxShebang is the length that every Linux reads of the first line of a script.
const maxShebang = 127

// Read reads the beginning of an executable file.
func Read(r io.ReaderAt) (File, error) {
	start := make([]byte, 256)
	n, err := r.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return File{}, err
	}
	start = start[:n]
	switch {
	case bytes.HasPrefix(start, []byte("#!")):
		return readScript(start)
	case bytes.HasPrefix(start, []byte("\x7fELF")):
		return readELF(r, start)
	case n == 0:
		return File{}, invalid("the file is empty")
	case bytes.HasPrefix(start, []byte("MZ")):
		return File{}, invalid("it is made for Windows")
	case bytes.HasPrefix(start, []byte("\xef\xbb\xbf#!")):
		return File{}, invalid("a byte order mark stands before #!")
	}
	for _, magic := range []string{"\xfe\xed\xfa\xce", "\xfe\xed\xfa\xcf", "\xce\xfa\xed\xfe", "\xcf\xfa\xed\xfe", "\xca\xfe\xba\xbe"} {
		if bytes.HasPrefix(start, []byte(magic)) {
			return File{}, invalid("it is made for macOS")
		}
	}
	return File{}, invalid("it begins neither with #! and an interpreter, such as #!/bin/sh, nor as an ELF program does")
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

func readScript(start []byte) (File, error) {
	line, _, whole := bytes.Cut(start[2:], []byte("\n"))
	if !whole && len(line) > maxShebang {
		return File{}, invalid("its first line is longer than %d bytes", maxShebang)
	}
	if bytes.HasSuffix(line, []byte("\r")) {
		return File{}, invalid("its lines end as on Windows (CR LF), so Linux would look for the interpreter %q", strings.TrimLeft(string(line), " \t"))
	}
	words := strings.Fields(string(line))
	if len(words) == 0 {
		return File{}, invalid("no interpreter follows #!")
	}
	if !path.IsAbs(words[0]) {
		return File{}, invalid("its interpreter %q is not an absolute path", words[0])
	}
	return File{Interpreter: words[0], Script: true}, nil
}

// readELF reads the header and finds the segment PT_INTERP.
func readELF(r io.ReaderAt, start []byte) (File, error) {
	const interp = 3
	if len(start) < 64 {
		return File{}, invalid("the file is cut off")
	}
	var order binary.ByteOrder = binary.LittleEndian
	if start[5] == 2 {
		order = binary.BigEndian
	}
	p := File{Machine: order.Uint16(start[18:]), Bits: 32}
	table, size, count := int64(order.Uint32(start[28:])), int64(order.Uint16(start[42:])), int(order.Uint16(start[44:]))
	at, length := 4, 16
	if start[4] == 2 {
		p.Bits = 64
		table, size, count = int64(order.Uint64(start[32:])), int64(order.Uint16(start[54:])), int(order.Uint16(start[56:]))
		at, length = 8, 32
	}
	if kind := order.Uint16(start[16:]); kind != 2 && kind != 3 {
		return File{}, invalid("an ELF file, but not executable")
	}
	if table < 0 || size < int64(length+8) || size > 256 {
		return File{}, invalid("its ELF header is damaged")
	}
	entry := make([]byte, size)
	for i := range min(count, 256) {
		if _, err := r.ReadAt(entry, table+int64(i)*size); err != nil {
			return File{}, invalid("the file is cut off")
		}
		if order.Uint32(entry) != interp {
			continue
		}
		offset, n := int64(order.Uint32(entry[at:])), int64(order.Uint32(entry[length:]))
		if p.Bits == 64 {
			offset, n = int64(order.Uint64(entry[at:])), int64(order.Uint64(entry[length:]))
		}
		if offset < 0 || n < 1 || n > 4096 {
			return File{}, invalid("its ELF header is damaged")
		}
		name := make([]byte, n)
		if _, err := r.ReadAt(name, offset); err != nil {
			return File{}, invalid("the file is cut off")
		}
		p.Interpreter = string(bytes.TrimRight(name, "\x00"))
		break
	}
	return p, nil
}

// machines names the usual values of File.Machine.
var machines = map[uint16]string{
	3: "x86", 8: "MIPS", 20: "PowerPC", 21: "PowerPC 64", 22: "S/390", 40: "ARM", 62: "x86-64", 183: "ARM 64",
	243: "RISC-V", 258: "LoongArch",
}

// MachineName names the processor that a program in ELF is made for.
func (p File) MachineName() string {
	if name, ok := machines[p.Machine]; ok {
		return name
	}
	return fmt.Sprintf("machine %d", p.Machine)
}

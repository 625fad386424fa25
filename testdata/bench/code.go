package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// decoding are the functions, by file, by which iad reads compressed and encrypted images and
// differences, and encrypts and decrypts configuration files.
var decoding = map[string][]string{
	"bank/encoding.go":            {"choose", "chooseAll", "chooseAgain", "openBase", "giveUpDelta", "receiveEncoded"},
	"bank/image/encoding.go":      {"readIndex", "readFrame", "Decode"},
	"bank/image/encryption.go":    {"Opener", "Open"},
	"bank/image/frame/decode.go":  {"Decode", "DecodeDelta"},
	"bank/image/frame/index.go":   {"ParseIndex"},
	"internal/agefile/agefile.go": {"Encrypt", "Decrypt", "NewIdentity", "IdentityOf", "ReadIdentities", "ParseRecipient", "Recipient", "String"},
}

// decodingCode returns how many bytes of iad for MIPS are there only for these: what the
// program loses if these functions do nothing, and with them all that nobody else calls.
func decodingCode(flags ...string) func(l *lab) (sides, error) {
	return func(l *lab) (sides, error) {
		dir, err := l.directory()
		if err != nil {
			return sides{}, err
		}
		return sides{ours: func() (sample, error) {
			var sizes []int64
			for _, name := range []string{"with", "without"} {
				tree := filepath.Join(dir, name)
				if err := os.RemoveAll(tree); err != nil {
					return sample{}, err
				}
				if err := os.Mkdir(tree, 0o755); err != nil {
					return sample{}, err
				}
				if _, err := l.run(exec.CommandContext(l.ctx, "sh", "-c", `git -C "$1" archive HEAD | tar -x -C "$2"`, "sh", l.top, tree)); err != nil {
					return sample{}, err
				}
				if name == "without" {
					for file, functions := range decoding {
						if err := empty(filepath.Join(tree, file), functions); err != nil {
							return sample{}, err
						}
					}
				}
				build := exec.CommandContext(l.ctx, "deploy/build", append(slices.Clone(flags), "-o", filepath.Join(dir, "iad"))...)
				build.Dir, build.Env = tree, append(os.Environ(), "GOOS=linux", "GOARCH=mips", "GOMIPS=softfloat", "VERSION=bench")
				if _, err := l.run(build); err != nil {
					return sample{}, err
				}
				size, err := loaded(filepath.Join(dir, "iad"))
				if err != nil {
					return sample{}, err
				}
				sizes = append(sizes, size)
			}
			return sample{bytes: sizes[0] - sizes[1]}, nil
		}}, nil
	}
}

// empty makes functions of a Go file panic; the linker leaves out what only they called.
func empty(file string, functions []string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, text, 0)
	if err != nil {
		return err
	}
	for _, d := range slices.Backward(parsed.Decls) {
		f, ok := d.(*ast.FuncDecl)
		if !ok || !slices.Contains(functions, f.Name.Name) {
			continue
		}
		at := set.Position(f.Body.Lbrace).Offset + 1
		text = slices.Concat(text[:at], []byte(` panic("left out");`), text[at:])
		functions = slices.DeleteFunc(slices.Clone(functions), func(name string) bool { return name == f.Name.Name })
	}
	if len(functions) > 0 {
		return fmt.Errorf("%s has no functions %q", file, functions)
	}
	return os.WriteFile(file, bytes.TrimSpace(text), 0o644)
}

// loaded returns how many bytes of a program are loaded from its file. Its segments begin at
// multiples of 64 KiB, so that the size of the file does not show small changes.
func loaded(name string) (size int64, err error) {
	f, err := elf.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_ALLOC != 0 && s.Type != elf.SHT_NOBITS {
			size += int64(s.Size)
		}
	}
	return size, nil
}

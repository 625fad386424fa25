package executable_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"example.com/iad/internal/executable"
)

func TestReadProgram(t *testing.T) {
	for text, want := range map[string]string{
		"#!/bin/sh\nexit 0\n":            "/bin/sh",
		"#! /usr/bin/env python3\n":      "/usr/bin/env",
		"#!/bin/sh":                      "/bin/sh",
		"#!/bin/sh\r\nexit 0\r\n":        "CR LF",
		"#!\nexit":                       "no interpreter",
		"#!sh\n":                         "absolute",
		"#!C:\\perl\n":                   "absolute",
		"#!/" + strings.Repeat("x", 300): "longer than",
		"exit 0\n":                       "neither",
		"":                               "empty",
		"MZ\x90\x00":                     "Windows",
		"\xcf\xfa\xed\xfe\x07":           "macOS",
		"\xef\xbb\xbf#!/bin/sh\n":        "byte order mark",
		"\x7fELF\x02\x01":                "cut off",
		"\x7fELF\x02\x01" + strings.Repeat("\xff", 90): "ELF",
	} {
		p, err := executable.Read(strings.NewReader(text))
		if err == nil && p.Interpreter != want || err != nil && (!strings.Contains(err.Error(), want) || !errors.Is(err, executable.ErrInvalid)) {
			t.Errorf("%.20q: %+v, %v; want %s", text, p, err, want)
		}
	}
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Skip("no program to read:", err)
	}
	defer f.Close()
	if p, err := executable.Read(f); err != nil || p.Script || p.Machine == 0 || strings.HasPrefix(p.MachineName(), "machine") {
		t.Errorf("%+v, %v", p, err)
	}
	if sh, err := os.Open("/bin/sh"); err == nil {
		defer sh.Close()
		if p, err := executable.Read(sh); err != nil || p.Interpreter != "" && !strings.HasPrefix(p.Interpreter, "/lib") {
			t.Errorf("/bin/sh: %+v, %v", p, err)
		}
	}
}

func FuzzReadProgram(f *testing.F) {
	for _, seed := range []string{"#!/bin/sh\n", "\x7fELF\x01\x02" + strings.Repeat("\x00", 80), "\x7fELF\x02\x01" + strings.Repeat("\x02", 200)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) { _, _ = executable.Read(strings.NewReader(string(data))) })
}

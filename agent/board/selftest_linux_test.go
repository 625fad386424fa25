package board_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"example.com/iad/agent"
	"example.com/iad/agent/board"
)

// All that a self-test prints is in the log and with the state, up to a bound.
func TestSelfTestOutputIsKept(t *testing.T) {
	p := platform(t)
	var log bytes.Buffer
	p.Log = slog.New(slog.NewTextHandler(&log, nil))
	p.State = filepath.Join(filepath.Dir(p.Work), "state")
	kept := func() string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(p.State, board.SelfTestLog))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	test := agent.SelfTest{Version: "2.0.0", Program: payload(t, p, 2, "test", `echo "card 1 missing"; echo "card 2 is fine" >&2; exit 1`)}
	if err := p.SelfTest(t.Context(), test); err == nil {
		t.Error("passed")
	}
	for _, text := range []string{kept(), log.String()} {
		for _, want := range []string{"2.0.0", "exit status 1", "card 1 missing", "card 2 is fine"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q does not say %q", text, want)
			}
		}
	}
	test.Program = payload(t, p, 2, "talks", `i=0; while [ $i -lt 5000 ]; do echo "line $i"; i=$((i + 1)); done`)
	if err := p.SelfTest(t.Context(), test); err != nil {
		t.Error(err)
	}
	if text := kept(); len(text) > board.MaxSelfTestOutput+500 || !strings.HasSuffix(text, "line 4999\n") || !strings.Contains(text, "only the end") ||
		!strings.Contains(text, "passed") {
		t.Errorf("%d bytes: %.200q", len(text), text)
	}
	// A state directory that cannot be written does not fail the test.
	p.State = "/nowhere"
	if err := p.SelfTest(t.Context(), test); err != nil {
		t.Error(err)
	}
}

// What is wrong with a program that the system does not start is named.
func TestProgramThatCannotStart(t *testing.T) {
	p := platform(t)
	foreign := make([]byte, 120)
	copy(foreign, "\x7fELF\x01\x02\x01")
	for at, value := range map[int]uint16{16: 2, 18: 8, 42: 32} { // executable, MIPS, size of an entry
		binary.BigEndian.PutUint16(foreign[at:], value)
	}
	for name, c := range map[string]struct {
		content string
		says    string
	}{
		"no interpreter": {"#!/usr/bin/perl7 -w\n", "its interpreter /usr/bin/perl7 does not exist"},
		"directory":      {"#!/tmp\n", "its interpreter /tmp is not a program"},
		"CR LF":          {"#!/bin/sh\r\nexit 0\r\n", "Windows (CR LF)"},
		"no first line":  {"exit 0\n", "begins neither with #!"},
		"foreign":        {string(foreign), "made for MIPS (32 bits)"},
	} {
		path := filepath.Join(p.Banks[0], "test")
		if err := os.WriteFile(path, []byte(c.content), 0o755); err != nil {
			t.Fatal(err)
		}
		err := p.SelfTest(t.Context(), agent.SelfTest{Program: agent.Program{Bank: 1, Payload: "test"}})
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "no such file") {
			t.Errorf("%s on %s: %v", name, runtime.GOARCH, err)
		}
		if cause(err) != 0 && name != "directory" { // which the device, not the software, has
			t.Errorf("%s: %v is taken for a fault of the board", name, err)
		}
	}
	err := p.SelfTest(t.Context(), agent.SelfTest{Program: agent.Program{Bank: 1, Payload: "none"}})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a missing program: %v", err)
	}
}

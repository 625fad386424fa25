package main

import "testing"

func TestParsePorts(t *testing.T) {
	for text, want := range map[string][2]int{"": {}, "50000-50100": {50000, 50100}, "2121": {2121, 2121}} {
		if got, err := parsePorts(text); err != nil || got != want {
			t.Errorf("%q is %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"-", "x", "5-4", "0-10", "1-65536", "1-2-3", "1 - 2"} {
		if got, err := parsePorts(text); err == nil {
			t.Errorf("%q is taken as %v", text, got)
		}
	}
}

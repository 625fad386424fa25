package main

import (
	"log/slog"
	"testing"

	"example.com/iad/manager"
)

// A device is told the address that is listened on, where that is one.
func TestToldHost(t *testing.T) {
	for _, c := range []struct{ listen, advertise, want string }{
		{"127.7.7.7", "", "127.7.7.7"},
		{"127.7.7.7:0", "", "127.7.7.7"},
		{"127.7.7.7", "192.0.2.1", "192.0.2.1"},
		{"0.0.0.0", "", "127.0.0.1"},
		{"", "", "127.0.0.1"},
	} {
		o := fileServerOptions{protocol: "ftp", listen: c.listen, advertise: c.advertise}
		fs, stop, err := o.open(t.TempDir(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		session, err := fs.Open(manager.FTP, "A", "127.0.0.1:161")
		if err != nil {
			t.Fatal(err)
		}
		if got := session.Address().Host; got != c.want {
			t.Errorf("--listen %q --advertise %q: %s, want %s", c.listen, c.advertise, got, c.want)
		}
		session.Close()
		stop()
	}
}

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

package command

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/cli"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// A device is given the address that is listened on, where there is only one.
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
		session, err := fs.Open(device.FTP, "A", "127.0.0.1:161")
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

func TestServerTLS(t *testing.T) {
	pin := strings.Repeat("0123456789abcdef", 4)
	store := t.TempDir() // where a server makes a certificate for itself
	server, err := files.StartServers(files.ServersConfig{Files: afero.NewBasePathFs(afero.NewOsFs(), store), FTP: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(store, "tls", "server.pem")
	for _, c := range []struct {
		options fileServerOptions
		good    bool
	}{
		{fileServerOptions{server: "ftps://h", serverPin: pin}, true},
		{fileServerOptions{server: "ftps://h", serverCA: ca}, true},
		{fileServerOptions{server: "ftps://h"}, true},
		{fileServerOptions{server: "ftps://h", serverPin: pin[2:]}, false},
		{fileServerOptions{server: "ftps://h", serverPin: "pin"}, false},
		{fileServerOptions{server: "ftps://h", serverPin: pin, serverCA: ca}, false},
		{fileServerOptions{server: "ftps://h", serverCA: "none"}, false},
		{fileServerOptions{server: "ftps://h", serverCA: "fileserver_test.go"}, false},
		{fileServerOptions{server: "ftp://h", serverPin: pin}, false},
		{fileServerOptions{protocol: "ftps", serverPin: pin}, false},
	} {
		fs, stop, err := c.options.open(t.TempDir(), slog.New(slog.DiscardHandler))
		if (err == nil) != c.good || err != nil && !cli.IsUsage(err) {
			t.Errorf("%+v: %v", c.options, err)
		}
		if err == nil {
			stop()
			if wanted := c.options.serverPin+c.options.serverCA != ""; (fs.(*files.ExternalServer).TLS != nil) != wanted {
				t.Errorf("%+v: TLS is set %v", c.options, !wanted)
			}
		}
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

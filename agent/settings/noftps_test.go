//go:build noftps

package settings

import (
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// "make check" runs this with the build tag.
func TestWithoutFTPS(t *testing.T) {
	root, text := withUsers(t)
	file := filepath.Join(root, Name)
	for _, c := range []struct{ old, new, wanted string }{
		{"['tftp', 'ftp']", "['tftp', 'ftp', 'ftps']", "protocols has ftps, but this program was built without FTPS"},
		{"", "", ""},
	} {
		changed := strings.Replace(string(text), c.old, c.new, 1)
		if c.old != "" && changed == string(text) {
			t.Fatalf("%s is not in the settings:\n%s", c.old, text)
		}
		overwrite(t, file, []byte(changed))
		s, err := Load(file)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = s.Config(root, "devel")
		if c.wanted == "" && err != nil || c.wanted != "" && (err == nil || !strings.Contains(err.Error(), c.wanted)) {
			t.Errorf("%q: %v", c.new, err)
		}
	}
	s := &Settings{FTPS: FTPS{Pin: strings.Repeat("00", 32)}}
	var o transfer.Options
	if err := s.ftps(&o, root); err == nil || !strings.Contains(err.Error(), "built without FTPS") {
		t.Errorf("ftps.pin: %v", err)
	}
	if _, err := transfer.New(transfer.Server{Protocol: mib.ProtocolFtps, Host: "localhost"}, o); err == nil || !strings.Contains(err.Error(), "built without FTPS") {
		t.Errorf("a server with FTPS: %v", err)
	}
}

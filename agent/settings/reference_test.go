package settings

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated part of the documentation")

// docs/iad.toml.md lists the settings of the schema.
func TestDocumentation(t *testing.T) {
	const begin, end = "<!-- begin generated: settings -->\n", "<!-- end generated -->\n"
	name := filepath.Join("..", "..", "docs", "iad.toml.md")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no generated part", name)
	}
	var b strings.Builder
	for _, s := range tables() {
		if s.name == "" {
			b.WriteString("\n## Before the first section\n")
		} else {
			fmt.Fprintf(&b, "\n## `%s`\n\n%s\n", s.header(), s.doc)
		}
		b.WriteString("\n| setting | meaning | value | default | example |\n|---|---|---|---|---|\n")
		for _, f := range s.settings {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | `%s` |\n", f.Tag.Get("toml"), f.Tag.Get("doc"), f.Tag.Get("is"), f.Tag.Get("default"), f.Tag.Get("example"))
		}
	}
	want := before + begin + b.String() + "\n" + end + after
	if want == string(text) {
		return
	}
	if !*update {
		t.Fatalf("%s is not current; write it by go test ./agent/settings -run TestDocumentation -update", name)
	}
	if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Every setting says what it is, and all examples together are settings that can be
// used.
func TestExamples(t *testing.T) {
	for _, s := range tables() {
		for _, f := range s.settings {
			for _, tag := range []string{"toml", "doc", "is", "default", "example"} {
				if f.Tag.Get(tag) == "" {
					t.Errorf("%s %s has no %s", s.name, f.Name, tag)
				}
			}
		}
	}
	text, err := Reference()
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if len(line) > 81 && line[1] == ' ' {
			t.Errorf("longer than 80 columns: %s", line)
		}
	}
	if s, err := parse(Name, text); err != nil || s.DeviceID != "" || !endsComplete(text) {
		t.Errorf("the reference sets something: %+v, %v", s, err)
	}
	text = regexp.MustCompile(`(?m)^#([a-z\[])`).ReplaceAll(text, []byte("$1"))
	s, err := parse(Name, text)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables() {
		v := reflect.ValueOf(s).Elem().FieldByIndex(table.index)
		if table.list {
			v = v.Index(0)
		}
		for _, f := range table.settings {
			if v.FieldByIndex(f.Index).IsZero() {
				t.Errorf("%s %s: the example sets nothing", table.name, f.Name)
			}
		}
	}
	if _, _, err := s.Config(t.TempDir(), "1.0"); err != nil {
		t.Error(err)
	}
	// What is written is what was read.
	again, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := parse(Name, again)
	if err != nil {
		t.Fatal(err)
	}
	s.text, s.badKeys, back.text = nil, nil, nil
	if !reflect.DeepEqual(s, back) {
		t.Errorf("settings %+v\nare written as %+v", s, back)
	}
}

// A mistake is reported with file, line, key and what is expected, without the value
// and without text of a library.
func TestMistakes(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"device_id = 'x'\nrate_limit = 'secret'\n", " line 2: rate_limit must be a number of bytes per second"},
		{"[programs]\n\nuid = -1\n", " line 3: programs.uid must be a number from 0 to 4294967295"},
		{"plain_passwords = 1\n", " line 1: plain_passwords must be true or false"},
		{"trust = 'secret'\n", " line 1: trust must be a list of file names"},
		{"[snmp]\nlisten = 161\n", " line 2: snmp.listen must be HOST:PORT"},
		{"snmp = 'secret'\n", " line 1: snmp must be a section that begins with the line [snmp]"},
		{"[[snmp.users]]\nname = 'a'\n[[snmp.users]]\nauth_passphrase = 5\n", " line 4: snmp.users.auth_passphrase must be a text of at least 8 bytes"},
		{"model = 'a'\nmodel = 'secret'\n", " line 2: model is set twice"},
		{"[ftps]\n[ftps]\n", " line 2: ftps is set twice"},
		{"model: secret\n", " line 1, column 6: not valid TOML ("},
		{"model = 'a'\n[snmp]\nwrite_comunity = 'secret'\n", " line 3: snmp.write_comunity is not a setting; 'iad settings --reference' lists all settings"},

		{"# a comment\nprotocols = ['tftp', 'secret']\n", " line 2: protocols must be a list of tftp, ftp or ftps"},
		{"mib_root = 'secret'\n", " line 1: mib_root must be an object identifier"},
		{"[programs]\nlimit = '60'\n", " line 2: programs.limit must be a duration such as 90s or 2m"},
		{"programs.limit = '60'\n", " line 1: programs.limit must be a duration such as 90s or 2m"},
		{"[snmp]\nlisten = ':1'\nsources = ['secret']\n", " line 3: snmp.sources must be a list of addresses or networks"},
		{"[snmp]\nlisten = ':1'\n[[snmp.users]]\nauth = 'SHA'\n[[snmp.users]]\nauth = 'secret'\n", " line 6: snmp.users.auth must be none, SHA, SHA-224"},
		{"[snmp]\nlisten = ':1'\n[[snmp.users]]\npriv = 'secret'\n", " line 4: snmp.users.priv must be none, AES"},
		{"[snmp]\nlisten = ':1'\n[[snmp.users]]\nlevel = 'secret'\n", " line 4: snmp.users.level must be noAuthNoPriv, authNoPriv or authPriv"},
		{"[snmp]\nlisten = ':1'\n[[snmp.users]]\nread_view = ['secret']\n", " line 4: snmp.users.read_view must be a list of object identifiers"},
		{"[ftps]\npin = 'secret'\n", " line 2: ftps.pin must be a SHA-256 digest in hexadecimal"},
	} {
		s, err := parse("dir/iad.toml", []byte(c.text))
		if err == nil {
			if _, _, err = s.Config(t.TempDir(), "1.0"); err == nil {
				err = s.BadKeys()
			}
		}
		if err == nil || !strings.HasPrefix(err.Error(), "dir/iad.toml"+c.want) ||
			slices.ContainsFunc([]string{"secret", "toml:", "struct", "Settings", "uint32"}, func(s string) bool { return strings.Contains(err.Error(), s) }) {
			t.Errorf("%q: %v; want %q", c.text, err, c.want)
		}
	}
}

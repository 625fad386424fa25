package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/spf13/afero"

	"example.com/iad/manager/files"
)

// marked are the same text as editors of other systems save it.
func marked(text string) (utf8, utf16Text string) {
	var b strings.Builder
	b.WriteString("\xff\xfe")
	for _, unit := range utf16.Encode([]rune(text)) {
		b.WriteByte(byte(unit))
		b.WriteByte(byte(unit >> 8))
	}
	return "\xef\xbb\xbf" + text, b.String()
}

// A byte order mark before text that people write is skipped; text in UTF-16 is
// refused with the reason.
func TestByteOrderMarks(t *testing.T) {
	l := newLab(t, nil)
	dir, image := t.TempDir(), l.image("2.0.0", 1)
	if out, status := l.plainly("image", "keygen", "--no-password", "-o", filepath.Join(dir, "maker")); status != exitOK {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	if out, status := l.plainly("image", "build", "--version", "1.0.0", "--hardware", "H", "--key", filepath.Join(dir, "maker.key"),
		"-o", filepath.Join(dir, "fw.iad"), image); status != exitOK {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	server, err := files.StartServers(files.ServersConfig{Files: afero.NewBasePathFs(afero.NewOsFs(), dir), FTP: "127.0.0.1:0"})
	if err == nil {
		err = server.Close() // it has left its certificate
	}
	if err != nil {
		t.Fatal(err)
	}
	serve := []string{"--listen", "127.0.0.1", "--notifications", "none"}
	read := func(name string) string {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	access := "community = \"public\"\nwrite_community = \"private\"\n[devices.attic]\naddress = \"" + l.address + "\"\n"
	for _, c := range []struct {
		kind, text string
		args       []string // FILE stands for the file
		want       string
		status     int
	}{
		{"credentials", access, []string{"status", "attic", "--credentials", "FILE"}, "TEST-0001", exitOK},
		{"configuration", access, []string{"status", "attic", "--config", "FILE"}, "TEST-0001", exitOK},
		{"targets", l.address + "\n", append([]string{"upgrade", "--targets", "FILE", "--image", image, "--check"}, serve...), "would accept", exitOK},
		{"standard input", l.address + "\n", append([]string{"upgrade", "--targets", "-", "--image", image, "--check"}, serve...), "would accept", exitOK},
		{"public key", read(filepath.Join(dir, "maker.pub")), []string{"image", "verify", filepath.Join(dir, "fw.iad"), "--trust", "FILE"}, "1.0.0", exitOK},
		{"private key", read(filepath.Join(dir, "maker.key")), []string{"image", "build", "--version", "1.0.1", "--hardware", "H", "--key", "FILE",
			"-o", filepath.Join(dir, "fw2.iad"), image}, "", exitOK},
		// The device has no FTPS: the certificate was read before it was asked.
		{"certificate", read(filepath.Join(dir, "tls", "server.pem")), []string{"backup", l.address, "--server", "ftps://127.0.0.1:1",
			"--server-ca", "FILE", "--notifications", "none"}, "the device cannot use ftps", exitRefused},
	} {
		withMark, inUTF16 := marked(c.text)
		for _, v := range []struct {
			text, want string
			status     int // 0: any but success
		}{{c.text, c.want, c.status}, {withMark, c.want, c.status}, {inUTF16, "is in UTF-16: save it as UTF-8", -1}} {
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, []byte(v.text), 0o600); err != nil {
				t.Fatal(err)
			}
			args := append([]string(nil), c.args...)
			for i := range args {
				if args[i] == "FILE" {
					args[i] = file
				}
			}
			cmd := l.command(args...)
			cmd.Stdin = strings.NewReader(v.text)
			out, status := l.run(cmd)
			if !strings.Contains(out, v.want) || v.status >= 0 && status != v.status || v.status < 0 && status == exitOK {
				t.Errorf("%s beginning with %.3q: exit status %d, want %q in\n%s", c.kind, v.text, status, v.want, out)
			}
		}
	}
}

// The software gets configuration data byte for byte, so a mark in an edited backup is
// refused before anything is sent.
func TestByteOrderMarkInBackup(t *testing.T) {
	l := newLab(t, nil)
	serve := []string{"--listen", "127.0.0.1", "--notifications", "none"}
	if out, status := l.plainly(append([]string{"backup", l.address}, serve...)...); status != exitOK {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	found, err := filepath.Glob(filepath.Join(l.dir, "store", "backup", "TEST-0001", "2*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	edited := filepath.Join(filepath.Dir(found[0]), "edited")
	if err := os.CopyFS(edited, os.DirFS(found[0])); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(edited, ".complete")); err != nil {
		t.Fatal(err)
	}
	before := l.configSHA256(l.address)
	withMark, inUTF16 := marked("iad-config userData 1\nname = new\n")
	for _, text := range []string{withMark, inUTF16} {
		if err := os.WriteFile(filepath.Join(edited, "userData.cfg"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, status := l.plainly(append([]string{"recover", l.address, "--from", "edited"}, serve...)...)
		if status == exitOK || !strings.Contains(out, "userData.cfg: the file begins with a byte order mark") || !strings.Contains(out, "save it as UTF-8 without one") {
			t.Errorf("exit status %d\n%s", status, out)
		}
		if l.configSHA256(l.address) != before {
			t.Fatal("other data are in force")
		}
	}
}

package transfer_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/iad/mib"
	"example.com/iad/transfer"
)

var content = testContent(100_000, 11)

func fakeWithFile() *fakeFTP {
	f := newFakeFTP()
	f.files["file"] = content
	return f
}

func TestFTPFallbacks(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(f *fakeFTP){
		"usual":   func(f *fakeFTP) {},
		"no EPSV": func(f *fakeFTP) { passive(f, "127,0,0,1") },
		// The address in the reply is not believed: it could be anybody's.
		"PASV with a stranger's address": func(f *fakeFTP) { passive(f, "127,99,99,99") },
		"no SIZE":                        func(f *fakeFTP) { f.refuse("SIZE", "500 what?") },
		"SIZE of nonsense":               func(f *fakeFTP) { f.refuse("SIZE", "213 -12") },
		"no FEAT":                        func(f *fakeFTP) { f.refuse("FEAT", "500 what?") },
		"UTF8 in name only": func(f *fakeFTP) {
			f.refuse("FEAT", "211-these\r\n UTF8\r\n211 end")
			f.refuse("OPTS", "550 what?")
		},
		"greeting of many lines": func(f *fakeFTP) { f.greeting = "220-hello\r\n220-world\r\n 331 no\r\n220 ready" },
		"user needs no password": func(f *fakeFTP) { f.refuse("USER", "230 welcome") },
		"no end":                 func(f *fakeFTP) { f.on["RETR"] = withoutEnd },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fakeWithFile()
			change(f)
			var options []func(*transfer.Server, *transfer.Options)
			if name == "no end" {
				options = append(options, soon)
			}
			c := f.start(t).client(t, options...)
			for range 2 { // the connection serves the second file, too, or is made again
				got, size, err := fetch(testContext(t), c, "file")
				if err != nil || !bytes.Equal(got, content) {
					t.Fatalf("got %d bytes: %v", len(got), err)
				}
				if size != int64(len(content)) && !strings.Contains(name, "SIZE") {
					t.Errorf("announced %d", size)
				}
			}
			if name == "usual" && len(f.said("USER")) != 1 {
				t.Errorf("logged in %d times for two files", len(f.said("USER")))
			}
		})
	}
}

// passive makes a server know PASV only.
func passive(f *fakeFTP, host string) {
	f.refuse("EPSV", "500 what?")
	f.on["PASV"] = func(c *fakeConn, _ string) {
		c.listen()
		port := c.data.Addr().(*net.TCPAddr).Port
		c.reply("227 go (%s,%d,%d)", host, port>>8, port&255)
	}
}

// withoutEnd sends the file but not the reply after it, as when a router forgot
// the silent control connection.
func withoutEnd(c *fakeConn, arg string) {
	c.reply("150 here it comes")
	c.sendData(c.files[arg])
}

func TestFTPRefusals(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		change func(f *fakeFTP)
		want   mib.FailCause
	}{
		"busy":             {func(f *fakeFTP) { f.greeting = "421 too many users" }, mib.FailCauseServerBusy},
		"no FTP server":    {func(f *fakeFTP) { f.greeting = "hello" }, mib.FailCauseProtocolError},
		"unknown user":     {func(f *fakeFTP) { f.refuse("USER", "530 not you") }, mib.FailCauseAuthFailed},
		"wrong password":   {func(f *fakeFTP) { f.refuse("PASS", "530 not you") }, mib.FailCauseAuthFailed},
		"needs TLS":        {func(f *fakeFTP) { f.refuse("USER", "530 Non-anonymous sessions must use encryption.") }, mib.FailCauseTlsFailed},
		"no such file":     {func(f *fakeFTP) { delete(f.files, "file") }, mib.FailCauseFileNotFound},
		"may not read":     {func(f *fakeFTP) { f.refuse("RETR", "550 Failed to open file.") }, mib.FailCauseAccessDenied},
		"broke off":        {func(f *fakeFTP) { f.on["RETR"] = half("426 aborted") }, mib.FailCauseConnectionLost},
		"no last reply":    {func(f *fakeFTP) { f.on["RETR"] = half("150 0.003 seconds (measured here)") }, mib.FailCauseConnectionLost},
		"disk error":       {func(f *fakeFTP) { f.on["RETR"] = half("451 Failure reading local file.") }, mib.FailCauseConnectionLost},
		"half, says done":  {func(f *fakeFTP) { f.on["RETR"] = half("226 done") }, mib.FailCauseSizeMismatch},
		"says no more":     {func(f *fakeFTP) { f.on["RETR"] = half("") }, mib.FailCauseTransferTimeout},
		"more than size":   {func(f *fakeFTP) { f.refuse("SIZE", "213 500") }, mib.FailCauseSizeMismatch},
		"bad passive port": {func(f *fakeFTP) { f.refuse("EPSV", "229 go (|||99999999|)"); f.refuse("PASV", "227 what?") }, mib.FailCauseProtocolError},
		"no passive":       {func(f *fakeFTP) { f.refuse("EPSV", "500 what?"); f.refuse("PASV", "500 what?") }, mib.FailCauseProtocolError},
		"stalls":           {func(f *fakeFTP) { f.on["RETR"] = stall }, mib.FailCauseTransferTimeout},
		"endless reply":    {func(f *fakeFTP) { f.on["RETR"] = endless("150-more\r\n") }, mib.FailCauseProtocolError},
		"endless line":     {func(f *fakeFTP) { f.on["TYPE"] = endless("200 more and more ") }, mib.FailCauseProtocolError},
		"dripping reply":   {func(f *fakeFTP) { f.on["PASS"] = drip }, mib.FailCauseTransferTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fakeWithFile()
			x.change(f)
			var options []func(*transfer.Server, *transfer.Options)
			if x.want == mib.FailCauseTransferTimeout {
				options = append(options, soon)
			}
			begin := time.Now()
			_, _, err := fetch(testContext(t), f.start(t).client(t, options...), "file")
			wantCause(t, err, x.want)
			t.Log(err)
			if d := time.Since(begin); d > 30*time.Second { // dripping goes on longer
				t.Errorf("it took %v", d)
			}
		})
	}
}

// half sends half of the file and then a reply.
func half(reply string) func(*fakeConn, string) {
	return func(c *fakeConn, arg string) {
		c.reply("150 here it comes")
		c.sendData(c.files[arg][:len(content)/2])
		if reply != "" {
			c.reply("%s", reply)
		}
	}
}

func stall(c *fakeConn, arg string) {
	c.reply("150 here it comes")
	if d := c.accept(); d != nil {
		_, _ = d.Write(content[:1000])
		_, _ = io.Copy(io.Discard, d) // until the client has had enough
		d.Close()
	}
}

func endless(s string) func(*fakeConn, string) {
	return func(c *fakeConn, _ string) {
		for {
			if _, err := io.WriteString(c, s); err != nil {
				return
			}
		}
	}
}

// drip sends a reply so slowly that no single wait is long.
func drip(c *fakeConn, _ string) {
	for {
		<-time.After(100 * time.Millisecond)
		if _, err := io.WriteString(c, "x"); err != nil {
			return
		}
	}
}

func TestFTPIPv6(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("no IPv6 here: %v", err)
	} else {
		l.Close()
	}
	f := fakeWithFile()
	f.host = "::1"
	c := f.start(t).client(t)
	wantFile(t, c, content)
	if err := put(t, c, "other", content); err != nil {
		t.Fatal(err)
	}
}

// TestFTPLateClose: a reader that is closed again, after the next file was
// begun, does not disturb it.
func TestFTPLateClose(t *testing.T) {
	f := fakeWithFile()
	c := f.start(t).client(t)
	first, _, err := c.Get(testContext(t), "file", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(first); err != nil {
		t.Fatal(err)
	}
	first.Close()
	second, _, err := c.Get(testContext(t), "file", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	if got, err := io.ReadAll(second); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestFTPNeverGreets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, p := range []mib.Protocol{mib.ProtocolFtp, mib.ProtocolFtps} {
		r := &running{Server: transfer.Server{Protocol: p, Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, Timeout: 300 * time.Millisecond}}
		_, _, err = fetch(testContext(t), r.client(t), "file")
		wantCause(t, err, mib.FailCauseServerUnreachable)
	}
}

func TestFTPRestRefused(t *testing.T) {
	f := fakeWithFile()
	f.refuse("REST", "502 not implemented")
	c := f.start(t).client(t)
	if _, _, err := c.Get(testContext(t), "file", 10); !errors.Is(err, transfer.ErrNoResume) {
		t.Errorf("%v, want ErrNoResume", err)
	}
	if got, _, err := fetch(testContext(t), c, "file"); err != nil || !bytes.Equal(got, content) {
		t.Errorf("from the beginning: %d bytes, %v", len(got), err)
	}
}

// TestFTPNames: no name makes the client say anything but commands of its own.
func TestFTPNames(t *testing.T) {
	f := fakeWithFile()
	c := f.start(t).client(t)
	for _, name := range []string{"", "a\r\nDELE file", "a\nb", "a\x00b", "..", "../x", "a/../../x", `..\x`, "a/", " a", "a ", "\xff", "a\u0085b", strings.Repeat("a", 500)} {
		_, _, err := c.Get(testContext(t), name, 0)
		wantCause(t, err, mib.FailCauseBadRequest)
		wantCause(t, put(t, c, name, content), mib.FailCauseBadRequest)
	}
	if said := f.said(""); len(said) > 0 {
		t.Errorf("the server received %q", said)
	}
	f.files["dir/fürth 1 ..x.tar"] = content
	for _, path := range []string{"", "dir", "dir/"} {
		name := "dir/fürth 1 ..x.tar"
		if path != "" {
			name = strings.TrimPrefix(name, "dir/")
		}
		c := f.start(t).client(t, func(s *transfer.Server, _ *transfer.Options) { s.Path = path })
		if got, _, err := fetch(testContext(t), c, name); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%q in %q: %d bytes, %v", name, path, len(got), err)
		}
	}
	c = f.start(t).client(t, func(s *transfer.Server, _ *transfer.Options) { s.Path = "dir" })
	_, _, err := c.Get(testContext(t), "/etc/passwd", 0)
	wantCause(t, err, mib.FailCauseBadRequest)
}

func TestFTPSCertificates(t *testing.T) {
	root := newRoot(t)
	r := startVsftpdTLS(t, root)
	writeFile(t, filepath.Join(root, "file"), "content")
	pool := x509.NewCertPool()
	pemFile, _ := filepath.Glob(filepath.Join(filepath.Dir(r.conf), "*.pem"))
	b, err := os.ReadFile(pemFile[0])
	if err != nil || !pool.AppendCertsFromPEM(b) {
		t.Fatalf("certificate: %v", err)
	}
	wrong := sha256.Sum256(nil)
	for name, x := range map[string]struct {
		options transfer.Options
		want    mib.FailCause
	}{
		"unknown authority": {transfer.Options{}, mib.FailCauseTlsFailed},
		"wrong pin":         {transfer.Options{Pin: wrong[:]}, mib.FailCauseTlsFailed},
		"other name":        {transfer.Options{TLS: &tls.Config{RootCAs: pool, ServerName: "other.example"}}, mib.FailCauseTlsFailed},
		"known authority":   {transfer.Options{TLS: &tls.Config{RootCAs: pool}}, 0},
		"pin":               {transfer.Options{Pin: r.pin}, 0},
		"old TLS":           {transfer.Options{Pin: r.pin, TLS: &tls.Config{MaxVersion: tls.VersionTLS12}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := r.client(t, func(_ *transfer.Server, o *transfer.Options) { *o = x.options })
			got, _, err := fetch(testContext(t), c, "file")
			if x.want != 0 {
				wantCause(t, err, x.want)
				t.Log(err)
			} else if err != nil || string(got) != "content" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestFTPSRefused(t *testing.T) {
	for name, reply := range map[string]string{
		"not known":        "500 AUTH not understood",
		"plain text after": "234 go\r\n230 you are logged in",
		"no TLS at all":    "234 go",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fakeWithFile()
			f.on["AUTH"] = func(c *fakeConn, _ string) {
				c.reply("%s", reply)
				if name == "no TLS at all" {
					fmt.Fprint(c, "this is not a TLS record\r\n")
				}
			}
			r := f.start(t)
			r.Protocol = mib.ProtocolFtps
			_, _, err := fetch(testContext(t), r.client(t), "file")
			wantCause(t, err, mib.FailCauseTlsFailed)
			if len(f.said("PASS")) > 0 {
				t.Error("the password was sent in the clear")
			}
		})
	}
}

// Some servers quote the command that they refuse.
func TestFTPQuotedPassword(t *testing.T) {
	t.Parallel()
	quote := func(reply string) func(*fakeConn, string) {
		return func(c *fakeConn, _ string) { c.reply(reply, strings.Repeat("-", 80)+secretPassword) }
	}
	for name, change := range map[string]func(f *fakeFTP){
		"refused":     func(f *fakeFTP) { f.on["PASS"] = quote("500 'PASS %s': command not understood") },
		"many lines":  func(f *fakeFTP) { f.on["PASS"] = quote("530-no\r\n %s\r\n530 no") },
		"no reply":    func(f *fakeFTP) { f.on["PASS"] = quote("PASS %s?") },
		"later":       func(f *fakeFTP) { f.on["RETR"] = quote("550 %s asks for it") },
		"of the file": func(f *fakeFTP) { f.on["REST"] = quote("502 %s") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := fakeWithFile()
			change(f)
			s := f.start(t).Server
			s.User, s.Password = "iad", secretPassword
			var log bytes.Buffer
			c, err := transfer.New(s, transfer.Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, _, err = c.Get(testContext(t), "file", 1); err == nil {
				t.Fatal("it went well")
			}
			var e *transfer.Error
			if all := err.Error() + log.String(); strings.Contains(all, secretPassword[:12]) || !errors.As(err, &e) || strings.Contains(e.Reply, secretPassword[:12]) {
				t.Errorf("the password is in %s", all)
			}
		})
	}
}

// A password that is part of other words stays hidden without them.
func TestFTPShortPassword(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ password, said, want string }{
		{"p", "530 wrong password, please repeat", "530 wrong password, please repeat"},
		{"p", "500 'PASS p': command not understood", "500 'PASS ***': command not understood"},
		{"p", "500 PASS  p", "500 PASS  ***"},
		{"p", "500 PASS please", "500 PASS please"},
		{"word", "530-PASSword wrong\r\n530 PASS word", "530 PASSword wrong PASS ***"},
		{"password", "530 Wrong password.", "530 Wrong password."},
		{"anonymous", "530 no anonymous users: PASS anonymous", "530 no anonymous users: PASS ***"},
		{"530", "530 PASS 530 refused", "530 PASS *** refused"},
		{"s3cret", "530 is s3cret your password?", "530 is *** your password?"},
	} {
		f := fakeWithFile()
		f.refuse("PASS", x.said)
		s := f.start(t).Server
		s.User, s.Password = "iad", x.password
		c, err := transfer.New(s, transfer.Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = c.Get(testContext(t), "file", 0)
		var e *transfer.Error
		if !errors.As(err, &e) || e.Reply != x.want {
			t.Errorf("password %q: %v, want %q", x.password, err, x.want)
		}
		c.Close()
	}
}

const secretPassword = "Ohgh4aiTeew3Eip9"

package transfer

import (
	"bytes"
	"context"
	"io"
	"net"
	"path"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"example.com/iad/mib"
)

// FuzzFTPServer: a server that says anything gets no more out of the client
// than an error.
func FuzzFTPServer(f *testing.F) {
	f.Fuzz(func(t *testing.T, said []byte) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			// The transfers go to this listener, too, and find it closed.
			l.Close()
			for _, reply := range bytes.SplitAfter(said, []byte("\n")) {
				if _, err := c.Write(reply); err != nil {
					return
				}
			}
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}()
		c, err := New(Server{Protocol: mib.ProtocolFtp, Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, Timeout: time.Second}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r, _, err := c.Get(context.Background(), "file", 0)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			r.Close()
		}
		if err == nil {
			return
		}
		if !utf8.ValidString(err.Error()) || strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("error is not printable: %q", err.Error())
		}
	})
}

// FuzzRemotePath: a path that is sent stays in its directory and in its command.
func FuzzRemotePath(f *testing.F) {
	f.Fuzz(func(t *testing.T, dir, name string) {
		if dir != "" && checkPath(dir) != nil {
			return
		}
		p, err := remotePath(dir, name)
		if err != nil {
			return
		}
		if strings.ContainsAny(p, "\r\n\x00") || !utf8.ValidString(p) || len(p) > maxPath {
			t.Errorf("%q is sent", p)
		}
		if dir != "" {
			directory := path.Clean(dir)
			if inside := path.Clean(p); directory != "." && directory != "/" && !strings.HasPrefix(inside, directory+"/") {
				t.Errorf("%q leaves %q", p, dir)
			}
		}
	})
}

// FuzzParseURL: what is accepted prints as a URL that means the same, without
// the password.
func FuzzParseURL(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		server, err := ParseURL(s)
		if err != nil {
			return
		}
		if server.Host == "" || server.Protocol < mib.ProtocolTftp || server.Protocol > mib.ProtocolFtps {
			t.Errorf("%q is %+v", s, server)
		}
		if server.check() != nil {
			t.Errorf("%q is accepted as %+v", s, server)
		}
	})
}

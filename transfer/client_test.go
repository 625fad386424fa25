package transfer_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"example.com/iad/mib"
	"example.com/iad/transfer"
)

func TestParseURL(t *testing.T) {
	for url, want := range map[string]transfer.Server{
		"tftp://192.0.2.1":                    {Protocol: mib.ProtocolTftp, Host: "192.0.2.1"},
		"tftp://192.0.2.1/fw/":                {Protocol: mib.ProtocolTftp, Host: "192.0.2.1", Path: "fw"},
		"tftp://h//srv/tftp":                  {Protocol: mib.ProtocolTftp, Host: "h", Path: "/srv/tftp"},
		"ftp://iad:p%40ss@[2001:db8::1]:2121": {Protocol: mib.ProtocolFtp, Host: "2001:db8::1", Port: 2121, User: "iad", Password: "p@ss"},
		"ftps://h/a%20b":                      {Protocol: mib.ProtocolFtps, Host: "h", Path: "a b"},
	} {
		got, err := transfer.ParseURL(url)
		if err != nil || got != want {
			t.Errorf("%s is %+v, %v, want %+v", url, got, err, want)
		}
		if text := got.String(); strings.Contains(text, "p@ss") || strings.Contains(text, "p%40ss") {
			t.Errorf("the password is in %q", text)
		}
	}
	for _, url := range []string{"", "host", "http://h/", "tftp://", "ftp://h:0", "ftp://h:70000", "ftp://h/?x", "ftp://h/..", "ftp://a%0Ab@h/", "ftp://u:secret@h:x/"} {
		if got, err := transfer.ParseURL(url); err == nil {
			t.Errorf("%q is accepted as %+v", url, got)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is in %q", err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	good := transfer.Server{Protocol: mib.ProtocolFtp, Host: "h"}
	for name, x := range map[string]struct {
		change func(s *transfer.Server, o *transfer.Options)
		want   mib.FailCause
	}{
		"protocol": {func(s *transfer.Server, _ *transfer.Options) { s.Protocol = 9 }, mib.FailCauseUnsupportedProtocol},
		"host":     {func(s *transfer.Server, _ *transfer.Options) { s.Host = "a b" }, mib.FailCauseBadRequest},
		"port":     {func(s *transfer.Server, _ *transfer.Options) { s.Port = 65536 }, mib.FailCauseBadRequest},
		"user":     {func(s *transfer.Server, _ *transfer.Options) { s.User = "x\r\nDELE y" }, mib.FailCauseBadRequest},
		"password": {func(s *transfer.Server, _ *transfer.Options) { s.Password = "x\ny" }, mib.FailCauseBadRequest},
		"path":     {func(s *transfer.Server, _ *transfer.Options) { s.Path = "a/../.." }, mib.FailCauseBadRequest},
		"time-out": {func(s *transfer.Server, _ *transfer.Options) { s.Timeout = -1 }, mib.FailCauseBadRequest},
		"block":    {func(s *transfer.Server, o *transfer.Options) { s.Protocol, o.BlockSize = mib.ProtocolTftp, 7 }, mib.FailCauseBadRequest},
		"window":   {func(s *transfer.Server, o *transfer.Options) { s.Protocol, o.Window = mib.ProtocolTftp, 65536 }, mib.FailCauseBadRequest},
	} {
		server, options := good, transfer.Options{}
		x.change(&server, &options)
		_, err := transfer.New(server, options)
		t.Log(name)
		wantCause(t, err, x.want)
	}
}

func TestNameNotResolved(t *testing.T) {
	for _, p := range []mib.Protocol{mib.ProtocolTftp, mib.ProtocolFtp} {
		r := &running{Server: transfer.Server{Protocol: p, Host: "no-such-host.invalid"}}
		_, _, err := fetch(testContext(t), r.client(t), "file")
		wantCause(t, err, mib.FailCauseNameNotResolved)
	}
}

// TestRateLimit moves 150 kB at 100 kB/s.
func TestRateLimit(t *testing.T) {
	for _, name := range []string{"atftpd", "vsftpd"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := serverNamed(t, name).start(t, newRoot(t))
			c := r.client(t, func(_ *transfer.Server, o *transfer.Options) { o.RateLimit = 100_000 })
			want := testContent(150_000, 1)
			begin := time.Now()
			if err := put(t, c, "file", want); err != nil {
				t.Fatal(err)
			}
			between := time.Now()
			got, _, err := fetch(testContext(t), c, "file")
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			for what, d := range map[string]time.Duration{"put": between.Sub(begin), "get": time.Since(between)} {
				if d < 1300*time.Millisecond {
					t.Errorf("%s took %v: faster than the limit", what, d)
				}
			}
		})
	}
}

// TestSourceFails: the reader of an upload fails, or is shorter or longer than
// announced. Nothing is left under the file's name.
func TestSourceFails(t *testing.T) {
	broken := errors.New("flash is worn out")
	for name, source := range map[string]io.Reader{
		"fails":  io.MultiReader(bytes.NewReader(content[:5000]), &failing{broken}),
		"short":  bytes.NewReader(content[:5000]),
		"longer": io.MultiReader(bytes.NewReader(content), strings.NewReader("x")),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeFTP()
			_, err := f.start(t).client(t).Put(testContext(t), "file", stream{source}, int64(len(content)))
			if name == "fails" {
				if !errors.Is(err, broken) {
					t.Errorf("%v does not wrap the source's error", err)
				}
				wantCause(t, err, mib.FailCauseOther)
			} else {
				wantCause(t, err, mib.FailCauseSizeMismatch)
			}
			if _, there := f.file("file"); there {
				t.Error("there is a file")
			}
		})
	}
}

// stream is a source that cannot go back.
type stream struct{ io.Reader }

func (stream) Seek(int64, int) (int64, error) { return 0, errors.New("it cannot go back") }

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func TestVerify(t *testing.T) {
	f := fakeWithFile()
	c := f.start(t).client(t)
	wantCause(t, c.Verify(testContext(t), "file", 5, nil), mib.FailCauseSizeMismatch)
	wantCause(t, c.Verify(testContext(t), "file", int64(len(content)), make([]byte, 32)), mib.FailCauseDigestMismatch)
	wantCause(t, c.Verify(testContext(t), "other", 5, nil), mib.FailCauseFileNotFound)
	f.refuse("SIZE", "500 what?")
	wantCause(t, f.start(t).client(t).Verify(testContext(t), "file", 5, nil), mib.FailCauseSizeMismatch)
}

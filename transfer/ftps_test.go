package transfer_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"path/filepath"
	"testing"
	"time"

	"example.com/iad/mib"
)

// A server that is slower than the client still gets the whole upload: the socket is
// not closed while the server's session tickets are unread.
func TestFTPSSlowServer(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	r := vsftpd(t, root, true, "anon_max_rate=200000")
	want := testContent(400_000, 5)
	// It must not need to be sent again.
	if _, err := r.client(t).Put(testContext(t), "file", stream{bytes.NewReader(want)}, int64(len(want))); err != nil {
		t.Fatal(err)
	}
	awaitFile(t, filepath.Join(root, "file"), want)
}

// A server may read the data, and reply, only when the client's socket is closed.
func TestFTPSWaitsForClose(t *testing.T) {
	t.Parallel()
	file, pin := certificate(t, t.TempDir())
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	f := newFakeFTP()
	secured := &tls.Config{Certificates: []tls.Certificate{pair}}
	f.on["AUTH"] = func(c *fakeConn, _ string) {
		c.reply("234 go")
		c.secure(tls.Server(c.Conn, secured))
	}
	f.on["STOR"] = func(c *fakeConn, arg string) {
		c.reply("150 go on")
		raw := c.accept()
		defer raw.Close()
		data := tls.Server(raw, secured)
		b, err := io.ReadAll(data)
		if err != nil {
			t.Errorf("reading: %v", err)
		}
		c.store(arg, b)
		for err = nil; err == nil; _, err = data.Write([]byte("x")) { // until the client's socket is closed altogether
			<-time.After(5 * time.Millisecond)
		}
		c.reply("226 done")
	}
	r := f.start(t)
	r.Protocol, r.Timeout, r.pin = mib.ProtocolFtps, 2*time.Second, pin
	if err := put(t, r.client(t), "file", content); err != nil {
		t.Fatal(err)
	}
}

package transfer_test

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"example.com/iad/mib"
)

func TestFTPUpload(t *testing.T) {
	partialName := func(f *fakeFTP) bool { return len(f.said("STOR file.")) == 1 }
	for name, x := range map[string]struct {
		change func(f *fakeFTP)
		check  func(f *fakeFTP) bool
	}{
		"usual":           {func(f *fakeFTP) {}, func(f *fakeFTP) bool { return partialName(f) && len(f.said("STOR")) == 1 }},
		"no SIZE":         {func(f *fakeFTP) { f.refuse("SIZE", "500 what?") }, partialName},
		"no renaming":     {func(f *fakeFTP) { f.refuse("RNFR", "550 Permission denied.") }, func(f *fakeFTP) bool { return !partialName(f) && len(f.said("STOR")) == 1 }},
		"no renaming to":  {func(f *fakeFTP) { f.refuse("RNTO", "502 what?") }, partialName},
		"no strange name": {func(f *fakeFTP) { f.on["STOR"] = onlyPlainName }, partialName},
		"breaks off":      {func(f *fakeFTP) { f.on["STOR"] = breaksOff(f) }, func(f *fakeFTP) bool { return len(f.said("REST 40000")) == 1 }},
		// Only the reply to something that was done is lost.
		"closed after STOR": {func(f *fakeFTP) { once(f, "STOR", "226", func(c *fakeConn) { c.Close() }) }, storedOnce},
		"reset after STOR":  {func(f *fakeFTP) { once(f, "STOR", "226", reset) }, storedOnce},
		"421 after STOR":    {func(f *fakeFTP) { once(f, "STOR", "226", busy) }, storedOnce},
		"150 after STOR":    {func(f *fakeFTP) { once(f, "STOR", "226", func(c *fakeConn) { fmt.Fprint(c, "150 0.003 seconds\r\n") }) }, storedOnce},
		"421 during STOR":   {func(f *fakeFTP) { once(f, "STOR", "150", busy) }, func(f *fakeFTP) bool { return len(f.said("STOR file.")) == 2 }},
		"closed after RNTO": {func(f *fakeFTP) { once(f, "RNTO", "250", func(c *fakeConn) { c.Close() }) }, storedOnce},
		"421 after RNFR":    {func(f *fakeFTP) { once(f, "RNFR", "350", busy) }, storedOnce},
		"closed after SIZE": {func(f *fakeFTP) { once(f, "SIZE", "213", reset) }, storedOnce},
		"directly, closed": {func(f *fakeFTP) {
			f.refuse("RNFR", "502 what?")
			once(f, "STOR", "226", func(c *fakeConn) { c.Close() })
		}, func(f *fakeFTP) bool { return len(f.said("STOR")) == 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeFTP()
			x.change(f)
			if err := put(t, f.start(t).client(t), "file", content); err != nil {
				t.Fatal(err)
			}
			if got, _ := f.file("file"); !bytes.Equal(got, content) {
				t.Errorf("stored %d bytes of %d, or others", len(got), len(content))
			}
			if len(f.files) != 1 {
				t.Errorf("%d files on the server", len(f.files))
			}
			if !x.check(f) {
				t.Errorf("commands: %q", f.said(""))
			}
		})
	}
}

func storedOnce(f *fakeFTP) bool {
	return len(f.said("STOR")) == 1 && len(f.said("REST")) == 0 && len(f.said("USER")) == 2
}

// once does instead something else than the first reply of one code to a command,
// whose work is done.
func once(f *fakeFTP, command, code string, instead func(*fakeConn)) {
	var done atomic.Bool // two connections look at it
	f.on[command] = func(c *fakeConn, arg string) {
		if !done.Load() {
			c.instead = func(said string) bool {
				if done.Load() || !strings.HasPrefix(said, code) {
					return false
				}
				done.Store(true)
				instead(c)
				return true
			}
		}
		c.usual(command, arg)
		c.instead = nil
	}
}

func reset(c *fakeConn) {
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
}

func busy(c *fakeConn) {
	fmt.Fprint(c, "421 too long without a command\r\n")
	c.Close()
}

func onlyPlainName(c *fakeConn, arg string) {
	if strings.Contains(arg, ".") {
		c.reply("553 no dots")
		return
	}
	c.usual("STOR", arg)
}

// breaksOff takes 40000 bytes the first time, then the connections are gone.
func breaksOff(f *fakeFTP) func(*fakeConn, string) {
	first := true
	return func(c *fakeConn, arg string) {
		if !first {
			c.usual("STOR", arg)
			return
		}
		first = false
		c.reply("150 go on")
		c.store(arg, c.receiveData(40_000))
		c.Close()
	}
}

func TestFTPUploadRefusals(t *testing.T) {
	for name, x := range map[string]struct {
		change func(f *fakeFTP)
		want   mib.FailCause
	}{
		"may not write": {func(f *fakeFTP) { f.refuse("STOR", "553 Could not create file.") }, mib.FailCauseAccessDenied},
		"write once":    {func(f *fakeFTP) { f.refuse("RNTO", "550 file already exists"); f.on["STOR"] = writeOnce }, mib.FailCauseRemoteFileExists},
		"full":          {func(f *fakeFTP) { f.on["STOR"] = full }, mib.FailCauseRemoteStorageFull},
		"loses bytes":   {func(f *fakeFTP) { f.refuse("SIZE", "213 99999") }, mib.FailCauseSizeMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeFTP()
			x.change(f)
			wantCause(t, put(t, f.start(t).client(t), "file", content), x.want)
			if len(f.files) != 0 {
				t.Errorf("%d files left on the server", len(f.files))
			}
		})
	}
}

func writeOnce(c *fakeConn, arg string) {
	if arg == "file" {
		c.reply("550 file already exists")
		return
	}
	c.usual("STOR", arg)
}

func full(c *fakeConn, _ string) {
	c.reply("150 go on")
	c.receiveData(10_000)
	c.reply("552 Quota exceeded")
}

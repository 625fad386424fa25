package transfer_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// fakeFTP is an FTP server in memory in which a test replaces single commands.
type fakeFTP struct {
	host     string // to listen on
	greeting string
	on       map[string]func(c *fakeConn, arg string) // by command; nil reply: use the usual one

	mu       sync.Mutex
	files    map[string][]byte
	commands []string
}

// fakeConn is one control connection.
type fakeConn struct {
	*fakeFTP
	net.Conn
	in     *bufio.Reader
	data   net.Listener
	offset int
	from   string

	instead func(reply string) bool // of a reply; it says whether it did something
}

func newFakeFTP() *fakeFTP {
	return &fakeFTP{host: "127.0.0.1", greeting: "220 ready", files: map[string][]byte{}, on: map[string]func(*fakeConn, string){}}
}

// refuse makes a command fail.
func (f *fakeFTP) refuse(command, reply string) {
	f.on[command] = func(c *fakeConn, _ string) { c.reply(reply) }
}

func (f *fakeFTP) start(t testing.TB) *running {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(f.host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	all.Add(1)
	go func() {
		defer all.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			all.Add(1)
			go func() {
				defer all.Done()
				defer c.Close()
				f.serve(c)
			}()
		}
	}()
	return &running{Server: transfer.Server{Protocol: mib.ProtocolFtp, Host: f.host, Port: l.Addr().(*net.TCPAddr).Port, Timeout: 20 * time.Second}}
}

func (c *fakeConn) reply(format string, args ...any) {
	text := fmt.Sprintf(format+"\r\n", args...)
	if c.instead == nil || !c.instead(text) {
		_, _ = io.WriteString(c, text)
	}
}

func (f *fakeFTP) serve(conn net.Conn) {
	c := &fakeConn{fakeFTP: f, Conn: conn}
	defer func() {
		if c.data != nil {
			c.data.Close()
		}
	}()
	c.reply("%s", f.greeting)
	c.in = bufio.NewReader(conn)
	for {
		text, err := c.in.ReadString('\n')
		if err != nil {
			return
		}
		text = strings.TrimRight(text, "\r\n")
		f.mu.Lock()
		f.commands = append(f.commands, text)
		f.mu.Unlock()
		command, arg, _ := strings.Cut(text, " ")
		if own := f.on[command]; own != nil {
			own(c, arg)
		} else {
			c.usual(command, arg)
		}
	}
}

// secure goes on over TLS.
func (c *fakeConn) secure(t *tls.Conn) { c.Conn, c.in = t, bufio.NewReader(t) }

// usual is what a plain server does.
func (c *fakeConn) usual(command, arg string) {
	c.mu.Lock()
	file, there := c.files[arg]
	c.mu.Unlock()
	switch command {
	case "USER":
		c.reply("331 password?")
	case "PASS":
		c.reply("230 welcome")
	case "TYPE", "NOOP", "PBSZ", "PROT":
		c.reply("200 fine")
	case "EPSV":
		c.listen()
		c.reply("229 go (|||%d|)", c.data.Addr().(*net.TCPAddr).Port)
	case "SIZE":
		if !there {
			c.reply("550 no such file")
			return
		}
		c.reply("213 %d", len(file))
	case "REST":
		fmt.Sscan(arg, &c.offset)
		c.reply("350 from %d", c.offset)
	case "RETR":
		if !there {
			c.reply("550 no such file")
			return
		}
		c.reply("150 here it comes")
		c.sendData(file[c.offset:])
		c.reply("226 done")
	case "STOR":
		c.reply("150 go on")
		c.store(arg, c.receiveData(-1))
		c.reply("226 done")
	case "RNFR":
		if !there {
			c.reply("550 no such file")
			return
		}
		c.from = arg
		c.reply("350 to?")
	case "RNTO":
		c.mu.Lock()
		c.files[arg] = c.files[c.from]
		delete(c.files, c.from)
		c.mu.Unlock()
		c.reply("250 done")
	case "DELE":
		c.mu.Lock()
		delete(c.files, arg)
		c.mu.Unlock()
		c.reply("250 gone")
	case "QUIT":
		c.reply("221 bye")
		c.Close()
	default:
		c.reply("502 not known")
	}
}

func (c *fakeConn) listen() {
	if c.data != nil {
		c.data.Close()
	}
	c.data, _ = net.Listen("tcp", net.JoinHostPort(c.host, "0"))
}

func (c *fakeConn) accept() net.Conn {
	_ = c.data.(*net.TCPListener).SetDeadline(time.Now().Add(5 * time.Second))
	d, err := c.data.Accept()
	if err != nil {
		return nil
	}
	return d
}

func (c *fakeConn) sendData(b []byte) {
	if d := c.accept(); d != nil {
		_, _ = d.Write(b)
		d.Close()
	}
	c.offset = 0
}

// receiveData takes limit bytes of an upload, all for -1.
func (c *fakeConn) receiveData(limit int64) []byte {
	d := c.accept()
	if d == nil {
		return nil
	}
	defer d.Close()
	var r io.Reader = d
	if limit >= 0 {
		r = io.LimitReader(d, limit)
	}
	b, _ := io.ReadAll(r)
	return b
}

// store puts received bytes where REST said.
func (c *fakeConn) store(name string, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[name] = append(bytes.Clone(c.files[name][:c.offset]), b...)
	c.offset = 0
}

func (f *fakeFTP) file(name string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.files[name]
	return b, ok
}

// said returns the commands of one kind that clients sent.
func (f *fakeFTP) said(command string) (list []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.commands {
		if strings.HasPrefix(c, command) {
			list = append(list, c)
		}
	}
	return list
}

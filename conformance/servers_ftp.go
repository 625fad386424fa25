package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"strconv"
	"strings"
	"time"
)

// serveFTP accepts control connections (RFC 959, with RFC 2428 and RFC 3659) until the
// servers are closed. It is written out here because a server that is to misbehave at any
// command cannot be made of a library whose purpose is that it does not.
func (s *fileServers) serveFTP() {
	for {
		c, err := s.ftp.Accept()
		if err != nil {
			return
		}
		if !s.track(c) {
			return
		}
		s.tasks.Go(func() {
			defer s.forget(c)
			(&ftpConn{servers: s, Conn: c, in: bufio.NewReader(c)}).serve()
		})
	}
}

// track remembers a connection for Close; false if the servers are closed.
func (s *fileServers) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		c.Close()
		return false
	}
	s.conns[c] = true
	return true
}

func (s *fileServers) forget(c net.Conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// ftpConn is one control connection.
type ftpConn struct {
	servers *fileServers
	net.Conn
	in     *bufio.Reader
	data   net.Listener
	offset int64
	from   string // of RNFR
}

func (c *ftpConn) reply(format string, args ...any) {
	_, _ = fmt.Fprintf(c.Conn, format+"\r\n", args...)
}

func (c *ftpConn) serve() {
	defer func() {
		if c.data != nil {
			c.data.Close()
		}
	}()
	c.servers.mu.Lock()
	greeting, login := c.servers.greeting, c.servers.login
	c.servers.mu.Unlock()
	if greeting != "" {
		c.servers.log("FTP: %s", greeting)
		c.reply("%s", greeting)
		return
	}
	c.reply("220 ready")
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch verb = strings.ToUpper(verb); verb {
		case "USER":
			c.reply("331 password?")
		case "PASS":
			if login != "" {
				c.servers.log("FTP: %s", login)
				c.reply("%s", login)
				continue
			}
			c.reply("230 welcome")
		case "TYPE", "NOOP", "MODE", "STRU":
			c.reply("200 done")
		case "PWD":
			c.reply(`257 "/"`)
		case "CWD", "MKD":
			c.reply("250 done")
		case "FEAT":
			c.reply("211-features\r\n SIZE\r\n REST STREAM\r\n EPSV\r\n211 end")
		case "EPSV", "PASV":
			c.passive(verb)
		case "REST":
			c.offset, _ = strconv.ParseInt(arg, 10, 64)
			c.reply("350 continuing at %d", c.offset)
		case "QUIT":
			c.reply("221 bye")
			return
		case "SIZE", "RETR", "STOR", "RNFR", "RNTO", "DELE":
			if !c.file(verb, arg) {
				return
			}
		default:
			c.reply("502 command not implemented")
		}
	}
}

func (c *ftpConn) passive(verb string) {
	if c.data != nil {
		c.data.Close()
	}
	var err error
	if c.data, err = net.Listen("tcp", net.JoinHostPort(c.servers.host, "0")); err != nil {
		c.reply("425 %v", err)
		return
	}
	address := c.data.Addr().(*net.TCPAddr)
	if verb == "EPSV" {
		c.reply("229 entering extended passive mode (|||%d|)", address.Port)
		return
	}
	v4 := address.IP.To4()
	if v4 == nil {
		c.reply("425 use EPSV")
		return
	}
	c.reply("227 entering passive mode (%d,%d,%d,%d,%d,%d)", v4[0], v4[1], v4[2], v4[3], address.Port>>8, address.Port&255)
}

// file carries out a command with a file; false: the control connection ends.
func (c *ftpConn) file(verb, arg string) bool {
	name := strings.TrimPrefix(path.Clean("/"+arg), "/")
	var f *served
	fails := false
	if verb == "RETR" || verb == "STOR" {
		f, fails = c.servers.find(name, verb == "RETR")
	} else {
		c.servers.mu.Lock()
		f = c.servers.files[name]
		fails = f != nil && (f.times == 0 || f.requests < f.times)
		c.servers.mu.Unlock()
	}
	if f != nil && f.ftpTo == verb && fails {
		c.servers.log("FTP: %s %s: %s", verb, name, f.behaviour.ftp)
		c.reply("%s", f.behaviour.ftp)
		return !strings.HasPrefix(f.behaviour.ftp, "421")
	}
	c.servers.mu.Lock()
	sent, exists := c.servers.uploads[name]
	c.servers.mu.Unlock()
	switch verb {
	case "SIZE":
		switch {
		case f != nil && f.noSize:
			c.reply("502 command not implemented")
		case f != nil && len(f.data) > 0:
			c.reply("213 %d", int64(len(f.data))+f.extra)
		case exists:
			c.reply("213 %d", len(sent))
		default:
			c.reply("550 no such file")
		}
	case "RNFR":
		if !exists {
			c.reply("550 no such file")
			break
		}
		c.from = name
		c.reply("350 to which name?")
	case "RNTO":
		c.servers.mu.Lock()
		c.servers.uploads[name] = c.servers.uploads[c.from]
		delete(c.servers.uploads, c.from)
		c.servers.mu.Unlock()
		c.reply("250 done")
	case "DELE":
		if !exists {
			c.reply("550 no such file")
			break
		}
		c.servers.mu.Lock()
		delete(c.servers.uploads, name)
		c.servers.mu.Unlock()
		c.reply("250 done")
	case "RETR":
		if f == nil {
			c.servers.log("FTP: file %s not found", name)
			c.reply("550 no such file")
			break
		}
		return c.retrieve(name, f, fails)
	case "STOR":
		return c.store(name, f, fails)
	}
	return true
}

// connection opens the data connection.
func (c *ftpConn) connection() net.Conn {
	if c.data == nil {
		c.reply("425 use EPSV first")
		return nil
	}
	c.reply("150 opening the data connection")
	_ = c.data.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
	d, err := c.data.Accept()
	if err != nil || !c.servers.track(d) {
		c.reply("425 no data connection")
		return nil
	}
	return d
}

func (c *ftpConn) retrieve(name string, f *served, fails bool) bool {
	offset := min(c.offset, int64(len(f.data)))
	c.offset = 0
	if fails && f.silent {
		c.servers.log("FTP: no reply to RETR %s", name)
		<-c.servers.ctx.Done()
		return false
	}
	d := c.connection()
	if d == nil {
		return true
	}
	defer c.servers.forget(d)
	reader := &heldReader{ctx: c.servers.ctx, file: f}
	end := int64(len(f.data))
	if fails {
		reader.hold = f.hold
		if f.breakAt > 0 {
			end = min(end, f.breakAt)
		}
	}
	var pace func(int) time.Duration
	if f.rate > 0 {
		pace = f.pace()
	}
	buf := make([]byte, 16<<10)
	for offset < end {
		n, err := reader.ReadAt(buf[:min(int64(len(buf)), end-offset)], offset)
		if n == 0 && err != nil {
			break
		}
		if pace != nil {
			select {
			case <-time.After(pace(n)):
			case <-c.servers.ctx.Done():
				return false
			}
		}
		if _, err := d.Write(buf[:n]); err != nil {
			break
		}
		offset += int64(n)
	}
	c.servers.log("FTP: sent %d of %d bytes of %s", offset, len(f.data), name)
	c.servers.forget(d)
	if offset < int64(len(f.data)) {
		c.reply("426 connection closed, transfer aborted")
		return true
	}
	c.reply("226 done")
	return true
}

func (c *ftpConn) store(name string, f *served, fails bool) bool {
	d := c.connection()
	if d == nil {
		return true
	}
	defer c.servers.forget(d)
	sink := &upload{servers: c.servers, name: name}
	if f != nil && fails {
		sink.full = f.full
	}
	_, err := io.Copy(sink, d)
	c.servers.log("FTP: received %d bytes of %s%s", len(sink.data), name, because(err))
	switch {
	case errors.Is(err, errFull):
		c.reply("552 disk full")
	case err != nil:
		c.reply("426 connection closed, transfer aborted")
	default:
		_ = sink.End()
		c.reply("226 done")
	}
	return true
}

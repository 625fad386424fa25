package files_test

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/textproto"
	"strings"
	"testing"

	"example.com/iad/internal/iadtest"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// TestServersFTPCrowd: one host has so many connections and no more, another its own.
func TestServersFTPCrowd(t *testing.T) {
	s, _ := iadtest.StartServers(t, nil)
	session, err := s.Open(device.FTP, "A", "127.0.0.1:161")
	if err != nil {
		t.Fatal(err)
	}
	to := s.Addr(device.FTP).(*net.TCPAddr)
	greeted := func(host byte) (net.Conn, bool) {
		t.Helper()
		conn, err := net.DialTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, host)}, to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		in := textproto.NewConn(conn)
		if code, text, err := in.ReadResponse(220); err != nil {
			if code != 421 {
				t.Errorf("a connection too many is answered %d %s", code, text)
			}
			return conn, false
		}
		for _, line := range []string{"USER " + session.Address().User, "PASS " + session.Address().Password} {
			if err := in.PrintfLine("%s", line); err != nil {
				t.Fatal(err)
			}
			if _, _, err := in.ReadResponse(0); err != nil {
				t.Fatal(err)
			}
		}
		return conn, true
	}
	var first net.Conn
	for i := 0; ; i++ {
		conn, ok := greeted(5)
		if first == nil {
			first = conn
		}
		if !ok && i > 0 {
			break
		}
		if i == 1000 {
			t.Fatal("1000 connections from one host")
		}
	}
	if _, ok := greeted(6); !ok {
		t.Error("another host is not served")
	}
	if _, err := fmt.Fprintf(first, "QUIT\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, first); err != nil { // until the server has closed it
		t.Fatal(err)
	}
	if _, ok := greeted(5); !ok {
		t.Error("a connection that was closed still counts")
	}
}

// TestServersFTPStrangers: clients that do not log in keep out nobody who does, and those
// whose password is wrong are neither heard for ever nor fill the log.
func TestServersFTPStrangers(t *testing.T) {
	log := new(iadtest.LockedBuffer)
	s, _ := iadtest.StartServers(t, func(c *files.ServersConfig) { c.Log = slog.New(slog.NewTextHandler(log, nil)) })
	session, err := s.Open(device.FTP, "A", "127.0.0.1:161")
	if err != nil {
		t.Fatal(err)
	}
	to := s.Addr(device.FTP).(*net.TCPAddr)
	connect := func(host byte) *textproto.Conn {
		t.Helper()
		conn, err := net.DialTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, host)}, to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return textproto.NewConn(conn)
	}
	logIn := func(c *textproto.Conn, password string) error {
		for _, line := range []string{"USER " + session.Address().User, "PASS " + password} {
			if err := c.PrintfLine("%s", line); err != nil {
				return err
			}
			if code, text, err := c.ReadResponse(0); err != nil || code >= 400 {
				return fmt.Errorf("%d %s %w", code, text, err)
			}
		}
		return nil
	}
	inside := connect(5)
	if _, _, err := inside.ReadResponse(220); err != nil {
		t.Fatal(err)
	}
	if err := logIn(inside, session.Address().Password); err != nil {
		t.Fatal(err)
	}
	for host := range 6 {
		for range 128 {
			connect(byte(20 + host))
		}
	}
	for _, host := range []byte{5, 6, 20} { // where a device is already, where none is, and where strangers are
		c := connect(host)
		if _, _, err := c.ReadResponse(220); err != nil {
			t.Errorf("a device at host %d is not served: %v", host, err)
			continue
		}
		if err := logIn(c, session.Address().Password); err != nil {
			t.Errorf("host %d: %v", host, err)
		}
	}
	if err := inside.PrintfLine("NOOP"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := inside.ReadResponse(200); err != nil {
		t.Errorf("a client that had logged in was ended: %v", err)
	}
	for range 100 {
		c := connect(7)
		if _, _, err := c.ReadResponse(220); err != nil {
			t.Fatal(err)
		}
		tries := 0
		for logIn(c, strings.Repeat("x", 3000)) != nil {
			if tries++; tries > 3 {
				break
			}
			if tries == 3 {
				if _, err := c.ReadLine(); err == nil {
					t.Fatal("a client may try passwords without end")
				}
				break
			}
		}
	}
	if text := log.String(); strings.Count(text, "log-in refused") < 3 || len(text) > 50_000 {
		t.Errorf("300 refused log-ins write %d bytes of log:\n%.1000s", len(text), text)
	}
}

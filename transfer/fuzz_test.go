package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"path"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"example.com/iad/transfer/tftp"
)

// FuzzReceive: an honest server's blocks arrive in any order, any number of
// times; what is read is the file's beginning, never anything else. Each pair of
// octets in the input picks a block relative to the one that is due.
func FuzzReceive(f *testing.F) {
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		f.Fatal(err)
	}
	defer sink.Close()
	to := sink.LocalAddr().(*net.UDPAddr).AddrPort()
	f.Fuzz(func(t *testing.T, window uint8, last uint8, picks []byte) {
		const size = 8
		if len(picks) > 1000 {
			return
		}
		sock, err := openTFTP(context.Background(), to, size)
		if err != nil {
			t.Fatal(err)
		}
		defer sock.close()
		sock.lock(to)
		r := &tftpReceiver{sock: sock, stall: time.Second, size: -1}
		r.prepare(terms{block: size, window: int(window%100) + 1})
		payload := func(n int64) []byte {
			b := binary.BigEndian.AppendUint64(nil, uint64(n))
			if n == int64(last)+1 {
				b = b[:3]
			}
			return b
		}
		var got []byte
		for _, pick := range picks {
			n := max(r.next+int64(int8(pick)), 0)
			if n > int64(last)+1 || r.final {
				continue
			}
			if err := r.take(tftp.Packet{Op: tftp.OpData, Block: uint16(n), Data: payload(n)}); err != nil {
				t.Fatal(err)
			}
			if room, _ := r.ring.room(); room < size*r.window {
				t.Fatal("no room for a window") // 256 KiB hold all that is sent here
			}
			r.ring.flush()
		}
		r.ring.end(io.EOF)
		got, err = io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		for n := int64(1); n < r.next; n++ {
			want = append(want, payload(n)...)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("read %x, want %x", got, want)
		}
	})
}

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
		c, err := New(Server{Protocol: FTP, Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, Timeout: time.Second}, Options{})
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

// FuzzRemotePath: a path that is sent stays in its folder and in its command.
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
			folder := path.Clean(dir)
			if inside := path.Clean(p); folder != "." && folder != "/" && !strings.HasPrefix(inside, folder+"/") {
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
		if server.Host == "" || server.Protocol < TFTP || server.Protocol > FTPS {
			t.Errorf("%q is %+v", s, server)
		}
		if server.check() != nil {
			t.Errorf("%q is accepted as %+v", s, server)
		}
	})
}

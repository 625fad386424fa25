package agentx

import (
	"bufio"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// proxy passes one connection on to the Unix socket of a master and shows what
// the master sends, PDU by PDU, before it is passed on. It returns the address
// to dial.
func proxy(t testing.TB, address string, show func(*packet)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "proxy")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		sub, err := ln.Accept()
		if err != nil {
			return
		}
		defer sub.Close()
		master, err := net.Dial("unix", strings.TrimPrefix(address, "unix:"))
		if err != nil {
			t.Error(err)
			return
		}
		defer master.Close()
		up := make(chan struct{})
		go func() {
			defer close(up)
			io.Copy(master, sub)
			master.Close()
		}()
		r := bufio.NewReader(master)
		for {
			var p packet
			if err := p.read(r); err != nil {
				break
			}
			show(&p)
			if _, err := sub.Write(encodePacket(&p)); err != nil {
				break
			}
		}
		sub.Close()
		<-up
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return "unix:" + path
}

package bench_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/iad/conformance/bench"
	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// cycle switches off and on.
func cycle(t *testing.T, spec string) {
	t.Helper()
	p, err := bench.OpenPower(spec, bench.Secrets{Community: "secret", Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Off(t.Context()); err != nil {
		t.Fatalf("off: %v", err)
	}
	if err := p.On(t.Context()); err != nil {
		t.Fatalf("on: %v", err)
	}
}

func TestExec(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	cycle(t, "exec:f() { echo \"$1\" >> "+log+"; }; f")
	if text, err := os.ReadFile(log); err != nil || string(text) != "off\non\n" {
		t.Errorf("%q, %v", text, err)
	}
	p, err := bench.OpenPower("exec:echo relay 3 is stuck; false", bench.Secrets{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Off(t.Context()); err == nil || !strings.Contains(err.Error(), "relay 3 is stuck") {
		t.Errorf("%v", err)
	}
}

func TestPDUDaemon(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		if strings.Contains(r.URL.RawQuery, "unknown") {
			http.Error(w, "no such alias", http.StatusInternalServerError)
		}
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	cycle(t, "pdudaemon:"+host+"/board 7")
	cycle(t, "pdudaemon:"+host+"/pdu01/3")
	want := []string{
		"/power/control/off?alias=board+7", "/power/control/on?alias=board+7",
		"/power/control/off?hostname=pdu01&port=3", "/power/control/on?hostname=pdu01&port=3",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("%q; want %q", asked, want)
	}
	p, err := bench.OpenPower("pdudaemon:"+host+"/unknown", bench.Secrets{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.On(t.Context()); err == nil || !strings.Contains(err.Error(), "no such alias") {
		t.Errorf("%v", err)
	}
}

func TestPDU(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	written := make(chan string, 10)
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			community, p, err := snmp.ReadCommunityMessage(buf[:n])
			if err != nil || p.Kind != snmp.PDUSet {
				continue
			}
			written <- fmt.Sprintf("%s %s=%d", community, p.Vars[0].OID, p.Vars[0].Value.Int)
			p.Kind = snmp.PDUResponse
			if p.Vars[0].Value.Int > 100 {
				p.Status, p.Index = int32(mib.WrongValue), 1
			}
			_, _ = conn.WriteTo(snmp.AppendCommunityMessage(nil, snmp.Version2c, string(community), p, snmp.EncodeVars(p.Vars)), from)
		}
	}()
	outlet := fmt.Sprintf("snmp:%s/1.3.6.1.4.1.318.1.1.4.4.2.1.3.5", conn.LocalAddr())
	cycle(t, outlet)
	cycle(t, outlet+"=7,8")
	for _, want := range []string{"2", "1", "8", "7"} {
		if got := <-written; got != "secret 1.3.6.1.4.1.318.1.1.4.4.2.1.3.5="+want {
			t.Errorf("%s; want %s", got, want)
		}
	}
	p, err := bench.OpenPower(outlet+"=101,102", bench.Secrets{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.On(t.Context()); err == nil || !strings.Contains(err.Error(), "WrongValue") {
		t.Errorf("%v", err)
	}
}

func TestQMP(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "qmp")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	commands := make(chan string, 20)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintln(c, `{"QMP": {"version": {}}}`)
				in := json.NewDecoder(bufio.NewReader(c))
				for {
					var command struct{ Execute string }
					if in.Decode(&command) != nil {
						return
					}
					commands <- command.Execute
					fmt.Fprintln(c, `{"event": "STOP"}`)
					fmt.Fprintln(c, `{"return": {}}`)
				}
			}()
		}
	}()
	cycle(t, "qmp:"+socket)
	for _, want := range []string{"qmp_capabilities", "stop", "qmp_capabilities", "system_reset", "cont"} {
		if got := <-commands; got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}

func TestMistakes(t *testing.T) {
	for _, spec := range []string{"", "relay:1", "exec:", "pdudaemon:host", "pdudaemon:host/", "snmp:host", "snmp:host/ifTable", "snmp:host/1.3=x", "iadsim:./lab.sock", "iadsim:SIM-00001"} {
		if _, err := bench.OpenPower(spec, bench.Secrets{}); err == nil {
			t.Errorf("%q is accepted", spec)
		}
	}
	if _, err := bench.OpenConsole(t.Context(), "pigeon:1"); err == nil {
		t.Error("an unknown console is accepted")
	}
}

// console reads lines.
func console(t *testing.T, c io.Reader, want ...string) {
	t.Helper()
	in := bufio.NewScanner(c)
	for _, w := range want {
		if !in.Scan() || in.Text() != w {
			t.Fatalf("%q, %v; want %q", in.Text(), in.Err(), w)
		}
	}
}

func TestConsoleTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			fmt.Fprint(c, "U-Boot 2026.01\r\nStarting kernel\r\n")
			c.Close()
		}
	}()
	c, err := bench.OpenConsole(t.Context(), "tcp:"+l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	console(t, c, "U-Boot 2026.01", "Starting kernel")
}

// TestConsoleFile: what is in the file before is not of interest, what comes later is.
func TestConsoleFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(name, []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c, err := bench.OpenConsole(ctx, "file:"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintln(f, "new")
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || line != "new\n" {
		t.Errorf("%q, %v", line, err)
	}
	cancel()
	if _, err := in.ReadByte(); err == nil {
		t.Error("reading does not end with the context")
	}
}

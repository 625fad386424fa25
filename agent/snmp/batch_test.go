package snmp

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// Requests that wait together are answered in their order, and what a SET among them starts
// begins after its answer has left.
func TestRequestsTogether(t *testing.T) {
	e, d := newEngine(t, Config{Conn: socketAt(t, "127.0.0.1:0"), Communities: communities()})
	client, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(e.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const count, set = 20, 13
	for i := range int32(count) {
		p := snmp.PDU{Kind: snmp.PDUGet, RequestID: i, Vars: []mib.Varbind{{OID: module.OID(mib.ReqOwner, 0), Value: mib.Value{Type: mib.Null}}}}
		if i == set {
			p = setOwner("somebody")
			p.RequestID = i
		}
		if _, err := client.Write(snmp.AppendCommunityMessage(nil, snmp.Version2c, "private", p, snmp.EncodeVars(p.Vars))); err != nil {
			t.Fatal(err)
		}
	}
	answered := make(chan struct{})
	late := make(chan error, 1)
	d.onDone = func() {
		select {
		case <-answered:
			late <- nil
		case <-time.After(20 * time.Second):
			late <- fmt.Errorf("the work began, and the answer to the SET did not come")
		}
	}
	run(t, e)
	buf := make([]byte, 2000)
	for i := range int32(count) {
		n, err := client.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		_, p, err := snmp.ReadCommunityMessage(buf[:n])
		want := ""
		if i >= set {
			want = "somebody"
		}
		if err != nil || p.Kind != snmp.PDUResponse || p.RequestID != i || string(p.Vars[0].Value.Bytes) != want {
			t.Fatalf("answer %d: %+v, %v, want %q", i, p, err, want)
		}
		if i == set {
			close(answered)
		}
	}
	if err := <-late; err != nil {
		t.Error(err)
	}
}

// together sends requests of a client and of another one, all before the engine runs: a GET, a SET
// and more GETs.
func together(t *testing.T, e *Engine, clients ...net.Conn) {
	t.Helper()
	for i, client := range clients {
		p := getID()
		if i == 1 {
			p = setOwner("somebody")
		}
		if err := client.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write(snmp.AppendCommunityMessage(nil, snmp.Version2c, "private", p, snmp.EncodeVars(p.Vars))); err != nil {
			t.Fatal(err)
		}
	}
}

func dialEngine(t *testing.T, e *Engine, n int) (clients []net.Conn) {
	t.Helper()
	for range n {
		client, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(e.Addr()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		clients = append(clients, client)
	}
	return clients
}

// A SET that takes long does not hold up the answers to requests that came together with it.
func TestSlowSet(t *testing.T) {
	e, d := newEngine(t, Config{Conn: socketAt(t, "127.0.0.1:0"), Communities: communities()})
	clients := dialEngine(t, e, 2)
	together(t, e, clients...)
	answered := make(chan struct{})
	late := make(chan bool, 1)
	d.onCommit = func() {
		select {
		case <-answered:
			late <- false
		case <-time.After(20 * time.Second):
			late <- true
		}
	}
	run(t, e)
	buf := make([]byte, 2000)
	if _, err := clients[0].Read(buf); err != nil {
		t.Fatal(err)
	}
	close(answered)
	if <-late {
		t.Error("the answer to a GET waited for the SET behind it")
	}
	if _, err := clients[1].Read(buf); err != nil {
		t.Fatal(err)
	}
}

// What was read is answered, also if the engine stops meanwhile.
func TestStopBetweenRequests(t *testing.T) {
	e, d := newEngine(t, Config{Conn: socketAt(t, "127.0.0.1:0"), Communities: communities()})
	clients := dialEngine(t, e, 4)
	together(t, e, clients...) // the first two are read together, then the others
	ctx, cancel := context.WithCancel(t.Context())
	d.onView = func() {
		if d.tested() > 0 { // the third request
			cancel()
		}
	}
	if err := e.Run(ctx); err != nil {
		t.Fatal(err)
	}
	for i, client := range clients {
		if err := client.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Read(make([]byte, 2000)); err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
}

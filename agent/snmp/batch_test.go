package snmp

import (
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

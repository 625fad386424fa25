package snmp

import (
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/mib"
)

// A manager is served while strangers send all they can, and memory stays
// bounded. testdata/flood does the same to a whole device.
func TestFlood(t *testing.T) {
	e, d := newEngine(t, Config{Conn: socketAt(t, "127.0.0.1:0"), Communities: communities(), Users: []User{privateUser}, EngineID: testEngineID, Boots: 7})
	run(t, e)
	client := newClient(t, e, &privateUser)
	defer client.Conn.Close()
	client.Timeout, client.Retries = 500*time.Millisecond, 20

	stop, flooded := make(chan struct{}), make(chan int)
	go func() {
		sent := 0
		defer func() { flooded <- sent }()
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 66)}, net.UDPAddrFromAddrPort(e.Addr()))
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		messages := hostileMessages(t, newPeer(t, e, &privateUser))
		for {
			for _, msg := range messages {
				conn.Write(msg)
				sent++
			}
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
			}
		}
	}()

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const sets = 200
	for range sets {
		if _, err := client.Set([]gosnmp.SnmpPDU{{Name: dotted(mib.ReqOwner, 0), Type: gosnmp.OctetString, Value: "x"}}); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	sent := <-flooded
	runtime.GC()
	runtime.ReadMemStats(&after)
	if d.tested() < sets {
		t.Errorf("%d of %d SETs were carried out", d.tested(), sets)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("the heap grew by %d octets", grown)
	}
	t.Logf("%d hostile messages", sent)
}

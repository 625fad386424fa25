package trap_test

import (
	"net"
	"testing"

	"github.com/gosnmp/gosnmp"
	"github.com/spf13/afero"

	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

// A sender that learned a listener's identity once, as snmpd does, reaches the next
// listener at the same address too.
func TestListenerKeepsItsEngine(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address, files := conn.LocalAddr().String(), afero.NewMemMapFs()
	conn.Close()
	var old *gosnmp.GoSNMP
	engine, boots := "", uint32(0)
	for start := range uint32(4) {
		if start == 2 { // torn by somebody else's hand: another identity, and no failure
			list, err := afero.ReadDir(files, "listener")
			if err != nil || len(list) != 1 {
				t.Fatalf("listener/ holds %v, %v", list, err)
			}
			if err := afero.WriteFile(files, "listener/"+list[0].Name(), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l, err := trap.Listen(trap.ListenerConfig{Listen: address, Users: testUsers, Files: files})
		if err != nil {
			t.Fatal(err)
		}
		s := l.Subscribe(trap.Filter{}, 8)
		if start != 1 && start != 3 {
			old = sender(t, l, &testUsers[1])
		}
		// What was recorded about the engine before is used: no discovery, and the time of
		// the listener's last life until a report puts that right.
		send(t, old, makeTrap(mib.NotifyOpCompleted, "A", 1+start, true))
		if n := next(t, s); n.DeviceID != "A" || !n.Inform {
			t.Errorf("start %d: %v", start, n)
		}
		sp := old.SecurityParameters.(*gosnmp.UsmSecurityParameters)
		switch same := sp.AuthoritativeEngineID == engine; {
		case start%2 == 1 && (!same || sp.AuthoritativeEngineBoots != boots+1):
			t.Errorf("start %d: engine %x with boots %d, after %x with %d", start, sp.AuthoritativeEngineID, sp.AuthoritativeEngineBoots, engine, boots)
		case start%2 == 0 && (same || sp.AuthoritativeEngineBoots != 1):
			t.Errorf("start %d: a new engine %x with boots %d", start, sp.AuthoritativeEngineID, sp.AuthoritativeEngineBoots)
		}
		engine, boots = sp.AuthoritativeEngineID, sp.AuthoritativeEngineBoots
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

package sim_test

import (
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// A device that is off loses the requests sent to it: it does not answer them when it
// has power again.
func TestRequestsWhileOff(t *testing.T) {
	l := newLab(t, nil)
	conn, err := net.Dial("udp", l.device.Addr(t.Context()).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func(id int32) {
		t.Helper()
		p := snmp.PDU{Kind: snmp.PDUGet, RequestID: id}
		name := mib.NewModule(nil).OID(mib.DeviceId, 0)
		if _, err := conn.Write(snmp.AppendCommunityMessage(nil, snmp.Version2c, "public", p, snmp.EncodeVars([]mib.Varbind{{OID: name, Value: mib.Value{Type: mib.Null}}}))); err != nil {
			t.Fatal(err)
		}
	}
	answer := func(wait time.Duration) int32 {
		t.Helper()
		buf := make([]byte, 1500)
		conn.SetReadDeadline(time.Now().Add(wait))
		n, err := conn.Read(buf)
		if err != nil {
			return 0
		}
		_, p, err := snmp.ReadCommunityMessage(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		return p.RequestID
	}
	ask(1)
	if got := answer(10 * time.Second); got != 1 {
		t.Fatalf("answer to %d, want 1", got)
	}
	l.device.CutPower()
	// Not even while its agent is ending.
	for id := range int32(5) {
		ask(2 + id)
	}
	if got := answer(200 * time.Millisecond); got != 0 {
		t.Errorf("answer to %d after the power cut", got)
	}
	l.device.PowerOn()
	l.device.Agent(t.Context(), 2)
	ask(1000)
	if got := answer(10 * time.Second); got != 1000 {
		t.Errorf("answer to %d, want 1000", got)
	}
}

// Switching the power to what it is already is not an event, and a device that somebody
// switches off during a short power cut stays off.
func TestPowerIsSwitched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []string
		d := sim.New(sim.Config{ID: "IAD-0001", Disk: sim.Memory(), OnEvent: func(e sim.Event) { events = append(events, e.Power) }})
		expect := func(what string, powered bool, want ...string) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait() // events come from the timer's goroutine
			if got := d.State().Powered; got != powered || !slices.Equal(events, want) {
				t.Errorf("%s: power %v, events %v; want %v, %v", what, got, events, powered, want)
			}
			events = nil
		}
		d.PowerOn()
		d.CutPower()
		d.CutPower()
		expect("twice off", false, "off")
		d.PowerOn()
		d.PowerOn()
		expect("twice on", true, "on")
		d.Blink(time.Second)
		expect("a short cut", true, "off", "on")
		d.Blink(time.Second)
		d.CutPower()
		expect("off during a short cut", false, "off")
		d.PowerOn()
		d.Blink(time.Second)
		d.PowerOn()
		expect("on during a short cut", true, "on", "off", "on")
	})
}

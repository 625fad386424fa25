//go:build unix

package agentx_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/agent/agentx"
	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// snmpd stands still or dies, several times in one download: the download goes
// on and succeeds, the session comes back, and a receiver hears every event, in
// one form only. The download ends in the last outage.
func TestSnmpdAwayInDownload(t *testing.T) {
	stop := func(master *agentx.Snmpd) (back func()) {
		master.Signal(syscall.SIGSTOP)
		return func() { master.Signal(syscall.SIGCONT) }
	}
	kill := func(master *agentx.Snmpd) (back func()) {
		master.Kill()
		return master.Restart
	}
	type outage = func(*agentx.Snmpd) (back func())
	for name, c := range map[string]struct {
		outages []outage
		enable  byte // iadUpgNotifyEnable
	}{
		"stopped at last": {[]outage{stop, kill, stop}, 0xff},
		"killed at last":  {[]outage{kill, stop, kill}, 0xff},
		// No progress is in the way of the first event of the last outage:
		// snmpd has it in its socket, and gets it again after its return.
		"event in doubt": {[]outage{stop, kill, stop}, 0xff &^ (0x80 >> mib.NotifyEnableProgress)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			awayInDownload(t, c.enable, c.outages...)
		})
	}
}

func awayInDownload(t *testing.T, enable byte, outages ...func(*agentx.Snmpd) (back func())) {
	port := agentx.FreePort(t)
	trapd := agentx.StartTrapd(t, port)
	master := agentx.StartSnmpd(t, fmt.Sprintf("informsink udp:127.0.0.1:%d public", port))
	log := newMessages()
	d := startIAD(t, func(c *sim.Config) {
		c.AgentX = &agentx.Config{
			Address: master.Address(), PingInterval: 200 * time.Millisecond, Timeout: time.Second, Log: log.logger(),
		}
	})
	log.await(t, registered, 0)
	m := agentx.Client(t, master.Port())

	image := build(t, "2.0.0")
	d.files.upload("software", image)
	part := int64(len(image) / (len(outages) + 1))
	d.files.grant(part)
	set := []gosnmp.SnmpPDU{
		{Name: name(mib.ServerAddressType, 1), Type: gosnmp.Integer, Value: int(mib.InetAddressTypeIpv4)},
		{Name: name(mib.ServerAddress, 1), Type: gosnmp.OctetString, Value: []byte{127, 0, 0, 1}},
		{Name: name(mib.FileName, 1), Type: gosnmp.OctetString, Value: "software"},
		{Name: name(mib.NotifyEnable, 0), Type: gosnmp.OctetString, Value: []byte{enable}},
		{Name: name(mib.NotifyStep, 0), Type: gosnmp.Gauge32, Value: uint32(1)},
		{Name: name(mib.NotifyMinInterval, 0), Type: gosnmp.Gauge32, Value: uint32(0)},
		{Name: name(mib.ReqOptions, 0), Type: gosnmp.OctetString, Value: mib.Bits(mib.ReqOptionsThenActivate)},
		{Name: name(mib.ReqCommand, 0), Type: gosnmp.Integer, Value: int(mib.OperationKindDownloadSoftware)},
	}
	if res, err := m.Set(set); err != nil || res.Error != 0 {
		t.Fatal(res, err)
	}
	for i, outage := range outages {
		d.files.wait(t, int64(i+1)*part)
		before, beforeReg := log.count(lost), log.count(registered)
		back := outage(master)
		last := i == len(outages)-1
		if last {
			d.files.grant(int64(len(image)))
			d.await(1, "end of the download", func(s *procedure.Snapshot) bool { return s.Op.ID == 1 && s.Op.State.Final() })
		} else {
			d.files.grant(int64(i+2) * part)
			d.files.wait(t, int64(i+2)*part)
		}
		log.await(t, lost, before)
		back()
		log.await(t, registered, beforeReg)
		want := mib.OperationStateRunning
		if last {
			want = mib.OperationStateSucceeded
		}
		res, err := m.Get([]string{name(mib.OpState, 0)})
		if err != nil || res.Variables[0].Value != int(want) {
			t.Fatalf("outage %d: iadUpgOpState is %v (%v), want %s", i+1, res, err, want)
		}
	}

	seq := d.Agent(t.Context(), 1).Engine().Snapshot().Seq
	if seq < 4 { // restarted, started, bankSwitched, completed
		t.Errorf("%d events", seq)
	}
	for n := range seq {
		trapd.Await(0, fmt.Sprintf("%s = Gauge32: %d\t", name(mib.EventSeq, 0), n+1))
	}
	events := map[int]string{}
	times := map[int]int{}
	for _, line := range trapd.Lines() {
		n, what, ok := event(line)
		if !ok {
			continue
		}
		if first := events[n]; first != "" && first != what {
			t.Errorf("event %d came as\n%s\nand as\n%s", n, first, what)
		}
		events[n] = what
		times[n]++
	}
	for n := range int(seq) {
		if events[n+1] == "" {
			t.Errorf("event %d did not come", n+1)
		}
	}
	t.Logf("events came so often: %v", times)
}

// event takes a line of snmptrapd apart: number and contents of an event, but
// for sysUpTime; false for what is none.
func event(line string) (n int, what string, ok bool) {
	_, list, ok := strings.Cut(line, ": ")
	if !ok || strings.Contains(line, fmt.Sprint(mib.NewModule(nil).NotificationOID(mib.NotifyOpProgress))) {
		return 0, "", false
	}
	vbs := strings.Split(list, "\t")
	vbs = slices.DeleteFunc(vbs, func(vb string) bool { return strings.HasPrefix(vb, ".1.3.6.1.2.1.1.3.0 ") })
	for _, vb := range vbs {
		if text, found := strings.CutPrefix(vb, name(mib.EventSeq, 0)+" = Gauge32: "); found {
			n, err := strconv.Atoi(text)
			return n, strings.Join(vbs, "\t"), err == nil
		}
	}
	return 0, "", false
}

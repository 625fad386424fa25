package trap

import (
	"net/netip"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// notificationSeeds are messages as devices send them.
func notificationSeeds(f *testing.F) [][]byte {
	f.Helper()
	m := mib.NewModule(nil)
	variables := []gosnmp.SnmpPDU{
		{Name: "1.3.6.1.2.1.1.3.0", Type: gosnmp.TimeTicks, Value: uint32(1)},
		{Name: trapOID.String(), Type: gosnmp.ObjectIdentifier, Value: m.NotificationOID(mib.NotifyRolledBack).String()},
		{Name: m.OID(mib.DeviceId, 0).String(), Type: gosnmp.OctetString, Value: "IAD-1"},
		{Name: m.OID(mib.EventSeq, 0).String(), Type: gosnmp.Gauge32, Value: uint32(9)},
		{Name: m.OID(mib.BankVersion, 2).String(), Type: gosnmp.OctetString, Value: "2.0.0"},
	}
	var seeds [][]byte
	add := func(p *gosnmp.SnmpPacket) {
		p.Variables = variables
		message, err := p.MarshalMsg()
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, message)
	}
	add(&gosnmp.SnmpPacket{Version: gosnmp.Version2c, Community: "public", PDUType: gosnmp.SNMPv2Trap})
	add(&gosnmp.SnmpPacket{Version: gosnmp.Version2c, Community: "public", PDUType: gosnmp.InformRequest, RequestID: 5})
	for _, user := range fuzzUsers {
		sp := user.USM()
		sp.AuthoritativeEngineID, sp.AuthoritativeEngineBoots, sp.PrivacyParameters = "\x80\x00\x1f\x88\x05device", 3, []byte("saltsalt")
		if err := sp.InitSecurityKeys(); err != nil {
			f.Fatal(err)
		}
		add(&gosnmp.SnmpPacket{
			Version: gosnmp.Version3, MsgFlags: user.Level(), SecurityModel: gosnmp.UserSecurityModel, SecurityParameters: sp,
			PDUType: gosnmp.SNMPv2Trap, MsgID: 7, ContextEngineID: sp.AuthoritativeEngineID,
		})
	}
	seeds = append(seeds, nil, []byte{0x30}, []byte{0x30, 0x84, 0xff}, []byte{0x30, 0x03, 0x02, 0x01, 0x03})
	return seeds
}

var fuzzUsers = []device.User{
	{Name: "plain"},
	{Name: "signed", Auth: "sha256", AuthPassphrase: "authentication"},
	{Name: "secret", Auth: "sha", AuthPassphrase: "authentication", Priv: "aes", PrivPassphrase: "privacy-privacy"},
}

// FuzzNotification feeds messages to the listener's decoder: it must neither
// panic nor answer what was not asked to be answered.
func FuzzNotification(f *testing.F) {
	for _, seed := range notificationSeeds(f) {
		f.Add(seed)
	}
	now := func() time.Time { return time.Unix(1_800_000_000, 0) }
	l, err := Listen(ListenerConfig{Listen: "127.0.0.1:0", Users: fuzzUsers, Now: now})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	sub := l.Subscribe(Filter{}, 4)
	from := netip.MustParseAddrPort("192.0.2.1:1000")
	f.Fuzz(func(t *testing.T, message []byte) {
		answer, err := l.handle(message, from)
		if err == nil && answer == nil {
			return
		}
		if len(answer) > 0 && len(message) < 5 {
			t.Errorf("%x was answered by %x", message, answer)
		}
		select {
		case n := <-sub.C():
			_ = n.String()
		default:
		}
	})
}

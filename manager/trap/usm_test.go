package trap

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"example.com/iad/internal/snmp"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

var stranger = netip.MustParseAddrPort("192.0.2.1:1000")

// sealedTrap makes an encrypted trap of the n-th engine, with one password for both keys.
func sealedTrap(tb testing.TB, password snmp.MasterKey, n int) []byte {
	tb.Helper()
	id := fmt.Appendf(nil, "\x80\x00\x1f\x88\x05device%06d", n)
	k := snmp.NewKeys(password, id)
	k.AddPrivacy(snmp.AES128, password, id)
	h := snmp.Header{MsgID: 7, MaxSize: maxMessage, Flags: snmp.AuthPriv.Flags(), EngineID: id, Boots: 3, Time: 1, User: "iadms"}
	p := snmp.PDU{Kind: snmp.PDUTrap, RequestID: 1, Vars: []mib.Varbind{{OID: mib.MustParseOID("1.3.6.1.2.1.1.3.0"), Value: mib.Ticks(1)}}}
	datagram, err := snmp.SealV3(h, k, 1, snmp.AppendScoped(nil, id, nil, p, snmp.EncodeVars(p.Vars)))
	if err != nil {
		tb.Fatal(err)
	}
	return datagram
}

// A datagram that nobody signed makes no privacy key and leaves no trace; authentic
// senders leave a bounded one.
func TestKeys(t *testing.T) {
	const password = "right password"
	user := device.User{Name: "iadms", Auth: "sha256", AuthPassphrase: password, Priv: "aes", PrivPassphrase: password}
	l, err := Listen(ListenerConfig{Listen: "127.0.0.1:0", Users: []device.User{user}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	derived, known := 0, l.usm.users["iadms"][0]
	privKey := known.privKey
	known.privKey = func() snmp.MasterKey { derived++; return privKey() }

	wrong, right := snmp.NewMasterKey(snmp.SHA256, "wrong password"), snmp.NewMasterKey(snmp.SHA256, password)
	for n := range 10 {
		if _, err := l.handle(sealedTrap(t, wrong, n), stranger); !errors.Is(err, errNoCredentials) {
			t.Errorf("forged: %v", err)
		}
	}
	if derived != 0 || len(l.usm.keys) != 0 || len(l.usm.clocks) != 0 {
		t.Errorf("forged datagrams had %d privacy keys made, and %d keys and %d clocks kept", derived, len(l.usm.keys), len(l.usm.clocks))
	}
	for n := range maxKeys + 10 {
		l.usm.keys[keyName{known, fmt.Sprint(n)}] = nil
		l.usm.clocks[fmt.Sprint(n)] = engineClock{}
	}
	for n := range 2 {
		if _, err := l.handle(sealedTrap(t, right, n), stranger); err != nil {
			t.Error(err)
		}
	}
	if derived != 2 || len(l.usm.keys) > maxKeys || len(l.usm.clocks) > maxKeys {
		t.Errorf("authentic traps had %d privacy keys made, and %d keys and %d clocks are kept", derived, len(l.usm.keys), len(l.usm.clocks))
	}
}

// BenchmarkForged is what a stranger's datagram costs a listener whose users all have
// the name that it claims. It names an engine that was never heard of.
func BenchmarkForged(b *testing.B) {
	wrong := snmp.NewMasterKey(snmp.SHA256, "wrong password")
	var datagrams [200][]byte
	for i := range datagrams {
		datagrams[i] = sealedTrap(b, wrong, i)
	}
	for _, priv := range []string{"aes", "aes256c"} {
		for _, n := range []int{1, 100} {
			var users []device.User
			for i := range n {
				users = append(users, device.User{
					Name: "iadms", Auth: "sha256", AuthPassphrase: fmt.Sprint("authentication", i), Priv: priv, PrivPassphrase: fmt.Sprint("privacy-privacy", i),
				})
			}
			b.Run(fmt.Sprintf("%s/users=%d", priv, n), func(b *testing.B) {
				l, err := Listen(ListenerConfig{Listen: "127.0.0.1:0", Users: users})
				if err != nil {
					b.Fatal(err)
				}
				defer l.Close()
				l.usm.prepare(nil)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if _, err := l.handle(datagrams[i%len(datagrams)], stranger); err == nil {
						b.Fatal("believed")
					}
				}
			})
		}
	}
}

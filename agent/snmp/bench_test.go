package snmp

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

func benchUsers() []User {
	authOnly := User{Name: "auth", Auth: SHA256, AuthPassphrase: authPass, Access: full(AuthNoPriv)}
	return []User{privateUser, authOnly}
}

// BenchmarkHandle is the engine's own work for a request, without sockets.
func BenchmarkHandle(b *testing.B) {
	now := time.Unix(1e9, 0)
	e, _ := newEngine(b, Config{Communities: communities(), Users: benchUsers(), EngineID: testEngineID, Boots: 7,
		Now: func() time.Time { return now }})
	bulk := snmp.PDU{Kind: snmp.PDUGetBulk, RequestID: 1, Index: 20, Vars: oids("1.3.6.1.4")}
	for _, c := range []struct {
		name    string
		request snmp.PDU
	}{{"get", getID()}, {"set", setOwner("x")}, {"bulk", bulk}} {
		community := snmp.AppendCommunityMessage(nil, snmp.Version2c, "private", c.request, snmp.EncodeVars(c.request.Vars))
		b.Run("v2c/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if reply, _ := e.Answer(source, community); reply == nil {
					b.Fatal("no answer")
				}
			}
		})
		if c.request.Kind == snmp.PDUSet {
			// A SET of v3 is never executed twice: see BenchmarkServe.
			continue
		}
		for _, u := range benchUsers() {
			msg := newPeer(b, e, &u).message(c.request, nil)
			buf := make([]byte, len(msg))
			b.Run(u.level().String()+"/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					copy(buf, msg)
					if reply, _ := e.Answer(source, buf); reply == nil {
						b.Fatal("no answer")
					}
				}
			})
		}
	}
}

// BenchmarkHostile is what a hostile message costs.
func BenchmarkHostile(b *testing.B) {
	e, _ := newEngine(b, Config{Communities: communities(), Users: benchUsers(), EngineID: testEngineID, Boots: 7})
	p := newPeer(b, e, &privateUser)
	for name, msg := range hostileMessages(b, p) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var n uint32
			for b.Loop() {
				n++
				e.Answer(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 1), slices.Clone(msg))
			}
		})
	}
}

// hostileMessages are what strangers may send, by name.
func hostileMessages(t testing.TB, p *peer) map[string][]byte {
	get := getID()
	wrong := p.message(get, nil)
	wrong[len(wrong)-1] ^= 1
	return map[string][]byte{
		"community":   snmp.AppendCommunityMessage(nil, snmp.Version2c, "guess", get, snmp.EncodeVars(get.Vars)),
		"discovery":   p.message(get, func(h *snmp.Header) { h.Flags, h.EngineID, h.User = snmp.FlagReportable, nil, "" }),
		"unknownUser": p.message(get, func(h *snmp.Header) { h.User = "intruder" }),
		"wrongDigest": wrong,
		"garbage":     {0x30, 0x82, 0xff, 0xff, 2, 1, 3},
	}
}

// BenchmarkServe is whole requests over loopback, from 1 and 8 managers.
func BenchmarkServe(b *testing.B) {
	for _, c := range []struct {
		name    string
		clients int
		user    *User
		set     bool
	}{
		{"v2c/get/1", 1, nil, false}, {"v2c/get/8", 8, nil, false},
		{"v2c/set/1", 1, nil, true}, {"v2c/set/8", 8, nil, true},
		{"authPriv/get/1", 1, &privateUser, false}, {"authPriv/get/8", 8, &privateUser, false},
		{"authPriv/set/1", 1, &privateUser, true}, {"authPriv/set/8", 8, &privateUser, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			e, _ := newEngine(b, Config{Conn: socketAt(b, "127.0.0.1:0"), Communities: communities(), Users: []User{privateUser}, EngineID: testEngineID, Boots: 7})
			run(b, e)
			benchServe(b, e, c.clients, c.user, c.set)
		})
	}
}

func benchServe(b *testing.B, e *Engine, clients int, u *User, set bool) {
	var left atomic.Int64
	left.Store(int64(b.N))
	done := make(chan error, clients)
	b.ReportAllocs()
	b.ResetTimer()
	for range clients {
		go func() {
			client := newClient(b, e, u)
			defer client.Conn.Close()
			var err error
			for left.Add(-1) >= 0 && err == nil {
				if set {
					_, err = client.Set([]gosnmp.SnmpPDU{{Name: dotted(mib.ReqOwner, 0), Type: gosnmp.OctetString, Value: "x"}})
				} else {
					_, err = client.Get([]string{dotted(mib.DeviceId, 0)})
				}
			}
			done <- err
		}()
	}
	for range clients {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

package trap_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

// Strangers cannot make the listener remember, compute or print without end.
func TestListenerStrangers(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const mb = 1 << 20
	t.Run("communities", func(t *testing.T) {
		for _, x := range []struct {
			name     string
			cfg      trap.ListenerConfig
			identity string
		}{
			{"any community", trap.ListenerConfig{}, "%d"},
			{"another community", trap.ListenerConfig{Communities: []string{"traps"}, AnyCommunity: true}, "%d"},
			{"sizes", trap.ListenerConfig{Communities: []string{"public"}}, "%d" + strings.Repeat("x", 50_000)},
		} {
			x.cfg.Listen = "127.0.0.1:0"
			l, err := trap.Listen(x.cfg)
			if err != nil {
				t.Fatal(err)
			}
			s := l.Subscribe(trap.Filter{}, 1)
			g := sender(t, l, nil)
			before := heap()
			for i := range 3000 {
				n := makeTrap(mib.NotifyOpCompleted, fmt.Sprintf(x.identity, i), 1, false)
				send(t, g, n)
				if i%100 == 0 { // no faster than it is read
					send(t, g, makeTrap(mib.NotifyOpProgress, "end", 1, false))
					for next(t, s).DeviceID != "end" {
					}
				}
			}
			if grown := int64(heap()) - int64(before); grown > mb/2 {
				t.Errorf("%s: 3000 made-up devices are remembered in %d bytes", x.name, grown)
			}
			l.Close()
		}
	})
	t.Run("users only", func(t *testing.T) {
		l, err := trap.Listen(trap.ListenerConfig{Listen: "127.0.0.1:0", Users: testUsers})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		s := l.Subscribe(trap.Filter{}, 8)
		send(t, sender(t, l, nil), makeTrap(mib.NotifyOpCompleted, "bad", 1, false))
		g := sender(t, l, &testUsers[1])
		asEngine(g, testEngine, 1, 1)
		send(t, g, makeTrap(mib.NotifyOpCompleted, "good", 1, false))
		if n := next(t, s); n.DeviceID != "good" {
			t.Errorf("SNMPv2c is believed although only users are configured: %v", n)
		}
	})
	t.Run("engines", func(t *testing.T) {
		var users []device.User
		for i := range 50 {
			users = append(users, device.User{Name: "iadms", Auth: "sha256", AuthPassphrase: fmt.Sprint("authentication", i), Priv: "aes256c", PrivPassphrase: fmt.Sprint("privacy-privacy", i)})
		}
		l, s := startListener(t, trap.ListenerConfig{Users: users})
		// DES, since gosnmp hashes a megabyte for each engine with AES.
		wrong := device.User{Name: "iadms", Auth: "sha256", AuthPassphrase: "something else", Priv: "des", PrivPassphrase: "something else"}
		g, plain := sender(t, l, &wrong), sender(t, l, nil)
		ask := func(i int) {
			asEngine(g, fmt.Sprintf("%s%d", testEngine, i), 1, 1)
			send(t, g, makeTrap(mib.NotifyOpCompleted, "bad", 1, false))
			send(t, plain, makeTrap(mib.NotifyOpProgress, "end", 1, false))
			if n := next(t, s); n.DeviceID != "end" {
				t.Fatalf("believed %v", n)
			}
		}
		ask(0) // the passwords are turned into keys, once
		before, begun := heap(), time.Now()
		for i := range 20 {
			ask(1 + i)
		}
		if took := time.Since(begun); took > 2*time.Second { // 10 s with a key made for each
			t.Errorf("20 forged messages cost %v", took)
		}
		if grown := int64(heap()) - int64(before); grown > mb/2 {
			t.Errorf("20 made-up engines are remembered in %d bytes", grown)
		}
	})
}

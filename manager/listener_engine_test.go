package manager_test

import (
	"strings"
	"testing"

	"example.com/iad/manager"
	"example.com/iad/manager/trap"
)

// An upgrade whose notifications go elsewhere says so once, with what may be the reason;
// one whose notifications arrive says nothing.
func TestLostNotificationsAreTold(t *testing.T) {
	for _, lost := range []bool{false, true} {
		l := newLab(t, labOptions{})
		plan := l.plan(l.image("2.0.0", 1))
		if lost {
			other, err := trap.Listen(trap.ListenerConfig{Listen: "127.0.0.1:0"})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			plan.Listener = other
		}
		if _, err := manager.Upgrade(l.ctx, plan, nil, l.observe); err != nil {
			t.Fatal(err)
		}
		warned := 0
		l.mu.Lock()
		for _, u := range l.updates {
			if u.Kind == manager.Warned && strings.Contains(u.Text, "restart snmpd") {
				warned++
			}
		}
		l.mu.Unlock()
		if want := map[bool]int{true: 1}[lost]; warned != want {
			t.Errorf("notifications lost %v: warned %d times", lost, warned)
		}
	}
}

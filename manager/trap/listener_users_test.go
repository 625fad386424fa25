package trap_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"example.com/iad/internal/iadtest"
	"example.com/iad/manager/device"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

// A fleet whose devices have a user each, all under one name.
func TestListenerUsersOfOneName(t *testing.T) {
	var users []device.User
	for i := range 5 {
		users = append(users, device.User{
			Name: "iadms", Auth: "sha256", AuthPassphrase: fmt.Sprint("authentication", i), Priv: "aes", PrivPassphrase: fmt.Sprint("privacy-privacy", i),
		})
	}
	weaker := device.User{Name: "iadms", Auth: "sha256", AuthPassphrase: "authentication5"}
	log := new(iadtest.LockedBuffer)
	l, s := startListener(t, trap.ListenerConfig{Users: append(users, weaker), Log: slog.New(slog.NewTextHandler(log, nil))})
	for round := range uint32(2) { // the keys are looked for once, and then known
		for i, user := range append(users, weaker) {
			g := sender(t, l, &user)
			asEngine(g, testEngine+fmt.Sprint(i), 1, 10)
			send(t, g, makeTrap(mib.NotifyOpCompleted, fmt.Sprint(i), 2*round+1, false))
			if n := next(t, s); n.DeviceID != fmt.Sprint(i) {
				t.Errorf("trap of %d: %+v", i, n)
			}
			send(t, sender(t, l, &user), makeTrap(mib.NotifyOpCompleted, fmt.Sprint(i), 2*round+2, true))
			if n := next(t, s); n.DeviceID != fmt.Sprint(i) || !n.Inform {
				t.Errorf("inform of %d: %+v", i, n)
			}
		}
	}
	downgraded := users[0] // keys that fitted at one level are not taken for another
	downgraded.Priv, downgraded.PrivPassphrase = "", ""
	g := sender(t, l, &downgraded)
	asEngine(g, testEngine+"0", 1, 10)
	send(t, g, makeTrap(mib.NotifyOpCompleted, "bad", 1, false))
	send(t, sender(t, l, nil), makeTrap(mib.NotifyOpCompleted, "good", 1, false))
	if n := next(t, s); n.DeviceID != "good" {
		t.Errorf("believed %+v", n)
	}
	if text := log.String(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "authentication failed") {
		t.Errorf("the log has:\n%s", text)
	}
}

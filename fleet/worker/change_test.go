package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/agent/agentx"
	"example.com/iad/agent/snmp"
	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/worker"
	"example.com/iad/internal/fleetsim"
	"example.com/iad/internal/peers"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// lab is a device behind snmpd, reached through a network that a test can make worse.
type lab struct {
	*service
	snmpd   *peers.Snmpd
	name    string
	network *network
}

// The credentials of the lab; without privacy, so that the network can see what is sent.
var (
	oldUser   = fleet.SNMPUser{Name: "operator", Auth: "sha256", AuthPassphrase: "old authentication"}
	newUser   = fleet.SNMPUser{Name: "operator", Auth: "sha256", AuthPassphrase: "new authentication"}
	sysUpTime = mib.MustParseOID("1.3.6.1.2.1.1.3.0")
)

func accepts(t *testing.T, address string, u fleet.SNMPUser) bool {
	t.Helper()
	s := fleet.Secret{Name: "x", User: &u}
	c, err := device.Dial(device.Target{Address: address, Credentials: s.Credentials(), Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Get(context.Background(), sysUpTime)
	return err == nil
}

func startLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{}
	template := oldUser
	template.Name = "template"
	l.snmpd = peers.StartSnmpd(t, func(address string) bool { return accepts(t, address, template) },
		`createUser template SHA-256 "old authentication"`, "rwuser template auth", "rwuser operator auth", "trap2sink 127.0.0.1:9 public",
		"targetParams iad 1 2 public 1 3 1", `targetAddr iad .1.3.6.1.6.1.1 0x7f0000010050 1500 3 "iad" iad 3 1`)
	l.snmpd.Run("snmpusm", "-v3", "-l", "authNoPriv", "-u", "template", "-a", "SHA-256", "-A", "old authentication", l.snmpd.Address, "create", "operator", "template")
	l.network = startNetwork(t, l.snmpd.Address)
	d := fleetsim.Start(t, 1, fleetsim.Options{Configure: func(_ int, c *sim.Config) {
		c.SNMP, c.AgentX = nil, &agentx.Config{Address: "unix:" + l.snmpd.AgentX}
	}})
	l.name = d.Names[0]
	l.service = start(t)
	for name, user := range map[string]*fleet.SNMPUser{fleet.DefaultSecret: &oldUser, "summer": &newUser} {
		if err := l.Secrets.Put(l.ctx, &fleet.Secret{Name: name, User: user}); err != nil {
			t.Fatal(err)
		}
	}
	entry := d.Device(l.name)
	entry.Address = l.network.address
	if _, err := l.Devices.Create(l.ctx, entry); err != nil {
		t.Fatal(err)
	}
	return l
}

// awaitAgent waits until snmpd has the device's agent.
func (l *lab) awaitAgent(u fleet.SNMPUser) {
	l.t.Helper()
	s := fleet.Secret{Name: "x", User: &u}
	c, err := device.Dial(device.Target{Address: l.snmpd.Address, Credentials: s.Credentials(), Timeout: time.Second})
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.Close()
	for end := time.Now().Add(20 * time.Second); ; {
		if _, err = c.Device(l.ctx); err == nil {
			return
		}
		if time.Now().After(end) {
			l.t.Fatal(err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// network passes datagrams on to an agent.
type network struct {
	address string
	mu      sync.Mutex
	// set is called with each change of keys, before it is passed on, and reports whether its
	// answer is lost; nil: none is.
	set func() (lost bool)
	// lock is called when the lock is read that a change needs; nil: nothing is.
	lock func()
	// datagram is called with each one to the agent, and reports whether it is lost; nil: none is.
	datagram func(from string, data []byte) (lost bool)
}

// usmUserSpinLock is in requests that read the lock.
var usmUserSpinLock = []byte{0x2b, 6, 1, 6, 3, 15, 1, 2, 1, 0}

// ownAuthKeyChange is in requests for a change of keys.
var ownAuthKeyChange = []byte{0x2b, 6, 1, 6, 3, 15, 1, 2, 2, 1, 7}

func startNetwork(t *testing.T, agent string) *network {
	t.Helper()
	near, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{address: near.LocalAddr().String()}
	var running sync.WaitGroup
	flows := make(map[string]net.Conn)
	running.Go(func() {
		buf := make([]byte, 65535)
		for {
			size, from, err := near.ReadFrom(buf)
			if err != nil {
				return
			}
			far := flows[from.String()]
			lost := false
			n.mu.Lock()
			set, lock, datagram := n.set, n.lock, n.datagram
			n.mu.Unlock()
			if datagram != nil && datagram(from.String(), buf[:size]) {
				continue
			}
			if bytes.Contains(buf[:size], usmUserSpinLock) && !bytes.Contains(buf[:size], ownAuthKeyChange) && lock != nil {
				lock()
			}
			if bytes.Contains(buf[:size], ownAuthKeyChange) && set != nil {
				lost = set()
			}
			if far == nil || lost {
				if far, err = net.Dial("udp4", agent); err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { far.Close() })
			}
			if lost { // nobody reads the answer
				_, _ = far.Write(buf[:size])
				continue
			}
			if flows[from.String()] == nil {
				flows[from.String()] = far
				running.Go(func() {
					answer := make([]byte, 65535)
					for {
						size, err := far.Read(answer)
						if err != nil {
							return
						}
						if _, err := near.WriteTo(answer[:size], from); err != nil {
							return
						}
					}
				})
			}
			_, _ = far.Write(buf[:size])
		}
	})
	t.Cleanup(func() { near.Close() })
	return n
}

// onSet sets what happens to changes of keys.
func (n *network) onSet(set func() (lost bool)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.set = set
}

func (l *lab) quick(c *worker.Config) { c.Timeout, c.Retries = 300*time.Millisecond, 1 }

// has checks the credentials of the device, and what the inventory says of them.
func (l *lab) has(current string, previous []string, valid, invalid fleet.SNMPUser) {
	l.t.Helper()
	d, _, err := l.Devices.Get(l.ctx, l.name)
	if err != nil {
		l.t.Fatal(err)
	}
	if d.SecretName() != current || strings.Join(d.PreviousCredentials, " ") != strings.Join(previous, " ") || d.Rotating != "" || d.ActiveRun != "" {
		l.t.Errorf("inventory: credentials %s, previous %v, rotating %q, active run %q", d.SecretName(), d.PreviousCredentials, d.Rotating, d.ActiveRun)
	}
	if !accepts(l.t, l.snmpd.Address, valid) {
		l.t.Errorf("the device does not accept what it should have")
	}
	if accepts(l.t, l.snmpd.Address, invalid) {
		l.t.Errorf("the device accepts what it should not have any more")
	}
}

func (l *lab) endsAs(id string, spec fleet.CampaignSpec, want fleet.RunState) *fleet.Run {
	l.t.Helper()
	l.campaign(id, spec)
	l.ends(id)
	r := l.run(id, l.name)
	if r.State != want {
		l.t.Fatalf("%s: %s, want %s; %+v", id, r.State, want, r.Failure)
	}
	return r
}

func rotateTo(secret string) fleet.CampaignSpec {
	return fleet.CampaignSpec{Operation: fleet.OperationRotate, Credentials: secret}
}

// TestRotate changes the credentials, works with the new ones, and goes back.
func TestRotate(t *testing.T) {
	l := startLab(t)
	l.awaitAgent(oldUser)
	l.work("w1", l.quick)
	r := l.endsAs("summer", rotateTo("summer"), fleet.RunSucceeded)
	if r.Change == nil || !r.Change.Done || r.Change.From != "default" || r.Change.To != "summer" {
		t.Errorf("change %+v", r.Change)
	}
	l.has("summer", []string{"default"}, newUser, oldUser)
	l.endsAs("backup", fleet.CampaignSpec{Operation: fleet.OperationBackup}, fleet.RunSucceeded)
	l.endsAs("again", rotateTo("summer"), fleet.RunUnchanged)

	l.endsAs("back", fleet.CampaignSpec{Operation: fleet.OperationRotate, Back: "summer"}, fleet.RunSucceeded)
	l.has("default", []string{"summer"}, oldUser, newUser)
	l.endsAs("forth", fleet.CampaignSpec{Operation: fleet.OperationRotate, Back: "back"}, fleet.RunSucceeded)
	l.has("summer", []string{"default"}, newUser, oldUser)
	l.campaign("none", fleet.CampaignSpec{Operation: fleet.OperationRotate, Back: "again"})
	if c := l.ends("none"); c.State != fleet.CampaignDone {
		t.Errorf("%+v", c)
	}
	if runs, err := l.Runs.List(l.ctx, "none"); err != nil || len(runs) != 0 {
		t.Errorf("a campaign that undoes nothing has %d devices, %v", len(runs), err)
	}
	// The credentials were changed since.
	r = l.endsAs("late", fleet.CampaignSpec{Operation: fleet.OperationRotate, Back: "back"}, fleet.RunUnchanged)
	if r.Change != nil {
		t.Errorf("change %+v", r.Change)
	}
}

// TestRotationInterrupted: the change is made, and its answer or the worker is lost. The next
// attempt finds out.
func TestRotationInterrupted(t *testing.T) {
	spec := rotateTo("summer")
	spec.Retry = fleet.RetryRule{Attempts: 5, Pause: fleet.Duration(time.Second)}
	t.Run("answer lost", func(t *testing.T) {
		l := startLab(t)
		l.awaitAgent(oldUser)
		l.work("w1", l.quick)
		sets := 0
		l.network.onSet(func() bool { sets++; return sets == 1 })
		l.endsAs("summer", spec, fleet.RunSucceeded)
		l.has("summer", []string{"default"}, newUser, oldUser)
	})
	t.Run("device restarts", func(t *testing.T) {
		l := startLab(t)
		l.awaitAgent(oldUser)
		l.work("w1", l.quick)
		sets := 0
		l.network.onSet(func() bool {
			sets++
			if sets == 1 {
				l.snmpd.Stop() // the device restarts in this moment
				l.snmpd.Start(func(address string) bool { return accepts(t, address, oldUser) })
			}
			return false
		})
		l.endsAs("summer", spec, fleet.RunSucceeded)
		l.has("summer", []string{"default"}, newUser, oldUser)
	})
	t.Run("worker lost", func(t *testing.T) {
		l := startLab(t)
		l.awaitAgent(oldUser)
		stop := l.work("w1", l.quick)
		sent := make(chan struct{})
		var once sync.Once
		l.network.onSet(func() bool { once.Do(func() { close(sent) }); return true })
		l.campaign("summer", spec)
		<-sent
		d, _, err := l.Devices.Get(l.ctx, l.name)
		if err != nil || d.Credentials != "summer" || d.Rotating != "summer" || d.PreviousCredentials[0] != "default" {
			t.Errorf("what may be valid is not stored before the change: %+v, %v", d, err)
		}
		if r := l.run("summer", l.name); r.Change == nil || r.Change.Done || !r.HalfDone() {
			t.Errorf("change %+v", r.Change)
		}
		stop()
		l.network.onSet(nil)
		l.work("w2", l.quick)
		l.ends("summer")
		if r := l.run("summer", l.name); r.State != fleet.RunSucceeded || !r.Change.Done {
			t.Errorf("%s, %+v", r.State, r.Failure)
		}
		l.has("summer", []string{"default"}, newUser, oldUser)
	})
}

// TestRotationOwned: a worker that has lost the run after it has read the lock does not change
// the keys.
func TestRotationOwned(t *testing.T) {
	l := startLab(t)
	l.awaitAgent(oldUser)
	l.work("w1", l.quick)
	var once sync.Once
	var epochs []uint64
	l.network.mu.Lock()
	l.network.lock = func() {
		once.Do(func() { // the worker's next change of the run fails
			if _, err := l.Runs.Change(l.ctx, func(*fleet.Run) error { return nil }, "summer", l.name); err != nil {
				t.Error(err)
			}
		})
	}
	l.network.set = func() bool { epochs = append(epochs, l.run("summer", l.name).Epoch); return false }
	l.network.mu.Unlock()
	l.endsAs("summer", rotateTo("summer"), fleet.RunSucceeded)
	l.has("summer", []string{"default"}, newUser, oldUser)
	l.network.onSet(nil) // no more is appended
	if len(epochs) != 1 || epochs[0] != 2 {
		t.Errorf("keys were changed by the claims %v, want 2", epochs)
	}
}

// TestDeviceGoesBack: a device that has its old keys again, for instance with an older copy of
// what it stores, is reached, and can be changed again.
func TestDeviceGoesBack(t *testing.T) {
	l := startLab(t)
	l.awaitAgent(oldUser)
	l.snmpd.Stop()
	before := l.snmpd.Stored()
	l.snmpd.Start(func(address string) bool { return accepts(t, address, oldUser) })
	l.awaitAgent(oldUser)
	l.work("w1", l.quick)
	l.endsAs("summer", rotateTo("summer"), fleet.RunSucceeded)
	l.snmpd.Stop()
	l.snmpd.Restore(before)
	l.snmpd.Start(func(address string) bool { return accepts(t, address, oldUser) })
	l.awaitAgent(oldUser)
	l.endsAs("backup", fleet.CampaignSpec{Operation: fleet.OperationBackup}, fleet.RunSucceeded)
	if d, _, err := l.Devices.Get(l.ctx, l.name); err != nil || d.Contact.Credentials != "default" || d.Credentials != "summer" {
		t.Errorf("%+v, %v", d, err)
	}
	l.endsAs("again", rotateTo("summer"), fleet.RunSucceeded)
	l.has("summer", []string{"default"}, newUser, oldUser)
}

// TestRotationRefused: what cannot be done leaves device and inventory as they are, and says
// what to do.
func TestRotationRefused(t *testing.T) {
	l := startLab(t)
	l.awaitAgent(oldUser)
	l.work("w1", l.quick)
	other, sha1 := newUser, newUser
	other.Name, sha1.Auth = "somebody", "sha"
	template, newTemplate := oldUser, newUser
	template.Name, newTemplate.Name = "template", "template"
	for _, s := range []fleet.Secret{
		{Name: "other", User: &other}, {Name: "sha1", User: &sha1}, {Name: "community", WriteCommunity: "private"},
		{Name: "template", User: &template}, {Name: "new-template", User: &newTemplate},
	} {
		if err := l.Secrets.Put(l.ctx, &s); err != nil {
			t.Fatal(err)
		}
	}
	for secret, want := range map[string]string{"other": "keeps the user", "sha1": "authentication protocol", "community": "communities", "absent": "no credentials absent"} {
		r := l.endsAs("to-"+secret, rotateTo(secret), fleet.RunFailed)
		if f := r.Failure; f.Cause != fleet.CauseUnsuitable || !strings.Contains(f.Text, want) || strings.Contains(f.Text, "authentication ") && strings.Contains(f.Text, newUser.AuthPassphrase) {
			t.Errorf("%s: %+v", secret, f)
		}
		l.has("default", nil, oldUser, newUser)
	}
	if _, err := l.Devices.Change(l.ctx, func(d *fleet.Device) error { d.Credentials = "template"; return nil }, l.name); err != nil {
		t.Fatal(err)
	}
	r := l.endsAs("refused", rotateTo("new-template"), fleet.RunFailed) // by snmpd: the user was not cloned
	if f := r.Failure; f.Cause != fleet.CauseRefused || !strings.Contains(f.Text, "snmpusm create") || r.Change != nil {
		t.Errorf("%+v, change %+v", f, r.Change)
	}
	l.has("template", nil, template, newTemplate)
}

// TestRotateToRemoved: no device gets credentials that somebody is removing.
func TestRotateToRemoved(t *testing.T) {
	l := startLab(t)
	l.awaitAgent(oldUser)
	remove := func(removing bool) {
		t.Helper()
		if err := l.Secrets.Change(l.ctx, "summer", func(s *fleet.Secret) error { s.Removing = removing; return nil }); err != nil {
			t.Error(err)
		}
	}
	unchanged := func() {
		t.Helper()
		err := l.Devices.Watch(l.ctx, func(c store.Change[fleet.Device]) error {
			if c.Value != nil && c.Value.ActiveRun == "" {
				return errSeen
			}
			return nil
		}, l.name)
		if !errors.Is(err, errSeen) {
			t.Fatal(err)
		}
		l.has("default", nil, oldUser, newUser)
	}
	remove(true)
	l.work("w1", l.quick)
	l.campaign("summer", rotateTo("summer"))
	if r := l.reaches("summer", l.name, fleet.RunRetrying); r.Change != nil || !strings.Contains(r.Progress.Text, "being removed") {
		t.Errorf("%+v, %+v", r.Change, r.Progress)
	}
	unchanged()

	// The mark comes once the run has read the credentials.
	remove(false)
	marked := make(chan struct{})
	l.running.Go(func() {
		defer close(marked)
		err := l.Runs.Watch(l.ctx, func(c store.Change[fleet.Run]) error {
			if c.Value == nil || c.Value.Change == nil {
				return nil
			}
			remove(true)
			return errSeen
		}, "late")
		if !errors.Is(err, errSeen) {
			t.Error(err)
		}
	})
	l.campaign("late", rotateTo("summer"))
	<-marked
	d, _, err := l.Devices.Get(l.ctx, l.name) // as whoever removes credentials does after the mark
	if err != nil {
		t.Fatal(err)
	}
	if d.SecretName() == "summer" { // and so they stay
		remove(false)
		return
	}
	if r := l.reaches("late", l.name, fleet.RunRetrying); r.Change != nil {
		t.Errorf("%+v", r.Change)
	}
	unchanged()
}

// TestMoveTargets moves a notification target, and back.
func TestMoveTargets(t *testing.T) {
	l := startLab(t)
	l.awaitAgent(oldUser)
	l.work("w1", l.quick)
	at := func(want string) {
		t.Helper()
		s := fleet.Secret{Name: "x", User: &oldUser}
		c, err := device.Dial(device.Target{Address: l.snmpd.Address, Credentials: s.Credentials()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		targets, err := c.NotificationTargets(l.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range targets {
			if target.Name() == "iad" && target.Address != netip.MustParseAddrPort(want) || target.Name() == "internal0" && target.Address.Port() != 9 {
				t.Errorf("%s is at %s", target.Name(), target.Address)
			}
		}
	}
	move := fleet.CampaignSpec{Operation: fleet.OperationMove, Targets: &fleet.TargetMove{From: []string{"127.0.0.3:1", "127.0.0.1:80"}, To: "127.0.0.2:162"}}
	r := l.endsAs("move", move, fleet.RunSucceeded)
	if c := r.Change; c == nil || !c.Done || len(c.Targets) != 1 || c.Targets[0].From != "127.0.0.1:80" || c.Targets[0].Name != "iad" {
		t.Errorf("change %+v", c)
	}
	at("127.0.0.2:162")
	l.endsAs("again", move, fleet.RunUnchanged)
	back := fleet.CampaignSpec{Operation: fleet.OperationMove, Back: "move"}
	l.endsAs("back", back, fleet.RunSucceeded)
	at("127.0.0.1:80")
	l.endsAs("back-again", back, fleet.RunUnchanged)

	refuses := func(id string, spec fleet.CampaignSpec, cause, want string) {
		t.Helper()
		if f := l.endsAs(id, spec, fleet.RunFailed).Failure; f.Cause != cause || !strings.Contains(f.Text, want) {
			t.Errorf("%s: %+v", id, f)
		}
		at("127.0.0.1:80")
	}
	move.Targets = &fleet.TargetMove{From: []string{"192.0.2.7:162"}, To: "127.0.0.2:162"}
	refuses("elsewhere", move, fleet.CauseUnsuitable, "127.0.0.1:80")
	move.Targets = &fleet.TargetMove{From: []string{"127.0.0.1:80"}, To: "[::1]:162"}
	refuses("family", move, fleet.CauseUnsuitable, "IPv4")
	move.Targets = &fleet.TargetMove{From: []string{"127.0.0.1:9"}, To: "127.0.0.2:162"}
	refuses("configured", move, fleet.CauseRefused, "trapsess")
}

// TestMoveContinues: an attempt that ended while the target was suspended is finished.
func TestMoveContinues(t *testing.T) {
	l := startLab(t)
	l.awaitAgent(oldUser)
	l.campaign("move", fleet.CampaignSpec{Operation: fleet.OperationMove, Targets: &fleet.TargetMove{From: []string{"127.0.0.1:80"}, To: "127.0.0.2:162"}})
	r := l.reaches("move", l.name, fleet.RunPending)
	row := "105.97.100"
	if _, err := l.Runs.Change(l.ctx, func(r *fleet.Run) error {
		r.Change = &fleet.Change{Targets: []fleet.MovedTarget{{Row: row, Name: "iad", From: "127.0.0.1:80", To: "127.0.0.2:162"}}}
		return nil
	}, r.Campaign, r.Device); err != nil {
		t.Fatal(err)
	}
	l.snmpd.Run("snmpset", "-v3", "-l", "authNoPriv", "-u", "operator", "-a", "SHA-256", "-A", "old authentication", l.snmpd.Address, ".1.3.6.1.6.3.12.1.2.1.9."+row, "i", "2")
	l.work("w1", l.quick)
	l.ends("move")
	out := l.snmpd.Run("snmpget", "-v3", "-l", "authNoPriv", "-u", "operator", "-a", "SHA-256", "-A", "old authentication", "-On", l.snmpd.Address,
		".1.3.6.1.6.3.12.1.2.1.9."+row, ".1.3.6.1.6.3.12.1.2.1.3."+row)
	if !strings.Contains(out, "INTEGER: 1") || !strings.Contains(out, "7F 00 00 02 00 A2") {
		t.Error(out)
	}
}

// TestMoveSuspended: a target that an interrupted campaign has left suspended is in use again
// after that campaign is undone, and no other campaign takes it for moved.
func TestMoveSuspended(t *testing.T) {
	l := startLab(t)
	l.awaitAgent(oldUser)
	l.work("w1", l.quick)
	login := []string{"-v3", "-l", "authNoPriv", "-u", "operator", "-a", "SHA-256", "-A", "old authentication", "-On", l.snmpd.Address}
	const status, address = ".1.3.6.1.6.3.12.1.2.1.9.105.97.100", ".1.3.6.1.6.3.12.1.2.1.3.105.97.100"
	suspend := func() { l.t.Helper(); l.snmpd.Run("snmpset", append(login, status, "i", "2")...) }
	is := func(what, port string) {
		t.Helper()
		if out := l.snmpd.Run("snmpget", append(login, status, address)...); !strings.Contains(out, "INTEGER: 1") || !strings.Contains(out, port) {
			t.Errorf("%s: %s", what, out)
		}
	}
	move := func(from, to string) fleet.CampaignSpec {
		return fleet.CampaignSpec{Operation: fleet.OperationMove, Targets: &fleet.TargetMove{From: []string{from}, To: to}}
	}
	back := fleet.CampaignSpec{Operation: fleet.OperationMove, Back: "move"}
	l.endsAs("move", move("127.0.0.1:80", "127.0.0.2:162"), fleet.RunSucceeded)
	// As if it had ended before the address was changed, and failed.
	suspend()
	for id, spec := range map[string]fleet.CampaignSpec{"again": move("127.0.0.1:80", "127.0.0.2:162"), "further": move("127.0.0.2:162", "127.0.0.3:162")} {
		if f := l.endsAs(id, spec, fleet.RunFailed).Failure; f.Cause != fleet.CauseUnsuitable || !strings.Contains(f.Text, "suspended") || !strings.Contains(f.Text, "undo") {
			t.Errorf("%s: %+v", id, f)
		}
	}
	l.endsAs("back", back, fleet.RunSucceeded)
	is("moved back", "7F 00 00 01 00 50")
	suspend()
	l.endsAs("back-2", back, fleet.RunSucceeded)
	is("was at its place", "7F 00 00 01 00 50")
	l.endsAs("back-3", back, fleet.RunUnchanged)
}

// ownDevices starts devices with the agent's own engine and an SNMPv3 user that may change its
// own keys.
func ownDevices(t *testing.T, n int) (*fleetsim.Devices, *service, [2]fleet.SNMPUser) {
	t.Helper()
	users := [2]fleet.SNMPUser{oldUser, newUser}
	for i := range users {
		users[i].Priv, users[i].PrivPassphrase = "aes", users[i].AuthPassphrase+" and privacy"
	}
	d := fleetsim.Start(t, n, fleetsim.Options{Configure: func(_ int, c *sim.Config) {
		all := snmp.Everything()
		c.SNMP = &snmp.Config{Users: []snmp.User{{
			Name: users[0].Name, Auth: snmp.SHA256, AuthPassphrase: users[0].AuthPassphrase, Priv: snmp.AES128, PrivPassphrase: users[0].PrivPassphrase,
			Access: []snmp.Access{{Level: snmp.AuthPriv, Read: all, Write: all, Notify: all}},
		}}, Sinks: []snmp.Sink{{Address: "127.0.0.1:80", User: users[0].Name}, {Address: "127.0.0.1:9", User: users[0].Name}, {Address: "localhost:9", User: users[0].Name}}}
	}})
	s := start(t)
	for i, name := range []string{fleet.DefaultSecret, "summer"} {
		if err := s.Secrets.Put(s.ctx, &fleet.Secret{Name: name, User: &users[i]}); err != nil {
			t.Fatal(err)
		}
	}
	s.add(d)
	return d, s, users
}

// TestRotateOwnAgent changes the keys of devices whose power fails meanwhile, upgrades them, and
// goes back. Nothing that the service writes has a passphrase.
func TestRotateOwnAgent(t *testing.T) {
	d, s, users := ownDevices(t, 6)
	var said peers.Output
	s.work("w1", func(c *worker.Config) {
		c.Timeout, c.Retries = 300*time.Millisecond, 1
		c.Log = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	check := func(id, current string, valid, invalid fleet.SNMPUser) {
		t.Helper()
		if c := s.ends(id); c.State != fleet.CampaignDone {
			t.Fatalf("%s: %s", c.State, c.Reason)
		}
		for _, name := range d.Names {
			if r := s.run(id, name); r.State != fleet.RunSucceeded {
				t.Errorf("%s: %s, %+v", name, r.State, r.Failure)
			}
			entry, _, err := s.Devices.Get(s.ctx, name)
			if err != nil || entry.SecretName() != current || entry.Rotating != "" || len(entry.PreviousCredentials) != 1 {
				t.Errorf("%+v, %v", entry, err)
				continue
			}
			if !accepts(t, entry.Address, valid) || accepts(t, entry.Address, invalid) {
				t.Errorf("%s does not accept exactly the credentials %s", name, current)
			}
		}
	}
	spec := rotateTo("summer")
	spec.Retry = fleet.RetryRule{Attempts: 10, Pause: fleet.Duration(time.Second), MaxPause: fleet.Duration(time.Second)}
	last, err := s.Engine.Log(engine.Events).LastSequence(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.campaign("summer", spec)
	seen := 0
	err = s.Events(s.ctx, last+1, func(_ uint64, e *fleet.Event) error { // of those that come too late, the test proves less
		if strings.Contains(e.Text, "credentials default -> summer") {
			go d.Sims[e.Device].Blink(200 * time.Millisecond)
			seen++
		}
		if seen == len(d.Names) || e.Kind == fleet.EventCampaign && fleet.CampaignState(e.State).Final() {
			return errSeen
		}
		return nil
	})
	if !errors.Is(err, errSeen) {
		t.Fatal(err)
	}
	check("summer", "summer", users[1], users[0])
	s.campaign("spring", fleet.CampaignSpec{Operation: fleet.OperationUpgrade, Image: s.image(d, "2.0.0", 2)})
	check("spring", "summer", users[1], users[0])
	s.campaign("back", fleet.CampaignSpec{Operation: fleet.OperationRotate, Back: "summer", Retry: spec.Retry})
	check("back", "default", users[0], users[1])
	log := said.String()
	runs, err := s.Runs.List(s.ctx, "summer")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(runs)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log, "run ends") {
		t.Error("nothing was logged")
	}
	for _, u := range users {
		for _, secret := range []string{u.AuthPassphrase, u.PrivPassphrase} {
			if strings.Contains(log, secret) || strings.Contains(string(text), secret) {
				t.Error("a log or a run has a passphrase")
			}
		}
	}
}

// TestRotateUncertain: a device that cannot store its keys may have either after a restart, so the
// inventory keeps both credentials.
func TestRotateUncertain(t *testing.T) {
	d, s, users := ownDevices(t, 1)
	name := d.Names[0]
	d.Sims[name].Inject(sim.Fault{Kind: sim.ReadOnly})
	s.work("w1", func(c *worker.Config) { c.Timeout = 5 * time.Second })
	s.campaign("summer", rotateTo("summer"))
	s.ends("summer")
	r := s.run("summer", name)
	if r.State != fleet.RunFailed || r.Change == nil || r.Failure == nil || !strings.Contains(r.Failure.Text, "keep both passphrases") {
		t.Errorf("%s: %+v, %+v", r.State, r.Change, r.Failure)
	}
	entry, _, err := s.Devices.Get(s.ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	both := append([]string{entry.SecretName()}, entry.PreviousCredentials...)
	if slices.Sort(both); !slices.Equal(both, []string{fleet.DefaultSecret, "summer"}) || entry.Rotating == "" {
		t.Errorf("credentials %q, rotating %q", both, entry.Rotating)
	}
	if !accepts(t, entry.Address, users[0]) {
		t.Error("the old passphrases do not count")
	}
}

// TestMoveOwnAgent moves the target of devices whose power fails meanwhile, and goes back.
func TestMoveOwnAgent(t *testing.T) {
	d, s, users := ownDevices(t, 4)
	s.work("w1", func(c *worker.Config) { c.Timeout, c.Retries = 300*time.Millisecond, 1 })
	check := func(id string, want ...string) {
		t.Helper()
		if c := s.ends(id); c.State != fleet.CampaignDone {
			t.Fatalf("%s: %s", c.State, c.Reason)
		}
		secret := fleet.Secret{Name: "x", User: &users[0]}
		for _, name := range d.Names {
			if r := s.run(id, name); r.State != fleet.RunSucceeded || len(r.Change.Targets) != 1 {
				t.Errorf("%s: %s, %+v, %+v", name, r.State, r.Change, r.Failure)
			}
			c, err := device.Dial(device.Target{Address: d.Device(name).Address, Credentials: secret.Credentials()})
			if err != nil {
				t.Fatal(err)
			}
			targets, err := c.NotificationTargets(s.ctx)
			c.Close()
			var at []string
			for _, target := range targets {
				if target.Address.IsValid() { // the others have names
					at = append(at, target.Address.String())
				}
			}
			if slices.Sort(at); err != nil || !slices.Equal(at, want) {
				t.Errorf("%s sends to %v, want %v; %v", name, at, want, err)
			}
		}
	}
	retry := fleet.RetryRule{Attempts: 10, Pause: fleet.Duration(time.Second), MaxPause: fleet.Duration(time.Second)}
	last, err := s.Engine.Log(engine.Events).LastSequence(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.campaign("move", fleet.CampaignSpec{Operation: fleet.OperationMove, Targets: &fleet.TargetMove{From: []string{"127.0.0.1:80"}, To: "127.0.0.2:162"}, Retry: retry})
	seen := 0
	err = s.Events(s.ctx, last+1, func(_ uint64, e *fleet.Event) error {
		if strings.Contains(e.Text, "-> 127.0.0.2:162") {
			go d.Sims[e.Device].Blink(200 * time.Millisecond)
			seen++
		}
		if seen == len(d.Names) || e.Kind == fleet.EventCampaign && fleet.CampaignState(e.State).Final() {
			return errSeen
		}
		return nil
	})
	if !errors.Is(err, errSeen) {
		t.Fatal(err)
	}
	check("move", "127.0.0.1:9", "127.0.0.2:162")
	s.campaign("back", fleet.CampaignSpec{Operation: fleet.OperationMove, Back: "move", Retry: retry})
	check("back", "127.0.0.1:80", "127.0.0.1:9")
	s.campaign("elsewhere", fleet.CampaignSpec{Operation: fleet.OperationMove, Targets: &fleet.TargetMove{From: []string{"127.0.0.9:9"}, To: "127.0.0.2:162"}})
	s.ends("elsewhere")
	for _, name := range d.Names {
		if f := s.run("elsewhere", name).Failure; f == nil || f.Cause != fleet.CauseUnsuitable || !strings.Contains(f.Text, `target "target3", which has a name`) || !strings.Contains(f.Text, "127.0.0.1:80") {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

package worker_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/worker"
)

// TestWeakerCredentials: whoever forges the answer that credentials are wrong does not get to see
// requests that are protected less.
func TestWeakerCredentials(t *testing.T) {
	l := startLab(t)
	l.awaitAgent(oldUser)
	var seen, open atomic.Bool
	l.network.mu.Lock()
	l.network.datagram = func(_ string, b []byte) bool {
		seen.Store(seen.Load() || bytes.Contains(b, []byte("the community")))
		open.Store(open.Load() || bytes.Contains(b, []byte("unprotected")))
		return false
	}
	l.network.mu.Unlock()
	for _, s := range []fleet.Secret{{Name: "community", WriteCommunity: "the community"}, {Name: "open", User: &fleet.SNMPUser{Name: "unprotected"}}} {
		if err := l.Secrets.Put(l.ctx, &s); err != nil {
			t.Fatal(err)
		}
	}
	previous := func(credentials string, names ...string) {
		t.Helper()
		if _, err := l.Devices.Change(l.ctx, func(d *fleet.Device) error {
			d.Credentials, d.PreviousCredentials = credentials, names
			return nil
		}, l.name); err != nil {
			t.Fatal(err)
		}
	}
	previous("summer", "community", "open") // the device does not accept summer
	l.work("w1", l.quick)
	backup := fleet.CampaignSpec{Operation: fleet.OperationBackup}
	r := l.endsAs("refused", backup, fleet.RunFailed)
	if r.Failure.Cause != fleet.CauseCredentials || !strings.Contains(r.Failure.Text, "community, open protect less") {
		t.Errorf("%+v", r.Failure)
	}
	previous("summer", "community", "default", "open")
	l.endsAs("backup", backup, fleet.RunSucceeded)
	if seen.Load() || open.Load() {
		t.Errorf("sent without authentication: with a community %t, with a user %t", seen.Load(), open.Load())
	}
}

// TestSilentDevices: a device that drops what it cannot decrypt is reached with other credentials
// of its user; whether it is away is not known as long as it has not answered all of them.
func TestSilentDevices(t *testing.T) {
	d, s, users := ownDevices(t, 1)
	name := d.Names[0]
	private := users[0]
	private.PrivPassphrase = "another privacy"
	if err := s.Secrets.Put(s.ctx, &fleet.Secret{Name: "private", User: &private}); err != nil {
		t.Fatal(err)
	}
	n := startNetwork(t, d.Device(name).Address)
	// loses has the network lose what is sent from one of the sockets.
	loses := func(nth int) {
		n.mu.Lock()
		defer n.mu.Unlock()
		var sources []string
		n.datagram = func(from string, _ []byte) bool {
			if !slices.Contains(sources, from) {
				sources = append(sources, from)
			}
			return slices.Index(sources, from) == nth
		}
	}
	set := func(change func(*fleet.Device)) {
		t.Helper()
		if _, err := s.Devices.Change(s.ctx, func(d *fleet.Device) error { change(d); return nil }, name); err != nil {
			t.Fatal(err)
		}
	}
	set(func(d *fleet.Device) {
		d.Address, d.Credentials, d.PreviousCredentials = n.address, "private", []string{"summer", "default"}
	})
	loses(0)
	s.work("w1", func(c *worker.Config) { c.Timeout, c.Retries = 300*time.Millisecond, 1 })
	backup := fleet.CampaignSpec{Operation: fleet.OperationBackup}
	s.campaign("backup", backup)
	s.ends("backup")
	if r := s.run("backup", name); r.State != fleet.RunSucceeded {
		t.Errorf("%s, %+v", r.State, r.Failure)
	}
	if d, _, err := s.Devices.Get(s.ctx, name); err != nil || d.Contact.Credentials != "default" {
		t.Errorf("%+v, %v", d, err)
	}
	// The first ones are refused; whether the others are, is not known.
	loses(1)
	set(func(d *fleet.Device) { d.Credentials, d.PreviousCredentials = "summer", []string{"private"} })
	s.campaign("silent", backup)
	if r := s.reaches("silent", name, fleet.RunRetrying); r.Failure.Cause != fleet.CauseNoAnswer || !r.Failure.Passing || !strings.Contains(r.Failure.Text, "summer, private were tried") {
		t.Errorf("%+v", r.Failure)
	}
}

// TestAcceptedIsKept: which credentials a device accepts stays known while it is away.
func TestAcceptedIsKept(t *testing.T) {
	s := startRefreshing(t, time.Second)
	entry := &fleet.Device{Name: "gw", Address: "127.0.0.1:9", Credentials: "summer", PreviousCredentials: []string{"default"}, Rotating: "summer"}
	entry.Contact.Credentials = "default"
	if err := s.Secrets.Put(s.ctx, &fleet.Secret{Name: "summer", User: &newUser}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Devices.Create(s.ctx, entry); err != nil {
		t.Fatal(err)
	}
	s.work("w1", func(c *worker.Config) { c.Timeout, c.Retries = 100*time.Millisecond, 1 })
	var last *fleet.Device
	err := s.Devices.Watch(s.ctx, func(c store.Change[fleet.Device]) error {
		if c.Value != nil && c.Value.Contact.Problem != "" {
			last = c.Value
			return errSeen
		}
		return nil
	})
	if !errors.Is(err, errSeen) || last.Contact.Credentials != "default" || last.Rotating != "summer" {
		t.Errorf("%+v, %v", last, err)
	}
}

package service_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/view"
)

func rotation(credentials string) fleet.CampaignSpec {
	return fleet.CampaignSpec{Title: "Summer", Operation: fleet.OperationRotate, Filter: "true", Credentials: credentials}
}

func snmpUser(passphrase string) *fleet.SNMPUser {
	return &fleet.SNMPUser{Name: "operator", Auth: "sha256", AuthPassphrase: passphrase, Priv: "aes", PrivPassphrase: passphrase}
}

// TestRotationCampaigns: only admins change credentials; what a campaign refers to must be there;
// the random passphrases are nowhere but in the store.
func TestRotationCampaigns(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	l.must(l.PutSecret(ctx, ann, fleet.Secret{Name: "default", User: snmpUser("old passphrase")}))
	l.must(l.PutSecret(ctx, ann, fleet.Secret{Name: "new", User: snmpUser("new passphrase")}))
	l.must(l.PutSecret(ctx, ann, fleet.Secret{Name: "community", WriteCommunity: "private"}))
	if _, err := l.CreateCampaign(ctx, bob, "summer", rotation("new")); !errors.Is(err, operations.ErrForbidden) {
		t.Errorf("an operator: %v", err)
	}
	if e := l.last(); e.Action != "credentials.rotate" || !e.Denied {
		t.Errorf("audit: %+v", e)
	}
	for field, change := range map[string]func(*fleet.CampaignSpec){
		"credentials": func(s *fleet.CampaignSpec) { s.Credentials = "absent" },
		"renew":       func(s *fleet.CampaignSpec) { s.Credentials, s.Renew = "", "community" },
		"back":        func(s *fleet.CampaignSpec) { s.Credentials, s.Back = "", "spring" },
	} {
		spec := rotation("new")
		change(&spec)
		if _, err := l.CreateCampaign(ctx, ann, "bad", spec); fieldOf(err) != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := l.CreateCampaign(ctx, ann, "bad", rotation("community")); fieldOf(err) != "credentials" {
		t.Errorf("communities: %v", err)
	}

	spec := rotation("")
	spec.Renew = "default"
	c, err := l.CreateCampaign(ctx, ann, "summer", spec)
	l.must(err)
	made, err := l.store.Secrets.Get(ctx, "summer")
	l.must(err)
	if c.Spec.Credentials != "summer" || made.User.Name != "operator" || len(made.User.AuthPassphrase) < 20 || len(made.User.PrivPassphrase) < 20 ||
		made.User.AuthPassphrase == made.User.PrivPassphrase || made.Campaign != "summer" {
		t.Errorf("campaign for %s, user %s of %s", c.Spec.Credentials, made.User.Name, made.Campaign)
	}
	for what, call := range map[string]error{
		"edit":   second(l.EditCampaign(ctx, bob, "summer", fleet.CampaignSpec{Title: "x", Operation: fleet.OperationBackup, Filter: "true"})),
		"submit": second(l.SubmitCampaign(ctx, bob, "summer")), "approve": second(l.ApproveCampaign(ctx, bob, "summer", c.Spec.Digest(), "")),
	} {
		if !errors.Is(call, operations.ErrForbidden) {
			t.Errorf("%s by an operator: %v", what, call)
		}
	}
	set := func(change func(*fleet.Campaign)) {
		t.Helper()
		_, err := l.store.Campaigns.Change(ctx, func(c *fleet.Campaign) error { change(c); return nil }, "summer")
		l.must(err)
	}
	set(func(c *fleet.Campaign) { c.State = fleet.CampaignPaused })
	if _, err := l.ResumeCampaign(ctx, bob, "summer"); !errors.Is(err, operations.ErrForbidden) {
		t.Errorf("resume by an operator: %v", err)
	}
	if e := l.last(); e.Action != "credentials.rotate" || !e.Denied {
		t.Errorf("audit: %+v", e)
	}
	set(func(c *fleet.Campaign) { c.State = fleet.CampaignDraft })
	edited := c.Spec
	edited.Title = "Late summer"
	_, err = l.EditCampaign(ctx, ann, "summer", edited)
	l.must(err)
	if again, err := l.store.Secrets.Get(ctx, "summer"); err != nil || *again.User != *made.User {
		t.Errorf("the passphrases are others after an edit: %v", err)
	}
	if err := l.PutSecret(ctx, ann, fleet.Secret{Name: "summer", User: snmpUser("by hand 1234")}); !errors.Is(err, operations.ErrConflict) {
		t.Errorf("replaced what nobody else knows: %v", err)
	}
	if err := l.RemoveSecret(ctx, ann, "summer"); !errors.Is(err, operations.ErrConflict) {
		t.Errorf("removed what a campaign is going to use: %v", err)
	}
	back := rotation("")
	back.Back = "summer"
	if _, err := l.CreateCampaign(ctx, ann, "back", back); fieldOf(err) != "back" || !strings.Contains(err.Error(), "draft") {
		t.Errorf("a campaign that has not ended is undone: %v", err)
	}
	_, err = l.StopCampaign(ctx, bob, "summer")
	l.must(err)
	if _, err := l.CreateCampaign(ctx, ann, "back", c.WayBack()); err != nil {
		t.Error(err)
	}
	move := fleet.CampaignSpec{Title: "Move", Operation: fleet.OperationMove, Filter: "true", Back: "summer"}
	if _, err := l.CreateCampaign(ctx, bob, "move", move); fieldOf(err) != "back" {
		t.Errorf("another operation is undone: %v", err)
	}
	if err := l.PutSchedule(ctx, ann, fleet.Schedule{Name: "nightly", At: "02:00", Spec: rotation("new")}); fieldOf(err) != "spec.operation" {
		t.Errorf("a schedule: %v", err)
	}
	entries, err := l.Audit(ctx, ann, operations.AuditQuery{Limit: operations.MaxPage})
	l.must(err)
	text, err := json.Marshal(entries)
	l.must(err)
	for _, secret := range []string{made.User.AuthPassphrase, made.User.PrivPassphrase, "old passphrase", "new passphrase"} {
		if strings.Contains(string(text), secret) {
			t.Error("the audit has a passphrase")
		}
	}
}

// TestRenewedOnce: whatever is requested at the same time, the passphrases that a campaign makes
// are never replaced, and only made for a campaign that can have them.
func TestRenewedOnce(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	l.must(l.PutSecret(ctx, ann, fleet.Secret{Name: "default", User: snmpUser("old passphrase")}))
	spec := rotation("")
	spec.Renew = "default"
	for n := range 20 {
		id := fmt.Sprintf("summer-%d", n)
		var all sync.WaitGroup
		seen := make([]*fleet.Secret, 8)
		for i := range seen {
			all.Go(func() {
				_, err := l.CreateCampaign(ctx, ann, id, spec)
				if err != nil && !errors.Is(err, operations.ErrConflict) {
					t.Error(err)
				}
				if seen[i], err = l.store.Secrets.Get(ctx, id); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		made, err := l.store.Secrets.Get(ctx, id)
		l.must(err)
		for _, s := range seen {
			if s == nil || *s.User != *made.User {
				t.Fatalf("%s: the passphrases were replaced", id)
			}
		}
	}
	if err := l.store.Secrets.Create(ctx, &fleet.Secret{Name: "summer-0", User: snmpUser("another one")}); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("created twice: %v", err)
	}

	none := func(what, name string) {
		t.Helper()
		if _, err := l.store.Secrets.Get(ctx, name); !errors.Is(err, engine.ErrNotFound) {
			t.Errorf("%s: passphrases were made: %v", what, err)
		}
	}
	if _, err := l.EditCampaign(ctx, ann, "absent", spec); !errors.Is(err, operations.ErrNotFound) {
		t.Errorf("an edit of a campaign that does not exist: %v", err)
	}
	none("no campaign", "absent")
	backup := fleet.CampaignSpec{Title: "Backup", Operation: fleet.OperationBackup, Filter: "true"}
	_, err := l.CreateCampaign(ctx, ann, "ended", backup)
	l.must(err)
	_, err = l.StopCampaign(ctx, ann, "ended")
	l.must(err)
	if _, err := l.EditCampaign(ctx, ann, "ended", spec); !errors.Is(err, operations.ErrConflict) {
		t.Errorf("an edit of a campaign that has ended: %v", err)
	}
	none("an ended campaign", "ended")
	_, err = l.CreateCampaign(ctx, ann, "draft", backup)
	l.must(err)
	if _, err := l.EditCampaign(ctx, bob, "draft", spec); !errors.Is(err, operations.ErrForbidden) {
		t.Errorf("an operator edits: %v", err)
	}
	none("not permitted", "draft")
	c, err := l.EditCampaign(ctx, ann, "draft", spec)
	if err != nil || c.Spec.Credentials != "draft" {
		t.Errorf("%+v, %v", c, err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestPreviousCredentials: they are kept when others are set, and can be removed once no device
// needs them.
func TestPreviousCredentials(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	for _, name := range []string{"a", "b", "bb"} {
		l.must(l.PutSecret(ctx, ann, fleet.Secret{Name: name, User: snmpUser("passphrase of " + name)}))
	}
	put := func(credentials string) (*fleet.Device, error) {
		return l.PutDevice(ctx, bob, fleet.Device{Name: "gw", Address: "192.0.2.1", Credentials: credentials})
	}
	_, err := put("a")
	l.must(err)
	d, err := put("b")
	if err != nil || d.Credentials != "b" || strings.Join(d.PreviousCredentials, " ") != "a" {
		t.Errorf("%+v, %v", d, err)
	}
	set := func(change func(*fleet.Device)) {
		t.Helper()
		_, err := l.store.Devices.Change(ctx, func(d *fleet.Device) error { change(d); return nil }, "gw")
		l.must(err)
		_, revision, err := l.store.Devices.Get(ctx, "gw")
		l.must(err)
		l.must(l.view.Wait(ctx, view.Devices, revision))
	}
	if d.Contact.Credentials != "" {
		t.Errorf("a device that was never reached has accepted %s", d.Contact.Credentials)
	}
	set(func(d *fleet.Device) { d.Rotating, d.ActiveRun = "summer", "summer" })
	if _, err := put("a"); !errors.Is(err, operations.ErrConflict) || !strings.Contains(err.Error(), "summer") {
		t.Errorf("changed while a campaign changes them: %v", err)
	}
	if err := l.RemoveSecret(ctx, ann, "a"); !errors.Is(err, operations.ErrConflict) || !strings.Contains(err.Error(), "gw") {
		t.Errorf("removed while the device may need it: %v", err)
	}
	set(func(d *fleet.Device) { d.Rotating, d.ActiveRun = "", "" })
	set(func(d *fleet.Device) { d.Contact.Credentials = "a" })
	if err := l.RemoveSecret(ctx, ann, "a"); !errors.Is(err, operations.ErrConflict) {
		t.Errorf("removed although the device accepts nothing else: %v", err)
	}
	l.must(l.RemoveSecret(ctx, ann, "bb"))
	set(func(d *fleet.Device) { d.Contact.Credentials = "" })
	l.must(l.RemoveSecret(ctx, ann, "a"))
	if d, _, err := l.store.Devices.Get(ctx, "gw"); err != nil || d.PreviousCredentials != nil || d.Credentials != "b" {
		t.Errorf("%+v, %v", d, err)
	}
	if err := l.RemoveSecret(ctx, ann, "b"); !errors.Is(err, operations.ErrConflict) {
		t.Errorf("removed the credentials in force: %v", err)
	}
}

// TestCredentialsByHand: a device whose rotation has failed gets other credentials by hand; what
// it accepted last cannot be removed until it has accepted others; and none are kept that would
// protect it less.
func TestCredentialsByHand(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	for _, name := range []string{"a", "b", "c"} {
		l.must(l.PutSecret(ctx, ann, fleet.Secret{Name: name, User: snmpUser("passphrase of " + name)}))
	}
	sha1, plain := snmpUser("passphrase"), snmpUser("passphrase")
	sha1.Auth, plain.Priv, plain.PrivPassphrase = "sha", "", ""
	for _, s := range []fleet.Secret{{Name: "community", WriteCommunity: "private"}, {Name: "sha1", User: sha1}, {Name: "plain", User: plain}} {
		l.must(l.PutSecret(ctx, ann, s))
	}
	put := func(credentials string) *fleet.Device {
		t.Helper()
		d, err := l.PutDevice(ctx, bob, fleet.Device{Name: "gw", Address: "192.0.2.1", Credentials: credentials})
		l.must(err)
		return d
	}
	set := func(change func(*fleet.Device)) {
		t.Helper()
		_, err := l.store.Devices.Change(ctx, func(d *fleet.Device) error { change(d); return nil }, "gw")
		l.must(err)
	}
	put("a")
	set(func(d *fleet.Device) {
		d.Facts = &fleet.Facts{Version: "1"}
		d.ReplaceCredentials("b")
		d.Rotating, d.LastCampaign, d.LastOutcome = "summer", "summer", fleet.RunFailed
	})
	if d := put("c"); d.Credentials != "c" || strings.Join(d.PreviousCredentials, " ") != "b a" || d.Contact.Credentials != "a" || d.Rotating != "summer" {
		t.Errorf("%+v", d)
	}
	set(func(d *fleet.Device) { d.Rotating = "" })
	if err := l.RemoveSecret(ctx, ann, "a"); !errors.Is(err, operations.ErrConflict) || !strings.Contains(err.Error(), "gw") {
		t.Errorf("removed what the device accepted last: %v", err)
	}
	l.must(l.RemoveSecret(ctx, ann, "b"))

	put("community")
	put("plain")
	put("sha1")
	if d := put("a"); strings.Join(d.PreviousCredentials, " ") != "c" || d.Contact.Credentials != "" {
		t.Errorf("%+v", d)
	}
	if d := put("community"); strings.Join(d.PreviousCredentials, " ") != "a c" || d.Contact.Credentials != "a" {
		t.Errorf("%+v", d)
	}
}

// TestSecretsOfCampaigns: credentials that a campaign needs which has not ended are neither
// replaced nor removed, nor are those of a device that has just been stored.
func TestSecretsOfCampaigns(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	for _, name := range []string{"default", "new", "source", "free"} {
		l.must(l.PutSecret(ctx, ann, fleet.Secret{Name: name, User: snmpUser("passphrase of " + name)}))
	}
	replaces := func(name string) error {
		return l.PutSecret(ctx, ann, fleet.Secret{Name: name, User: snmpUser("another passphrase")})
	}
	stays := func(name, campaign string) {
		t.Helper()
		file := "[devices." + name + "]\naddress = \"192.0.2.1\"\nwrite_community = \"private\"\n"
		_, imported := l.ImportDevices(ctx, ann, operations.TOML, strings.NewReader(file), false)
		for what, err := range map[string]error{"replaced": replaces(name), "imported": imported, "removed": l.RemoveSecret(ctx, ann, name)} {
			if !errors.Is(err, operations.ErrConflict) || !strings.Contains(err.Error(), campaign) {
				t.Errorf("%s, of %s: %s: %v", name, campaign, what, err)
			}
		}
		if s, err := l.store.Secrets.Get(ctx, name); err != nil || s.Removing || s.User.AuthPassphrase != "passphrase of "+name {
			t.Errorf("%s is not as it was, %v", name, err)
		}
		l.must(l.PutSecret(ctx, ann, fleet.Secret{Name: name, User: snmpUser("passphrase of " + name)})) // the same
	}
	_, err := l.CreateCampaign(ctx, ann, "summer", rotation("new"))
	l.must(err)
	renew := rotation("")
	renew.Renew = "source"
	_, err = l.CreateCampaign(ctx, ann, "random", renew)
	l.must(err)
	stays("new", "summer")
	stays("source", "random")
	for _, id := range []string{"summer", "random"} {
		_, err = l.StopCampaign(ctx, ann, id)
		l.must(err)
	}
	l.must(replaces("new"))

	// Its device had the credentials "default" before.
	_, err = l.store.Runs.Create(ctx, &fleet.Run{Campaign: "summer", Device: "gw", State: fleet.RunSucceeded, Change: &fleet.Change{From: "default", To: "new", Done: true}})
	l.must(err)
	back := rotation("")
	back.Back = "summer"
	_, err = l.CreateCampaign(ctx, ann, "back", back)
	l.must(err)
	stays("default", "back")
	l.must(l.RemoveSecret(ctx, ann, "new"))
	_, err = l.StopCampaign(ctx, ann, "back")
	l.must(err)
	l.must(l.RemoveSecret(ctx, ann, "default"))

	for n := range 20 {
		device := fleet.Device{Name: fmt.Sprintf("gw-%d", n), Address: "192.0.2.1", Credentials: "free"}
		_, err := l.store.Devices.Create(ctx, &device)
		l.must(err)
		if err := l.RemoveSecret(ctx, ann, "free"); !errors.Is(err, operations.ErrConflict) {
			t.Fatalf("removed although a device has it: %v", err)
		}
		_, revision, err := l.store.Devices.Get(ctx, device.Name)
		l.must(err)
		l.must(l.store.Devices.Delete(ctx, revision, device.Name))
	}
}

package fleet_test

import (
	"strings"
	"testing"

	"example.com/iad/fleet"
)

// Every mistake of a campaign that changes access is reported with the field that has it.
func TestFieldsOfChanges(t *testing.T) {
	rotate := fleet.CampaignSpec{Title: "Summer", Operation: fleet.OperationRotate, Filter: "true", Renew: "default"}
	move := fleet.CampaignSpec{Title: "Move", Operation: fleet.OperationMove, Filter: "true", Targets: &fleet.TargetMove{From: []string{"192.0.2.1:162", "[2001:db8::1]:162"}, To: "192.0.2.2:162"}}
	back := fleet.CampaignSpec{Title: "Back", Operation: fleet.OperationMove, Filter: "true", Back: "move"}
	for _, s := range []fleet.CampaignSpec{rotate, move, back} {
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
		if !s.Operation.ChangesAccess() {
			t.Errorf("%s", s.Operation)
		}
	}
	for _, c := range []struct {
		field  string
		spec   fleet.CampaignSpec
		change func(*fleet.CampaignSpec)
	}{
		{"credentials", rotate, func(s *fleet.CampaignSpec) { s.Renew = "" }},
		{"credentials", rotate, func(s *fleet.CampaignSpec) { s.Back = "winter" }},
		{"credentials", rotate, func(s *fleet.CampaignSpec) { s.Credentials = "a b" }},
		{"renew", rotate, func(s *fleet.CampaignSpec) { s.Renew = "../x" }},
		{"options", rotate, func(s *fleet.CampaignSpec) { s.Options.Force = true }},
		{"image", rotate, func(s *fleet.CampaignSpec) { s.Image = digest }},
		{"targets", rotate, func(s *fleet.CampaignSpec) { s.Targets = &fleet.TargetMove{} }},
		{"targets", move, func(s *fleet.CampaignSpec) { s.Targets = nil }},
		{"targets", move, func(s *fleet.CampaignSpec) { s.Back = "winter" }},
		{"renew", move, func(s *fleet.CampaignSpec) { s.Renew = "default" }},
		{"targets.to", move, func(s *fleet.CampaignSpec) {
			s.Targets = &fleet.TargetMove{From: []string{"192.0.2.1:162"}, To: "noc.example:162"}
		}},
		{"targets.to", move, func(s *fleet.CampaignSpec) {
			s.Targets = &fleet.TargetMove{From: []string{"192.0.2.1:162"}, To: "192.0.2.1:0"}
		}},
		{"targets.from", move, func(s *fleet.CampaignSpec) { s.Targets = &fleet.TargetMove{To: "192.0.2.1:162"} }},
		{"targets.from[0]", move, func(s *fleet.CampaignSpec) {
			s.Targets = &fleet.TargetMove{From: []string{"192.0.2.1"}, To: "192.0.2.1:162"}
		}},
		{"targets.from[0]", move, func(s *fleet.CampaignSpec) {
			s.Targets = &fleet.TargetMove{From: []string{"192.0.2.1:162"}, To: "192.0.2.1:162"}
		}},
		{"back", back, func(s *fleet.CampaignSpec) { s.Back = "A B" }},
	} {
		s := c.spec
		c.change(&s)
		found := false
		for _, e := range fleet.FieldErrors(s.Validate()) {
			found = found || e.Field == c.field
		}
		if !found {
			t.Errorf("%s: %v", c.field, s.Validate())
		}
	}
	c := fleet.Campaign{ID: "summer", Spec: rotate}
	c.Spec.Title = strings.Repeat("ä", 100)
	undo := c.WayBack()
	if err := undo.Validate(); err != nil || undo.Back != "summer" || undo.Renew != "" {
		t.Errorf("%+v, %v", undo, err)
	}
}

func TestReplaceCredentials(t *testing.T) {
	d := fleet.Device{}
	for _, name := range []string{"a", "b", "", "b", "b"} {
		d.ReplaceCredentials(name)
	}
	if got := strings.Join(d.SecretNames(), " "); got != "b default a" {
		t.Errorf("%s", got)
	}
	d.ReplaceCredentials("default")
	if got := strings.Join(d.SecretNames(), " "); got != "default b a" {
		t.Errorf("%s", got)
	}
}

package fleet_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/iad/fleet"
	"example.com/iad/manager"
	"example.com/iad/mib"
)

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"attic": true, "192.0.2.10": true, "IAD_4-a": true, "": false, ".a": false, "a.": false, "a..b": false, "a b": false, "ä": false,
		"a/b": false, "a:b": false, "a*": false, "a>": false, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false,
	} {
		if err := fleet.CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q): %v", name, err)
		}
	}
	for id, ok := range map[string]bool{
		"spring-2": true, "": false, "-a": false, "a-": false, "A": false, "a.b": false, strings.Repeat("a", 26): true, strings.Repeat("a", 27): false,
	} {
		if err := fleet.CheckID(id); (err == nil) != ok {
			t.Errorf("CheckID(%q): %v", id, err)
		}
	}
	if c := (fleet.Campaign{ID: strings.Repeat("a", 26)}); len(c.Owner()) != 32 {
		t.Errorf("the owner %q has %d bytes, want 32", c.Owner(), len(c.Owner()))
	}
}

func FuzzNameFor(f *testing.F) {
	for _, s := range []string{"192.0.2.1:161", "[2001:db8::1]:161", "...", "ä ö", strings.Repeat(".a", 50), "a/../../b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if name := fleet.NameFor(s); name != "" && fleet.CheckName(name) != nil {
			t.Errorf("NameFor(%q) = %q: %v", s, name, fleet.CheckName(name))
		}
	})
}

func TestAddresses(t *testing.T) {
	for address, ok := range map[string]bool{
		"192.0.2.1": true, "192.0.2.1:161": true, "2001:db8::1": true, "[2001:db8::1]:161": true, "gw.example.net": true, "gw:1161": true,
		"": false, ":161": false, "gw:0": false, "gw:65536": false, "gw:x": false, "a b": false, "-gw": false, "gw..net": false, "http://gw": false,
	} {
		if err := fleet.CheckAddress(address); (err == nil) != ok {
			t.Errorf("CheckAddress(%q): %v", address, err)
		}
	}
}

// digest is that of an image.
var digest = strings.Repeat("0a", 32)

func spec() fleet.CampaignSpec {
	return fleet.CampaignSpec{
		Title: "Spring", Operation: fleet.OperationUpgrade, Image: digest, Filter: "true",
		Options:    fleet.RunOptions{OnFailure: []string{"advice", "other=" + digest, "ask"}, Retries: 2, Protocol: "ftp", BackupLimit: fleet.Duration(time.Minute)},
		Waves:      []fleet.Wave{{Name: "canary", Count: 5, Soak: fleet.Duration(time.Hour), MinSuccess: 100}, {Percent: 10}, {}},
		Thresholds: []fleet.Threshold{{FailedPercent: 5, MinSample: 20, Action: fleet.ActionStop, Scope: fleet.ScopeWave}},
		Windows:    []fleet.Window{{Days: []string{"mon", "tue"}, From: "22:00", To: "04:30"}}, Reserve: fleet.Duration(30 * time.Minute),
		TimeZone: "Europe/Berlin", Retry: fleet.RetryRule{Attempts: 3},
	}
}

// Every mistake is reported with the field that has it.
func TestFieldsOfSpec(t *testing.T) {
	good := spec()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, mistake := range map[string]func(*fleet.CampaignSpec){
		"title":                        func(s *fleet.CampaignSpec) { s.Title = " " },
		"operation":                    func(s *fleet.CampaignSpec) { s.Operation = "erase" },
		"image":                        func(s *fleet.CampaignSpec) { s.Image = strings.ToUpper(digest) },
		"filter":                       func(s *fleet.CampaignSpec) { s.Filter = "" },
		"options.on_failure[0]":        func(s *fleet.CampaignSpec) { s.Options.OnFailure = []string{"other=fw.iad", "advice"} },
		"options.retries":              func(s *fleet.CampaignSpec) { s.Options.Retries = 11 },
		"options.protocol":             func(s *fleet.CampaignSpec) { s.Options.Protocol = "http" },
		"options.verify_with":          func(s *fleet.CampaignSpec) { s.Options.VerifyWith = "sh -c reboot" },
		"credentials":                  func(s *fleet.CampaignSpec) { s.Credentials = "summer" },
		"renew":                        func(s *fleet.CampaignSpec) { s.Renew = "default" },
		"targets":                      func(s *fleet.CampaignSpec) { s.Targets = &fleet.TargetMove{} },
		"back":                         func(s *fleet.CampaignSpec) { s.Back = "winter" },
		"options.recover_limit":        func(s *fleet.CampaignSpec) { s.Options.RecoverLimit = 1 },
		"waves[1].count":               func(s *fleet.CampaignSpec) { s.Waves[1] = fleet.Wave{} },
		"waves[0].count":               func(s *fleet.CampaignSpec) { s.Waves[0].Percent = 3 },
		"waves[2].percent":             func(s *fleet.CampaignSpec) { s.Waves[2].Percent = math.NaN() },
		"waves[2].soak":                func(s *fleet.CampaignSpec) { s.Waves[2].Soak = -1 },
		"thresholds[0].failed":         func(s *fleet.CampaignSpec) { s.Thresholds[0] = fleet.Threshold{} },
		"thresholds[0].action":         func(s *fleet.CampaignSpec) { s.Thresholds[0].Action = "panic" },
		"windows[0].days[0]":           func(s *fleet.CampaignSpec) { s.Windows[0].Days = []string{"Monday"} },
		"windows[0].to":                func(s *fleet.CampaignSpec) { s.Windows[0].To = "24:00" },
		"reserve":                      func(s *fleet.CampaignSpec) { s.Windows = nil },
		"time_zone":                    func(s *fleet.CampaignSpec) { s.TimeZone = "Local" },
		"deadline":                     func(s *fleet.CampaignSpec) { s.NotBefore = time.Unix(2, 0); s.Deadline = time.Unix(1, 0) },
		"caps.parallel_per_site":       func(s *fleet.CampaignSpec) { s.Caps.ParallelPerSite = -1 },
		"retry.attempts":               func(s *fleet.CampaignSpec) { s.Retry.Attempts = 101 },
		"priority":                     func(s *fleet.CampaignSpec) { s.Priority = 10 },
		"options.skip_backup":          func(s *fleet.CampaignSpec) { s.Options.SkipBackup = true; s.Operation = fleet.OperationCheck },
		"options.on_failure[2]":        func(s *fleet.CampaignSpec) { s.Options.OnFailure[2] = "edit" },
		"retry.max_pause":              func(s *fleet.CampaignSpec) { s.Retry.Pause, s.Retry.MaxPause = 2e9, 1e9 },
		"thresholds[0].min_sample":     func(s *fleet.CampaignSpec) { s.Thresholds[0].MinSample = -1 },
		"options.convert_with":         func(s *fleet.CampaignSpec) { s.Options.ConvertWith = "../x" },
		"options.device_retries":       func(s *fleet.CampaignSpec) { s.Options.DeviceRetries = -1 },
		"waves[0].min_success":         func(s *fleet.CampaignSpec) { s.Waves[0].MinSuccess = 101 },
		"caps.bytes_per_second":        func(s *fleet.CampaignSpec) { s.Caps.BytesPerSecond = -1 },
		"waves[0].name":                func(s *fleet.CampaignSpec) { s.Waves[0].Name = "a\x1b[31m" },
		"thresholds[0].scope":          func(s *fleet.CampaignSpec) { s.Thresholds[0].Scope = "all" },
		"thresholds[0].waiting":        func(s *fleet.CampaignSpec) { s.Thresholds[0].Waiting = -1 },
		"caps.parallel":                func(s *fleet.CampaignSpec) { s.Caps.Parallel = -1 },
		"caps.parallel_per_pool":       func(s *fleet.CampaignSpec) { s.Caps.ParallelPerPool = -1 },
		"retry.offline":                func(s *fleet.CampaignSpec) { s.Retry.Offline = -1 },
		"retry.pause":                  func(s *fleet.CampaignSpec) { s.Retry.Pause = 1 },
		"windows[0].from":              func(s *fleet.CampaignSpec) { s.Windows[0].From = "7:00" },
		"thresholds[0].failed_percent": func(s *fleet.CampaignSpec) { s.Thresholds[0].FailedPercent = 101 },
	} {
		s := spec()
		mistake(&s)
		found := fleet.FieldErrors(s.Validate())
		if len(found) != 1 || found[0].Field != field || found[0].Problem == "" {
			t.Errorf("%s: found %v", field, found)
		}
	}
}

func TestSpecJSON(t *testing.T) {
	want := spec()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `"soak":"1h0m0s"`) {
		t.Errorf("durations are not texts: %s", text)
	}
	var got fleet.CampaignSpec
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if want.Digest() != got.Digest() {
		t.Error("the digest is another one after a round trip")
	}
	got.Image = strings.Repeat("0b", 32)
	if want.Digest() == got.Digest() {
		t.Error("another image has the same digest of the specification")
	}
}

func TestDeviceFields(t *testing.T) {
	d := fleet.Device{Name: " attic ", Address: "192.0.2.1", Tags: []string{"b", " a", "b", ""}}
	d.Normalize()
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, d.Tags); diff != "" || d.Name != "attic" {
		t.Errorf("%q %v", d.Name, d.Tags)
	}
	d.Site, d.RootOID, d.Tags = "a b", "1.x", []string{"ok", "not ok"}
	var fields []string
	for _, e := range fleet.FieldErrors(d.Validate()) {
		fields = append(fields, e.Field)
	}
	if diff := cmp.Diff([]string{"root_oid", "site", "tags[1]"}, fields); diff != "" {
		t.Error(diff)
	}
}

// Neither a mistake in a secret nor printing it shows what it contains.
func TestSecretsAreNotShown(t *testing.T) {
	s := fleet.Secret{Name: "lab", User: &fleet.SNMPUser{Name: "op", Auth: "hunter2-auth", AuthPassphrase: "hunter2-pass"}}
	err := s.Validate()
	if err == nil {
		t.Fatal("an unknown authentication protocol is accepted")
	}
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v", s, s, s), fmt.Sprintf("%v", &s)} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("shown: %s", text)
		}
	}
	if strings.Contains(err.Error(), "hunter2-pass") {
		t.Errorf("shown: %v", err)
	}
}

func question(device string, cause mib.FailCause, choices ...manager.Choice) *fleet.Question {
	failure := &manager.Failure{Device: device, Step: manager.StepRecoverJudge, Cause: cause, Text: "text of " + device}
	return fleet.QuestionOf(manager.Question{Device: device, Step: failure.Step, Failure: failure, Attempt: 1, Choices: choices}, "spring", device, "q1", time.Unix(0, 0))
}

// Questions with the same cause are one group, whatever device, text and time are.
func TestGroupsOfQuestions(t *testing.T) {
	a := question("a", mib.FailCauseBusy, manager.Retry, manager.GiveUp)
	for _, c := range []struct {
		q    *fleet.Question
		same bool
	}{
		{question("b", mib.FailCauseBusy, manager.GiveUp, manager.Retry), true},
		{question("a", mib.FailCauseOther, manager.Retry, manager.GiveUp), false},
		{question("a", mib.FailCauseBusy, manager.Retry, manager.Modify, manager.GiveUp), false},
	} {
		if (a.Group() == c.q.Group()) != c.same {
			t.Errorf("%+v and %+v: same group %v, want %v", a, c.q, !c.same, c.same)
		}
	}
}

func TestAnswers(t *testing.T) {
	q := question("a", mib.FailCauseBusy, manager.Retry, manager.Modify, manager.OtherFile, manager.GiveUp)
	for _, c := range []struct {
		a     fleet.Answer
		field string // with a mistake; empty: none
	}{
		{fleet.Answer{Question: "q1", Choice: fleet.ChoiceRetry}, ""},
		{fleet.Answer{Question: "q1", Choice: fleet.ChoiceOtherImage, Image: digest}, ""},
		{fleet.Answer{Question: "q1", Choice: fleet.ChoiceModify, Backup: "b"}, ""},
		{fleet.Answer{Question: "q0", Choice: fleet.ChoiceRetry}, "question"},
		{fleet.Answer{Question: "q1", Choice: fleet.ChoiceRestore}, "choice"},
		{fleet.Answer{Question: "q1", Choice: fleet.ChoiceOtherImage}, "image"},
		{fleet.Answer{Question: "q1", Choice: fleet.ChoiceRetry, Image: digest}, "image"},
		{fleet.Answer{Question: "q1", Choice: fleet.ChoiceModify, Backup: "b", Group: true}, "backup"},
	} {
		found := fleet.FieldErrors(c.a.Check(q))
		if c.field == "" && len(found) != 0 || c.field != "" && (len(found) != 1 || found[0].Field != c.field) {
			t.Errorf("%+v: %v, want a mistake in %q", c.a, found, c.field)
		}
	}
}

func TestChoicesHaveNames(t *testing.T) {
	for c := manager.GiveUp; c <= manager.UseAsIs; c++ {
		name := fleet.ChoiceOf(c)
		if back, ok := name.Manager(); name == "" || !ok || back != c {
			t.Errorf("choice %d has the name %q, which is %d", c, name, back)
		}
	}
}

func TestRetries(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	rule := fleet.RetryRule{Attempts: 3, Pause: fleet.Duration(time.Minute), MaxPause: fleet.Duration(5 * time.Minute)}
	for i, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute} {
		if got := rule.Backoff(i + 1); got != want {
			t.Errorf("pause after attempt %d: %v, want %v", i+1, got, want)
		}
	}
	failed := func(cause string, passing bool, attempt int, started time.Time) *fleet.Run {
		return &fleet.Run{Attempt: attempt, Started: started, Failure: &fleet.RunFailure{Cause: cause, Passing: passing}}
	}
	for _, c := range []struct {
		name     string
		run      *fleet.Run
		rule     fleet.RetryRule
		deadline time.Time
		want     bool
	}{
		{"passing", failed("busy", true, 2, now), rule, time.Time{}, true},
		{"last attempt", failed("busy", true, 3, now), rule, time.Time{}, false},
		{"not passing", failed("busy", false, 1, now), rule, time.Time{}, false},
		{"no rule", failed("busy", true, 1, now), fleet.RetryRule{}, time.Time{}, false},
		{"deadline", failed("busy", true, 1, now), rule, now.Add(30 * time.Second), false},
		{"offline for 23 h", failed(fleet.CauseNoAnswer, true, 50, now.Add(-23*time.Hour)), rule, time.Time{}, true},
		{"offline for a day", failed(fleet.CauseNoAnswer, true, 50, now.Add(-24*time.Hour)), rule, time.Time{}, false},
		{"offline, until the deadline", failed(fleet.CauseNoAnswer, true, 50, now.Add(-72*time.Hour)), rule, now.Add(time.Hour), true},
		{"offline for longer than the rule", failed(fleet.CauseNoAnswer, true, 5, now.Add(-2*time.Hour)),
			fleet.RetryRule{Offline: fleet.Duration(time.Hour)}, now.Add(time.Hour), false},
	} {
		if at, got := c.rule.Next(c.run, c.deadline, now); got != c.want || got && !at.After(now) {
			t.Errorf("%s: retried %v at %v, want %v", c.name, got, at, c.want)
		}
	}
}

func TestCauseOfForeignErrors(t *testing.T) {
	if got := fleet.CauseOf(errors.New("disk full")); got != fleet.CauseInternal {
		t.Errorf("cause %q", got)
	}
	if got := fleet.CauseOf(fmt.Errorf("x: %w", &manager.Failure{NoAnswer: true})); got != fleet.CauseNoAnswer {
		t.Errorf("cause %q", got)
	}
}

// Retries that no policy makes are refused, instead of being ignored.
func TestRetriesNeedAdvice(t *testing.T) {
	for _, c := range []struct {
		policies []string
		ok       bool
	}{{nil, true}, {[]string{"advice", "ask"}, true}, {[]string{"ask"}, false}, {[]string{"keep", "give-up"}, false}} {
		s := fleet.CampaignSpec{Title: "t", Operation: fleet.OperationBackup, Filter: "true", Options: fleet.RunOptions{OnFailure: c.policies, Retries: 2}}
		err := s.Validate()
		if ok := err == nil; ok != c.ok {
			t.Errorf("%q: %v", c.policies, err)
		}
		if found := fleet.FieldErrors(err); !c.ok && (len(found) != 1 || found[0].Field != "options.retries") {
			t.Errorf("%q: %v", c.policies, err)
		}
	}
}

package command

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/api"
	"example.com/iad/fleet/auth"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
	"example.com/iad/internal/fleettest"
)

// TestFleetCommands runs a campaign with the commands of iadms fleet.
func TestFleetCommands(t *testing.T) {
	e, err := engine.Start(t.Context(), engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	bucket, err := e.Bucket(t.Context(), engine.Access)
	if err != nil {
		t.Fatal(err)
	}
	service := fleettest.New()
	access := auth.New(bucket, service.Record, time.Now)
	if err := access.PutUser(t.Context(), operations.Caller{Name: "boss", Role: operations.Admin}, "anna", operations.Operator, "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(api.New(api.Config{Service: service, Access: access, Version: "test"}))
	defer server.Close()
	dir := t.TempDir()
	token := filepath.Join(dir, "config", "token")
	input := ""
	run := func(status int, args ...string) string {
		t.Helper()
		c := exec.Command(os.Args[0], append([]string{"fleet"}, args...)...)
		c.Env = append(os.Environ(), asCommand+"=1", "IADMS_API="+server.URL, "IADMS_TOKEN_FILE="+token)
		c.Dir, c.Stdin = dir, strings.NewReader(input)
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		_ = c.Run()
		if got := c.ProcessState.ExitCode(); got != status {
			t.Fatalf("iadms fleet %s: exit status %d, want %d\n%s", strings.Join(args, " "), got, status, out.String())
		}
		return out.String()
	}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wants := func(out string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("%q is missing in\n%s", text, out)
			}
		}
	}

	wants(run(exitUsage, "status"), "run iadms fleet login")
	input = "wrong password\n"
	wants(run(exitCredentials, "login", "--account", "anna"), "is wrong")
	input = "correct horse battery\n"
	run(0, "login", "--account", "anna", "--token-name", "laptop")
	if info, err := os.Stat(token); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("token: %v, %v", info, err)
	}

	write("snmp.toml", "write_community = \"rosebud\"\n")
	wants(run(exitRefused, "store-credentials", "default", "--credentials", "snmp.toml"), "requires the role admin")
	write("devices.csv", "name,address\ngw-1,192.0.2.1\ngw-2,192.0.2.2\n")
	wants(run(0, "import", "devices.csv", "--dry-run"), "2 devices would be added")
	wants(run(0, "import", "devices.csv"), "2 devices added")
	wants(run(exitUsage, "import", "devices.xls"), ".csv, .json or .toml")
	for _, name := range []string{"gw-1", "gw-2"} {
		service.Add(fleet.Device{Name: name, Address: "192.0.2.1", Facts: &fleet.Facts{Version: "1.0.0", Model: "evil\x1b[31m"}})
	}
	if out := run(0, "devices"); !strings.Contains(out, "gw-1") || strings.Contains(out, "\x1b") {
		t.Errorf("devices: %q", out)
	}
	wants(run(0, "status"), "devices         2", "1.0.0: 2")
	wants(run(exitError, "device", "unknown"), `device "unknown": not found`)
	write("fw.iad", "image 2.0.0")
	image, _, _ := strings.Cut(run(0, "add-image", "fw.iad"), " ")

	write("bad.json", `{"title": "Spring", "operation": "upgrade", "filter": "true", "soak": "1h"}`)
	wants(run(exitUsage, "create", "bad.json"), "bad.json", `"soak"`)
	write("spring.json", `{"title": "Spring", "operation": "upgrade", "image": "`+image+`", "filter": "true", "waves": [{"count": 1, "soak": "1h"}, {}]}`)
	wants(run(0, "create", "spring.json", "--id", "spring", "--submit"), "spring  scheduled")
	wants(run(exitRefused, "create", "spring.json", "--id", "spring"), "exists already")
	service.Start("spring")
	service.Ask("spring", "gw-1", "selfTestFailed", "failed", fleet.ChoiceRetry, fleet.ChoiceGiveUp)
	var group operations.QuestionGroup
	if err := json.Unmarshal([]byte(run(0, "questions", "--json")), &group); err != nil || group.Count != 1 {
		t.Fatalf("%+v, %v", group, err)
	}
	wants(run(exitUsage, "answer", group.Group, "--choice", "explode"), "unknown choice")
	wants(run(0, "answer", "spring/gw-1", "--choice", "retry"), "1 questions answered")
	wants(run(exitError, "answer", "spring/gw-1", "--choice", "retry"), "no open question")
	service.SetRun("spring", "gw-1", func(r *fleet.Run) {
		r.State, r.Failure = fleet.RunFailed, &fleet.RunFailure{Cause: "selfTestFailed", Text: "failed"}
	})
	wants(run(0, "campaign", "spring"), "1 of 2 ended", "selfTestFailed: 1")
	wants(run(0, "runs", "spring", "--state", "failed"), "gw-1", "selfTestFailed")
	wants(run(0, "pause", "spring"), "spring  paused")
	go func() {
		<-service.Watching
		service.SetCampaign("spring", func(c *fleet.Campaign) { c.State = fleet.CampaignStopped })
	}()
	wants(run(exitFailed, "watch", "spring"), "stopped", "1 of 2 devices failed")
	wants(run(exitRefused, "resume", "spring"), "it is stopped")

	wants(run(0, "put-site", "berlin", "--time-zone", "Europe/Berlin", "--parallel", "7"), "berlin  saved")
	wants(run(exitUsage, "put-site", "berlin", "--time-zone", "Berlin"), "time_zone")
	wants(run(0, "sites"), "Europe/Berlin", "7")
	wants(run(0, "remove-site", "berlin"), "berlin  removed")
	wants(run(exitError, "remove-site", "berlin"), "not found")
	wants(run(0, "put-group", "old", `version < "2.0.0"`), "old  saved")
	wants(run(0, "groups", "--json"), `"filter":"version \u003c \"2.0.0\""`)
	run(0, "remove-group", "old")
	write("nightly.json", `{"at": "02:30", "time_zone": "Europe/Berlin", "for": "3h", "spec": {"title": "Nightly", "operation": "backup", "filter": "true"}}`)
	wants(run(0, "put-schedule", "nightly", "nightly.json"), "nightly  saved")
	var schedule fleet.Schedule
	if err := json.Unmarshal([]byte(run(0, "schedules", "--json")), &schedule); err != nil || schedule.At != "02:30" || time.Duration(schedule.For) != 3*time.Hour || schedule.CreatedBy != "anna" {
		t.Errorf("%+v, %v", schedule, err)
	}
	write("schedule.json", run(0, "schedules", "--json")) // what is printed can be stored
	run(0, "put-schedule", "again", "schedule.json")
	wants(run(exitUsage, "put-schedule", "nightly", "spring.json"), "is not a schedule")
	run(0, "remove-schedule", "nightly")

	service.AddDamage(operations.Damage{Place: "run", Key: "spring.gw-1", Revision: 7, Problem: "evil\x1b[31m", Removable: true})
	if out := run(0, "damage"); !strings.Contains(out, "spring.gw-1") || strings.Contains(out, "\x1b") {
		t.Errorf("damage: %q", out)
	}
	wants(run(exitRefused, "remove-damage", "run", "spring.gw-1", "7"), "requires the role admin")
	service.AddNode(operations.Node{Name: "a", Leader: true, Current: true})
	service.AddNode(operations.Node{Name: "c", Offline: true})
	wants(run(0, "nodes"), "has everything", "does not answer")
	wants(run(exitRefused, "remove-node", "c"), "requires the role admin")
	wants(run(exitRefused, "users"), "requires the role admin")
	if err := access.PutUser(t.Context(), operations.Caller{Name: "boss", Role: operations.Admin}, "eve", operations.Admin, "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	run(0, "login", "--account", "eve")
	wants(run(exitUsage, "remove-damage", "run", "spring.gw-1", "x"), "the number")
	wants(run(0, "remove-damage", "run", "spring.gw-1", "7"), "removed")
	wants(run(exitRefused, "remove-node", "a"), "runs")
	wants(run(0, "remove-node", "c"), "removed")
	wants(run(exitUsage, "put-user", "carol", "--role", "boss"), "viewer, operator or admin")
	input = "short\n"
	wants(run(exitUsage, "put-user", "carol", "--role", "operator", "--password"), "at least 12 characters")
	input = "correct horse battery\n"
	run(0, "put-user", "carol", "--role", "operator", "--password")
	input = ""
	run(0, "put-user", "carol", "--role", "viewer") // keeps the password
	wants(run(0, "users"), "carol", "viewer")
	input = "correct horse battery\n"
	run(0, "login", "--account", "carol")
	run(0, "login", "--account", "eve")
	changed := fleet.Device{Name: "gw-3", Address: "192.0.2.3", Credentials: "summer", PreviousCredentials: []string{"default"}, Facts: &fleet.Facts{Version: "1.0.0"}}
	changed.Contact.Credentials = "default"
	service.Add(changed)
	wants(run(0, "device", "gw-3"), "credentials summer; previous ones kept: default", "accepted the previous credentials default when")
	run(0, "store-credentials", "attic", "--credentials", "snmp.toml")
	wants(run(0, "remove-credentials", "attic"), "attic  removed")
	wants(run(exitUsage, "undo", "spring"), "cannot be undone", "rotate-credentials")
	write("summer.json", `{"title": "Summer", "operation": "rotate-credentials", "renew": "default", "filter": "true", "waves": [{"count": 1}, {}]}`)
	wants(run(0, "create", "summer.json", "--id", "summer", "--submit"), "summer  scheduled")
	service.Start("summer")
	service.SetRun("summer", "gw-1", func(r *fleet.Run) {
		r.State, r.Change = fleet.RunSucceeded, &fleet.Change{From: "default", To: "summer", Done: true}
	})
	wants(run(0, "runs", "summer"), "credentials default -> summer")
	service.SetCampaign("summer", func(c *fleet.Campaign) { c.State = fleet.CampaignDone })
	wants(run(0, "undo", "summer", "--id", "summer-back", "--submit"), "summer-back  scheduled")
	wants(run(0, "campaign", "summer-back", "--json"), `"back":"summer"`, `"title":"Undo Summer"`)
	run(0, "login", "--account", "eve")
	wants(run(0, "remove-user", "carol"), "removed")
}

// TestManagerStaysSmall: iadms uses the fleet service through its API and links nothing of
// it.
func TestManagerStaysSmall(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "example.com/iad/cmd/iadms").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{"example.com/iad/fleet": true, "example.com/iad/fleet/client": true, "example.com/iad/fleet/operations": true}
	for dependency := range strings.FieldsSeq(string(out)) {
		if strings.Contains(dependency, "nats") || strings.Contains(dependency, "sqlite") || strings.Contains(dependency, "huma") ||
			strings.HasPrefix(dependency, "example.com/iad/fleet") && !allowed[dependency] {
			t.Errorf("iadms is linked with %s", dependency)
		}
	}
}

package service_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/audit"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/seal"
	"example.com/iad/fleet/service"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/view"
	"example.com/iad/internal/imagetest"
	"example.com/iad/manager"
	"example.com/iad/sim"
	simfleet "example.com/iad/sim/fleet"
)

var (
	ann  = operations.Caller{Name: "ann", Role: operations.Admin, From: "192.0.2.1"}
	bob  = operations.Caller{Name: "bob", Role: operations.Operator, From: "192.0.2.2"}
	carl = operations.Caller{Name: "carl", Role: operations.Viewer, From: "192.0.2.3"}
)

// lab is a service on one node.
type lab struct {
	*service.Service
	t     *testing.T
	store *store.Store
	view  *view.View
	audit *audit.Audit
}

func newLab(t *testing.T, change func(*service.Config)) *lab {
	t.Helper()
	e, err := engine.Start(t.Context(), engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), e, key)
	if err != nil {
		t.Fatal(err)
	}
	v, err := view.Open(filepath.Join(t.TempDir(), "view.db"))
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, store: s, view: v, audit: audit.New(e.Log(engine.Audit))}
	cfg := service.Config{Store: s, View: v, Audit: l.audit, Trust: imagetest.Trust(imagetest.Key), Dir: t.TempDir()}
	if change != nil {
		change(&cfg)
	}
	l.Service = service.New(cfg)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := v.WaitSynced(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// last returns the newest audit entry.
func (l *lab) last() fleet.AuditEntry {
	l.t.Helper()
	entries, err := l.Audit(l.t.Context(), ann, operations.AuditQuery{Limit: 1})
	if err != nil || len(entries) != 1 {
		l.t.Fatal(entries, err)
	}
	return entries[0]
}

func fieldOf(err error) string {
	if list := fleet.FieldErrors(err); len(list) > 0 {
		return list[0].Field
	}
	return ""
}

func (l *lab) image() string {
	l.t.Helper()
	img, err := l.AddImage(l.t.Context(), bob, "/tmp/x/fw-2.0.0.iad", bytes.NewReader(imagetest.Build(l.t, imagetest.Manifest("2.0.0"))))
	l.must(err)
	return img.Digest
}

func TestDevices(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	if _, err := l.PutDevice(ctx, bob, fleet.Device{Name: "a", Address: "192.0.2.10", Site: "north"}); fieldOf(err) != "site" {
		t.Errorf("an unknown site: %v", err)
	}
	l.must(l.PutSite(ctx, bob, fleet.Site{Name: "north", TimeZone: "Europe/Berlin"}))
	forged := fleet.Device{Name: " a ", Address: "192.0.2.10", Site: "north", ActiveRun: "x", Facts: &fleet.Facts{Version: "9"}}
	d, err := l.PutDevice(ctx, bob, forged)
	l.must(err)
	if d.Name != "a" || d.ActiveRun != "" || d.Facts != nil || d.Created.IsZero() {
		t.Errorf("stored: %+v", d)
	}
	if e := l.last(); e.Actor != "bob" || e.Action != "device.write" || e.Object != "device/a" || e.From != "192.0.2.2" || e.Before != nil || !strings.Contains(string(e.After), "192.0.2.10") {
		t.Errorf("audit: %+v", e)
	}
	// What devices report stays when operators change something.
	_, err = l.store.Devices.Change(ctx, func(d *fleet.Device) error {
		d.Facts, d.ActiveRun, d.Contact = &fleet.Facts{Version: "1.0.0", Model: "m"}, "c", fleet.Contact{Time: time.Unix(1, 0)}
		return nil
	}, "a")
	l.must(err)
	d, err = l.PutDevice(ctx, bob, fleet.Device{Name: "a", Address: "192.0.2.11"})
	l.must(err)
	if d.Facts == nil || d.ActiveRun != "c" || d.Address != "192.0.2.11" || d.Site != "" {
		t.Errorf("changed: %+v", d)
	}
	// The view has it at once.
	page, err := l.Devices(ctx, carl, operations.DeviceQuery{Filter: `address == "192.0.2.11" and version == "1.0.0"`})
	if err != nil || page.Total != 1 || len(page.Devices) != 1 {
		t.Error(page, err)
	}
	m, err := l.Match(ctx, carl, `known`)
	if err != nil || m.Count != 1 || !slices.Equal(m.Sample, []string{"a"}) || m.Versions[0] != (operations.Count{Value: "1.0.0", Count: 1}) {
		t.Error(m, err)
	}
	if _, err := l.Match(ctx, carl, `nmae == "a"`); fieldOf(err) != "filter" {
		t.Error(err)
	}
	if err := l.RemoveDevice(ctx, bob, "a"); !errors.Is(err, operations.ErrConflict) {
		t.Errorf("a device in progress is removed: %v", err)
	}
	_, err = l.store.Devices.Change(ctx, func(d *fleet.Device) error { d.ActiveRun = ""; return nil }, "a")
	l.must(err)
	l.must(l.RemoveDevice(ctx, bob, "a"))
	if _, err := l.Device(ctx, carl, "a"); !errors.Is(err, operations.ErrNotFound) {
		t.Error(err)
	}
	if err := l.RemoveDevice(ctx, bob, "a"); !errors.Is(err, operations.ErrNotFound) {
		t.Error(err)
	}
	for _, q := range []operations.DeviceQuery{{Limit: -1}, {Limit: operations.MaxPage + 1}, {Offset: -1}, {Sort: "x"}, {Filter: "x"}} {
		if _, err := l.Devices(ctx, carl, q); fieldOf(err) == "" {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

func TestImportAndExport(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	file := "name,address,site\na,192.0.2.1,\nb,192.0.2.2,north\n"
	load := func(by operations.Caller, format operations.Format, text string, dry bool) (*operations.ImportResult, error) {
		return l.ImportDevices(ctx, by, format, strings.NewReader(text), dry)
	}
	if _, err := load(bob, operations.CSV, file, false); fieldOf(err) != "site" {
		t.Errorf("an unknown site: %v", err)
	}
	if page, err := l.Devices(ctx, bob, operations.DeviceQuery{}); err != nil || page.Total != 0 {
		t.Errorf("a file with a mistake was imported: %+v, %v", page, err)
	}
	l.must(l.PutSite(ctx, bob, fleet.Site{Name: "north"}))
	for _, c := range []struct {
		text string
		dry  bool
		want operations.ImportResult
	}{
		{file, true, operations.ImportResult{Added: 2}},
		{file, false, operations.ImportResult{Added: 2}},
		{file, false, operations.ImportResult{Unchanged: 2}},
		{"name,address\na,192.0.2.9\nc,192.0.2.3\n", true, operations.ImportResult{Added: 1, Changed: 1}},
		{"name,address\na,192.0.2.9\nc,192.0.2.3\n", false, operations.ImportResult{Added: 1, Changed: 1}},
	} {
		if got, err := load(bob, operations.CSV, c.text, c.dry); err != nil || *got != c.want {
			t.Errorf("%q: %+v, %v; want %+v", c.text, got, err, c.want)
		}
	}
	if e := l.last(); e.Action != "device.import" || !strings.Contains(string(e.After), `"added":1`) || !strings.Contains(string(e.After), `"file":"`) {
		t.Errorf("audit: %+v", e)
	}
	var out bytes.Buffer
	l.must(l.ExportDevices(ctx, carl, operations.CSV, `site == "north"`, &out))
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[1], "b,192.0.2.2,north,") {
		t.Errorf("exported %q", out.String())
	}
	// Credentials in a file need the role admin, and are not shown.
	secret := "[devices.d]\naddress = \"192.0.2.4\"\nread_community = \"hunter2\"\n"
	if _, err := load(bob, operations.TOML, secret, false); !errors.Is(err, operations.ErrForbidden) {
		t.Errorf("an operator stores credentials: %v", err)
	}
	_, err := load(ann, operations.TOML, secret, false)
	l.must(err)
	names, err := l.Secrets(ctx, carl)
	if err != nil || !slices.Equal(names, []string{"d"}) {
		t.Error(names, err)
	}
	if err := l.RemoveSecret(ctx, ann, "d"); !errors.Is(err, operations.ErrConflict) {
		t.Errorf("credentials in use are removed: %v", err)
	}
	if err := l.RemoveSite(ctx, bob, "north"); !errors.Is(err, operations.ErrConflict) {
		t.Errorf("a site in use is removed: %v", err)
	}
	entries, err := l.Audit(ctx, ann, operations.AuditQuery{Limit: 100})
	l.must(err)
	text, err := json.Marshal(entries)
	l.must(err)
	if strings.Contains(string(text), "hunter2") {
		t.Errorf("a secret is in the audit: %s", text)
	}
}

func spec(image string) fleet.CampaignSpec {
	return fleet.CampaignSpec{Title: "Spring 2.0", Operation: fleet.OperationUpgrade, Image: image, Filter: "true", Waves: []fleet.Wave{{Count: 1}, {}}}
}

func TestCampaigns(t *testing.T) {
	l, ctx := newLab(t, func(c *service.Config) { c.RequireApproval = true }), t.Context()
	digest := l.image()
	if _, err := l.CreateCampaign(ctx, bob, "", spec(strings.Repeat("00", 32))); fieldOf(err) != "image" {
		t.Errorf("an unknown image: %v", err)
	}
	bad := spec(digest)
	bad.Waves[0] = fleet.Wave{Filter: "x"}
	if _, err := l.CreateCampaign(ctx, bob, "", bad); fieldOf(err) != "waves[0].filter" {
		t.Error(err)
	}
	bad = spec(digest)
	bad.Options.VerifyWith = "call-test"
	if _, err := l.CreateCampaign(ctx, bob, "", bad); fieldOf(err) != "options.verify_with" {
		t.Error(err)
	}
	c, err := l.CreateCampaign(ctx, bob, "", spec(digest))
	l.must(err)
	if fleet.CheckID(c.ID) != nil || !strings.HasPrefix(c.ID, "spring-2-0-") || c.State != fleet.CampaignDraft || !c.Spec.ApprovalRequired {
		t.Errorf("created: %+v", c)
	}
	if _, err := l.CreateCampaign(ctx, bob, c.ID, spec(digest)); !errors.Is(err, operations.ErrConflict) {
		t.Errorf("created twice: %v", err)
	}
	changed := spec(digest)
	changed.Title = "Autumn"
	_, err = l.EditCampaign(ctx, bob, c.ID, changed)
	l.must(err)
	_, err = l.SubmitCampaign(ctx, bob, c.ID)
	l.must(err)
	detail, err := l.Campaign(ctx, carl, c.ID)
	l.must(err)
	if detail.Campaign.State != fleet.CampaignAwaiting || len(detail.Waves) != 2 {
		t.Errorf("%+v", detail)
	}
	if _, err := l.ApproveCampaign(ctx, bob, c.ID, detail.Digest, ""); !errors.Is(err, operations.ErrConflict) {
		t.Errorf("the creator approves: %v", err)
	}
	robot := bob
	robot.Token = "ci"
	if _, err := l.ApproveCampaign(ctx, robot, c.ID, detail.Digest, ""); !errors.Is(err, operations.ErrConflict) {
		t.Errorf("a token of the creator approves: %v", err)
	}
	got, err := l.ApproveCampaign(ctx, ann, c.ID, detail.Digest, "fine")
	if err != nil || got.State != fleet.CampaignScheduled {
		t.Fatal(got, err)
	}
	if e := l.last(); e.Action != "campaign.approve" || !strings.Contains(string(e.Before), `"awaiting-approval"`) || !strings.Contains(string(e.After), `"fine"`) {
		t.Errorf("audit: %+v", e)
	}
	if err := l.RemoveImage(ctx, bob, digest); !errors.Is(err, operations.ErrConflict) {
		t.Errorf("an image in use is removed: %v", err)
	}
	for _, step := range []struct {
		do   func(context.Context, operations.Caller, string) (*fleet.Campaign, error)
		want fleet.CampaignState
	}{{l.PauseCampaign, fleet.CampaignPaused}, {l.ResumeCampaign, fleet.CampaignScheduled}, {l.StopCampaign, fleet.CampaignStopped}} {
		if got, err := step.do(ctx, bob, c.ID); err != nil || got.State != step.want {
			t.Errorf("%+v, %v; want %s", got, err, step.want)
		}
	}
	if _, err := l.PauseCampaign(ctx, bob, c.ID); !errors.Is(err, operations.ErrConflict) || !strings.Contains(err.Error(), "it is stopped") {
		t.Error(err)
	}
	l.must(l.RemoveImage(ctx, bob, digest))
	if _, err := l.StopCampaign(ctx, bob, "none"); !errors.Is(err, operations.ErrNotFound) {
		t.Error(err)
	}
}

// The ID of a request for another object is refused, and not acknowledged.
func TestRequestsForOtherObjects(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	by := bob
	by.Request = "9d3c"
	for range 2 {
		l.must(l.PutSite(ctx, by, fleet.Site{Name: "north"}))
	}
	if err := l.PutSite(ctx, by, fleet.Site{Name: "south"}); fieldOf(err) != "request" {
		t.Errorf("acknowledged: %v", err)
	}
	if list, err := l.Sites(ctx, bob); err != nil || len(list) != 1 {
		t.Error(list, err)
	}
}

// A schedule does not change devices where that needs the approval of a second person.
func TestSchedulesNeedNoApproval(t *testing.T) {
	for _, required := range []bool{false, true} {
		l, ctx := newLab(t, func(c *service.Config) { c.RequireApproval = required }), t.Context()
		digest := l.image()
		for kind, allowed := range map[fleet.OperationKind]bool{
			fleet.OperationBackup: true, fleet.OperationCheck: true, fleet.OperationUpgrade: !required, fleet.OperationRecover: !required,
		} {
			s := fleet.CampaignSpec{Title: "Nightly", Operation: kind, Filter: "true"}
			if kind == fleet.OperationUpgrade || kind == fleet.OperationCheck {
				s.Image = digest
			}
			err := l.PutSchedule(ctx, bob, fleet.Schedule{Name: string(kind), At: "02:00", Spec: s})
			if allowed && err != nil || !allowed && fieldOf(err) != "spec.operation" {
				t.Errorf("approval required %v, %s: %v", required, kind, err)
			}
		}
	}
}

// An image that something needs is not removed, whatever the state of the campaign.
func TestImageInUse(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	digest := l.image()
	sum, err := hex.DecodeString(digest)
	l.must(err)
	stopped := func(id string, s fleet.CampaignSpec) {
		_, err := l.store.Campaigns.Create(ctx, &fleet.Campaign{ID: id, Spec: s, State: fleet.CampaignStopped})
		l.must(err)
	}
	fallback := spec(strings.Repeat("00", 32))
	fallback.Options.OnFailure = []string{"other=" + digest}
	stopped("spec", spec(digest))
	stopped("fallback", fallback)
	stopped("other", spec(strings.Repeat("00", 32)))
	for name, r := range map[string]*fleet.Run{
		"the campaign's": {Campaign: "spec", State: fleet.RunWaiting},
		"a policy's":     {Campaign: "fallback", State: fleet.RunRunning},
		"an answer's":    {Campaign: "other", State: fleet.RunQueued, Answer: &fleet.Answer{Image: digest}},
		"the record's":   {Campaign: "other", State: fleet.RunRetrying, Record: &manager.Record{ImageDigest: sum}},
	} {
		r.Device = "attic"
		revision, err := l.store.Runs.Create(ctx, r)
		l.must(err)
		if err := l.RemoveImage(ctx, bob, digest); !errors.Is(err, operations.ErrConflict) || !strings.Contains(err.Error(), "device attic in campaign "+r.Campaign) {
			t.Fatalf("%s image: %v", name, err)
		}
		r.State = fleet.RunFailed
		revision, err = l.store.Runs.Update(ctx, r, revision)
		l.must(err)
		l.must(l.store.Runs.Delete(ctx, revision, r.Campaign, r.Device))
	}
	_, err = l.store.Schedules.Create(ctx, &fleet.Schedule{Name: "nightly", Spec: spec(digest)})
	l.must(err)
	if err := l.RemoveImage(ctx, bob, digest); !errors.Is(err, operations.ErrConflict) || !strings.Contains(err.Error(), "schedule nightly") {
		t.Fatal(err)
	}
	l.must(l.RemoveSchedule(ctx, bob, "nightly"))
	_, err = l.store.Runs.Create(ctx, &fleet.Run{Campaign: "spec", Device: "attic", State: fleet.RunFailed})
	l.must(err)
	l.must(l.RemoveImage(ctx, bob, digest))
}

// A request that is repeated takes effect once, also on another node.
func TestRepeatedRequests(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	other := service.New(service.Config{Store: l.store, View: l.view, Audit: audit.New(l.store.Engine.Log(engine.Audit)), Trust: imagetest.Trust(imagetest.Key)})
	by := bob
	by.Request = "9d3c"
	s := spec(l.image())
	first, err := l.CreateCampaign(ctx, by, "", s)
	l.must(err)
	again, err := other.CreateCampaign(ctx, by, "", s)
	if err != nil || again.ID != first.ID || !again.Created.Equal(first.Created) {
		t.Errorf("repeated: %+v, %v", again, err)
	}
	_, err = l.SubmitCampaign(ctx, by, first.ID)
	l.must(err)
	if c, err := other.SubmitCampaign(ctx, by, first.ID); err != nil || c.State != fleet.CampaignScheduled {
		t.Errorf("repeated: %+v, %v", c, err)
	}
	if _, err := l.SubmitCampaign(ctx, bob, first.ID); err == nil {
		t.Error("another request is taken for a repetition")
	}
	entries, err := l.Audit(ctx, ann, operations.AuditQuery{Action: "campaign."})
	if err != nil || len(entries) != 2 {
		t.Errorf("%d entries, want 2 (%v)", len(entries), err)
	}
	by.Request = strings.Repeat("x", 200)
	if _, err := l.StopCampaign(ctx, by, first.ID); fieldOf(err) != "request" {
		t.Error(err)
	}
}

func (l *lab) waiting(campaign, device string, choices ...fleet.Choice) *fleet.Run {
	l.t.Helper()
	r := &fleet.Run{
		Campaign: campaign, Device: device, Pool: "default", State: fleet.RunWaiting, Attempt: 1, Epoch: 1,
		Question: &fleet.Question{ID: "q-" + device, Campaign: campaign, Device: device, Step: 190, Cause: "busy", Choices: choices, Time: time.Unix(9, 0)},
	}
	revision, err := l.store.Runs.Create(l.t.Context(), r)
	l.must(err)
	l.must(l.view.Wait(l.t.Context(), view.Runs, revision))
	return r
}

func TestQuestions(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	for _, device := range []string{"a", "b", "c"} {
		l.waiting("spring", device, fleet.ChoiceRetry, fleet.ChoiceModify, fleet.ChoiceOtherImage, fleet.ChoiceGiveUp)
	}
	alone := l.waiting("spring", "d", fleet.ChoiceGiveUp)
	groups, err := l.Questions(ctx, carl)
	if err != nil || len(groups) != 2 || groups[0].Count != 3 || len(groups[0].Questions) != 3 || groups[1].Group != alone.Question.Group() {
		t.Fatalf("%+v, %v", groups, err)
	}
	for field, a := range map[string]fleet.Answer{
		"choice":   {Question: "q-a", Choice: fleet.ChoiceRestore},
		"question": {Question: "q-b", Choice: fleet.ChoiceRetry},
		"image":    {Question: "q-a", Choice: fleet.ChoiceOtherImage, Image: strings.Repeat("00", 32)},
		"backup":   {Question: "q-a", Choice: fleet.ChoiceModify, Backup: "../x"},
	} {
		if err := l.Answer(ctx, bob, "spring", "a", a); fieldOf(err) != field {
			t.Errorf("%+v: %v", a, err)
		}
	}
	l.must(l.Answer(ctx, bob, "spring", "a", fleet.Answer{Question: "q-a", Choice: fleet.ChoiceRetry, By: "eve"}))
	r, _, err := l.store.Runs.Get(ctx, "spring", "a")
	if err != nil || r.State != fleet.RunQueued || r.Answer.Choice != fleet.ChoiceRetry || r.Answer.By != "bob" || r.Answer.Time.IsZero() {
		t.Errorf("%+v, %v", r, err)
	}
	if err := l.Answer(ctx, bob, "spring", "a", fleet.Answer{Question: "q-a", Choice: fleet.ChoiceRetry}); !errors.Is(err, operations.ErrConflict) {
		t.Errorf("answered twice: %v", err)
	}
	if _, err := l.AnswerGroup(ctx, bob, groups[0].Group, fleet.Answer{Choice: fleet.ChoiceModify, Backup: "x"}); fieldOf(err) != "backup" {
		t.Errorf("an edit for a group: %v", err)
	}
	n, err := l.AnswerGroup(ctx, bob, groups[0].Group, fleet.Answer{Choice: fleet.ChoiceGiveUp})
	if err != nil || n != 2 {
		t.Errorf("%d answered, want 2 (%v)", n, err)
	}
	if e := l.last(); e.Action != "question.answer" || !strings.Contains(string(e.After), `"devices":["b","c"]`) {
		t.Errorf("audit: %+v", e)
	}
	if _, err := l.AnswerGroup(ctx, bob, "0000", fleet.Answer{Choice: fleet.ChoiceGiveUp}); !errors.Is(err, operations.ErrNotFound) {
		t.Error(err)
	}
	// The workers are notified.
	queue, err := l.store.Engine.Queue(ctx, "default", engine.Urgent, engine.Normal)
	l.must(err)
	for range 3 {
		if _, err := queue.Next(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBackups(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	data := map[string][]byte{"userData": []byte("iad-config userData 1\nline = 1\n"), "portData": []byte("iad-config portData 1\n")}
	b := &fleet.Backup{ID: "b1", Device: "a", Campaign: "spring", Good: true, Time: time.Unix(5, 0), Files: []fleet.BackupFile{
		{Kind: "portData", Size: 22, Digest: "17c0dc0b"}, {Kind: "userData", Size: 31, Digest: "x"},
	}}
	for i, f := range b.Files {
		b.Files[i].Digest = digestOf(data[f.Kind])
		b.Files[i].Size = int64(len(data[f.Kind]))
	}
	l.must(l.store.AddBackup(ctx, b, data))
	for field, files := range map[string]map[string][]byte{
		"files.otherData": {"otherData": []byte("x")}, "files.../x": {"../x": []byte("x")}, "files": {"userData": data["userData"]},
	} {
		if _, err := l.EditBackup(ctx, bob, "a", "b1", files); fieldOf(err) != field {
			t.Errorf("%v, want a mistake in %s", err, field)
		}
	}
	edited, err := l.EditBackup(ctx, bob, "a", "b1", map[string][]byte{"userData": []byte("iad-config userData 1\nline = 2\n")})
	l.must(err)
	if edited.EditOf != "b1" || edited.By != "bob" || edited.Campaign != "spring" || fleet.CheckName(edited.ID) != nil {
		t.Errorf("%+v", edited)
	}
	for id, want := range map[string]string{"b1": "line = 1", edited.ID: "line = 2"} {
		got, err := l.BackupFile(ctx, bob, "a", id, "userData")
		if err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s: %q, %v", id, got, err)
		}
	}
	if e := l.last(); e.Action != "backup.read" {
		t.Errorf("who has read configuration data is not in the audit: %+v", e)
	}
	if _, err := l.BackupFile(ctx, bob, "a", "b1", "../../secret"); !errors.Is(err, operations.ErrNotFound) {
		t.Error(err)
	}
	if _, err := l.BackupFile(ctx, carl, "a", "b1", "userData"); !errors.Is(err, operations.ErrForbidden) {
		t.Errorf("a viewer reads configuration data: %v", err)
	}
	age := []byte("age-encryption.org/v1\n-> X25519 a\n")
	encrypted, err := l.EditBackup(ctx, bob, "a", "b1", map[string][]byte{"userData": age})
	l.must(err)
	if _, err := l.EditBackup(ctx, bob, "a", encrypted.ID, map[string][]byte{"userData": []byte("line = 3\n")}); fieldOf(err) != "files.userData" {
		t.Errorf("a plain file in place of an encrypted one: %v", err)
	}
	pinned, err := l.PinBackup(ctx, bob, "a", "b1", true)
	if err != nil || !pinned.Pinned {
		t.Error(pinned, err)
	}
	list, err := l.Backups(ctx, carl, "a")
	if err != nil || len(list) != 3 || list[1].ID != edited.ID || !list[2].Pinned {
		t.Error(list, err)
	}
	// An edit can answer a question of its device.
	l.waiting("spring", "a", fleet.ChoiceModify)
	if err := l.Answer(ctx, bob, "spring", "a", fleet.Answer{Question: "q-a", Choice: fleet.ChoiceModify, Backup: "b1"}); fieldOf(err) != "backup" {
		t.Errorf("a backup that nobody has edited: %v", err)
	}
	l.must(l.Answer(ctx, bob, "spring", "a", fleet.Answer{Question: "q-a", Choice: fleet.ChoiceModify, Backup: edited.ID}))
}

func TestImages(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	digest := l.image()
	images, err := l.Images(ctx, carl)
	if err != nil || len(images) != 1 || images[0].Version != "2.0.0" || images[0].File != "fw-2.0.0.iad" || images[0].AddedBy != "bob" {
		t.Error(images, err)
	}
	if again := l.image(); again != digest {
		t.Error("the same file is another image")
	}
	text := imagetest.Build(t, imagetest.Manifest("2.0.1"))
	text[len(text)/2] ^= 1
	if _, err := l.AddImage(ctx, bob, "x", bytes.NewReader(text)); fieldOf(err) != "image" {
		t.Errorf("a damaged image: %v", err)
	}
	none := newLab(t, func(c *service.Config) { c.Trust = nil })
	if _, err := none.AddImage(ctx, bob, "x", bytes.NewReader(imagetest.Build(t, imagetest.Manifest("2.0.0")))); !errors.Is(err, operations.ErrConflict) || !strings.Contains(err.Error(), "--trust") {
		t.Errorf("without a trusted key: %v", err)
	}
}

func TestDiscover(t *testing.T) {
	c := simfleet.Default()
	c.SNMP, c.Maker, c.Devices, c.Addresses, c.ReadCommunity, c.WriteCommunity = "127.0.0.1:0", filepath.Join(t.TempDir(), "maker"), 3, "127.66.22.0/28", "r", "w"
	f, err := simfleet.New(c, simfleet.Options{Log: slog.New(slog.DiscardHandler), Notes: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ports := make(chan uint16, 3)
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- f.Run(ctx, simfleet.Observer{
			Running: func(_ int, _ *sim.Device, addr netip.AddrPort) error { ports <- addr.Port(); return nil }, Ready: func() { close(ready) },
		})
	}()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	none := newLab(t, nil)
	if _, err := none.Discover(ctx, bob, operations.Discovery{Range: "127.66.22.1"}); !errors.Is(err, operations.ErrConflict) || !strings.Contains(err.Error(), "--discover") {
		t.Errorf("without a network: %v", err)
	}
	l := newLab(t, func(c *service.Config) { c.Networks = []netip.Prefix{netip.MustParsePrefix("127.66.22.0/24")} })
	l.must(l.PutSecret(ctx, ann, fleet.Secret{Name: "lab", ReadCommunity: "r", WriteCommunity: "w"}))
	search := operations.Discovery{Range: "127.66.22.1-127.66.22.3", Port: <-ports, Secrets: []string{"lab"}, Tags: []string{"new"}}
	for want, change := range map[string]func(*operations.Discovery){
		"range":      func(d *operations.Discovery) { d.Range = "127.66.23.1" },
		"secrets[0]": func(d *operations.Discovery) { d.Secrets = nil },
		"site":       func(d *operations.Discovery) { d.Site = "north" },
		"tags[0]":    func(d *operations.Discovery) { d.Tags = []string{"a b"} },
	} {
		wrong := search
		change(&wrong)
		if _, err := l.Discover(ctx, bob, wrong); fieldOf(err) != want {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
	large := search
	large.Range = "127.66.0.0/16"
	if _, err := l.Discover(ctx, bob, large); fieldOf(err) != "range" {
		t.Errorf("a large range: %v", err)
	}
	found, err := l.Discover(ctx, bob, search)
	if err != nil || found.Asked != 3 || len(found.Devices) != 3 || found.Added != 0 || found.Devices[0].Device.Facts == nil {
		t.Errorf("%+v, %v", found, err)
	}
	// One is known by its device ID under another name and address.
	unit := found.Devices[0].Device
	_, err = l.store.Devices.Create(ctx, &fleet.Device{Name: "attic", Address: "192.0.2.1", Identity: unit.Identity})
	l.must(err)
	// The name of another one is taken.
	other := found.Devices[1].Device.Name
	_, err = l.PutDevice(ctx, bob, fleet.Device{Name: other, Address: "192.0.2.2"})
	l.must(err)
	search.Add = true
	found, err = l.Discover(ctx, bob, search)
	if err != nil || found.Added != 1 || found.Devices[0].Known != "attic" || found.Devices[1].Problem == "" {
		t.Fatalf("%+v, %v", found, err)
	}
	page, err := l.Devices(ctx, carl, operations.DeviceQuery{Filter: `"new" in tags and reachable and credentials == "lab"`})
	if err != nil || page.Total != 1 || page.Devices[0].Name != found.Devices[2].Device.Name {
		t.Errorf("%+v, %v", page, err)
	}
	if e := l.last(); e.Action != "device.discover" || !strings.Contains(string(e.After), `"added":["`+page.Devices[0].Name+`"]`) {
		t.Errorf("audit: %+v", e)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestDrain(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	w := fleet.Worker{ID: "w1", Pool: "default", Slots: 3}
	lease, err := l.store.Attend(ctx, &w)
	l.must(err)
	defer lease.Release()
	if err := l.DrainWorker(ctx, bob, "w2", true); !errors.Is(err, operations.ErrNotFound) {
		t.Error(err)
	}
	stop, err := l.store.OnDrain("w1", func(drain bool) {
		w.Drain = drain
		lease.SetValue(fmt.Appendf(nil, `{"id": "w1", "pool": "default", "drain": %v}`, drain))
	})
	l.must(err)
	defer stop()
	l.must(l.DrainWorker(ctx, bob, "w1", true))
	list, err := l.Workers(ctx, carl)
	if err != nil || len(list) != 1 || !list[0].Drain {
		t.Error(list, err)
	}
}

// No role does more than it may, and what is denied is in the audit. Every method is tried.
func TestRoles(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	nobody := operations.Caller{Name: "mallory", Role: "root", From: "192.0.2.66"}
	kind := reflect.TypeFor[operations.Service]()
	for i := range kind.NumMethod() {
		method := kind.Method(i)
		if method.Name == "Record" || method.Name == "Repeated" {
			continue // for those who check it themselves
		}
		args := []reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(nobody)}
		for j := 2; j < method.Type.NumIn(); j++ {
			args = append(args, reflect.Zero(method.Type.In(j)))
		}
		out := reflect.ValueOf(l.Service).MethodByName(method.Name).Call(args)
		err, _ := out[len(out)-1].Interface().(error)
		if !errors.Is(err, operations.ErrForbidden) {
			t.Errorf("%s: %v", method.Name, err)
		}
		if e := l.last(); !e.Denied || e.Actor != "mallory" {
			t.Errorf("%s: the denial is not in the audit: %+v", method.Name, e)
		}
	}
	for _, c := range []struct {
		name string
		err  error
	}{
		{"site", l.PutSite(ctx, carl, fleet.Site{Name: "a"})},
		{"secret", l.PutSecret(ctx, bob, fleet.Secret{Name: "a", ReadCommunity: "x"})},
		{"answer", l.Answer(ctx, carl, "c", "d", fleet.Answer{})},
	} {
		if !errors.Is(c.err, operations.ErrForbidden) {
			t.Errorf("%s: %v", c.name, c.err)
		}
	}
}

func TestEvents(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	c, err := l.CreateCampaign(ctx, bob, "backup", fleet.CampaignSpec{Title: "Backup", Operation: fleet.OperationBackup, Filter: "true"})
	l.must(err)
	got := make(chan fleet.Event, 10)
	stop := errors.New("enough")
	ended := make(chan error)
	go func() {
		ended <- l.Events(ctx, carl, c.ID, func(e fleet.Event) error {
			got <- e
			if e.State == string(fleet.CampaignStopped) {
				return stop
			}
			return nil
		})
	}()
	// Events begin with the next one: pause and resume until the first one arrives.
	_, err = l.SubmitCampaign(ctx, bob, c.ID)
	l.must(err)
	for len(got) == 0 {
		_, err = l.PauseCampaign(ctx, bob, c.ID)
		l.must(err)
		_, err = l.ResumeCampaign(ctx, bob, c.ID)
		l.must(err)
	}
	_, err = l.StopCampaign(ctx, bob, c.ID)
	l.must(err)
	if err := <-ended; !errors.Is(err, stop) {
		t.Fatal(err)
	}
	if e := <-got; e.Kind != fleet.EventCampaign || e.Campaign != c.ID {
		t.Errorf("%+v", e)
	}
}

func TestOverview(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	_, err := l.PutDevice(ctx, bob, fleet.Device{Name: "a", Address: "192.0.2.1"})
	l.must(err)
	_, err = l.CreateCampaign(ctx, bob, "backup", fleet.CampaignSpec{Title: "Backup", Operation: fleet.OperationBackup, Filter: "true"})
	l.must(err)
	l.waiting("backup", "a", fleet.ChoiceGiveUp)
	o, err := l.Overview(ctx, carl)
	if err != nil || o.Devices != 1 || o.Campaigns != 1 || o.Questions != 1 || o.Unreachable != 0 {
		t.Errorf("%+v, %v", o, err)
	}
	l.must(l.PutGroup(ctx, bob, fleet.Group{Name: "all", Filter: "true"}))
	if err := l.PutGroup(ctx, bob, fleet.Group{Name: "bad", Filter: "x"}); fieldOf(err) != "filter" {
		t.Error(err)
	}
	groups, err := l.Groups(ctx, carl)
	if err != nil || len(groups) != 1 {
		t.Error(groups, err)
	}
	l.must(l.PutSchedule(ctx, bob, fleet.Schedule{Name: "nightly", At: "02:00", CreatedBy: "eve", Spec: fleet.CampaignSpec{Title: "Backup", Operation: fleet.OperationBackup, Filter: "true"}}))
	if err := l.PutSchedule(ctx, bob, fleet.Schedule{Name: "bad", At: "02:00", Spec: fleet.CampaignSpec{Title: "Backup", Operation: fleet.OperationBackup, Filter: "x"}}); fieldOf(err) != "spec.filter" {
		t.Error(err)
	}
	schedules, err := l.Schedules(ctx, carl)
	if err != nil || len(schedules) != 1 || schedules[0].CreatedBy != "bob" {
		t.Error(schedules, err)
	}
	l.must(l.RemoveSchedule(ctx, bob, "nightly"))
	l.must(l.RemoveGroup(ctx, bob, "all"))
	rows, err := l.Campaigns(ctx, carl)
	if err != nil || len(rows) != 1 || rows[0].Counts.Waiting != 1 {
		t.Error(rows, err)
	}
	page, err := l.Runs(ctx, carl, operations.RunQuery{Campaign: "backup", Wave: -1})
	if err != nil || page.Total != 1 || len(page.Runs) != 1 {
		t.Error(page, err)
	}
	if _, err := l.Runs(ctx, carl, operations.RunQuery{Campaign: "backup", State: "x"}); fieldOf(err) != "state" {
		t.Error(err)
	}
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Damaged objects do not hide others, are shown, and an admin removes them.
func TestDamage(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	_, err := l.PutDevice(ctx, bob, fleet.Device{Name: "a", Address: "192.0.2.1"})
	l.must(err)
	for _, place := range []engine.BucketName{engine.Devices, engine.Runs, engine.Campaigns, engine.Images, engine.Backups} {
		b, err := l.store.Engine.Bucket(ctx, place)
		l.must(err)
		_, err = b.Create(ctx, engine.Key("x", "y.z"), []byte("{"))
		l.must(err)
	}
	_, err = l.PutDevice(ctx, bob, fleet.Device{Name: "b", Address: "192.0.2.2"}) // the view shows what follows
	l.must(err)
	var list []operations.Damage
	for { // watches find it
		if list, err = l.Damage(ctx, carl); err != nil || len(list) == 5 {
			break
		}
		select {
		case <-time.After(5 * time.Millisecond): // reports cannot be waited for
		case <-ctx.Done():
			t.Fatalf("reported: %+v", list)
		}
	}
	l.must(err)
	if d := list[0]; d.Place != "backup" || !slices.Equal(d.Parts, []string{"x", "y.z"}) || !d.Removable || d.Problem == "" {
		t.Errorf("%+v", d)
	}
	if o, err := l.Overview(ctx, carl); err != nil || o.Damaged != 5 || o.Devices != 2 {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := l.Campaigns(ctx, carl); err != nil {
		t.Error(err)
	}
	if err := l.RemoveDamage(ctx, bob, list[0].Place, list[0].Key, list[0].Revision); !errors.Is(err, operations.ErrForbidden) {
		t.Errorf("an operator: %v", err)
	}
	if err := l.RemoveDamage(ctx, ann, list[0].Place, list[0].Key, list[0].Revision+1); !errors.Is(err, operations.ErrNotFound) {
		t.Errorf("another revision: %v", err)
	}
	if err := l.RemoveDamage(ctx, ann, "device", engine.Key("a"), 1); !errors.Is(err, operations.ErrNotFound) {
		t.Errorf("a sound object: %v", err)
	}
	l.must(l.RemoveDamage(ctx, ann, list[0].Place, list[0].Key, list[0].Revision))
	if list, err = l.Damage(ctx, carl); err != nil || len(list) != 4 {
		t.Error(list, err)
	}
}

// A node that runs, and one that does not exist, is not removed.
func TestNodes(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	nodes, err := l.Nodes(ctx, carl)
	if err != nil || len(nodes) != 1 || !nodes[0].Current || nodes[0].Offline {
		t.Fatalf("%+v, %v", nodes, err)
	}
	if err := l.RemoveNode(ctx, ann, nodes[0].Name); !errors.Is(err, operations.ErrConflict) {
		t.Error(err)
	}
	if err := l.RemoveNode(ctx, ann, "other"); !errors.Is(err, operations.ErrNotFound) {
		t.Error(err)
	}
	if err := l.RemoveNode(ctx, bob, nodes[0].Name); !errors.Is(err, operations.ErrForbidden) {
		t.Error(err)
	}
}

// Damage of users and leases is no longer reported once another process has removed it, or it has
// expired.
func TestDamageRemovedElsewhere(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	b, err := l.store.Engine.Bucket(ctx, engine.Access)
	l.must(err)
	_, err = b.Create(ctx, engine.Key("user", "dora"), []byte("{"))
	l.must(err)
	entry, err := b.Get(ctx, engine.Key("user", "dora"))
	l.must(err)
	if err := b.Damaged(entry, errors.New("cut")); !errors.Is(err, engine.ErrDamaged) { // somebody reads it
		t.Fatal(err)
	}
	lease, err := l.store.Engine.Acquire(ctx, engine.Key("worker", "w"), []byte("{"))
	l.must(err)
	if _, err := l.store.Workers(ctx); err != nil {
		t.Fatal(err)
	}
	if list, err := l.Damage(ctx, carl); err != nil || len(list) != 2 || list[0].Place != "access" || list[1].Place != "lease" {
		t.Fatalf("%+v, %v", list, err)
	}
	lease.Release()
	l.must(b.Delete(ctx, entry.Key, entry.Revision)) // by another process
	waiting, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	for {
		list, err := l.Damage(ctx, carl)
		l.must(err)
		if len(list) == 0 {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond): // reports cannot be waited for
		case <-waiting.Done():
			t.Fatalf("still reported: %+v", list)
		}
	}
}

// The ID of a request is refused with other content, whose digest does not tell what it was.
func TestRequestsWithOtherContent(t *testing.T) {
	l, ctx := newLab(t, nil), t.Context()
	by := bob
	by.Request, by.Content = "9d3c", "one"
	for range 2 {
		l.must(l.PutSite(ctx, by, fleet.Site{Name: "north", Parallel: 1}))
	}
	by.Content = "two"
	if err := l.PutSite(ctx, by, fleet.Site{Name: "north", Parallel: 2}); fieldOf(err) != "request" {
		t.Errorf("acknowledged: %v", err)
	}
	if list, err := l.Sites(ctx, bob); err != nil || len(list) != 1 || list[0].Parallel != 1 {
		t.Error(list, err)
	}
	entries, err := l.Audit(ctx, ann, operations.AuditQuery{Action: "site."})
	if err != nil || len(entries) != 1 || len(entries[0].Content) != 64 || entries[0].Content == digestOf([]byte("one")) {
		t.Error(entries, err)
	}
}

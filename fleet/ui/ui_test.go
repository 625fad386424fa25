package ui_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

// TestEveryPage: every page is shown, and what a hostile device reports is text in it.
func TestEveryPage(t *testing.T) {
	b := newBench(t)
	b.fill()
	for _, role := range operations.Roles() {
		c := b.as(role)
		for _, path := range allPages {
			status, page := c.get(path)
			forbidden := role == operations.Viewer && (path == "/audit" || strings.Contains(path, "/diff") || strings.HasPrefix(path, "/nothing"))
			if forbidden {
				if status != http.StatusForbidden {
					t.Errorf("%s as %s: status %d", path, role, status)
				}
				continue
			}
			if status != 200 {
				t.Errorf("%s as %s: status %d\n%.500s", path, role, status, page)
				continue
			}
			checkHTML(t, path, page)
		}
	}
	if b.log.Len() > 0 {
		t.Error(b.log)
	}
}

// checkHTML looks for elements and attributes that only a hostile device could have put
// there, for scripts and styles in the page, and for what is loaded from elsewhere.
func checkHTML(t *testing.T, path, page string) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(page, "\u202e\x1b") {
		t.Errorf("%s has characters that cannot be seen", path)
	}
	ids := make(map[string]bool)
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		if n.Data == "img" || n.Data == "style" || n.Data == "iframe" || n.Data == "script" && n.FirstChild != nil {
			t.Errorf("%s has an element %s", path, n.Data)
		}
		for _, a := range n.Attr {
			switch {
			case strings.HasPrefix(a.Key, "on") || a.Key == "style":
				t.Errorf("%s has an attribute %s", path, a.Key)
			case (a.Key == "src" || a.Key == "href" || a.Key == "action") && !strings.HasPrefix(a.Val, "/") && !strings.HasPrefix(a.Val, "#"):
				t.Errorf("%s refers to %s", path, a.Val)
			case a.Key == "id":
				if ids[a.Val] {
					t.Errorf("%s has two elements %s", path, a.Val)
				}
				ids[a.Val] = true
			}
		}
	}
	for n := range doc.Descendants() {
		for _, a := range n.Attr {
			if a.Key == "for" || a.Key == "aria-describedby" || a.Key == "aria-labelledby" {
				for id := range strings.FieldsSeq(a.Val) {
					if !ids[id] {
						t.Errorf("%s: %s refers to %s, which is not there", path, a.Key, id)
					}
				}
			}
		}
	}
}

// TestLinksLeadSomewhere follows every link of every page.
func TestLinksLeadSomewhere(t *testing.T) {
	b := newBench(t)
	b.fill()
	c := b.as(operations.Admin)
	link := regexp.MustCompile(`href="(/[^"#]*)"`)
	seen := map[string]bool{}
	for _, path := range allPages {
		_, page := c.get(path)
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			target := strings.ReplaceAll(m[1], "&amp;", "&")
			if kind := regexp.MustCompile(`\d{3}`).ReplaceAllString(target, "N"); seen[kind] { // one device stands for all
				continue
			} else {
				seen[kind] = true
			}
			if status, _ := c.get(target); status != 200 {
				t.Errorf("%s: the link %s has status %d", path, target, status)
			}
		}
	}
	if len(seen) < 30 {
		t.Errorf("only %d links were found", len(seen))
	}
}

// TestCampaignWithoutJavaScript clicks a campaign through as a browser without JavaScript.
func TestCampaignWithoutJavaScript(t *testing.T) {
	b := newBench(t)
	b.fill()
	c, boss := b.as(operations.Operator), b.as(operations.Admin)
	images, err := b.service.Images(t.Context(), operations.Caller{Role: operations.Viewer})
	if err != nil {
		t.Fatal(err)
	}
	form := []string{
		"title", "Summer", "id", "summer", "operation", "upgrade", "image", images[0].Digest, "filter", `site == "paris"`, "waves[0].name", "canary", "waves[0].count", "2",
		"waves[0].soak", "30m", "waves[1].percent", "50%", "thresholds[0].failed_percent", "10", "thresholds[0].min_sample", "2", "thresholds[0].action", "stop",
		"windows[0].days", "sat", "windows[0].days", "sun", "windows[0].from", "22:00", "windows[0].to", "04:00", "approval_required", "on",
		"not_before", "2026-03-07T20:00", "options.on_failure", "advice, ask",
	}
	status, page := c.post("/campaigns", append([]string{"do", "count"}, form...)...)
	if status != 200 || !strings.Contains(page, "<strong>20</strong> devices match") || !strings.Contains(page, "waves[2].count") {
		t.Fatalf("count: status %d\n%s", status, page)
	}
	status, page = c.post("/campaigns", replace(append([]string{"do", "save"}, form...), "waves[0].count", "two")...)
	if status != 422 || !strings.Contains(page, `value="Summer"`) || !strings.Contains(page, `id="f-waves-0-count-wrong"`) {
		t.Fatalf("a wrong number: status %d\n%s", status, page)
	}
	status, page = c.post("/campaigns", replace(append([]string{"do", "save"}, form...), "image", "", "windows[0].from", "25:00")...)
	if status != 422 || !strings.Contains(page, `href="#f-image"`) || !strings.Contains(page, `id="f-windows-0-from-wrong"`) {
		t.Fatalf("wrong fields: status %d\n%s", status, page)
	}
	status, page = c.post("/campaigns", append([]string{"do", "save"}, form...)...)
	if status != 200 || !strings.Contains(page, "The draft was created") {
		t.Fatalf("create: status %d\n%s", status, page)
	}
	d, err := b.service.Campaign(t.Context(), operations.Caller{Role: operations.Viewer}, "summer")
	if err != nil {
		t.Fatal(err)
	}
	spec := d.Campaign.Spec
	if len(spec.Waves) != 3 || spec.Waves[0].Count != 2 || time.Duration(spec.Waves[0].Soak) != 30*time.Minute || spec.Waves[1].Percent != 50 || spec.Waves[2].Count != 0 ||
		spec.Thresholds[0].Action != fleet.ActionStop || len(spec.Windows[0].Days) != 2 || !spec.NotBefore.Equal(time.Date(2026, 3, 7, 20, 0, 0, 0, time.UTC)) {
		t.Errorf("specification: %+v", spec)
	}
	// The form of the stored specification stores the same.
	edit := formOf(t, c, "/campaigns/summer/edit")
	if status, page = c.post("/campaigns/summer/edit", edit...); status != 200 {
		t.Fatalf("edit: status %d\n%s", status, page)
	}
	after, err := b.service.Campaign(t.Context(), operations.Caller{Role: operations.Viewer}, "summer")
	if err != nil || after.Digest != d.Digest {
		t.Errorf("an edit that changes nothing changes the specification:\n%+v\n%+v", spec, after.Campaign.Spec)
	}
	status, page = c.post("/campaigns/summer/submit")
	if status != 200 || !strings.Contains(page, "awaiting approval") || !strings.Contains(page, "another person has to approve it") {
		t.Fatalf("submit: status %d\n%s", status, page)
	}
	digest := regexp.MustCompile(`name="digest" value="(\w+)"`)
	_, page = boss.get("/campaigns/summer")
	m := digest.FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("the admin cannot approve:\n%s", page)
	}
	if status, page = boss.post("/campaigns/summer/approve", "digest", strings.Repeat("0", 64)); status != 422 || !strings.Contains(page, "edited in the meantime") {
		t.Errorf("another specification was approved: status %d\n%s", status, page)
	}
	if status, page = boss.post("/campaigns/summer/approve", "digest", m[1], "comment", "good"); status != 200 || !strings.Contains(page, "approved by admin-user") {
		t.Fatalf("approve: status %d\n%s", status, page)
	}
	b.service.Start("summer")
	b.service.Ask("summer", "gw-004", "selfTestFailed", "the self-test failed", fleet.ChoiceRetry, fleet.ChoiceGiveUp)
	_, page = c.get("/questions")
	group := regexp.MustCompile(`action="(/questions/group/\w+)"`).FindAllStringSubmatch(page, -1)
	if len(group) != 3 {
		t.Fatalf("%d groups of questions\n%s", len(group), page)
	}
	if status, page = c.post("/questions/summer/gw-004", "question", "gw-004-0", "choice", "retry"); status != 200 || !strings.Contains(page, "The answer was given") {
		t.Errorf("answer: status %d\n%s", status, page)
	}
	if r := b.service.Run("summer", "gw-004"); r.Answer == nil || r.Answer.Choice != fleet.ChoiceRetry || r.Answer.By != "operator-user" {
		t.Errorf("answer: %+v", r.Answer)
	}
	if status, page = c.post("/questions/summer/gw-004", "question", "gw-004-0", "choice", "retry"); status != 409 {
		t.Errorf("answered twice: status %d\n%s", status, page)
	}
	if status, page = c.post(group[0][1], "choice", "other-image", "image", images[0].Digest); status != 200 || b.service.Run("spring", "gw-021").Answer.Image != images[0].Digest {
		t.Errorf("answer of a group: status %d\n%s", status, page)
	}
	for _, command := range []string{"pause", "resume", "stop"} {
		if status, page = c.post("/campaigns/summer/" + command); status != 200 {
			t.Errorf("%s: status %d\n%s", command, status, page)
		}
	}
	if status, page = c.post("/campaigns/summer/resume"); status != 422 || !strings.Contains(page, "it is stopped") {
		t.Errorf("resumed after the end: status %d\n%s", status, page)
	}
}

// replace returns a form with other values.
func replace(form []string, changes ...string) []string {
	for i := 0; i < len(changes); i += 2 {
		for j := 0; j < len(form); j += 2 {
			if form[j] == changes[i] {
				form[j+1] = changes[i+1]
			}
		}
	}
	return form
}

// formOf returns what a browser sends for the form with the most fields of a page.
func formOf(t *testing.T, c *browser, path string) []string {
	t.Helper()
	_, page := c.get(path)
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	var most []string
	for form := range doc.Descendants() {
		if form.Data != "form" || form.Type != html.ElementNode {
			continue
		}
		var fields []string
		for n := range form.Descendants() {
			attr := func(name string) (string, bool) {
				for _, a := range n.Attr {
					if a.Key == name {
						return a.Val, true
					}
				}
				return "", false
			}
			field, _ := attr("name")
			switch kind, _ := attr("type"); {
			case n.Data == "input" && (kind == "checkbox" || kind == "radio"):
				if _, checked := attr("checked"); !checked {
					continue
				}
				fallthrough
			case n.Data == "input":
				value, _ := attr("value")
				fields = append(fields, field, value)
			case n.Data == "select":
				chosen, any, found := "", false, false
				for o := range n.Descendants() {
					if o.Data != "option" {
						continue
					}
					value := ""
					for _, a := range o.Attr {
						if a.Key == "value" {
							value = a.Val
						}
					}
					if !any {
						chosen, any = value, true // unless another one is selected
					}
					for _, a := range o.Attr {
						if a.Key == "selected" && !found {
							chosen, found = value, true
						}
					}
				}
				fields = append(fields, field, chosen)
			}
		}
		if len(fields) > len(most) {
			most = fields
		}
	}
	return most
}

func TestBackupIsEditedForQuestion(t *testing.T) {
	b := newBench(t)
	b.fill()
	c := b.as(operations.Operator)
	_, page := c.get("/questions/spring/gw-001")
	edit := regexp.MustCompile(`href="(/devices/gw-001/backups/[^"]*/edit\?[^"]*)"`).FindStringSubmatch(page)
	if edit == nil {
		t.Fatalf("there is no link to edit the backup\n%s", page)
	}
	_, page = c.get(strings.ReplaceAll(edit[1], "&amp;", "&"))
	kind := regexp.MustCompile(`href="([^"]*kind=userData[^"]*)"`).FindStringSubmatch(page)
	if kind == nil {
		t.Fatalf("there is no link to the other file\n%s", page)
	}
	address := strings.ReplaceAll(kind[1], "&amp;", "&")
	_, page = c.get(address)
	if !strings.Contains(page, "volume = 4") {
		t.Fatalf("the content is not shown\n%s", page)
	}
	text := "iad-config userData 1\r\nline.1 = +4930123\r\nvolume = 5\r\n"
	_, page = c.post(address, "text", text, "do", "diff")
	if !strings.Contains(page, `class="plus"`) || !strings.Contains(page, "&#43; volume = 5") || !strings.Contains(page, "− volume = 4") {
		t.Errorf("the changes are not shown\n%s", page)
	}
	if status, page := c.post(address, "text", text, "do", "save"); status != 200 || !strings.Contains(page, "The answer was given") {
		t.Fatalf("status %d\n%s", status, page)
	}
	r := b.service.Run("spring", "gw-001")
	if r.Answer == nil || r.Answer.Choice != fleet.ChoiceModify || r.Answer.Backup == "" {
		t.Fatalf("answer %+v", r.Answer)
	}
	content, err := b.service.BackupFile(t.Context(), operations.Caller{Role: operations.Operator}, "gw-001", r.Answer.Backup, "userData")
	if err != nil || string(content) != strings.ReplaceAll(text, "\r\n", "\n") {
		t.Errorf("%q, %v", content, err)
	}
	if status, file := c.get("/devices/gw-001/backups/" + oldBackup + "/file/userData"); status != 200 || !strings.Contains(file, "volume = 3\n") {
		t.Errorf("the backup itself was changed: status %d\n%s", status, file)
	}
}

// TestSeveralFilesAreEdited: one file after the other, and then the question is answered with all edits.
func TestSeveralFilesAreEdited(t *testing.T) {
	b := newBench(t)
	b.fill()
	c := b.as(operations.Operator)
	_, question := c.get("/questions/spring/gw-001")
	edit := regexp.MustCompile(`href="(/devices/gw-001/backups/[^"]*/edit\?[^"]*)"`).FindStringSubmatch(question)
	if edit == nil {
		t.Fatalf("there is no link to edit the backup\n%s", question)
	}
	first := strings.ReplaceAll(edit[1], "&amp;", "&") + "&kind=portData"
	if _, page := c.get(first); !strings.Contains(page, "Store, and edit userData too") {
		t.Fatalf("there is no way to the next file\n%s", page)
	}
	_, page := c.post(first, "text", "ports 2\r\n", "do", "more")
	if !strings.Contains(page, "volume = 4") || !strings.Contains(page, "Store and answer the question") {
		t.Fatalf("the other file is not shown\n%s", page)
	}
	if b.service.Run("spring", "gw-001").Answer != nil {
		t.Error("the question was answered already")
	}
	next := regexp.MustCompile(`href="([^"]*/edit\?kind=portData[^"]*)"`).FindStringSubmatch(page)
	if next == nil || strings.Contains(next[1], newBackup) {
		t.Fatalf("not the edited copy is edited next: %q\n%s", next, page)
	}
	second := strings.Replace(strings.ReplaceAll(next[1], "&amp;", "&"), "portData", "userData", 1)
	_, page = c.get(second)
	unchanged := html.UnescapeString(regexp.MustCompile(`(?s)<textarea[^>]*>\n(.*)</textarea>`).FindStringSubmatch(page)[1])
	if _, page := c.post(second, "text", unchanged, "do", "more"); !strings.Contains(page, "ports 2") || strings.Contains(page, `role="alert"`) {
		t.Fatalf("a file that needs no change stops the edit of the next one\n%s", page)
	}
	if status, page := c.post(second, "text", unchanged, "do", "save"); status != 200 || !strings.Contains(page, "The answer was given") {
		t.Fatalf("status %d\n%s", status, page)
	}
	answer := b.service.Run("spring", "gw-001").Answer
	for kind, want := range map[string]string{"portData": "ports 2\n", "userData": unchanged} {
		content, err := b.service.BackupFile(t.Context(), operations.Caller{Role: operations.Operator}, "gw-001", answer.Backup, kind)
		if err != nil || string(content) != want {
			t.Errorf("%s: %q, %v", kind, content, err)
		}
	}
}

// TestEncryptedBackup: pages tell what is encrypted, and take only encrypted files instead.
func TestEncryptedBackup(t *testing.T) {
	b := newBench(t)
	b.fill()
	id := b.service.AddBackup(fleet.Backup{Device: "gw-001", Good: true, Version: "1.0.0", Format: 1, Time: time.Now()},
		map[string][]byte{"userData": []byte("age-encryption.org/v1\n-> X25519 abc\n"), "portData": {0, 1}})
	c := b.as(operations.Operator)
	if _, text := c.get("/devices/gw-003"); !strings.Contains(text, "<code>age1device</code>") || !strings.Contains(text, "trust document 5") {
		t.Errorf("recipient and trust document are not shown:\n%s", text)
	}
	page := "/devices/gw-001/backups/" + id
	for _, path := range []string{page, page + "?kind=userData", page + "/edit?kind=userData"} {
		if _, text := c.get(path); !strings.Contains(text, "The device has encrypted the file") == strings.Contains(path, "userData") || strings.Contains(text, "X25519") {
			t.Errorf("%s:\n%s", path, text)
		}
	}
	if status, text := c.upload(page+"/upload?kind=userData", "plain", "volume = 5\n", "do", "save"); status != http.StatusUnprocessableEntity || !strings.Contains(text, "must be encrypted") {
		t.Errorf("a plain file: status %d\n%s", status, text)
	}
	if status, text := c.upload(page+"/upload?kind=userData", "", ""); status != http.StatusUnprocessableEntity || !strings.Contains(text, "choose a file") {
		t.Errorf("no file: status %d\n%s", status, text)
	}
	const edited = "age-encryption.org/v1\n-> X25519 def\n"
	if status, text := c.upload(page+"/upload?kind=userData", "edited", edited); status != 200 || !strings.Contains(text, "The edited copy was stored") {
		t.Fatalf("status %d\n%s", status, text)
	}
	list, err := b.service.Backups(t.Context(), operations.Caller{Role: operations.Operator}, "gw-001")
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	i := slices.IndexFunc(list, func(k fleet.Backup) bool { return k.EditOf == id })
	if i < 0 {
		t.Fatalf("%+v", list)
	}
	content, err := b.service.BackupFile(t.Context(), operations.Caller{Role: operations.Operator}, "gw-001", list[i].ID, "userData")
	if err != nil || string(content) != edited {
		t.Errorf("%q, %v", content, err)
	}
}

func TestFilesAreSent(t *testing.T) {
	b := newBench(t)
	c := b.as(operations.Operator)
	if status, page := c.upload("/inventory", "devices.csv", "name,address\nattic,192.0.2.1\n", "dry_run", "on"); status != 200 || !strings.Contains(page, "would add 1 devices") {
		t.Errorf("dry run: status %d\n%s", status, page)
	}
	if status, _ := c.get("/devices/attic"); status != 404 {
		t.Errorf("the dry run added a device (status %d)", status)
	}
	if status, page := c.upload("/inventory", "devices.csv", "name,address\nattic,192.0.2.1\n"); status != 200 || !strings.Contains(page, "The devices were imported") {
		t.Errorf("import: status %d\n%s", status, page)
	}
	if status, page := c.upload("/inventory", "devices.csv", "name,address\n,192.0.2.1\n"); status != 422 || !strings.Contains(page, "line 2") {
		t.Errorf("a wrong file: status %d\n%s", status, page)
	}
	if status, page := c.upload("/inventory", "devices.exe", "MZ"); status != 422 || !strings.Contains(page, ".csv, .json or .toml") {
		t.Errorf("another kind of file: status %d\n%s", status, page)
	}
	if status, page := c.upload("/images", "../../etc/passwd", "image 3.0.0"); status != 200 || !strings.Contains(page, "verified and stored") {
		t.Errorf("image: status %d\n%s", status, page)
	}
	if images, _ := b.service.Images(t.Context(), operations.Caller{Role: operations.Viewer}); len(images) != 1 || images[0].File != "passwd" {
		t.Errorf("images: %+v", images)
	}
	if status, page := c.upload("/images", "x.iad", "nonsense"); status != 422 || !strings.Contains(page, "is not an image") {
		t.Errorf("not an image: status %d\n%s", status, page)
	}
	if status, _ := c.upload("/images", "", ""); status != 422 {
		t.Errorf("no file: status %d", status)
	}
}

func TestDevicesAreChanged(t *testing.T) {
	b := newBench(t)
	c := b.as(operations.Operator)
	if status, page := c.post("/devices", "name", "attic", "address", "bad host!"); status != 422 || !strings.Contains(page, `id="f-address-wrong"`) || !strings.Contains(page, `value="attic"`) {
		t.Errorf("status %d\n%s", status, page)
	}
	if status, page := c.post("/devices", "name", "attic", "address", "192.0.2.1", "tags", "b, a"); status != 200 || !strings.Contains(page, "a, b") {
		t.Errorf("status %d\n%s", status, page)
	}
	if status, page := c.post("/devices", "name", "attic", "address", "192.0.2.2"); status != 422 || !strings.Contains(page, "there is a device with this name") {
		t.Errorf("a second device of the name: status %d\n%s", status, page)
	}
	if status, page := c.post("/devices/attic", "address", "192.0.2.9", "note", "moved"); status != 200 || !strings.Contains(page, "192.0.2.9") {
		t.Errorf("status %d\n%s", status, page)
	}
	if status, _ := c.post("/devices/other", "address", "192.0.2.9"); status != 404 {
		t.Errorf("an unknown device was made: status %d", status)
	}
	if status, page := c.get("/devices?filter=" + url.QueryEscape("site =")); status != 422 || !strings.Contains(page, `id="filter-wrong"`) {
		t.Errorf("a wrong filter: status %d\n%s", status, page)
	}
	if status, _ := c.post("/devices/attic/remove"); status != 200 {
		t.Errorf("status %d", status)
	}
	if status, _ := c.get("/devices/attic"); status != 404 {
		t.Errorf("status %d", status)
	}
}

func TestAccess(t *testing.T) {
	b := newBench(t)
	c := b.as(operations.Admin)
	_, page := c.post("/access/tokens", "token.name", "ci", "token.role", "viewer", "token.days", "30")
	token := regexp.MustCompile(`id="made">(iadms_(\w{16})_[\w-]+)<`).FindStringSubmatch(page)
	if token == nil {
		t.Fatalf("no token\n%s", page)
	}
	by, err := b.access.Token(t.Context(), token[1], "192.0.2.1")
	if err != nil || by.Role != operations.Viewer || by.Name != "admin-user" {
		t.Errorf("%+v, %v", by, err)
	}
	if _, page = c.get("/access"); strings.Contains(page, token[1]) {
		t.Error("the token is shown again")
	}
	// Other tests' tokens are in the list, too.
	revoke := "/access/tokens/" + token[2]
	if !strings.Contains(page, `action="`+revoke+`"`) {
		t.Errorf("the token cannot be revoked\n%s", page)
	}
	if status, _ := c.post(revoke); status != 200 {
		t.Errorf("status %d", status)
	}
	if _, err := b.access.Token(t.Context(), token[1], "192.0.2.1"); err == nil {
		t.Error("a revoked token is accepted")
	}
	if status, page := c.post("/access/users", "user.name", "carol", "user.role", "operator", "user.password", "short"); status != 422 || !strings.Contains(page, "at least 12 characters") || strings.Contains(page, `value="short"`) {
		t.Errorf("status %d\n%s", status, page)
	}
	if status, _ := c.post("/access/users", "user.name", "carol", "user.role", "operator", "user.password", password); status != 200 {
		t.Errorf("status %d", status)
	}
	carol := b.browser()
	if status, page := carol.post("/login", "user", "carol", "password", password); status != 200 || strings.Contains(page, "access/users") {
		t.Errorf("status %d\n%s", status, page)
	}
	if status, page := carol.post("/access/password", "own.present", "wrong", "own.password", "another good one", "own.repeated_password", "another good one"); status != 422 || !strings.Contains(page, "is not the present password") {
		t.Errorf("status %d\n%s", status, page)
	}
	if _, page := carol.post("/access/password", "own.present", password, "own.password", "another good one", "own.repeated_password", "another good one"); !strings.Contains(page, "Sign in") {
		t.Errorf("the session did not end\n%s", page)
	}
	if status, _ := c.post("/access/users/carol"); status != 200 {
		t.Errorf("status %d", status)
	}
	if _, page := carol.post("/login", "user", "carol", "password", "another good one"); !strings.Contains(page, "is wrong") {
		t.Errorf("a removed user logged in\n%s", page)
	}
}

// TestDamage: the overview leads to what is damaged, and only an admin can remove it.
func TestDamage(t *testing.T) {
	b := newBench(t)
	b.fill()
	if _, page := b.as(operations.Viewer).get("/"); !strings.Contains(page, `<a href="/damage">2 stored objects are damaged</a>`) {
		t.Errorf("the overview:\n%s", page)
	}
	form := []string{"place", "run", "key", "spring.gw-059", "revision", "7"}
	operator, admin := b.as(operations.Operator), b.as(operations.Admin)
	if _, page := operator.get("/damage"); strings.Contains(page, "/damage/remove") {
		t.Error("an operator is offered to remove it")
	}
	if status, _ := operator.post("/damage/remove", form...); status != 403 {
		t.Errorf("an operator: status %d", status)
	}
	if _, page := admin.get("/damage"); strings.Count(page, "/damage/remove") != 1 {
		t.Errorf("the page:\n%s", page)
	}
	if status, page := admin.post("/damage/remove", form...); status != 200 || !strings.Contains(page, "Removed.") || strings.Contains(page, "/damage/remove") {
		t.Errorf("status %d\n%s", status, page)
	}
	if status, _ := admin.post("/damage/remove", form...); status != 404 {
		t.Errorf("removed twice: status %d", status)
	}
}

// TestRowsOfLists: a specification with more thresholds and windows than an empty form has
// rows for keeps them when it is edited, and problems are shown in their rows.
func TestRowsOfLists(t *testing.T) {
	b := newBench(t)
	b.fill()
	c := b.as(operations.Operator)
	spec := fleet.CampaignSpec{Title: "Many", Operation: fleet.OperationBackup, Filter: "true"}
	for i := range 4 {
		spec.Thresholds = append(spec.Thresholds, fleet.Threshold{Failed: i + 1})
		spec.Windows = append(spec.Windows, fleet.Window{From: "22:00", To: fmt.Sprintf("0%d:00", i)})
	}
	by := operations.Caller{Name: "operator-user", Role: operations.Operator}
	if _, err := b.service.CreateCampaign(t.Context(), by, "many", spec); err != nil {
		t.Fatal(err)
	}
	before, err := b.service.Campaign(t.Context(), by, "many")
	if err != nil {
		t.Fatal(err)
	}
	form := formOf(t, c, "/campaigns/many/edit")
	if status, page := c.post("/campaigns/many/edit", form...); status != 200 {
		t.Fatalf("status %d\n%s", status, page)
	}
	if after, err := b.service.Campaign(t.Context(), by, "many"); err != nil || after.Digest != before.Digest {
		t.Errorf("an edit that changes nothing changes the specification: %+v, %v", after.Campaign.Spec, err)
	}
	wrong := replace(form, "windows[0].from", "", "windows[0].to", "", "windows[2].from", "25:00")
	if status, page := c.post("/campaigns/many/edit", wrong...); status != 422 || !strings.Contains(page, `id="f-windows-2-from-wrong"`) || strings.Contains(page, `id="f-windows-1-from-wrong"`) {
		t.Errorf("status %d\n%s", status, page)
	}
}

// TestDiscover looks for devices, and adds what is found.
func TestDiscover(t *testing.T) {
	b := newBench(t)
	c := b.as(operations.Operator)
	if status, page := c.get("/discover"); status != 200 || strings.Contains(page, "addresses were asked") {
		t.Fatalf("status %d\n%s", status, page)
	}
	if status, page := c.post("/discover", "range", "no range!"); status != 422 || !strings.Contains(page, "must be an address") {
		t.Errorf("status %d\n%s", status, page)
	}
	if status, page := c.post("/discover", "range", "192.0.2.77", "port", "x"); status != 422 || !strings.Contains(page, "from 1 to 65535") {
		t.Errorf("status %d\n%s", status, page)
	}
	if status, page := c.post("/discover", "range", "192.0.2.77", "tags", "a, b"); status != 200 || !strings.Contains(page, "1 addresses were asked, 1 devices answered, 0 were added") ||
		!strings.Contains(page, `value="192.0.2.77"`) {
		t.Errorf("status %d\n%s", status, page)
	}
	if status, _ := c.get("/devices/192.0.2.77"); status != 404 {
		t.Errorf("looking has added a device: status %d", status)
	}
	if status, page := c.post("/discover", "range", "192.0.2.77", "tags", "a, b", "add", "yes"); status != 200 || !strings.Contains(page, "1 were added") {
		t.Errorf("status %d\n%s", status, page)
	}
	if status, page := c.get("/devices/192.0.2.77"); status != 200 || !strings.Contains(page, "a, b") {
		t.Errorf("status %d\n%s", status, page)
	}
	if status, _ := b.as(operations.Viewer).post("/discover", "range", "192.0.2.78"); status != 403 {
		t.Errorf("a viewer: status %d", status)
	}
}

package ui_test

import (
	"strings"
	"testing"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

// TestChangesOfAccess: an admin makes a campaign that changes passphrases and one that undoes it;
// an operator is not offered that. The page of a device says what is kept.
func TestChangesOfAccess(t *testing.T) {
	b := newBench(t)
	b.fill()
	admin, operator := b.as(operations.Admin), b.as(operations.Operator)
	if _, page := operator.get("/campaigns/new"); strings.Contains(page, "rotate-credentials") || !strings.Contains(page, "move-targets") {
		t.Error("the form offers an operator what only admins may do, or not what operators may do")
	}
	form := formOf(t, admin, "/campaigns/new")
	set := func(values ...string) []string {
		out := append([]string{}, form...)
		for i := 0; i < len(values); i += 2 {
			for k := 0; k < len(out); k += 2 {
				if out[k] == values[i] {
					out = append(out[:k], out[k+2:]...)
					k -= 2
				}
			}
			out = append(out, values[i], values[i+1])
		}
		return out
	}
	rotation := set("title", "Passphrases", "id", "passphrases", "operation", "rotate-credentials", "renew", "default", "filter", "true")
	if status, _ := operator.post("/campaigns", rotation...); status != 403 {
		t.Errorf("an operator: status %d", status)
	}
	if status, page := admin.post("/campaigns", rotation...); status != 200 || !strings.Contains(page, "passphrases") {
		t.Fatalf("status %d\n%s", status, page)
	}
	by := operations.Caller{Name: "x", Role: operations.Viewer}
	d, err := b.service.Campaign(t.Context(), by, "passphrases")
	if err != nil || d.Campaign.Spec.Operation != fleet.OperationRotate || d.Campaign.Spec.Renew != "default" || len(d.Campaign.Spec.Waves) == 0 {
		t.Fatalf("%+v, %v", d, err)
	}
	if status, page := admin.post("/campaigns/passphrases/edit", formOf(t, admin, "/campaigns/passphrases/edit")...); status != 200 {
		t.Errorf("edit: status %d\n%s", status, page)
	}
	b.service.SetCampaign("passphrases", func(c *fleet.Campaign) { c.State = fleet.CampaignDone })
	if _, page := operator.get("/campaigns/passphrases"); strings.Contains(page, "/passphrases/undo") {
		t.Error("the page offers an operator to undo it")
	}
	if _, page := admin.get("/campaigns/passphrases"); !strings.Contains(page, "/passphrases/undo") || !strings.Contains(page, "random passphrases") {
		t.Error("the page does not offer an admin to undo it")
	}
	if status, page := admin.post("/campaigns/passphrases/undo"); status != 200 || !strings.Contains(page, "Undo Passphrases") || !strings.Contains(page, `<dt>Undoes</dt>`) {
		t.Errorf("undo: status %d\n%s", status, page)
	}
	if status, _ := admin.post("/campaigns/spring/undo"); status != 404 {
		t.Errorf("an upgrade is undone: status %d", status)
	}

	wrong := set("title", "Move", "operation", "move-targets", "filter", "true", "targets.from", "192.0.2.1:162", "targets.to", "somewhere")
	if status, page := operator.post("/campaigns", wrong...); status != 422 || !strings.Contains(page, "must be an IP address and a port") {
		t.Errorf("status %d\n%s", status, page)
	}
	move := set("title", "Move", "id", "move", "operation", "move-targets", "filter", "true", "targets.from", "192.0.2.1:162, [2001:db8::1]:162", "targets.to", "192.0.2.2:162")
	if status, page := operator.post("/campaigns", move...); status != 200 || !strings.Contains(page, "[2001:db8::1]:162 → 192.0.2.2:162") {
		t.Errorf("status %d\n%s", status, page)
	}

	entry := fleet.Device{Name: "changed", Address: "192.0.2.9", Credentials: "passphrases", PreviousCredentials: []string{"default"}, Rotating: "passphrases"}
	entry.Contact.Credentials = "default"
	entry.Facts = &fleet.Facts{Version: "1.0.0"}
	b.service.Add(entry)
	if _, page := operator.get("/devices/changed"); !strings.Contains(page, "Previous credentials kept</dt><dd>default") || !strings.Contains(page, "has begun to change them") || !strings.Contains(page, "change its passphrases again") {
		t.Errorf("%s", page)
	}
}

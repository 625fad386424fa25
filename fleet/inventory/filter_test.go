package inventory_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Masterminds/semver/v3"
	"pgregory.net/rapid"

	"example.com/iad/fleet"
	"example.com/iad/fleet/inventory"
	"example.com/iad/manager/device"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func attic() *fleet.Device {
	return &fleet.Device{
		Name: "attic", Address: "192.0.2.10:161", Site: "north", Tags: []string{"pilot", "voip"}, Note: "3rd floor",
		Identity: &device.Identity{Device: "IAD-0001"}, Facts: &fleet.Facts{Model: "IAD-4FXS", Hardware: "rev2", Version: "2.0.0-rc.2", ConfigFormat: 2, Generation: 7},
		Contact: fleet.Contact{Time: now.Add(-2 * time.Hour)}, LastCampaign: "spring", LastOutcome: fleet.RunSucceeded,
	}
}

func TestFilter(t *testing.T) {
	for text, want := range map[string]bool{
		`true`: true, `false`: false, `name == "attic"`: true, `name != "attic"`: false, `NOT_A_FIELD == "x" or true`: false,
		`site == "north" and version < "2.0.0"`: true, `version >= "2.0.0-rc.10"`: false, `version > "2.0.0-rc.1"`: true,
		`version == "2.0.0-rc.2"`: true, `"pilot" in tags`: true, `"pilot2" in tags`: false, `not ("pilot" in tags)`: false, `"pilot" not in tags`: false,
		`site in ["south", "north"]`: true, `site not in ["south"]`: true, `address startsWith "192.0.2."`: true, `address endsWith ":161"`: true, `note contains "floor"`: true,
		`format == 2 && generation > 0`: true, `generation >= 8`: false, `known`: true, `reachable`: true, `reachable == false`: false, `reachable != false`: true,
		`silent > "1h"`: true, `silent >= "3h"`: false, `silent < "2h1m"`: true, `busy or last_outcome == "succeeded"`: true, `pool == "default"`: true,
		`credentials == "default" && device_id startsWith "IAD-"`: true, `!(model == "x" || hardware == "rev2")`: false, `last_campaign == "spring"`: true,
	} {
		f, err := inventory.Compile(text)
		if err != nil {
			if !strings.Contains(text, "NOT_A_FIELD") {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if got := f.Match(attic(), now); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	// A device that never answered is silent for longer than any time.
	f, err := inventory.Compile(`silent > "87600h" and not known and not reachable and version == "" and version < "0.0.1"`)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Match(&fleet.Device{Name: "new"}, now) {
		t.Error("a new device is not silent")
	}
}

// Every mistake is explained, with its column.
func TestFilterMistakes(t *testing.T) {
	for text, want := range map[string]string{
		``:                            `"true" selects all`,
		`name = "x"`:                  "column 6",
		`nmae == "x"`:                 "column 1: unknown field \"nmae\" (want name, address, site",
		`site == "a" and nmae == "x"`: "column 17: unknown field",
		`name`:                        "compare name with a value",
		`name == 3`:                   "name is a text: put it in quotation marks",
		`name == attic`:               "put it in quotation marks",
		`name < "b"`:                  "name has no order",
		`format == "2"`:               "format is a number",
		`silent > 36`:                 `such as "36h"`,
		`silent > "soon"`:             `such as "36h"`,
		`silent contains "h"`:         "compared with ==",
		`tags == "pilot"`:             `"TAG" in tags`,
		`pilot in tags`:               "a tag is a text",
		`"a" in site`:                 "in requires tags",
		`site in []`:                  "in requires a list",
		`site in ["a", 2]`:            "put it in quotation marks",
		`reachable == 1`:              "stands alone",
		`"a" == name`:                 "must be the name of a field",
		`len(name) > 3`:               "must be the name of a field",
		`name matches "a.*"`:          "contains",
		`filter(tags, true)`:          "not a comparison",
		`1 + 2`:                       "must be the name of a field",
		`nil`:                         "not a comparison",
		`name == "a" ? true : false`:  "not a comparison",
		strings.Repeat("(", 5000):     "longer than",
	} {
		if _, err := inventory.Compile(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
	}
	if err := inventory.Check("waves[1].filter", "x"); err == nil || fleet.FieldErrors(err)[0].Field != "waves[1].filter" {
		t.Errorf("the field of the mistake is missing: %v", err)
	}
}

func FuzzFilter(f *testing.F) {
	for _, text := range []string{`site == "north" and version < "2.0.0" or not ("a" in tags)`, `silent > "1h"`, `((((`, `a?.b[1:2]`, "\xff", `{x: 1}`, `name in ["\u00e4"]`, strings.Repeat("not ", 900) + "known"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if filter, err := inventory.Compile(text); err == nil {
			filter.Match(attic(), now)
			filter.Match(&fleet.Device{}, now)
		}
	})
}

// Keys have semver's order.
func TestVersionKeys(t *testing.T) {
	identifier := rapid.SampledFrom([]string{"0", "1", "9", "10", "123456789012345678901", "a", "a-", "a0", "alpha", "rc", "rc1", "rc10", "-", "Z"})
	version := rapid.Custom(func(t *rapid.T) string {
		text := fmt.Sprintf("%d.%d.%d", rapid.Uint64Range(0, 11).Draw(t, "major"), rapid.SampledFrom([]uint64{0, 9, 10, 1 << 63}).Draw(t, "minor"), rapid.Uint64Range(0, 1).Draw(t, "patch"))
		if pre := rapid.SliceOfN(identifier, 0, 3).Draw(t, "pre"); len(pre) > 0 {
			text += "-" + strings.Join(pre, ".")
		}
		return text
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := version.Draw(t, "a"), version.Draw(t, "b")
		va, errA := semver.StrictNewVersion(a)
		vb, errB := semver.StrictNewVersion(b)
		if errA != nil || errB != nil {
			t.Skip("not versions")
		}
		if got, want := cmp.Compare(inventory.VersionKey(a), inventory.VersionKey(b)), va.Compare(vb); got != want {
			t.Fatalf("%s and %s: order %d, want %d", a, b, got, want)
		}
	})
	order := []string{"", "1.2", "rescue", "0.0.1", "1.0.0-rc.2", "1.0.0-rc.10", "1.0.0", "1.10.0"}
	shuffled := slices.Clone(order)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	slices.SortFunc(shuffled, func(a, b string) int { return cmp.Compare(inventory.VersionKey(a), inventory.VersionKey(b)) })
	if !slices.Equal(shuffled, order) {
		t.Errorf("sorted %q, want %q", shuffled, order)
	}
}

// Every field is in the documentation.
func TestFieldsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/campaigns.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range inventory.Fields() {
		if row := fmt.Sprintf("| `%s` | %s | %s |\n", f.Name, f.Kind, f.Meaning); !strings.Contains(string(text), row) {
			t.Errorf("docs/campaigns.md lacks %s", row)
		}
	}
}

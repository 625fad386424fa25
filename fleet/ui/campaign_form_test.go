package ui

import (
	"net/url"
	"reflect"
	"testing"

	"example.com/iad/fleet"
)

// FuzzCampaignForm: whatever a browser sends is read or refused, and the form of what was
// read is read as the same. Only from inside is there a form without a service.
func FuzzCampaignForm(f *testing.F) {
	f.Add(defaults().Encode() + "&title=Spring&filter=true&image=" + digest)
	f.Add("title=t&operation=backup&filter=true&waves[3].count=2&waves[3].hold=on&waves[99].percent=1e3%25&windows[1].days=mon&windows[1].days=sun&windows[1].from=22:00&windows[1].to=04:00")
	f.Add("title=t&operation=recover&filter=x&not_before=2026-01-31T22:00:07&deadline=2026-02-01 22:00&reserve=1h30m&retry.pause=1m&thresholds[4].failed_percent=NaN&caps.bytes_per_second=9")
	f.Add("waves[-1].count=1&waves[9999999999999999999].count=1&waves[].count=&options.on_failure=,,advice,&priority=x")
	f.Fuzz(func(t *testing.T, text string) {
		values, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		for _, list := range []string{"waves", "thresholds", "windows"} {
			if n := rowsFor(values, list, 2); n < 2 || n > maxRows {
				t.Fatalf("%d rows for %s", n, list)
			}
		}
		spec, rows, err := specOf(values)
		if err != nil {
			if len(fleet.FieldErrors(err)) == 0 {
				t.Fatalf("not about a field: %v", err)
			}
			return
		}
		if err := spec.Validate(); err != nil {
			rows.inForm(fleet.FieldErrors(err))
			return
		}
		again, _, err := specOf(valuesOf(&spec))
		if err != nil || !reflect.DeepEqual(spec, again) {
			t.Fatalf("%v\n%+v became\n%+v", err, spec, again)
		}
	})
}

const digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// TestProblemsAreInTheirRows: empty rows between others do not move problems.
func TestProblemsAreInTheirRows(t *testing.T) {
	values := url.Values{
		"title": {"t"}, "operation": {"backup"}, "filter": {"true"},
		"waves[1].count": {"2"}, "waves[4].count": {"-1"}, "windows[1].from": {"25:00"}, "windows[1].to": {"04:00"}, "thresholds[1].min_sample": {"5"},
	}
	spec, rows, err := specOf(values)
	if err != nil {
		t.Fatal(err)
	}
	problems := map[string]bool{}
	for _, p := range rows.inForm(fleet.FieldErrors(spec.Validate())) {
		problems[p.Field] = true
	}
	for _, field := range []string{"waves[4].count", "windows[1].from"} {
		if !problems[field] {
			t.Errorf("no problem of %s in %v", field, problems)
		}
	}
	for field := range problems {
		if field[:1] == "w" && field != "waves[4].count" && field != "windows[1].from" {
			t.Errorf("a problem of %s", field)
		}
	}
}

package ui

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"example.com/iad/fleet"
)

// The names of a form's fields are those of the specification's JSON, so that an error
// that names a field is shown beside it.

// moment is the format of times in forms, in UTC.
const moment = "2006-01-02T15:04"

// defaults are the values of a new campaign: a canary, then the rest, and a safety stop.
func defaults() url.Values {
	return url.Values{
		"operation": {string(fleet.OperationUpgrade)}, "waves[0].name": {"canary"}, "waves[0].count": {"5"}, "waves[0].soak": {"1h"},
		"waves[1].percent": {"20"}, "thresholds[0].failed_percent": {"10"}, "thresholds[0].min_sample": {"5"}, "options.on_failure": {"advice, ask"},
		"approval_required": {"on"},
	}
}

// rowsFor is the number of rows for a list in a form: one more than are filled in, and at
// least so many.
func rowsFor(v url.Values, list string, least int) int {
	n := 0
	for name, values := range v {
		rest, ok := strings.CutPrefix(name, list+"[")
		number, _, closed := strings.Cut(rest, "].")
		i, err := strconv.Atoi(number)
		if ok && closed && err == nil && strings.Join(values, "") != "" && i >= 0 && i < maxRows {
			n = max(n, i+1)
		}
	}
	return min(max(n+1, least), maxRows)
}

// valuesOf is the form of a specification.
func valuesOf(s *fleet.CampaignSpec) url.Values {
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	number := func(name string, n float64) {
		if n != 0 {
			v.Set(name, strconv.FormatFloat(n, 'g', -1, 64))
		}
	}
	duration := func(name string, d fleet.Duration) {
		if d != 0 {
			v.Set(name, durationText(d))
		}
	}
	flag := func(name string, on bool) {
		if on {
			v.Set(name, "on")
		}
	}
	at := func(name string, t time.Time) {
		if !t.IsZero() {
			layout := moment
			if t.Second() != 0 {
				layout += ":05"
			}
			v.Set(name, t.UTC().Format(layout))
		}
	}
	set("title", s.Title)
	set("operation", string(s.Operation))
	set("filter", s.Filter)
	set("image", s.Image)
	set("renew", s.Renew)
	if s.Renew == "" { // else the service names them
		set("credentials", s.Credentials)
	}
	set("back", s.Back)
	if s.Targets != nil {
		set("targets.from", strings.Join(s.Targets.From, ", "))
		set("targets.to", s.Targets.To)
	}
	o := &s.Options
	set("options.on_failure", strings.Join(o.OnFailure, ", "))
	number("options.retries", float64(o.Retries))
	number("options.device_retries", float64(o.DeviceRetries))
	set("options.protocol", o.Protocol)
	flag("options.skip_backup", o.SkipBackup)
	flag("options.force", o.Force)
	flag("options.allow_downgrade", o.AllowDowngrade)
	flag("options.other_device", o.OtherDevice)
	set("options.verify_with", o.VerifyWith)
	set("options.convert_with", o.ConvertWith)
	duration("options.backup_limit", o.BackupLimit)
	duration("options.update_limit", o.UpdateLimit)
	duration("options.restore_limit", o.RestoreLimit)
	duration("options.recover_limit", o.RecoverLimit)
	for i, w := range s.Waves {
		wave := fmt.Sprintf("waves[%d].", i)
		set(wave+"name", w.Name)
		number(wave+"count", float64(w.Count))
		number(wave+"percent", w.Percent)
		set(wave+"filter", w.Filter)
		duration(wave+"soak", w.Soak)
		flag(wave+"hold", w.Hold)
		number(wave+"min_success", w.MinSuccess)
	}
	for i, t := range s.Thresholds {
		threshold := fmt.Sprintf("thresholds[%d].", i)
		number(threshold+"failed", float64(t.Failed))
		number(threshold+"failed_percent", t.FailedPercent)
		number(threshold+"min_sample", float64(t.MinSample))
		number(threshold+"waiting", float64(t.Waiting))
		set(threshold+"scope", string(t.Scope))
		set(threshold+"action", string(t.Action))
	}
	for i, w := range s.Windows {
		window := fmt.Sprintf("windows[%d].", i)
		v[window+"days"] = w.Days
		set(window+"from", w.From)
		set(window+"to", w.To)
	}
	duration("reserve", s.Reserve)
	set("time_zone", s.TimeZone)
	at("not_before", s.NotBefore)
	at("deadline", s.Deadline)
	number("caps.parallel", float64(s.Caps.Parallel))
	number("caps.parallel_per_site", float64(s.Caps.ParallelPerSite))
	number("caps.parallel_per_pool", float64(s.Caps.ParallelPerPool))
	number("caps.bytes_per_second", float64(s.Caps.BytesPerSecond))
	number("retry.attempts", float64(s.Retry.Attempts))
	duration("retry.offline", s.Retry.Offline)
	duration("retry.pause", s.Retry.Pause)
	duration("retry.max_pause", s.Retry.MaxPause)
	flag("approval_required", s.ApprovalRequired)
	number("priority", float64(s.Priority))
	return v
}

// reader reads a form and collects what is wrong with it.
type reader struct {
	values   url.Values
	filled   filledRows
	problems []error
}

func (r *reader) text(name string) string { return strings.TrimSpace(r.values.Get(name)) }
func (r *reader) flag(name string) bool   { return r.values.Get(name) != "" }

func (r *reader) problem(name, text string) {
	r.problems = append(r.problems, &fleet.FieldError{Field: name, Problem: text})
}

func (r *reader) count(name string) int {
	text := r.text(name)
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		r.problem(name, "must be a whole number")
	}
	return n
}

func (r *reader) number(name string) float64 {
	text := strings.TrimSpace(strings.TrimSuffix(r.text(name), "%"))
	if text == "" {
		return 0
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n != n || n-n != 0 { // neither NaN nor infinite
		r.problem(name, "must be a number")
		return 0
	}
	return n
}

func (r *reader) duration(name string) (d fleet.Duration) {
	text := strings.ReplaceAll(r.text(name), " ", "")
	if text == "" {
		return 0
	}
	if err := d.UnmarshalText([]byte(text)); err != nil {
		r.problem(name, "must be a duration such as 30m or 1h30m")
	}
	return d
}

func (r *reader) moment(name string) time.Time {
	text := r.text(name)
	if text == "" {
		return time.Time{}
	}
	for _, layout := range []string{moment, "2006-01-02T15:04:05", "2006-01-02 15:04"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t
		}
	}
	r.problem(name, "must be a date and time such as 2026-01-31 22:00, in UTC")
	return time.Time{}
}

// maxRows is the maximum number of rows of a list in a form.
const maxRows = 100

// rows calls read with the prefix of each row of a list of which a field is filled in.
// Rows without are left out.
func (r *reader) rows(list string, fields []string, read func(prefix string)) {
	for i := range maxRows {
		prefix := fmt.Sprintf("%s[%d].", list, i)
		for _, f := range fields {
			if r.text(prefix+f) != "" {
				r.filled[list] = append(r.filled[list], i)
				read(prefix)
				break
			}
		}
	}
}

// filledRows are the numbers of the rows of a form that make the elements of each list.
type filledRows map[string][]int

// inForm names the fields of problems as the form does, which may have empty rows between
// others. What is added to a list is in the row after the last one.
func (f filledRows) inForm(problems []*fleet.FieldError) []*fleet.FieldError {
	out := make([]*fleet.FieldError, len(problems))
	for i, p := range problems {
		out[i] = p
		list, rest, ok := strings.Cut(p.Field, "[")
		number, field, closed := strings.Cut(rest, "]")
		n, err := strconv.Atoi(number)
		rows := f[list]
		if !ok || !closed || err != nil || n < 0 || len(rows) == 0 {
			continue
		}
		row := rows[len(rows)-1] + 1
		if n < len(rows) {
			row = rows[n]
		}
		out[i] = &fleet.FieldError{Field: fmt.Sprintf("%s[%d]%s", list, row, field), Problem: p.Problem}
	}
	return out
}

// specOf reads the form of a specification. The fields in its error are those of the form.
func specOf(values url.Values) (fleet.CampaignSpec, filledRows, error) {
	r := &reader{values: values, filled: make(filledRows)}
	s := fleet.CampaignSpec{
		Title: r.text("title"), Operation: fleet.OperationKind(r.text("operation")), Filter: r.text("filter"), Image: r.text("image"),
		Options: fleet.RunOptions{
			Retries: r.count("options.retries"), DeviceRetries: r.count("options.device_retries"), Protocol: r.text("options.protocol"),
			SkipBackup: r.flag("options.skip_backup"), Force: r.flag("options.force"), AllowDowngrade: r.flag("options.allow_downgrade"),
			OtherDevice: r.flag("options.other_device"), VerifyWith: r.text("options.verify_with"), ConvertWith: r.text("options.convert_with"),
			BackupLimit: r.duration("options.backup_limit"), UpdateLimit: r.duration("options.update_limit"),
			RestoreLimit: r.duration("options.restore_limit"), RecoverLimit: r.duration("options.recover_limit"),
		},
		Reserve: r.duration("reserve"), TimeZone: r.text("time_zone"), NotBefore: r.moment("not_before"), Deadline: r.moment("deadline"),
		Caps: fleet.Caps{
			Parallel: r.count("caps.parallel"), ParallelPerSite: r.count("caps.parallel_per_site"), ParallelPerPool: r.count("caps.parallel_per_pool"),
			BytesPerSecond: int64(r.count("caps.bytes_per_second")),
		},
		Retry: fleet.RetryRule{
			Attempts: r.count("retry.attempts"), Offline: r.duration("retry.offline"), Pause: r.duration("retry.pause"), MaxPause: r.duration("retry.max_pause"),
		},
		ApprovalRequired: r.flag("approval_required"), Priority: r.count("priority"),
	}
	for policy := range strings.SplitSeq(r.text("options.on_failure"), ",") {
		if policy = strings.TrimSpace(policy); policy != "" {
			s.Options.OnFailure = append(s.Options.OnFailure, policy)
		}
	}
	// The fields for other operations are there without JavaScript, too.
	switch s.Operation {
	case fleet.OperationBackup, fleet.OperationRecover:
		s.Image = ""
	case fleet.OperationRotate, fleet.OperationMove:
		s.Image, s.Options, s.Back = "", fleet.RunOptions{OtherDevice: s.Options.OtherDevice}, r.text("back")
	}
	if s.Operation == fleet.OperationRotate {
		s.Credentials, s.Renew = r.text("credentials"), r.text("renew")
	}
	if s.Operation == fleet.OperationMove && s.Back == "" {
		s.Targets = &fleet.TargetMove{To: r.text("targets.to")}
		for address := range strings.SplitSeq(r.text("targets.from"), ",") {
			if address = strings.TrimSpace(address); address != "" {
				s.Targets.From = append(s.Targets.From, address)
			}
		}
	}
	r.rows("waves", []string{"name", "count", "percent", "filter", "soak", "hold", "min_success"}, func(p string) {
		s.Waves = append(s.Waves, fleet.Wave{
			Name: r.text(p + "name"), Count: r.count(p + "count"), Percent: r.number(p + "percent"), Filter: r.text(p + "filter"),
			Soak: r.duration(p + "soak"), Hold: r.flag(p + "hold"), MinSuccess: r.number(p + "min_success"),
		})
	})
	// The last wave has all devices that are left; the form need not have a row for it.
	if n := len(s.Waves); n > 0 && (s.Waves[n-1].Count != 0 || s.Waves[n-1].Percent != 0 || s.Waves[n-1].Filter != "") {
		s.Waves = append(s.Waves, fleet.Wave{})
	}
	r.rows("thresholds", []string{"failed", "failed_percent", "min_sample", "waiting"}, func(p string) {
		s.Thresholds = append(s.Thresholds, fleet.Threshold{
			Failed: r.count(p + "failed"), FailedPercent: r.number(p + "failed_percent"), MinSample: r.count(p + "min_sample"), Waiting: r.count(p + "waiting"),
			Scope: fleet.Scope(r.text(p + "scope")), Action: fleet.Action(r.text(p + "action")),
		})
	})
	r.rows("windows", []string{"days", "from", "to"}, func(p string) {
		s.Windows = append(s.Windows, fleet.Window{Days: values[p+"days"], From: r.text(p + "from"), To: r.text(p + "to")})
	})
	return s, r.filled, errors.Join(r.problems...)
}

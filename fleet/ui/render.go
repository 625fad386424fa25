package ui

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

//go:embed templates
var templates embed.FS

// view is what every template gets.
type view struct {
	Title   string
	Path    string // of the request
	Caller  operations.Caller
	Version string
	// Done says what was done; empty: nothing.
	Done string
	// Problems are those of the fields of a form.
	Problems []*fleet.FieldError
	// Values are those of a form.
	Values url.Values
	Data   any
}

// doneTexts say what was done, by the name in the address.
var doneTexts = map[string]string{
	"saved": "Saved.", "removed": "Removed.", "imported": "The devices were imported.", "created": "The draft was created. Submit it to start the campaign.",
	"edited": "The campaign was changed. It is a draft again.", "submitted": "The campaign was submitted.", "approved": "The campaign was approved.",
	"paused": "The campaign was paused. Devices in progress are finished.", "resumed": "The campaign continues.", "stopped": "The campaign was stopped. Devices in progress are finished.",
	"answered": "The answer was given.", "backup": "The edited copy was stored.", "pinned": "The backup is kept for ever.", "unpinned": "The backup is kept as long as the retention says.",
	"drained": "The worker takes no further runs.", "undrained": "The worker takes runs again.", "revoked": "The token was revoked.", "image": "The image was verified and stored.",
}

// May reports whether the user may carry out an action.
func (v view) May(a operations.Action) bool { return v.Caller.Role.May(a) }

// V is the value of a field of a form.
func (v view) V(format string, args ...any) string { return v.Values.Get(fmt.Sprintf(format, args...)) }

// On reports whether a field of a form has a value.
func (v view) On(name, value string) bool { return slices.Contains(v.Values[name], value) }

// Problem is what is wrong with a field; empty: nothing.
func (v view) Problem(format string, args ...any) string {
	name := fmt.Sprintf(format, args...)
	for _, p := range v.Problems {
		if p.Field == name {
			return p.Problem
		}
	}
	return ""
}

// Here reports whether the page is one of a section.
func (v view) Here(section string) bool {
	return v.Path == section || section != "/" && strings.HasPrefix(v.Path, section+"/")
}

// Live is the address of events for the page.
func (v view) Live() string {
	if id, ok := strings.CutPrefix(v.Path, "/campaigns/"); ok && fleet.CheckID(id) == nil && id != "new" {
		return "/events?campaign=" + url.QueryEscape(id)
	}
	return "/events"
}

var sets = parseTemplates()

// parseTemplates parses every page together with the layout and the parts that pages
// share.
func parseTemplates() map[string]*template.Template {
	layout := template.Must(template.New("layout.html").Funcs(funcs).ParseFS(templates, "templates/layout.html", "templates/parts.html"))
	names, err := fs.Glob(templates, "templates/*.html")
	if err != nil {
		panic(err) // the pattern is right
	}
	sets := make(map[string]*template.Template)
	for _, name := range names {
		base := strings.TrimSuffix(path.Base(name), ".html")
		if base != "layout" && base != "parts" {
			sets[base] = template.Must(template.Must(layout.Clone()).ParseFS(templates, name))
		}
	}
	return sets
}

var funcs = template.FuncMap{
	"t":        visible,
	"time":     timeText,
	"ago":      func(t time.Time) string { return agoText(time.Since(t)) },
	"stamp":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"duration": durationText,
	"size":     sizeText,
	"join":     strings.Join,
	"short":    func(s string) string { return s[:min(12, len(s))] },
	"percent":  func(n, of int) string { return fmt.Sprintf("%.4g", 100*float64(n)/float64(max(of, 1))) },
	"add":      func(a, b int) int { return a + b },
	"words":    words,
	"choice":   choiceText,
	"bar":      barOf,
	"device":   func(name string) string { return "/devices/" + url.PathEscape(name) },
	"list":     func(items ...string) []string { return items },
	"json":     indented,
	"nav":      func(v view, path, text string) navLink { return navLink{path, text, v.Here(path)} },
	"answers": func(id string, choices []fleet.Choice, images []fleet.Image) answers {
		return answers{id, choices, images}
	},
	"field": func(v view, name, label string, more ...string) input { return inputOf(v, name, label, more) },
}

// navLink is a link to a section.
type navLink struct {
	Path, Text string
	Here       bool
}

// answers are the possible answers to a question. ID distinguishes forms on one page.
type answers struct {
	ID      string
	Choices []fleet.Choice
	Images  []fleet.Image
}

// indented formats JSON for people.
func indented(text json.RawMessage) string {
	var b bytes.Buffer
	if json.Indent(&b, text, "", "  ") != nil {
		return string(text)
	}
	return b.String()
}

// input is a field of a form with its label.
type input struct {
	Name, Label, Value, Problem, Hint, Type string
	Required                                bool
	ID                                      string
}

// inputOf makes an input. more are its hint, its type (text if empty) and "required".
func inputOf(v view, name, label string, more []string) input {
	i := input{Name: name, Label: label, Value: v.V("%s", name), Problem: v.Problem("%s", name), Type: "text", ID: fieldID(name)}
	for n, m := range more {
		switch {
		case n == 0:
			i.Hint = m
		case m == "required":
			i.Required = true
		case m != "":
			i.Type = m
		}
	}
	return i
}

// fieldID is the ID of a field in the page.
func fieldID(name string) string {
	return "f-" + strings.NewReplacer("[", "-", "]", "", ".", "-").Replace(name)
}

// FieldID is the ID of the field that a problem is about.
func (v view) FieldID(name string) string { return fieldID(name) }

// visible replaces what people cannot see, or what makes text look like other text, such
// as control characters and those that change the direction of writing. Lines stay.
func visible(s any) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(fmt.Sprint(s), string(unicode.ReplacementChar)))
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

// durationText leaves out what is 0 at the end: 1h, not 1h0m0s.
func durationText(d fleet.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func sizeText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d bytes", n)
	}
	size, name := float64(n)/unit, "KiB"
	for _, next := range []string{"MiB", "GiB"} {
		if size < unit {
			break
		}
		size, name = size/unit, next
	}
	return fmt.Sprintf("%.1f %s", size, name)
}

// words makes words of a name such as awaiting-approval.
func words(s any) string { return strings.ReplaceAll(fmt.Sprint(s), "-", " ") }

var choiceTexts = map[fleet.Choice]string{
	fleet.ChoiceGiveUp:       "Give up: leave the device as it is",
	fleet.ChoiceRetry:        "Retry",
	fleet.ChoiceOtherImage:   "Update with another image",
	fleet.ChoiceRestore:      "Roll back to the old software",
	fleet.ChoiceModify:       "Modify the configuration data",
	fleet.ChoiceKeepNewer:    "Keep what the device has: it is newer than the backup",
	fleet.ChoiceGiveLast:     "Recover the last backup all the same",
	fleet.ChoiceKeepDefaults: "Leave the device on its defaults",
	fleet.ChoiceOverwrite:    "Overwrite what the device has",
	fleet.ChoiceUseAsIs:      "Use the backup as it is",
}

func choiceText(c fleet.Choice) string {
	if text, ok := choiceTexts[c]; ok {
		return text
	}
	return words(c)
}

// bar shows how many runs are in which state.
type bar struct {
	Label string
	Parts []barPart
}

// barPart is a part of a bar. X and Width are percentages.
type barPart struct {
	Class, X, Width string
}

func barOf(c fleet.Counts) bar {
	b := bar{Label: fmt.Sprintf("%d of %d ended", c.Ended(), c.Total)}
	at := 0
	for _, part := range []struct {
		class string
		n     int
	}{
		{"good", c.Succeeded + c.Unchanged}, {"bad", c.Failed}, {"ask", c.Waiting}, {"busy", c.Queued + c.Running + c.Retrying}, {"soft", c.Canceled},
	} {
		if part.n == 0 {
			continue
		}
		of := float64(max(c.Total, 1))
		b.Parts = append(b.Parts, barPart{part.class, fmt.Sprintf("%.3f", 100*float64(at)/of), fmt.Sprintf("%.3f", 100*float64(part.n)/of)})
		at += part.n
	}
	return b
}

// show writes a page.
func (p *page) show(status int, name, title string, data any) {
	p.write(status, name, view{Title: title, Data: data})
}

// refuse shows a form again, with what was wrong with it. An error that is not about its
// fields is returned.
func (p *page) refuse(err error, name, title string, data any) error {
	problems := fleet.FieldErrors(err)
	if len(problems) == 0 {
		if !errors.Is(err, operations.ErrConflict) {
			return err
		}
		problems = []*fleet.FieldError{{Problem: err.Error()}}
	}
	values := maps.Clone(p.r.PostForm)
	for name := range values { // secrets are not sent back
		if strings.Contains(name, "password") || strings.Contains(name, "passphrase") || strings.Contains(name, "community") || strings.HasSuffix(name, "present") {
			delete(values, name)
		}
	}
	p.write(http.StatusUnprocessableEntity, name, view{Title: title, Data: data, Problems: problems, Values: values})
	return nil
}

func (p *page) write(status int, name string, v view) {
	v.Path, v.Caller, v.Version = p.r.URL.Path, p.by, p.Version
	v.Done = doneTexts[p.r.URL.Query().Get("done")]
	var b bytes.Buffer
	if err := sets[name].ExecuteTemplate(&b, "layout.html", v); err != nil {
		p.Log.Error("page failed", "page", name, "err", err)
		http.Error(p.w, "The service failed; its log says why.", http.StatusInternalServerError)
		return
	}
	p.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	p.w.WriteHeader(status)
	_, _ = b.WriteTo(p.w) // the browser is gone
}

// agoText says how old something is.
func agoText(age time.Duration) string {
	switch {
	case age < time.Minute:
		return "just now"
	case age < time.Hour:
		return fmt.Sprintf("%d min ago", int(age.Minutes()))
	case age < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(age.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(age.Hours()/24))
}

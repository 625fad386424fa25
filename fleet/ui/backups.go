package ui

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

// backups leads to the backups of a device.
func (p *page) backups() error {
	q := p.r.URL.Query()
	data := devicesData{Text: q.Get("text")}
	found, err := p.Service.Devices(p.r.Context(), p.by, operations.DeviceQuery{Text: data.Text, Offset: max(0, p.number("offset", 0)), Limit: pageSize})
	if err != nil {
		return err
	}
	data.Page, data.Pager = found, pagerOf(p.r.URL, found.Offset, len(found.Devices), found.Total)
	p.show(http.StatusOK, "backups", "Backups", data)
	return nil
}

type deviceBackupsData struct {
	Device  string
	Backups []fleet.Backup
}

func (p *page) deviceBackups() error {
	name := p.r.PathValue("name")
	list, err := p.Service.Backups(p.r.Context(), p.by, name)
	if err != nil {
		return err
	}
	p.show(http.StatusOK, "device_backups", "Backups of "+name, deviceBackupsData{Device: name, Backups: list})
	return nil
}

// backupData is a backup, the others of its device, and one of its files.
type backupData struct {
	Backup fleet.Backup
	Others []fleet.Backup
	Kind   string
	Text   string // of the file; empty: it is not text
	IsText bool
	// Encrypted: the device has encrypted the file.
	Encrypted bool
	// With is the backup that it is compared with; empty: none.
	With  string
	Side  bool // by side, not unified
	Hunks []hunk
	Same  bool
	// Question is the campaign whose question the edit answers, QuestionID the ID of the
	// question; empty: none.
	Question, QuestionID string
}

// Next is the kind of the file after this one; the first after the last.
func (d backupData) Next() string {
	i := slices.IndexFunc(d.Backup.Files, func(f fleet.BackupFile) bool { return f.Kind == d.Kind })
	return d.Backup.Files[(i+1)%len(d.Backup.Files)].Kind
}

// hunk is a part of a file that differs.
type hunk struct {
	Lines []diffLine
	Pairs []diffPair
}

// diffLine is a line of a comparison. Mark is +, - or a space.
type diffLine struct {
	Mark, Text string
	Old, New   int // numbers; 0: the line is not there
}

// diffPair are two lines side by side.
type diffPair struct{ Left, Right diffLine }

func (p *page) backupData() (d backupData, err error) {
	list, err := p.Service.Backups(p.r.Context(), p.by, p.r.PathValue("name"))
	if err != nil {
		return d, err
	}
	id := p.r.PathValue("id")
	i := slices.IndexFunc(list, func(b fleet.Backup) bool { return b.ID == id })
	if i < 0 {
		return d, operations.ErrNotFound
	}
	d.Backup = list[i]
	d.Others = slices.Delete(list, i, i+1)
	d.Kind = p.r.URL.Query().Get("kind")
	if !slices.ContainsFunc(d.Backup.Files, func(f fleet.BackupFile) bool { return f.Kind == d.Kind }) {
		d.Kind = ""
		if len(d.Backup.Files) > 0 {
			d.Kind = d.Backup.Files[0].Kind
		}
	}
	return d, nil
}

// load reads the file of the backup, if the user may.
func (p *page) load(d *backupData) error {
	if d.Kind == "" || !p.by.Role.May(operations.ReadBackup) {
		return nil
	}
	content, err := p.Service.BackupFile(p.r.Context(), p.by, d.Backup.Device, d.Backup.ID, d.Kind)
	d.Text = string(content)
	d.Encrypted = fleet.IsEncrypted(content)
	d.IsText = isText(content) && !d.Encrypted
	return err
}

// isText reports whether a file can be shown and edited as text without changing it.
func isText(content []byte) bool {
	return utf8.Valid(content) && bytes.IndexByte(content, 0) < 0 && bytes.IndexByte(content, '\r') < 0
}

func (p *page) backup() error {
	d, err := p.backupData()
	if err == nil {
		err = p.load(&d)
	}
	if err != nil {
		return err
	}
	p.show(http.StatusOK, "backup", "Backup "+d.Backup.ID, d)
	return nil
}

// diff compares a file of a backup with that of an older one.
func (p *page) diff() error {
	d, err := p.backupData()
	if err == nil {
		err = p.load(&d)
	}
	if err != nil {
		return err
	}
	d.With, d.Side = p.r.URL.Query().Get("with"), p.r.URL.Query().Get("view") == "side"
	if d.With == "" && len(d.Others) > 0 {
		d.With = d.Others[0].ID
	}
	if d.With != "" {
		old, err := p.Service.BackupFile(p.r.Context(), p.by, d.Backup.Device, d.With, d.Kind)
		if err != nil {
			return err
		}
		d.IsText = d.IsText && isText(old)
		d.Hunks, d.Same = compare(string(old), d.Text)
	}
	p.show(http.StatusOK, "backup_diff", "Compare backups of "+d.Backup.Device, d)
	return nil
}

// compare returns what differs between two texts, with three lines around it.
func compare(old, text string) (hunks []hunk, same bool) {
	if old == text {
		return nil, true
	}
	diff, err := udiff.ToUnifiedDiff("old", "new", old, udiff.Lines(old, text), 3)
	if err != nil {
		return nil, false
	}
	for _, h := range diff.Hunks {
		var out hunk
		before, after := h.FromLine, h.ToLine
		var gone, come []diffLine
		pair := func() {
			for i := range max(len(gone), len(come)) {
				var both diffPair
				if i < len(gone) {
					both.Left = gone[i]
				}
				if i < len(come) {
					both.Right = come[i]
				}
				out.Pairs = append(out.Pairs, both)
			}
			gone, come = nil, nil
		}
		for _, l := range h.Lines {
			line := diffLine{Text: strings.TrimSuffix(l.Content, "\n")}
			switch l.Kind {
			case udiff.Delete:
				line.Mark, line.Old = "-", before
				before++
				gone = append(gone, line)
			case udiff.Insert:
				line.Mark, line.New = "+", after
				after++
				come = append(come, line)
			default:
				pair()
				line.Mark, line.Old, line.New = " ", before, after
				before, after = before+1, after+1
				out.Pairs = append(out.Pairs, diffPair{line, line})
			}
			out.Lines = append(out.Lines, line)
		}
		pair()
		hunks = append(hunks, out)
	}
	return hunks, false
}

func (p *page) editBackupForm() error {
	d, err := p.backupData()
	if err == nil {
		err = p.load(&d)
	}
	if err != nil {
		return err
	}
	d.Question, d.QuestionID = p.r.URL.Query().Get("question"), p.r.URL.Query().Get("id")
	p.write(http.StatusOK, "backup_edit", view{Title: editTitle(d), Data: d, Values: url.Values{"text": {d.Text}}})
	return nil
}

// editBackup shows what an edit changes, or stores it as another backup. With a question,
// the edited backup is its answer.
func (p *page) editBackup() error {
	if err := p.form(maxEdit); err != nil {
		return err
	}
	d, err := p.backupData()
	if err == nil {
		err = p.load(&d)
	}
	if err != nil {
		return err
	}
	d.Question, d.QuestionID = p.r.URL.Query().Get("question"), p.r.URL.Query().Get("id")
	// Browsers send lines that end with CR LF.
	text := strings.ReplaceAll(p.r.PostForm.Get("text"), "\r\n", "\n")
	if p.value("do") == "diff" {
		d.Hunks, d.Same = compare(d.Text, text)
		p.write(http.StatusOK, "backup_edit", view{Title: editTitle(d), Data: d, Values: url.Values{"text": {text}, "compared": {"yes"}}})
		return nil
	}
	return p.storeEdit(d, []byte(text), p.value("do") == "more")
}

// uploadEdit stores a file that was edited elsewhere in another backup.
func (p *page) uploadEdit() error {
	p.r.Body = http.MaxBytesReader(p.w, p.r.Body, maxEdit)
	d, err := p.backupData()
	if err == nil {
		err = p.load(&d)
	}
	if err != nil {
		return err
	}
	d.Question, d.QuestionID = p.r.URL.Query().Get("question"), p.r.URL.Query().Get("id")
	file, _, err := p.r.FormFile("file")
	if errors.As(err, new(*http.MaxBytesError)) {
		return err
	} else if err != nil {
		return p.refuse(&fleet.FieldError{Field: "file", Problem: "is missing; choose a file"}, "backup_edit", editTitle(d), d)
	}
	defer file.Close()
	content, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	return p.storeEdit(d, content, p.value("do") == "more")
}

func editTitle(d backupData) string { return "Edit a copy of " + d.Backup.ID }

// storeEdit stores an edited file as another backup. More: another file of that is edited next;
// otherwise it is the answer to the question, if there is one.
func (p *page) storeEdit(d backupData, content []byte, more bool) error {
	edited := &d.Backup
	if string(content) != d.Text || !more && edited.EditOf == "" { // otherwise this file needs no change, and others may
		var err error
		if edited, err = p.Service.EditBackup(p.r.Context(), p.by, d.Backup.Device, d.Backup.ID, map[string][]byte{d.Kind: content}); err != nil {
			return p.refuse(err, "backup_edit", editTitle(d), d)
		}
	}
	page := "/devices/" + url.PathEscape(edited.Device) + "/backups/" + url.PathEscape(edited.ID)
	if more {
		query := url.Values{"kind": {d.Next()}}
		if d.Question != "" {
			query.Set("question", d.Question)
			query.Set("id", d.QuestionID)
		}
		return p.done(page+"/edit?"+query.Encode(), "backup")
	}
	if d.Question == "" {
		return p.done(page, "backup")
	}
	err := p.Service.Answer(p.r.Context(), p.by, d.Question, edited.Device, fleet.Answer{
		Question: d.QuestionID, Choice: fleet.ChoiceModify, Backup: edited.ID,
	})
	if err != nil {
		return p.refuse(err, "backup_edit", editTitle(d), d)
	}
	return p.done("/questions", "answered")
}

func (p *page) pinBackup() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	b, err := p.Service.PinBackup(p.r.Context(), p.by, p.r.PathValue("name"), p.r.PathValue("id"), p.value("pinned") == "yes")
	if err != nil {
		return err
	}
	return p.done("/devices/"+url.PathEscape(b.Device)+"/backups/"+url.PathEscape(b.ID), map[bool]string{true: "pinned", false: "unpinned"}[b.Pinned])
}

func (p *page) backupFile() error {
	name, id, kind := p.r.PathValue("name"), p.r.PathValue("id"), p.r.PathValue("kind")
	content, err := p.Service.BackupFile(p.r.Context(), p.by, name, id, kind)
	if err != nil {
		return err
	}
	p.attach(name+"-"+id+"-"+kind, bytes.NewReader(content))
	return nil
}

package inventory

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"strings"
	"time"

	"example.com/iad/fleet"
)

// A Writer writes devices to a file. Close completes it.
type Writer interface {
	Write(d *fleet.Device) error
	Close() error
}

// NewCSVWriter returns a Writer of files that ReadCSV reads, with further columns for what
// devices report.
func NewCSVWriter(w io.Writer) Writer {
	c := &csvWriter{w: csv.NewWriter(w)}
	c.err = c.w.Write(append(append([]string{}, columns...), reported...))
	return c
}

type csvWriter struct {
	w   *csv.Writer
	err error
}

func (c *csvWriter) Write(d *fleet.Device) error {
	if c.err != nil {
		return c.err
	}
	f, id, contact := facts(d), "", ""
	if d.Identity != nil {
		id = d.Identity.Device
	}
	if at := LastAnswer(d); !at.IsZero() {
		contact = at.UTC().Format(time.RFC3339)
	}
	c.err = c.w.Write([]string{
		d.Name, d.Address, d.Site, d.Pool, strings.Join(d.Tags, " "), d.Credentials, d.RootOID, d.Note,
		inert(id), inert(f.Model), inert(f.Hardware), inert(f.Version), contact, inert(d.Contact.Problem),
	})
	return c.err
}

// inert keeps a spreadsheet from taking a text that a device has sent for a formula.
func inert(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

func (c *csvWriter) Close() error {
	if c.err != nil {
		return c.err
	}
	c.w.Flush()
	return c.w.Error()
}

// NewJSONWriter returns a Writer of files that ReadJSON reads.
func NewJSONWriter(w io.Writer) Writer { return &jsonWriter{w: w} }

type jsonWriter struct {
	w     io.Writer
	begun bool
}

func (j *jsonWriter) Write(d *fleet.Device) error {
	separator := ",\n"
	if !j.begun {
		separator, j.begun = "[\n", true
	}
	text, err := json.Marshal(d)
	if err == nil {
		_, err = j.w.Write(append([]byte(separator), text...))
	}
	return err
}

func (j *jsonWriter) Close() error {
	end := "\n]\n"
	if !j.begun {
		end = "[]\n"
	}
	_, err := io.WriteString(j.w, end)
	return err
}

package settings

import (
	"bytes"
	"reflect"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

const heading = `# Settings of the device, which iad reads when it starts. A setting right after
# "#" is an example: it counts without the "#". File names are relative to the
# root directory of the device.

`

const ending = `
# Keep the next line last: a file without it may have been cut off.
` + endLine + "\n"

// Reference returns a file with every setting, its meaning, default and an example,
// none of which is set.
func Reference() ([]byte, error) { return new(Settings).Marshal() }

// Marshal returns the file of the settings, in which those that are not set are
// commented out, with the line that marks it as complete.
func (s *Settings) Marshal() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(heading)
	for _, t := range tables() {
		v := reflect.ValueOf(s).Elem().FieldByIndex(t.index)
		if t.name != "" {
			b.WriteByte('\n')
			comment(&b, t.doc)
		}
		var err error
		switch {
		case !t.list:
			err = t.marshal(&b, v, true)
		case v.Len() == 0:
			err = t.marshal(&b, reflect.Zero(v.Type().Elem()), true)
		}
		for i := 0; t.list && i < v.Len() && err == nil; i++ {
			err = t.marshal(&b, v.Index(i), i == 0)
		}
		if err != nil {
			return nil, err
		}
	}
	b.WriteString(ending)
	return b.Bytes(), nil
}

// marshal writes a section with the settings of v; those without a value are
// commented out, or left out if not all are to be written.
func (t *table) marshal(b *bytes.Buffer, v reflect.Value, all bool) error {
	switch {
	case t.list && v.IsZero():
		b.WriteString("#" + t.header() + "\n")
	case t.name != "":
		b.WriteString(t.header() + "\n")
	}
	for _, f := range t.settings {
		value := v.FieldByIndex(f.Index)
		if all {
			comment(b, f.Tag.Get("doc")+" Value: "+f.Tag.Get("is")+". Default: "+f.Tag.Get("default")+".")
		}
		switch {
		case !value.IsZero() && !(value.Kind() == reflect.Slice && value.Len() == 0):
			line, err := toml.Marshal(map[string]any{f.Tag.Get("toml"): value.Interface()})
			if err != nil {
				return err
			}
			b.Write(line)
		case all:
			b.WriteString("#" + f.Tag.Get("toml") + " = " + f.Tag.Get("example") + "\n")
		}
	}
	return nil
}

// comment writes text as lines of at most 80 columns.
func comment(b *bytes.Buffer, text string) {
	line := "#"
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > 80 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	b.WriteString(line + "\n")
}

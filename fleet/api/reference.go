package api

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed reference.html
var referenceHTML string

//go:embed reference.css
var referenceCSS []byte

var referencePage = template.Must(template.New("reference").Parse(referenceHTML))

type section struct {
	Name       string
	Operations []documented
}

type documented struct {
	ID, Method, Path, Summary, Description string
	Parameters                             []parameter
	Request, Answer                        string
}

type parameter struct {
	Name, Text string
	Required   bool
}

// reference shows the OpenAPI document to people, without scripts.
func (s *server) reference() http.Handler {
	page := sync.OnceValue(func() []byte {
		var b bytes.Buffer
		err := referencePage.Execute(&b, struct {
			Prefix, Version string
			Sections        []section
		}{Prefix, s.Version, sections(s.api.OpenAPI())})
		if err != nil {
			panic(err) // the template does not fit its data
		}
		return b.Bytes()
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Prefix+"/reference.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write(referenceCSS) // the client is gone
	})
	mux.HandleFunc("GET "+Prefix+"/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page()) // the client is gone
	})
	return mux
}

func sections(doc *huma.OpenAPI) []section {
	byTag := make(map[string][]documented)
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete} {
			if op == nil {
				continue
			}
			d := documented{ID: op.OperationID, Method: op.Method, Path: path, Summary: op.Summary, Description: op.Description}
			for _, p := range op.Parameters {
				text := p.Description
				if p.Schema != nil && len(p.Schema.Enum) > 0 {
					text = strings.TrimSpace(text + " " + alternatives(p.Schema.Enum))
				}
				d.Parameters = append(d.Parameters, parameter{Name: p.Name, Text: text, Required: p.Required})
			}
			if op.RequestBody != nil {
				d.Request = contentText(doc, op.RequestBody.Content)
			}
			if r := op.Responses["200"]; r != nil {
				d.Answer = contentText(doc, r.Content)
			}
			byTag[op.Tags[0]] = append(byTag[op.Tags[0]], d)
		}
	}
	var list []section
	for _, name := range slices.Sorted(maps.Keys(byTag)) {
		list = append(list, section{Name: name, Operations: byTag[name]})
	}
	return list
}

func alternatives(values []any) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = fmt.Sprint(v)
	}
	return strings.Join(texts, " | ")
}

func contentText(doc *huma.OpenAPI, content map[string]*huma.MediaType) string {
	for _, kind := range slices.Sorted(maps.Keys(content)) {
		switch kind {
		case "application/json":
			return sketch(doc, content[kind].Schema, "", nil)
		case "text/event-stream":
			return "server-sent events: event with the JSON object of an Event, ping"
		default:
			return "a file"
		}
	}
	return ""
}

// sketch writes a schema like a value of it. above are the schemas that contain it.
func sketch(doc *huma.OpenAPI, s *huma.Schema, indent string, above []string) string {
	if s == nil {
		return "any"
	}
	if s.Ref != "" {
		if slices.Contains(above, s.Ref) {
			return s.Ref[strings.LastIndex(s.Ref, "/")+1:]
		}
		return sketch(doc, doc.Components.Schemas.SchemaFromRef(s.Ref), indent, append(slices.Clone(above), s.Ref))
	}
	switch s.Type {
	case huma.TypeArray:
		return "[" + sketch(doc, s.Items, indent, above) + ", ...]"
	case huma.TypeObject:
		if len(s.Properties) == 0 {
			if of, ok := s.AdditionalProperties.(*huma.Schema); ok {
				return "{KEY: " + sketch(doc, of, indent, above) + ", ...}"
			}
			return "{}"
		}
		var b strings.Builder
		b.WriteString("{\n")
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			p := s.Properties[name]
			fmt.Fprintf(&b, "%s  %q: %s", indent, name, sketch(doc, p, indent+"  ", above))
			if !slices.Contains(s.Required, name) {
				b.WriteString(" (optional)")
			}
			if p.Description != "" {
				b.WriteString("   " + p.Description)
			}
			b.WriteByte('\n')
		}
		return b.String() + indent + "}"
	case huma.TypeString:
		if len(s.Enum) > 0 {
			return alternatives(s.Enum)
		}
		if s.Format != "" {
			return s.Format
		}
		return "string"
	case "":
		return "any"
	}
	return s.Type
}

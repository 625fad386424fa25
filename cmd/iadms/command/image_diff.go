package command

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"example.com/iad/bank/image"
	"example.com/iad/cmd/iadms/report"
)

func newImageDiff(g *globals) *cobra.Command {
	var identity keyOptions
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Show what changes from one image to another, and what devices fetch",
		Long: `Show what changes from one image to another, and how many bytes a device fetches for
NEW, one that runs OLD and any other one. OLD and NEW are images or, in split form, their
manifests. The differences in NEW from files of OLD are applied, which checks them; those
of encrypted images only with --identity. The signatures are not verified.`,
		Example: "  iadms image diff fw-1.0.0.iad fw-2.0.0/manifest.json",
		Args:    exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := identity.keys()
			if err != nil {
				return err
			}
			old, err := readContents(args[0], nil, keys)
			if err != nil {
				return err
			}
			next, err := readContents(args[1], old.asBase, keys)
			if err != nil {
				return err
			}
			d := compareImages(old, next)
			if g.json {
				return report.PrintJSON(cmd.OutOrStdout(), d)
			}
			return d.print(cmd.OutOrStdout())
		},
	}
	identity.registerFor(cmd.Flags(), "the images")
	return cmd
}

// An imageDiff is what image diff shows, and its JSON form.
type imageDiff struct {
	Old      string        `json:"old_version"`
	New      string        `json:"new_version"`
	Fields   []fieldDiff   `json:"fields"`
	Payloads []payloadDiff `json:"payloads"`
	// Bytes that a device fetches, with the manifest and its signature.
	FetchedOverOld int64 `json:"bytes_over_old"`
	// FetchedOther is null if only devices with the old software can install the image.
	FetchedOther *int64 `json:"bytes_over_other"`
}

type fieldDiff struct {
	Name string `json:"name"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

type payloadDiff struct {
	Name    string `json:"name"`
	Change  string `json:"change"` // added, removed, changed or same
	OldSize int64  `json:"old_size"`
	NewSize int64  `json:"new_size"`
	// Fetched by a device that runs the old software, and from which file.
	Fetched int64  `json:"bytes_over_old"`
	File    string `json:"file"`
}

func compareImages(old, next loadedImage) imageDiff {
	a, b := old.info.Manifest, next.info.Manifest
	d := imageDiff{Old: a.Version, New: b.Version, Fields: []fieldDiff{}}
	field := func(name, was, is string) {
		if was != is {
			d.Fields = append(d.Fields, fieldDiff{name, was, is})
		}
	}
	field("version", a.Version, b.Version)
	field("hardware", strings.Join(a.Hardware, ", "), strings.Join(b.Hardware, ", "))
	field("configuration format", fmt.Sprint(a.ConfigFormat), fmt.Sprint(b.ConfigFormat))
	field("installs over", a.MinVersion, b.MinVersion)
	field("floor", a.Floor, b.Floor)
	field("without a reset", fmt.Sprint(a.NoReset), fmt.Sprint(b.NoReset))
	field("self-test", a.SelfTest, b.SelfTest)
	field("converters", converters(a), converters(b))

	head := next.info.HeadSize
	d.FetchedOverOld = head
	other, installable := head, true
	for i := range b.Payloads {
		p := &b.Payloads[i]
		change := payloadDiff{Name: p.Name, Change: "added", NewSize: p.Size, Fetched: p.Size, File: p.Name}
		if was := a.Payload(p.Name); was != nil {
			change.OldSize = was.Size
			if change.Change = "changed"; was.SHA256 == p.SHA256 && was.Mode == p.Mode && was.Target == p.Target {
				change.Change = "same"
			}
		}
		if e := firstFor(p, func(e *image.Encoding) bool { return e.Base == nil || hasPayload(a, e.Base) }); e != nil {
			change.Fetched, change.File = e.Size, e.File
		}
		if e := firstFor(p, func(e *image.Encoding) bool { return e.Base == nil }); e != nil {
			other += e.Size
		} else if len(p.Encodings) == 0 {
			other += p.Size
		} else {
			installable = false
		}
		d.FetchedOverOld += change.Fetched
		d.Payloads = append(d.Payloads, change)
	}
	for _, p := range a.Payloads {
		if b.Payload(p.Name) == nil {
			d.Payloads = append(d.Payloads, payloadDiff{Name: p.Name, Change: "removed", OldSize: p.Size})
		}
	}
	if installable {
		d.FetchedOther = &other
	}
	return d
}

func converters(m *image.Manifest) string {
	var all []string
	for _, c := range m.Converters {
		all = append(all, fmt.Sprintf("%d to %d: %s", c.From, c.To, c.Payload))
	}
	return strings.Join(all, ", ")
}

func hasPayload(m *image.Manifest, b *image.Base) bool {
	return slices.ContainsFunc(m.Payloads, func(p image.Payload) bool { return p.SHA256 == b.SHA256 && p.Size == b.Size })
}

// firstFor returns the first encoding of a payload that fits, as a device chooses it.
func firstFor(p *image.Payload, fits func(*image.Encoding) bool) *image.Encoding {
	for i := range p.Encodings {
		if fits(&p.Encodings[i]) {
			return &p.Encodings[i]
		}
	}
	return nil
}

// asBase returns the payload that is a base of another image, nil if there is none.
func (old loadedImage) asBase(b *image.Base) []byte {
	for _, p := range old.info.Manifest.Payloads {
		if p.SHA256 == b.SHA256 && p.Size == b.Size {
			return old.contents[p.Name]
		}
	}
	return nil
}

func (d imageDiff) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range d.Fields {
		fmt.Fprintf(t, "%s\t%s\t→ %s\n", f.Name, visible(orNone(f.Old)), visible(orNone(f.New)))
	}
	for _, p := range d.Payloads {
		switch p.Change {
		case "removed":
			fmt.Fprintf(t, "  %s\tremoved\t%d bytes\n", p.Name, p.OldSize)
		case "added":
			fmt.Fprintf(t, "  %s\tadded\t%d bytes\tfetch %d bytes\t%s\n", p.Name, p.NewSize, p.Fetched, p.File)
		default:
			fmt.Fprintf(t, "  %s\t%s\t%d → %d bytes\tfetch %d bytes\t%s\n", p.Name, p.Change, p.OldSize, p.NewSize, p.Fetched, p.File)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "a device that runs %s fetches about %d bytes\n", d.Old, d.FetchedOverOld)
	if d.FetchedOther == nil {
		_, err := fmt.Fprintf(w, "a device that runs other software cannot install this image\n")
		return err
	}
	_, err := fmt.Fprintf(w, "a device that runs other software fetches about %d bytes\n", *d.FetchedOther)
	return err
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

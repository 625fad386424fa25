package config

import (
	"encoding/json"
	"fmt"
	"time"

	"example.com/iad/mib"
)

// Contents of the frames on disk, as JSON. Unknown members are ignored, so that
// later software can add some without a new version.
var (
	pointerMagic     = [4]byte{'I', 'A', 'D', 'P'}
	descriptionMagic = [4]byte{'I', 'A', 'D', 'G'}
)

const (
	pointerVersion     = 1
	descriptionVersion = 1
)

// pointer says which generation is in force.
type pointer struct {
	// Current is the number in force, 0 for the software's defaults.
	Current uint32 `json:"current"`
	// Before is the number that was in force before Current, not counting
	// defaults, nor a bare one while there is another; 0 if there was none.
	Before uint32 `json:"before"`
	// Last is the highest number that was ever in force.
	Last uint32 `json:"last"`
	// Applied is when Current was put in force, zero if the time was not
	// known.
	Applied time.Time `json:"applied"`
}

func decodePointer(payload []byte) (pointer, error) {
	var p pointer
	if err := json.Unmarshal(payload, &p); err != nil {
		return pointer{}, fmt.Errorf("pointer to the configuration data in force: %w", err)
	}
	if p.Current > p.Last || p.Before > p.Last {
		return pointer{}, fmt.Errorf("pointer to the configuration data in force: it names generation %d or %d, but the highest is %d",
			p.Current, p.Before, p.Last)
	}
	return p, nil
}

// description says what belongs to a generation.
type description struct {
	Number uint32      `json:"number"`
	Format uint32      `json:"format"`
	Files  []fileEntry `json:"files"` // in the order of their kinds
	Digest []byte      `json:"digest"`

	bare bool // see Set.Bare
}

type fileEntry struct {
	Kind   string `json:"kind"`
	Size   int64  `json:"size"`
	SHA256 []byte `json:"sha256"`
}

func decodeDescription(payload []byte) (description, error) {
	var d description
	if err := json.Unmarshal(payload, &d); err != nil {
		return description{}, fmt.Errorf("description of a generation: %w", err)
	}
	if d.Number == 0 || d.Format == 0 || len(d.Files) == 0 {
		return description{}, fmt.Errorf("description of a generation: number, format or files missing")
	}
	var last mib.FileType
	for _, f := range d.Files {
		kind, ok := ParseKind(f.Kind)
		if !ok || kind <= last {
			return description{}, fmt.Errorf("description of a generation: kind %q unknown or out of order", f.Kind)
		}
		last = kind
	}
	return d, nil
}

func (d description) generation() Generation {
	g := Generation{Number: d.Number, Format: d.Format, Digest: d.Digest, Bare: d.bare}
	for _, f := range d.Files {
		kind, _ := ParseKind(f.Kind)
		g.Kinds = append(g.Kinds, kind)
	}
	return g
}

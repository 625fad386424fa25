package engine

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrDamaged: what is stored cannot be decoded. Whoever reads many objects skips it.
var ErrDamaged = errors.New("damaged")

// Damage is something stored that this process has read and could not decode.
type Damage struct {
	// Place is the name of the bucket or stream, and Key that of the entry, for a stream its
	// number.
	Place string `json:"place"`
	Key   string `json:"key"`
	// Revision is that of the entry, or its number.
	Revision uint64 `json:"revision"`
	Problem  string `json:"problem"`
	// Noticed is when this process read it.
	Noticed time.Time `json:"noticed"`
}

// damages is what could not be decoded.
type damages struct {
	log *slog.Logger

	mu    sync.Mutex
	found map[[2]string]Damage // by place and key
}

func (d *damages) note(place, key string, revision uint64, problem error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := [2]string{place, key}
	if old, known := d.found[id]; !known || old.Revision != revision {
		if d.found == nil {
			d.found = make(map[[2]string]Damage)
		}
		d.found[id] = Damage{Place: place, Key: key, Revision: revision, Problem: problem.Error(), Noticed: time.Now().UTC()}
		d.log.Error("a stored object is damaged and is skipped", "place", place, "key", key, "revision", revision, "err", problem)
	}
	return fmt.Errorf("%s %s is %w: %w", place, key, ErrDamaged, problem)
}

func (d *damages) clear(place, key string, revision uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, known := d.found[[2]string{place, key}]; known && revision > old.Revision {
		delete(d.found, [2]string{place, key})
	}
}

// Damage returns what this process has found damaged and what has not been replaced or
// removed or has expired since.
func (e *Engine) Damage() []Damage {
	e.damages.mu.Lock()
	defer e.damages.mu.Unlock()
	list := make([]Damage, 0, len(e.damages.found))
	for id, d := range e.damages.found {
		if d.Place == string(Leases) && time.Since(d.Noticed) > LeaseTime { // it has expired, which nothing reports
			delete(e.damages.found, id)
			continue
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b Damage) int { return cmp.Or(strings.Compare(a.Place, b.Place), strings.Compare(a.Key, b.Key)) })
	return list
}

// Damaged reports an entry that cannot be decoded. The error that it returns wraps
// ErrDamaged.
func (b *Bucket) Damaged(entry Entry, problem error) error {
	return b.engine.damages.note(string(b.name), entry.Key, entry.Revision, problem)
}

// Sound withdraws the report of an entry that was replaced by one with this revision, or
// deleted by it.
func (b *Bucket) Sound(key string, revision uint64) {
	b.engine.damages.clear(string(b.name), key, revision)
}

// Damaged reports an entry that cannot be decoded. The error that it returns wraps
// ErrDamaged.
func (l *Log) Damaged(m Message, problem error) error {
	return l.engine.damages.note(string(l.name), strconv.FormatUint(m.Sequence, 10), m.Sequence, problem)
}

// IsBucket reports whether there is a bucket with this name.
func IsBucket(name string) bool { return slices.Contains(bucketNames, BucketName(name)) }

// Places returns the names of the buckets and streams in which there can be damage.
func Places() []string {
	var names []string
	for _, b := range bucketNames {
		names = append(names, string(b))
	}
	return append(names, string(Events), string(Audit))
}

// ParseKey returns the parts of a key that Key made, and whether it is one.
func ParseKey(key string) (parts []string, ok bool) {
	for _, text := range strings.Split(key, ".") {
		if text == "=" {
			parts = append(parts, "")
			continue
		}
		var b strings.Builder
		for i := 0; i < len(text); i++ {
			if text[i] != '=' {
				b.WriteByte(text[i])
				continue
			}
			if i+3 > len(text) {
				return nil, false
			}
			c, err := strconv.ParseUint(text[i+1:i+3], 16, 8)
			if err != nil {
				return nil, false
			}
			b.WriteByte(byte(c))
			i += 2
		}
		parts = append(parts, b.String())
	}
	return parts, Key(parts...) == key
}

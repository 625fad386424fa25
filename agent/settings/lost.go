package settings

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// lostSettings names the settings of before that after does not have, "" if there
// are none or either text is not TOML. No value is named.
func lostSettings(before, after []byte) string {
	var old, now map[string]any
	if toml.Unmarshal(bytes.TrimPrefix(before, byteOrderMark), &old) != nil || toml.Unmarshal(bytes.TrimPrefix(after, byteOrderMark), &now) != nil {
		return ""
	}
	var lost []string
	lostIn("", old, now, &lost)
	const most = 8
	if len(lost) > most {
		lost = append(lost[:most], fmt.Sprintf("%d more", len(lost)-most))
	}
	return strings.Join(lost, ", ")
}

func lostIn(prefix string, old, now map[string]any, lost *[]string) {
	for _, key := range slices.Sorted(maps.Keys(old)) {
		name := prefix + key
		is, ok := now[key]
		if !ok {
			*lost = append(*lost, name)
			continue
		}
		switch was := old[key].(type) {
		case map[string]any:
			sub, _ := is.(map[string]any)
			lostIn(name+".", was, sub, lost)
		case []any:
			list, _ := is.([]any)
			lostOf(name, was, list, lost)
		}
	}
}

// lostOf compares lists: of tables with names by these, of others by their number.
func lostOf(name string, old, now []any, lost *[]string) {
	find := func(list []any, name string) (map[string]any, bool) {
		for _, e := range list {
			if table, ok := e.(map[string]any); ok && table["name"] == name {
				return table, true
			}
		}
		return nil, false
	}
	named := false
	for _, e := range old {
		table, _ := e.(map[string]any)
		id, ok := table["name"].(string)
		if !ok {
			continue
		}
		named = true
		entry := fmt.Sprintf("%s %q", name, id)
		if is, ok := find(now, id); ok {
			lostIn(entry+" ", table, is, lost)
		} else {
			*lost = append(*lost, entry)
		}
	}
	if !named && len(now) < len(old) {
		*lost = append(*lost, fmt.Sprintf("%d of %d %s", len(old)-len(now), len(old), name))
	}
}

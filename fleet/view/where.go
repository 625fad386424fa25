package view

import (
	"strings"
	"time"

	"example.com/iad/fleet/inventory"
)

// where is a condition on the rows of a table, with its arguments.
type where struct {
	sql  strings.Builder
	args []any
}

// filter adds the condition of a filter at a time.
func (w *where) filter(n inventory.Node, now time.Time) {
	switch n := n.(type) {
	case inventory.And:
		w.pair(n.Left, " AND ", n.Right, now)
	case inventory.Or:
		w.pair(n.Left, " OR ", n.Right, now)
	case inventory.Not:
		w.sql.WriteString("NOT ")
		w.filter(n.Of, now)
	case inventory.Const:
		w.add("?", bool(n))
	case inventory.Test:
		w.sql.WriteString("(")
		w.test(&n, now)
		w.sql.WriteString(")")
	}
}

func (w *where) pair(left inventory.Node, operator string, right inventory.Node, now time.Time) {
	w.sql.WriteString("(")
	w.filter(left, now)
	w.sql.WriteString(operator)
	w.filter(right, now)
	w.sql.WriteString(")")
}

func (w *where) add(sql string, args ...any) {
	w.sql.WriteString(sql)
	w.args = append(w.args, args...)
}

// test adds a comparison. Names of columns are those of fields, and operators are known,
// so that nothing of the filter's text gets into the SQL.
func (w *where) test(t *inventory.Test, now time.Time) {
	column := t.Field.Name
	operator := string(t.Op)
	switch t.Field.Kind {
	case inventory.Tags:
		w.add("id IN (SELECT id FROM tag WHERE tag = ?)", t.Texts[0])
		return
	case inventory.Bool:
		w.add(column)
		return
	case inventory.Number:
		w.add(column+" "+operator+" ?", t.Number)
		return
	case inventory.Duration:
		// Who is silent for longer answered earlier.
		mirrored := map[inventory.Op]string{inventory.Less: ">", inventory.LessEqual: ">=", inventory.Greater: "<", inventory.GreaterEqual: "<="}
		if m, ok := mirrored[t.Op]; ok {
			operator = m
		}
		w.add("answered "+operator+" ?", nanoseconds(now.Add(-t.Duration)))
		return
	}
	switch t.Op {
	case inventory.Equal, inventory.NotEqual:
		w.add(column+" "+operator+" ?", t.Texts[0])
		return
	case inventory.In:
		w.add(column + " IN (?" + strings.Repeat(", ?", len(t.Texts)-1) + ")")
		for _, text := range t.Texts {
			w.args = append(w.args, text)
		}
		return
	case inventory.Less, inventory.LessEqual, inventory.Greater, inventory.GreaterEqual:
		w.add("version_key "+operator+" ?", inventory.VersionKey(t.Texts[0]))
		return
	}
	// Bytes are compared: as texts, parts would end at a NUL.
	part := []byte(t.Texts[0])
	if len(part) == 0 {
		w.add("1")
		return
	}
	bytes := "CAST(" + column + " AS BLOB)"
	switch t.Op {
	case inventory.Contains:
		w.add("instr("+bytes+", ?) > 0", part)
	case inventory.StartsWith: // of nothing, substr is NULL
		w.add("coalesce(substr("+bytes+", 1, ?) = ?, 0)", len(part), part)
	case inventory.EndsWith:
		w.add("coalesce(substr("+bytes+", ?) = ?, 0)", -len(part), part)
	}
}

package snmp

import (
	"example.com/iad/mib"
)

// table is a table that the engine serves itself.
type table struct {
	entry       mib.OID
	first, last uint32              // columns that can be read
	rows        func(*Engine) []row // in the order of their indexes
}

// row is a row of a table.
type row interface {
	rowIndex() mib.OID
	column(n uint32) mib.Value
}

// tables are those of the engine in lexicographic order.
var tables = []*table{&targetTable, &userTable}

// find splits the name of an instance. ok is false if no column has the name; found is nil
// if no row has.
func (t *table) find(e *Engine, oid mib.OID) (column uint32, found row, ok bool) {
	n := len(t.entry)
	if !oid.HasPrefix(t.entry) || len(oid) <= n || oid[n] < t.first || oid[n] > t.last {
		return 0, nil, false
	}
	for _, r := range t.rows(e) {
		if r.rowIndex().Compare(oid[n+1:]) == 0 {
			return oid[n], r, true
		}
	}
	return oid[n], nil, true
}

// next finds the first instance after a name, or with that name if inclusive.
func (t *table) next(e *Engine, from mib.OID, inclusive bool) (vb mib.Varbind, ok bool) {
	if from.Compare(t.entry) > 0 && !from.HasPrefix(t.entry) {
		return vb, false
	}
	rows := t.rows(e)
	for column := t.first; column <= t.last; column++ {
		for _, r := range rows {
			oid := t.entry.Append(column).Append(r.rowIndex()...)
			if c := oid.Compare(from); c > 0 || inclusive && c == 0 {
				return mib.Varbind{OID: oid, Value: r.column(column)}, true
			}
		}
	}
	return vb, false
}

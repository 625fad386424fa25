package mib

import "strconv"

// ObjectKind is the kind of an object of the module.
type ObjectKind uint8

// Kinds of objects. Only scalars and columns have instances.
const (
	Scalar ObjectKind = iota + 1
	Table
	Row
	Column
)

// Access is the MAX-ACCESS of an object (RFC 2578 section 7.3).
type Access uint8

// Values of MAX-ACCESS that the module uses.
const (
	NotAccessible Access = iota + 1
	ReadOnly
	ReadWrite
)

// Named is a label with its number: a value of an enumeration or a position
// in a BITS construct.
type Named struct {
	Name   string
	Number int64
}

// Range is a range of numbers, or of sizes in bytes; both ends belong to it.
type Range struct {
	Min, Max int64
}

// Object describes an OBJECT-TYPE of the module. Objects are generated and
// must not be changed.
type Object struct {
	// Name is the descriptor, for instance iadUpgOpState.
	Name string
	// Rel is the identifier below the root of the module.
	Rel  OID
	Kind ObjectKind

	// Type is the type on the wire; OctetString for BITS. Tables and rows
	// have none.
	Type Type
	// TC is the textual convention, or empty.
	TC     string
	Access Access
	// IsBits reports that a byte string is a BITS construct, whose positions
	// are Enums.
	IsBits bool
	// Enums are the labels of an enumeration or of BITS, in order.
	Enums []Named
	// Ranges are the permitted numbers, or sizes of a byte string, in
	// ascending order; an object has either Ranges or Enums.
	Ranges []Range
	// Default is the DEFVAL, nil if there is none.
	Default *Value
	// Units is the UNITS clause, or empty.
	Units string

	// Row is the row object of a table or column.
	Row *Object
	// Table is the table of a row.
	Table *Object
	// Index are the columns that make up the index of a row. Each of them
	// is a number and takes one sub-identifier.
	Index []*Object
	// Columns are all columns of a row, in order.
	Columns []*Object
}

// Notification describes a NOTIFICATION-TYPE of the module.
type Notification struct {
	Name string
	// Rel is the identifier below the root of the module, the value of
	// snmpTrapOID.0.
	Rel OID
	// Objects are what the notification carries, in order.
	Objects []*Object
}

// Notice is a notification to be sent or one received. Its varbinds are
// those of the notification's objects, without sysUpTime.0 and
// snmpTrapOID.0.
type Notice struct {
	Notification *Notification
	Varbinds     []Varbind
}

// init closes the circles that a composite literal cannot contain.
func init() {
	for _, o := range Objects {
		switch o.Kind {
		case Table:
			o.Row.Table = o
		case Row:
			for _, c := range o.Columns {
				c.Row = o
			}
		}
	}
}

// ObjectByName finds an object by its descriptor.
func ObjectByName(name string) (*Object, bool) {
	for _, o := range Objects {
		if o.Name == name {
			return o, true
		}
	}
	return nil, false
}

// Label returns the label of a number of an enumeration or of a bit, or the
// number in decimal if it has none.
func (o *Object) Label(n int64) string { return label(o.Enums, n) }

// Number returns the number of a label of an enumeration or of BITS.
func (o *Object) Number(label string) (n int64, ok bool) {
	for _, e := range o.Enums {
		if e.Name == label {
			return e.Number, true
		}
	}
	return 0, false
}

// hasInstances reports whether o is a scalar or column that a request may name.
func (o *Object) hasInstances() bool {
	return o.Access == ReadOnly || o.Access == ReadWrite
}

func label(names []Named, n int64) string {
	for _, e := range names {
		if e.Number == n {
			return e.Name
		}
	}
	return strconv.FormatInt(n, 10)
}

package mib

import (
	_ "embed" // the module's text
	"fmt"
	"math"
	"sort"
)

// Text is the module itself, in SMIv2, as it is to be given to management
// systems. It places the module below DefaultRoot.
//
//go:embed IAD-UPGRADE-MIB.txt
var Text string

// Module is the module below a root. It cannot be changed and may be used by
// many goroutines.
type Module struct {
	root OID
}

// NewModule places the module below root; nil or empty means DefaultRoot.
func NewModule(root OID) *Module {
	if len(root) == 0 {
		root = DefaultRoot
	}
	return &Module{root: root.Append()}
}

// maxRootLen leaves room for the longest instance below the root.
const maxRootLen = 64

// ParseRoot reads a root for NewModule from a configuration. It refuses what
// has no encoding in BER (ITU-T X.690 section 8.19) and what would make the
// names of instances too long.
func ParseRoot(s string) (OID, error) {
	root, err := ParseOID(s)
	if err != nil {
		return nil, err
	}
	if len(root) < 2 || len(root) > maxRootLen || root[0] > 2 || root[0] < 2 && root[1] > 39 || root[0] == 2 && root[1] > math.MaxUint32-80 {
		return nil, fmt.Errorf("%w that a module can have: %q", errOID, s)
	}
	return root, nil
}

// Root returns the identifier of the module. Do not change it.
func (m *Module) Root() OID { return m.root }

// OID returns the identifier of an object, or of an instance of it if index
// is given: 0 for a scalar, the row for a column.
func (m *Module) OID(o *Object, index ...uint32) OID {
	return m.join(o.Rel, index)
}

// NotificationOID returns the identifier of a notification.
func (m *Module) NotificationOID(n *Notification) OID { return m.join(n.Rel, nil) }

func (m *Module) join(rel, index OID) OID {
	oid := make(OID, 0, len(m.root)+len(rel)+len(index))
	return append(append(append(oid, m.root...), rel...), index...)
}

// Lookup finds the object that oid names or that oid is an instance of. The
// index is what follows the identifier of a scalar or column, and is part of
// oid; it need not be that of an existing instance. Tables and rows are
// found by their own identifiers only.
func (m *Module) Lookup(oid OID) (o *Object, index OID, ok bool) {
	if !oid.HasPrefix(m.root) {
		return nil, nil, false
	}
	rel := oid[len(m.root):]
	i := sort.Search(len(Objects), func(i int) bool { return Objects[i].Rel.Compare(rel) > 0 }) - 1
	if i < 0 || !rel.HasPrefix(Objects[i].Rel) {
		return nil, nil, false
	}
	o, index = Objects[i], rel[len(Objects[i].Rel):]
	if len(index) > 0 && o.Kind != Scalar && o.Kind != Column {
		return nil, nil, false
	}
	return o, index, true
}

// NotificationByOID finds a notification by the value of snmpTrapOID.0.
func (m *Module) NotificationByOID(oid OID) (*Notification, bool) {
	if !oid.HasPrefix(m.root) {
		return nil, false
	}
	rel := oid[len(m.root):]
	for _, n := range Notifications {
		if n.Rel.Compare(rel) == 0 {
			return n, true
		}
	}
	return nil, false
}

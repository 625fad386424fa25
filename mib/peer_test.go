package mib_test

import (
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/iad/internal/peers"
	"example.com/iad/mib"
)

func TestSmilintFindsNothing(t *testing.T) {
	peers.Find(t, "smilint")
	peers.MIBs(t)
	if out, err := exec.Command("./smilint.sh").CombinedOutput(); err != nil {
		t.Errorf("smilint.sh: %v\n%s", err, out)
	}
}

// What smidump, another implementation of the SMI, says of the module.
type smi struct {
	Identity struct {
		Node string `xml:"node,attr"`
	} `xml:"module>identity"`
	Typedefs      []smiType         `xml:"typedefs>typedef"`
	Root          []smiNode         `xml:"nodes>node"`
	Scalars       []smiObject       `xml:"nodes>scalar"`
	Tables        []smiTable        `xml:"nodes>table"`
	Notifications []smiNotification `xml:"notifications>notification"`
}

type smiNode struct {
	Name string `xml:"name,attr"`
	OID  string `xml:"oid,attr"`
}

type smiTable struct {
	smiNode
	Row struct {
		smiNode
		Index   []smiNode   `xml:"linkage>index"`
		Columns []smiObject `xml:"column"`
	} `xml:"row"`
}

type smiObject struct {
	smiNode
	Type    smiNode `xml:"syntax>type"`
	Inline  smiType `xml:"syntax>typedef"`
	Access  string  `xml:"access"`
	Default *string `xml:"default"`
	Units   string  `xml:"units"`
}

type smiType struct {
	Name   string  `xml:"name,attr"`
	Base   string  `xml:"basetype,attr"`
	Parent smiNode `xml:"parent"`
	Ranges []struct {
		Min int64 `xml:"min,attr"`
		Max int64 `xml:"max,attr"`
	} `xml:"range"`
	Names []struct {
		Name   string `xml:"name,attr"`
		Number int64  `xml:"number,attr"`
	} `xml:"namednumber"`
}

type smiNotification struct {
	smiNode
	Objects []smiNode `xml:"objects>object"`
}

func smidump(t *testing.T) smi {
	t.Helper()
	tool := peers.Find(t, "smidump")
	peers.MIBs(t)
	cmd := exec.Command(tool, "-c", filepath.Join(peers.Dir(), "smi.conf"), "-f", "xml", "./IAD-UPGRADE-MIB.txt")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("smidump: %v", err)
	}
	var s smi
	decoder := xml.NewDecoder(strings.NewReader(string(out)))
	if err := decoder.Decode(&s); err != nil {
		t.Fatalf("output of smidump: %v", err)
	}
	return s
}

// imported are the types that smidump gives by name only.
var imported = map[string]smiType{
	"Unsigned32":      {Base: "Unsigned32"},
	"SnmpAdminString": {Base: "OctetString"},
	"DateAndTime":     {Base: "OctetString"},
	"InetAddress":     {Base: "OctetString"},
	"InetAddressType": {Base: "Enumeration"},
	"InetPortNumber":  {Base: "Unsigned32"},
	"TruthValue":      {Base: "Enumeration"},
	"TestAndIncr":     {Base: "Integer32"},
}

func TestGeneratedObjectsAgreeWithSmidump(t *testing.T) {
	s := smidump(t)
	if want := mib.DefaultRoot.String(); s.Root[0].Name != s.Identity.Node || s.Root[0].OID != want {
		t.Fatalf("%s is %s, want %s", s.Identity.Node, s.Root[0].OID, want)
	}
	types := imported
	for _, typ := range s.Typedefs {
		types[typ.Name] = typ
	}
	m := mib.NewModule(nil)
	count := 0
	object := func(n smiNode, kind mib.ObjectKind) *mib.Object {
		t.Helper()
		count++
		o, ok := mib.ObjectByName(n.Name)
		if !ok || o.Kind != kind || m.OID(o).String() != n.OID {
			t.Fatalf("%s: generated %+v, want %s", n.Name, o, n.OID)
		}
		return o
	}
	for _, scalar := range s.Scalars {
		compareSyntax(t, object(scalar.smiNode, mib.Scalar), scalar, types)
	}
	for _, table := range s.Tables {
		o, row := object(table.smiNode, mib.Table), object(table.Row.smiNode, mib.Row)
		if o.Row != row || row.Table != o || o.Access != 0 {
			t.Errorf("%s and %s are not linked", o.Name, row.Name)
		}
		for i, index := range table.Row.Index {
			if len(row.Index) != len(table.Row.Index) || row.Index[i].Name != index.Name {
				t.Errorf("%s: index is not %v", row.Name, table.Row.Index)
			}
		}
		for i, column := range table.Row.Columns {
			o := object(column.smiNode, mib.Column)
			compareSyntax(t, o, column, types)
			if o.Row != row || len(row.Columns) != len(table.Row.Columns) || row.Columns[i] != o {
				t.Errorf("%s is not column %d of %s", o.Name, i, row.Name)
			}
		}
	}
	if count != len(mib.Objects) {
		t.Errorf("%d objects generated, smidump has %d", len(mib.Objects), count)
	}
}

func compareSyntax(t *testing.T, o *mib.Object, s smiObject, types map[string]smiType) {
	t.Helper()
	typ, tc := s.Inline, s.Type.Name
	if tc != "" {
		typ = types[tc]
	} else {
		tc = s.Inline.Parent.Name
	}
	if tc == "Unsigned32" {
		tc = ""
	}
	base := map[string]mib.Type{"Bits": mib.OctetString, "OctetString": mib.OctetString, "Unsigned32": mib.Gauge32,
		"Enumeration": mib.Integer, "Integer32": mib.Integer}[typ.Base]
	access := map[string]mib.Access{"noaccess": mib.NotAccessible, "readonly": mib.ReadOnly, "readwrite": mib.ReadWrite}[s.Access]
	if base == 0 || o.Type != base || o.IsBits != (typ.Base == "Bits") || o.TC != tc || o.Access != access || o.Units != s.Units {
		t.Errorf("%s: generated %+v, smidump has %+v", o.Name, *o, s)
	}
	for i, n := range typ.Names {
		if len(o.Enums) != len(typ.Names) || o.Enums[i] != (mib.Named{Name: n.Name, Number: n.Number}) {
			t.Errorf("%s: labels %v, smidump has %v", o.Name, o.Enums, typ.Names)
			break
		}
	}
	for i, r := range typ.Ranges {
		if len(o.Ranges) != len(typ.Ranges) || o.Ranges[i] != (mib.Range{Min: r.Min, Max: r.Max}) {
			t.Errorf("%s: ranges %v, smidump has %v", o.Name, o.Ranges, typ.Ranges)
			break
		}
	}
	var want *string
	if o.Default != nil {
		text := smiDefault(o)
		want = &text
	}
	if (s.Default == nil) != (want == nil) || want != nil && *s.Default != *want {
		t.Errorf("%s: DEFVAL %v, smidump has %v", o.Name, o.Default, s.Default)
	}
}

// smiDefault writes the DEFVAL as smidump does.
func smiDefault(o *mib.Object) string {
	switch {
	case o.IsBits:
		var labels []string
		for _, e := range o.Enums {
			if mib.HasBit(o.Default.Bytes, int(e.Number)) {
				labels = append(labels, e.Name)
			}
		}
		return "(" + strings.Join(labels, ", ") + ")"
	case o.Type == mib.OctetString:
		return o.Default.String()
	case len(o.Enums) > 0:
		return o.Label(o.Default.Int)
	}
	return o.Default.String()
}

func TestGeneratedNotificationsAgreeWithSmidump(t *testing.T) {
	s := smidump(t)
	m := mib.NewModule(nil)
	if len(s.Notifications) != len(mib.Notifications) {
		t.Fatalf("%d notifications generated, smidump has %d", len(mib.Notifications), len(s.Notifications))
	}
	for i, n := range mib.Notifications {
		var objects, want []string
		for _, o := range n.Objects {
			objects = append(objects, o.Name)
		}
		for _, o := range s.Notifications[i].Objects {
			want = append(want, o.Name)
		}
		if n.Name != s.Notifications[i].Name || m.NotificationOID(n).String() != s.Notifications[i].OID || !slices.Equal(objects, want) {
			t.Errorf("generated %s %v %v, smidump has %+v", n.Name, m.NotificationOID(n), objects, s.Notifications[i])
		}
	}
}

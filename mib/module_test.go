package mib_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/iad/mib"
)

// Definitions in the embedded text, found without a parser: each object and
// notification of it is generated, in the order of identifiers.
func TestEverythingInTheTextIsGenerated(t *testing.T) {
	defined := func(macro string) []string {
		var names []string
		for _, m := range regexp.MustCompile(`(?m)^(\w+) `+macro+`$`).FindAllStringSubmatch(mib.Text, -1) {
			names = append(names, m[1])
		}
		return names
	}
	var objects, notifications []string
	for _, o := range mib.Objects {
		objects = append(objects, o.Name)
	}
	for _, n := range mib.Notifications {
		notifications = append(notifications, n.Name)
	}
	if want := defined("OBJECT-TYPE"); len(want) == 0 || !slices.Equal(objects, want) {
		t.Errorf("objects %v, the text has %v", objects, want)
	}
	if want := defined("NOTIFICATION-TYPE"); len(want) == 0 || !slices.Equal(notifications, want) {
		t.Errorf("notifications %v, the text has %v", notifications, want)
	}
	for _, n := range mib.Notifications {
		clause := regexp.MustCompile(`(?s)` + n.Name + ` NOTIFICATION-TYPE\s+OBJECTS\s+\{(.*?)\}`).FindStringSubmatch(mib.Text)
		if clause == nil {
			t.Fatalf("%s has no OBJECTS in the text", n.Name)
		}
		var names []string
		for _, o := range n.Objects {
			names = append(names, o.Name)
		}
		if want := strings.Fields(strings.ReplaceAll(clause[1], ",", " ")); !slices.Equal(names, want) {
			t.Errorf("%s carries %v, the text has %v", n.Name, names, want)
		}
	}
}

// enumerated is what every generated enumeration type offers.
type enumerated interface {
	fmt.Stringer
	Value() mib.Value
}

var enumerations = map[string]func(int64) enumerated{
	"TruthValue":           func(n int64) enumerated { return mib.TruthValue(n) },
	"InetAddressType":      func(n int64) enumerated { return mib.InetAddressType(n) },
	"IadUpgOperationKind":  func(n int64) enumerated { return mib.OperationKind(n) },
	"IadUpgOperationState": func(n int64) enumerated { return mib.OperationState(n) },
	"IadUpgOperationPhase": func(n int64) enumerated { return mib.OperationPhase(n) },
	"IadUpgFailCause":      func(n int64) enumerated { return mib.FailCause(n) },
	"IadUpgRetryAdvice":    func(n int64) enumerated { return mib.RetryAdvice(n) },
	"IadUpgFileType":       func(n int64) enumerated { return mib.FileType(n) },
	"IadUpgProtocol":       func(n int64) enumerated { return mib.Protocol(n) },
	"iadUpgRestartReason":  func(n int64) enumerated { return mib.RestartReasonEnum(n) },
	"iadUpgBankState":      func(n int64) enumerated { return mib.BankStateEnum(n) },
	"iadUpgConfirmMode":    func(n int64) enumerated { return mib.ConfirmModeEnum(n) },
	"iadUpgEventType":      func(n int64) enumerated { return mib.EventTypeEnum(n) },
}

func TestEnumerations(t *testing.T) {
	for _, o := range mib.Objects {
		for _, e := range o.Enums {
			if n, ok := o.Number(e.Name); !ok || n != e.Number || o.Label(n) != e.Name {
				t.Errorf("%s: %s(%d) is found as %d and named %s", o.Name, e.Name, e.Number, n, o.Label(n))
			}
		}
		if n, ok := o.Number("noSuchLabel"); ok {
			t.Errorf("%s: a label that is not there has number %d", o.Name, n)
		}
		if len(o.Enums) == 0 || o.IsBits {
			continue
		}
		name := o.TC
		if name == "" {
			name = o.Name
		}
		of := enumerations[name]
		if of == nil {
			t.Errorf("%s: no Go type known for %s", o.Name, name)
			continue
		}
		for _, e := range o.Enums {
			if v := of(e.Number); v.String() != e.Name || !v.Value().Equal(mib.Int32(e.Number)) {
				t.Errorf("%s: %s(%d) is %v, %v", name, e.Name, e.Number, v, v.Value())
			}
		}
		if got := of(255).String(); got != "255" {
			t.Errorf("%s: a number without label is %q, want 255", name, got)
		}
	}
}

// Constants that other packages count on, checked against the module's words.
func TestConstants(t *testing.T) {
	tests := []struct {
		got, want string
	}{
		{mib.OperationKindRestoreOldSoftware.String(), "restoreOldSoftware"},
		{mib.FailCauseInternalError.String(), "internalError"},
		{mib.ReqOptions.Label(mib.ReqOptionsCheckOnly), "checkOnly"},
		{mib.NotifyEnable.Label(mib.NotifyEnableRestarted), "restarted"},
		{mib.ReqFiles.Label(mib.FileSetOtherData), "otherData"},
		{mib.OpKindsSupported.Label(mib.OpKindsSupportedConfirm), "confirm"},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("got %s, want %s", tt.got, tt.want)
		}
	}
	// IadUpgFileType less one is the bit in IadUpgFileSet; IadUpgOperationKind
	// less two is the bit in iadUpgOpKindsSupported; and so on.
	for _, pair := range []struct {
		values, bits *mib.Object
		less         int64
	}{
		{mib.FileKind, mib.ReqFiles, 1},
		{mib.ServerProtocol, mib.ProtocolsSupported, 1},
		{mib.ReqCommand, mib.OpKindsSupported, 2},
		{mib.EventType, mib.NotifyEnable, 1},
	} {
		for _, e := range pair.values.Enums {
			if e.Number >= pair.less && pair.bits.Label(e.Number-pair.less) != e.Name {
				t.Errorf("%s %s(%d): the bit is %s", pair.values.Name, e.Name, e.Number, pair.bits.Label(e.Number-pair.less))
			}
		}
	}
	// The type of an event is the last number of its notification.
	for _, e := range mib.EventType.Enums {
		m := mib.NewModule(nil)
		n, ok := m.NotificationByOID(m.Root().Append(0, uint32(e.Number)))
		if !ok || !strings.Contains(strings.ToLower(n.Name), strings.ToLower(e.Name)) && e.Name != "started" {
			t.Errorf("event %s(%d) is not notification %v", e.Name, e.Number, n)
		}
	}
}

func TestLookup(t *testing.T) {
	for _, root := range []mib.OID{nil, {1, 3, 6, 1, 4, 1, 99999, 7}} {
		m := mib.NewModule(root)
		for _, want := range mib.Objects {
			if o, index, ok := m.Lookup(m.OID(want)); !ok || o != want || len(index) != 0 {
				t.Errorf("Lookup(%s) = %v, %v, %v", want.Name, o, index, ok)
			}
			o, index, ok := m.Lookup(m.OID(want, 4, 5))
			found := ok && o == want && index.Compare(mib.OID{4, 5}) == 0
			if leaf := want.Kind == mib.Scalar || want.Kind == mib.Column; found != leaf {
				t.Errorf("Lookup(%s.4.5) = %v, %v, %v", want.Name, o, index, ok)
			}
			if o, index, ok := m.Lookup(m.OID(want, 0)); ok != (want.Kind == mib.Scalar || want.Kind == mib.Column) {
				t.Errorf("Lookup(%s.0) = %v, %v, %v", want.Name, o, index, ok)
			}
			if o, ok := mib.ObjectByName(want.Name); !ok || o != want {
				t.Errorf("ObjectByName(%s) = %v, %v", want.Name, o, ok)
			}
		}
		for _, want := range mib.Notifications {
			if n, ok := m.NotificationByOID(m.NotificationOID(want)); !ok || n != want {
				t.Errorf("NotificationByOID(%s) = %v, %v", want.Name, n, ok)
			}
		}
		for _, oid := range []mib.OID{nil, m.Root(), m.Root().Append(0), m.Root().Append(0, 99), {1, 3, 6, 1, 6, 3, 1, 1, 5, 1}} {
			if n, ok := m.NotificationByOID(oid); ok {
				t.Errorf("NotificationByOID(%v) = %s", oid, n.Name)
			}
		}
	}
	if o, ok := mib.ObjectByName("sysDescr"); ok {
		t.Errorf("ObjectByName(sysDescr) = %v", o)
	}
}

func TestModuleKeepsItsRoot(t *testing.T) {
	root := mib.OID{1, 3, 6, 1, 4, 1, 5}
	m := mib.NewModule(root)
	root[6] = 6
	if got := m.OID(mib.OpState, 0).String(); got != "1.3.6.1.4.1.5.1.6.5.0" {
		t.Errorf("iadUpgOpState.0 is %s", got)
	}
}

func TestParseRoot(t *testing.T) {
	for _, s := range []string{"1.3.6.1.4.1.8072.9999.9999.17325", ".1.3.6.1.4.1.99999", "2.999", "0.39"} {
		if root, err := mib.ParseRoot(s); err != nil || root.String() != strings.TrimPrefix(s, ".") {
			t.Errorf("ParseRoot(%q) = %v, %v", s, root, err)
		}
	}
	for _, s := range []string{"", "1", "3.1", "1.40", "2.4294967295", "1.3.x", strings.Repeat("1.", 64) + "1"} {
		if root, err := mib.ParseRoot(s); err == nil {
			t.Errorf("ParseRoot(%q) = %v, want an error", s, root)
		}
	}
}

package mib_test

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"example.com/iad/mib"
)

func TestParseOID(t *testing.T) {
	for s, want := range map[string]mib.OID{
		"1.3.6.1":                           {1, 3, 6, 1},
		".1.3.6.1":                          {1, 3, 6, 1},
		"0":                                 {0},
		"2.4294967295.0":                    {2, math.MaxUint32, 0},
		strings.Repeat("1.", 127) + "1":     mib.OID(bytes32(128)),
		"." + strings.Repeat("1.", 9) + "1": mib.OID(bytes32(10)),
	} {
		got, err := mib.ParseOID(s)
		if err != nil || got.Compare(want) != 0 || got.String() != strings.TrimPrefix(s, ".") {
			t.Errorf("ParseOID(%q) = %v, %v", s, got, err)
		}
		if must := mib.MustParseOID(s); must.Compare(want) != 0 {
			t.Errorf("MustParseOID(%q) = %v", s, must)
		}
	}
	for _, s := range []string{"", ".", "1.", "..1", "1..3", "1.-3", "1.+3", "1.4294967296", "a.b", "1.3 ", "1,3", strings.Repeat("1.", 128) + "1"} {
		if got, err := mib.ParseOID(s); err == nil || !strings.Contains(err.Error(), "object identifier") {
			t.Errorf("ParseOID(%q) = %v, %v, want an error", s, got, err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("MustParseOID of something else does not panic")
		}
	}()
	mib.MustParseOID("x")
}

// bytes32 is n times the number 1.
func bytes32(n int) []uint32 {
	s := make([]uint32, n)
	for i := range s {
		s[i] = 1
	}
	return s
}

func TestOIDOrderAndPrefix(t *testing.T) {
	sorted := []mib.OID{{}, {1}, {1, 3}, {1, 3, 0}, {1, 3, 5}, {1, 3, math.MaxUint32}, {1, 4}, {2}}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := a.Compare(b); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("%v compared to %v is %d", a, b, got)
			}
		}
	}
	if !(mib.OID{1, 3, 5}).HasPrefix(mib.OID{1, 3}) || !(mib.OID{1, 3}).HasPrefix(mib.OID{1, 3}) || (mib.OID{1}).HasPrefix(mib.OID{1, 3}) ||
		(mib.OID{1, 4, 5}).HasPrefix(mib.OID{1, 3}) {
		t.Error("HasPrefix is wrong")
	}
	base := make(mib.OID, 1, 8)
	if a, b := base.Append(1), base.Append(2); a.Compare(mib.OID{0, 1}) != 0 || b.Compare(mib.OID{0, 2}) != 0 {
		t.Errorf("Append shares memory: %v and %v", a, b)
	}
}

func TestValues(t *testing.T) {
	tests := []struct {
		value      mib.Value
		text, kind string
		exception  bool
	}{
		{mib.Int32(-5), "-5", "INTEGER", false},
		{mib.Uint32(math.MaxUint32), "4294967295", "Unsigned32", false},
		{mib.Ticks(100), "100", "TimeTicks", false},
		{mib.Str("a\n\"b\""), `"a\n\"b\""`, "OCTET STRING", false},
		{mib.Octets([]byte{0xff}), `"\xff"`, "OCTET STRING", false},
		{mib.ID(mib.OID{1, 3, 6}), "1.3.6", "OBJECT IDENTIFIER", false},
		{mib.Bool(true), "1", "INTEGER", false},
		{mib.Bool(false), "2", "INTEGER", false},
		{mib.Value{Type: mib.IPAddress, Bytes: []byte("abcd")}, `"abcd"`, "IpAddress", false},
		{mib.Value{Type: mib.Opaque, Bytes: []byte("x")}, `"x"`, "Opaque", false},
		{mib.Value{Type: mib.Counter32, Int: 7}, "7", "Counter32", false},
		{mib.Value{Type: mib.Counter64, Int: -1}, "18446744073709551615", "Counter64", false},
		{mib.Value{Type: mib.Null}, "NULL", "NULL", false},
		{mib.Value{Type: mib.NoSuchObject}, "noSuchObject", "noSuchObject", true},
		{mib.Value{Type: mib.NoSuchInstance}, "noSuchInstance", "noSuchInstance", true},
		{mib.Value{Type: mib.EndOfMibView}, "endOfMibView", "endOfMibView", true},
		{mib.Value{Type: 0x47}, "0", "type 0x47", false},
	}
	for i, tt := range tests {
		if got := tt.value.String(); got != tt.text {
			t.Errorf("value %d is shown as %s, want %s", i, got, tt.text)
		}
		if got := tt.value.Type.String(); got != tt.kind {
			t.Errorf("type %d is shown as %s, want %s", i, got, tt.kind)
		}
		if tt.value.IsException() != tt.exception {
			t.Errorf("%v: IsException is %v", tt.value, !tt.exception)
		}
		for j, other := range tests {
			if tt.value.Equal(other.value) != (i == j) {
				t.Errorf("%v (%v) equal to %v (%v): %v", tt.value, tt.kind, other.value, other.kind, i != j)
			}
		}
	}
}

func TestStatusNames(t *testing.T) {
	for status, want := range map[mib.Status]string{
		mib.NoError: "noError", mib.TooBig: "tooBig", mib.GenErr: "genErr", mib.NoAccess: "noAccess", mib.WrongType: "wrongType",
		mib.WrongLength: "wrongLength", mib.WrongEncoding: "wrongEncoding", mib.WrongValue: "wrongValue", mib.NoCreation: "noCreation",
		mib.InconsistentValue: "inconsistentValue", mib.ResourceUnavailable: "resourceUnavailable", mib.CommitFailed: "commitFailed",
		mib.UndoFailed: "undoFailed", mib.AuthorizationError: "authorizationError", mib.NotWritable: "notWritable",
		mib.InconsistentName: "inconsistentName", 19: "19",
	} {
		if status.String() != want {
			t.Errorf("error-status %d is %v, want %s", status, status, want)
		}
	}
}

func TestBits(t *testing.T) {
	tests := []struct {
		bits []int
		want []byte
	}{
		{nil, []byte{0}},
		{[]int{0}, []byte{0x80}},
		{[]int{7, 0}, []byte{0x81}},
		{[]int{8}, []byte{0, 0x80}},
		{[]int{0, 1, 2, 3, 4, 5, 6, 7, 15}, []byte{0xff, 0x01}},
		{[]int{-1, 1}, []byte{0x40}},
	}
	for _, tt := range tests {
		got := mib.Bits(tt.bits...)
		if !bytes.Equal(got, tt.want) {
			t.Errorf("Bits(%v) = %x, want %x", tt.bits, got, tt.want)
		}
		for n := range 40 {
			want := false
			for _, b := range tt.bits {
				want = want || b == n
			}
			if mib.HasBit(got, n) != want {
				t.Errorf("HasBit(%x, %d) = %v", got, n, !want)
			}
		}
	}
	if mib.HasBit([]byte{0xff}, -1) {
		t.Error("a negative bit is set")
	}
}

func TestDateAndTime(t *testing.T) {
	// The example of RFC 2579, 1992-5-26,13:30:15.0,-4:0, and its parts.
	est := time.FixedZone("", -4*3600)
	example := time.Date(1992, 5, 26, 13, 30, 15, 0, est)
	tests := []struct {
		time time.Time
		want []byte
	}{
		{time.Time{}, make([]byte, 8)},
		{time.Date(70000, 1, 1, 0, 0, 0, 0, time.UTC), make([]byte, 8)},
		{time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC), make([]byte, 8)},
		{example, []byte{0x07, 0xc8, 5, 26, 17, 30, 15, 0, '+', 0, 0}},
		{time.Date(2026, 12, 31, 23, 59, 59, 999_999_999, time.UTC), []byte{0x07, 0xea, 12, 31, 23, 59, 59, 9, '+', 0, 0}},
		{time.Date(65535, 1, 1, 0, 0, 0, 0, time.UTC), []byte{0xff, 0xff, 1, 1, 0, 0, 0, 0, '+', 0, 0}},
	}
	for _, tt := range tests {
		got := mib.DateAndTime(tt.time)
		if !got.Equal(mib.Octets(tt.want)) {
			t.Errorf("DateAndTime(%v) = %x, want %x", tt.time, got.Bytes, tt.want)
		}
		if status, reason := mib.OpStarted.Check(got); status != mib.NoError {
			t.Errorf("DateAndTime(%v) is refused by its own syntax: %v %s", tt.time, status, reason)
		}
		back, err := mib.ParseDateAndTime(got.Bytes)
		want := tt.time.Truncate(100 * time.Millisecond)
		if len(tt.want) == 8 {
			want = time.Time{}
		}
		if err != nil || !back.Equal(want) {
			t.Errorf("ParseDateAndTime(%x) = %v, %v, want %v", got.Bytes, back, err, want)
		}
	}
}

func TestParseDateAndTime(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		want string // empty for an error
	}{
		{"RFC 2579's example", []byte{0x07, 0xc8, 5, 26, 13, 30, 15, 0, '-', 4, 0}, "1992-05-26T17:30:15Z"},
		{"east of Greenwich", []byte{0x07, 0xea, 1, 1, 0, 0, 0, 5, '+', 5, 30}, "2025-12-31T18:30:00.5Z"},
		{"farthest east", []byte{0x07, 0xea, 1, 1, 14, 0, 0, 0, '+', 14, 0}, "2026-01-01T00:00:00Z"},
		{"without zone", []byte{0x07, 0xea, 2, 28, 1, 2, 3, 4}, "2026-02-28T01:02:03.4Z"},
		{"29 February", []byte{0x07, 0xe8, 2, 29, 0, 0, 0, 0}, "2024-02-29T00:00:00Z"},
		{"leap second", []byte{0x07, 0xe0, 12, 31, 23, 59, 60, 0, '+', 0, 0}, "2017-01-01T00:00:00Z"},
		{"unknown", make([]byte, 8), "0001-01-01T00:00:00Z"},
		{"unknown with zone", append(make([]byte, 8), '+', 0, 0), "0001-01-01T00:00:00Z"},
		{"empty", nil, ""},
		{"9 octets", make([]byte, 9), ""},
		{"29 February of another year", []byte{0x07, 0xea, 2, 29, 0, 0, 0, 0}, ""},
		{"month 0", []byte{0x07, 0xea, 0, 1, 0, 0, 0, 0}, ""},
		{"month 13", []byte{0x07, 0xea, 13, 1, 0, 0, 0, 0}, ""},
		{"day 0", []byte{0x07, 0xea, 1, 0, 0, 0, 0, 0}, ""},
		{"hour 24", []byte{0x07, 0xea, 1, 1, 24, 0, 0, 0}, ""},
		{"minute 60", []byte{0x07, 0xea, 1, 1, 0, 60, 0, 0}, ""},
		{"second 61", []byte{0x07, 0xea, 1, 1, 0, 0, 61, 0}, ""},
		{"ten tenths", []byte{0x07, 0xea, 1, 1, 0, 0, 0, 10}, ""},
		{"no direction", []byte{0x07, 0xea, 1, 1, 0, 0, 0, 0, 0, 0, 0}, ""},
		{"15 hours from UTC", []byte{0x07, 0xea, 1, 1, 0, 0, 0, 0, '+', 15, 0}, ""},
		{"60 minutes from UTC", []byte{0x07, 0xea, 1, 1, 0, 0, 0, 0, '-', 0, 60}, ""},
	}
	for _, tt := range tests {
		got, err := mib.ParseDateAndTime(tt.in)
		if tt.want == "" {
			if err == nil || !strings.Contains(err.Error(), "DateAndTime") {
				t.Errorf("%s: ParseDateAndTime(%x) = %v, %v, want an error", tt.name, tt.in, got, err)
			}
			continue
		}
		if err != nil || got.Format(time.RFC3339Nano) != tt.want {
			t.Errorf("%s: ParseDateAndTime(%x) = %v, %v, want %s", tt.name, tt.in, got, err, tt.want)
		}
	}
}

func TestInetAddress(t *testing.T) {
	v6 := []byte{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}
	link := append(append([]byte{0xfe, 0x80}, make([]byte, 13)...), 1)
	tests := []struct {
		host string
		typ  mib.InetAddressType
		want []byte
	}{
		{"", mib.InetAddressTypeUnknown, nil},
		{"192.0.2.7", mib.InetAddressTypeIpv4, []byte{192, 0, 2, 7}},
		{"2001:db8::1", mib.InetAddressTypeIpv6, v6},
		{"::ffff:192.0.2.7", mib.InetAddressTypeIpv6, append(append(make([]byte, 10), 0xff, 0xff), 192, 0, 2, 7)},
		{"fe80::1%3", mib.InetAddressTypeIpv6z, append(link, 0, 0, 0, 3)},
		{"files.example.net", mib.InetAddressTypeDns, []byte("files.example.net")},
		{"files.example.net.", mib.InetAddressTypeDns, []byte("files.example.net.")},
		{"file_server-1", mib.InetAddressTypeDns, []byte("file_server-1")},
	}
	for _, tt := range tests {
		typ, b, err := mib.InetAddress(tt.host)
		if err != nil || typ != tt.typ || !bytes.Equal(b, tt.want) {
			t.Errorf("InetAddress(%q) = %v, %x, %v, want %v, %x", tt.host, typ, b, err, tt.typ, tt.want)
		}
		host, err := mib.ParseInetAddress(tt.typ, tt.want)
		if err != nil || host != tt.host {
			t.Errorf("ParseInetAddress(%v, %x) = %q, %v, want %q", tt.typ, tt.want, host, err, tt.host)
		}
	}
	for _, host := range []string{"a b", "a..b", ".", "-a", "a-", "a/b", "192.0.2", "192.0.2.256", "fe80::1%eth0", "fe80::1%4294967296",
		"host\nname", "höst", strings.Repeat("a", 64), strings.Repeat("a.", 128)} {
		if typ, b, err := mib.InetAddress(host); err == nil {
			t.Errorf("InetAddress(%q) = %v, %x, want an error", host, typ, b)
		}
	}
	for _, tt := range []struct {
		typ mib.InetAddressType
		b   []byte
	}{
		{mib.InetAddressTypeUnknown, []byte{1}},
		{mib.InetAddressTypeIpv4, nil},
		{mib.InetAddressTypeIpv4, v6},
		{mib.InetAddressTypeIpv6, v6[:4]},
		{mib.InetAddressTypeIpv6z, v6},
		{mib.InetAddressTypeIpv4z, make([]byte, 8)},
		{mib.InetAddressTypeDns, nil},
		{mib.InetAddressTypeDns, []byte("no/host")},
		{mib.InetAddressTypeDns, []byte("192.0.2.7")},
		{5, []byte("x")},
	} {
		if host, err := mib.ParseInetAddress(tt.typ, tt.b); err == nil || !strings.Contains(err.Error(), "InetAddress") {
			t.Errorf("ParseInetAddress(%v, %x) = %q, %v, want an error", tt.typ, tt.b, host, err)
		}
	}
}

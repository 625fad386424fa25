package mib_test

import (
	"bytes"
	"errors"
	"maps"
	"testing"

	"example.com/iad/mib"
)

func FuzzParseOID(f *testing.F) {
	f.Add("1.3.6.1.4.1.8072.9999.9999.17325.1.6.5.0")
	f.Add(".1.3")
	f.Add("1..3")
	f.Add("4294967296")
	f.Fuzz(func(t *testing.T, s string) {
		oid, err := mib.ParseOID(s)
		if err != nil {
			return
		}
		again, err := mib.ParseOID(oid.String())
		if err != nil || again.Compare(oid) != 0 || len(oid) == 0 || len(oid) > mib.MaxOIDLen {
			t.Errorf("%q is %v, read again %v, %v", s, oid, again, err)
		}
	})
}

func FuzzParseDateAndTime(f *testing.F) {
	f.Add([]byte{0x07, 0xc8, 5, 26, 13, 30, 15, 0, '-', 4, 0})
	f.Add(make([]byte, 8))
	f.Add([]byte{0, 0, 1, 1, 0, 0, 0, 0, '+', 14, 59})
	f.Add([]byte{0xff, 0xff, 12, 31, 23, 59, 60, 9, '-', 14, 59})
	f.Fuzz(func(t *testing.T, b []byte) {
		at, err := mib.ParseDateAndTime(b)
		if err != nil {
			return
		}
		sent := mib.DateAndTime(at).Bytes
		again, err := mib.ParseDateAndTime(sent)
		// A zone can carry the time out of the years that can be sent.
		if lost := at.Year() < 0 || at.Year() > 65535; err != nil || !lost && !again.Equal(at) || lost && !again.IsZero() {
			t.Errorf("%x is %v, sent as %x, read again as %v, %v", b, at, sent, again, err)
		}
	})
}

func FuzzParseInetAddress(f *testing.F) {
	f.Add(uint8(1), []byte{192, 0, 2, 7})
	f.Add(uint8(2), make([]byte, 16))
	f.Add(uint8(4), make([]byte, 20))
	f.Add(uint8(16), []byte("files.example.net"))
	f.Fuzz(func(t *testing.T, typ uint8, b []byte) {
		host, err := mib.ParseInetAddress(mib.InetAddressType(typ), b)
		if err != nil {
			return
		}
		back, octets, err := mib.InetAddress(host)
		if err != nil || uint8(back) != typ || !bytes.Equal(octets, b) {
			t.Errorf("%d %x is %q, back to %v %x, %v", typ, b, host, back, octets, err)
		}
	})
}

func FuzzInetAddress(f *testing.F) {
	f.Add("192.0.2.7")
	f.Add("fe80::1%3")
	f.Add("files.example.net.")
	f.Fuzz(func(t *testing.T, host string) {
		typ, octets, err := mib.InetAddress(host)
		if err != nil {
			return
		}
		if status, reason := mib.ServerAddress.Check(mib.Octets(octets)); status != mib.NoError {
			t.Errorf("%q gives octets that cannot be sent: %s", host, reason)
		}
		if _, err := mib.ParseInetAddress(typ, octets); err != nil {
			t.Errorf("%q gives %v %x, which is refused: %v", host, typ, octets, err)
		}
	})
}

// varbinds makes varbinds of any octets. Each takes the position of an object
// in the module, one or no octet of index, a type, a number and a string.
func varbinds(m *mib.Module, data []byte) []mib.Varbind {
	next := func() int {
		if len(data) == 0 {
			return 0
		}
		n := int(data[0])
		data = data[1:]
		return n
	}
	var vbs []mib.Varbind
	for len(data) > 0 {
		oid := m.OID(mib.Objects[next()%len(mib.Objects)])
		if n := next(); n < 0xff {
			oid = oid.Append(uint32(n))
		}
		v := mib.Value{Type: mib.Type(next()), Int: int64(int8(next()))}
		n := min(next(), len(data))
		v.Bytes, data = data[:n], data[n:]
		vbs = append(vbs, mib.Varbind{OID: oid, Value: v})
	}
	return vbs
}

// setBytes is the opposite of varbinds.
func setBytes(o *mib.Object, index byte, v mib.Value) []byte {
	for i := range mib.Objects {
		if mib.Objects[i] == o {
			return append([]byte{byte(i), index, byte(v.Type), byte(v.Int), byte(len(v.Bytes))}, v.Bytes...)
		}
	}
	return nil
}

func FuzzTreeSet(f *testing.F) {
	f.Add(setBytes(mib.ReqOwner, 0, mib.Str("noc")))
	f.Add(append(setBytes(mib.ReqId, 0, mib.Uint32(7)), setBytes(mib.ReqCommand, 0, mib.OperationKindReset.Value())...))
	f.Add(append(setBytes(mib.ServerAddress, 2, mib.Octets([]byte{192, 0, 2, 7})), setBytes(mib.ServerAddressType, 2, mib.InetAddressTypeIpv4.Value())...))
	f.Add(append(setBytes(mib.ReqOptions, 0, mib.Octets([]byte{0x80, 0})), setBytes(mib.ReqOptions, 0, mib.Octets([]byte{0x80}))...))
	f.Add(setBytes(mib.OpState, 0, mib.Int32(1)))
	f.Add(setBytes(mib.ReqServer, 0xff, mib.Uint32(1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := newDevice(1)
		m, tree := serve(d)
		vbs := varbinds(m, data)
		before := maps.Clone(d.values)
		tx, err := tree.Test(mib.Caller{}, vbs)
		if !maps.EqualFunc(before, d.values, mib.Value.Equal) {
			t.Fatal("Test changed something")
		}
		if err != nil {
			var refused *mib.SetError
			if !errors.As(err, &refused) || refused.Index < 1 || refused.Index > len(vbs) || refused.Status == mib.NoError || refused.Status > mib.InconsistentName {
				t.Fatalf("refused by %v", err)
			}
			return
		}
		for _, c := range d.changes {
			status, reason := c.Object.Check(c.Value)
			_, exists := before[instance(c.Object, c.Index)]
			if status != mib.NoError || !exists || c.Object.Access != mib.ReadWrite || c.Pos < 1 || c.Pos > len(vbs) {
				t.Errorf("the device is given %+v: %v %s", c, status, reason)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		for _, vb := range vbs {
			got := get(t, tree, vb.OID)
			if o, _, _ := m.Lookup(vb.OID); !o.IsBits && (got.Type != vb.Value.Type || got.Int != vb.Value.Int || !bytes.Equal(got.Bytes, vb.Value.Bytes)) {
				t.Errorf("%s was set to %v and reads %v", o.Name, vb.Value, got)
			}
		}
		if err := tx.Undo(); err != nil || !maps.EqualFunc(before, d.values, mib.Value.Equal) {
			t.Errorf("Undo did not: %v", err)
		}
	})
}

func FuzzTreeNext(f *testing.F) {
	f.Add("1.3.6.1", "", false)
	f.Add("1.3.6.1.4.1.8072.9999.9999.17325.1.2.1.1.2.1", "1.3.6.1.4.1.8072.9999.9999.17325.1.3", false)
	f.Add("1.3.6.1.4.1.8072.9999.9999.17325.1.6.5.0", "", true)
	f.Add("2", "1", true)
	d := newDevice(2)
	m, tree := serve(d)
	names := d.names(m)
	f.Fuzz(func(t *testing.T, start, end string, inclusive bool) {
		s := mib.Search{Inclusive: inclusive}
		s.Start, _ = mib.ParseOID(start)
		s.End, _ = mib.ParseOID(end)
		got := tree.Next([]mib.Search{s})[0]
		if want, ok := nextOf(names, s); ok != (got.Value.Type != mib.EndOfMibView) || ok && got.OID.Compare(want) != 0 {
			t.Errorf("%+v: got %v = %v, want %v %v", s, got.OID, got.Value, want, ok)
		}
	})
}

package device

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/mib"
)

// Field is an object and what stores its value.
type Field struct {
	Object *mib.Object
	Set    func(mib.Value)
}

// Number stores an INTEGER or Unsigned32.
func Number[T ~uint8 | ~uint32 | ~int](o *mib.Object, to *T) Field {
	return Field{o, func(v mib.Value) { *to = T(v.Int) }}
}

// printable makes a text from the network safe for a terminal and a log: control
// characters, direction marks and other invisible characters become replacement
// characters.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(string(b), string(unicode.ReplacementChar)))
}

// Text stores an SnmpAdminString, cut to the size that the module permits.
func Text(o *mib.Object, to *string) Field {
	return Field{o, func(v mib.Value) {
		b := v.Bytes
		if n := len(o.Ranges); n > 0 && int64(len(b)) > o.Ranges[n-1].Max {
			b = b[:o.Ranges[n-1].Max]
			for len(b) > 0 && !utf8.RuneStart(v.Bytes[len(b)]) {
				b = b[:len(b)-1]
			}
		}
		*to = printable(b)
	}}
}

// CheckDeviceID returns an error for an invalid device ID. It becomes the name of a
// directory, so it must not contain invisible characters, and no two may look the same
// after printable.
func CheckDeviceID(address string, id []byte) error {
	bad := func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }
	if len(id) < 1 || len(id) > maxDeviceID || !utf8.Valid(id) || bytes.ContainsFunc(id, bad) {
		return fmt.Errorf("%s: the device ID %.100q is not valid: it needs 1 to %d bytes of printable characters; correct it on the device", address, id, maxDeviceID)
	}
	return nil
}

// maxDeviceID is the largest size of iadUpgDeviceId in bytes.
const maxDeviceID = 32

func Octets(o *mib.Object, to *[]byte) Field {
	return Field{o, func(v mib.Value) { *to = v.Bytes }}
}

func Truth(o *mib.Object, to *bool) Field {
	return Field{o, func(v mib.Value) { *to = v.Int == int64(mib.TruthValueTrue) }}
}

func Seconds(o *mib.Object, to *time.Duration) Field {
	return Field{o, func(v mib.Value) { *to = time.Duration(v.Int) * time.Second }}
}

// when stores a DateAndTime; the zero time means that the device did not know it.
func when(o *mib.Object, to *time.Time) Field {
	return Field{o, func(v mib.Value) {
		if t, err := mib.ParseDateAndTime(v.Bytes); err == nil {
			*to = t
		}
	}}
}

// decodePDU returns the varbind that gosnmp decoded.
func decodePDU(pdu gosnmp.SnmpPDU) (mib.Varbind, error) {
	oid, err := mib.ParseOID(pdu.Name)
	if err != nil {
		return mib.Varbind{}, err
	}
	v := mib.Value{Type: mib.Type(pdu.Type)}
	switch value := pdu.Value.(type) {
	case nil:
	case int:
		v.Int = int64(value)
	case uint:
		v.Int = int64(value)
	case uint32:
		v.Int = int64(value)
	case uint64:
		v.Int = int64(value)
	case []byte:
		v.Bytes = value
	case string:
		switch pdu.Type {
		case gosnmp.ObjectIdentifier:
			if v.OID, err = mib.ParseOID(value); err != nil {
				return mib.Varbind{}, err
			}
		case gosnmp.IPAddress:
			v.Bytes = net.ParseIP(value).To4()
		default:
			v.Bytes = []byte(value)
		}
	default:
		return mib.Varbind{}, fmt.Errorf("%s: value of unexpected type %v", oid, pdu.Type)
	}
	return mib.Varbind{OID: oid, Value: v}, nil
}

// encodePDU returns a varbind for gosnmp to encode.
func encodePDU(vb mib.Varbind) gosnmp.SnmpPDU {
	pdu := gosnmp.SnmpPDU{Name: vb.OID.String(), Type: gosnmp.Asn1BER(vb.Value.Type)}
	switch vb.Value.Type {
	case mib.Integer:
		pdu.Value = int(vb.Value.Int)
	case mib.Gauge32, mib.Counter32, mib.TimeTicks:
		pdu.Value = uint32(vb.Value.Int)
	case mib.OctetString, mib.Opaque, mib.IPAddress:
		pdu.Value = vb.Value.Bytes
	case mib.ObjectIdentifier:
		pdu.Value = vb.Value.OID.String()
	case mib.Counter64:
		pdu.Value = uint64(vb.Value.Int)
	}
	return pdu
}

// Fits reports whether a value has the type of the object.
func Fits(o *mib.Object, v mib.Value) bool { return v.Type == o.Type }

// Sized reports whether a byte string has a size that the module permits.
func Sized(o *mib.Object, v mib.Value) bool {
	if v.Type != mib.OctetString || len(o.Ranges) == 0 {
		return true
	}
	for _, r := range o.Ranges {
		if n := int64(len(v.Bytes)); n >= r.Min && n <= r.Max {
			return true
		}
	}
	return false
}

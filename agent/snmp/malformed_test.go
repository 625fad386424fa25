package snmp

import (
	"slices"
	"testing"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// element builds a BER element around its contents.
func element(tag byte, contents ...[]byte) []byte {
	joined := slices.Concat(contents...)
	if len(joined) < 0x80 {
		return append([]byte{tag, byte(len(joined))}, joined...)
	}
	return append([]byte{tag, 0x82, byte(len(joined) >> 8), byte(len(joined))}, joined...)
}

// Messages that are not well formed are counted and not answered, and a SET
// in them is not executed, however little is wrong.
func TestMalformed(t *testing.T) {
	name := snmp.EncodeVars([]mib.Varbind{{OID: module.OID(mib.ReqOwner, 0), Value: mib.Value{Type: mib.Null}}})
	name = name[2 : len(name)-2] // without the sequence around it and the value after it
	text := element(4, []byte("x"))
	number := func(b ...byte) []byte { return element(2, b) }
	one := number(1)
	list := func(vars ...[]byte) []byte { return element(0x30, vars...) }
	varbind := func(parts ...[]byte) []byte { return element(0x30, parts...) }
	set := func(parts ...[]byte) []byte { return element(snmp.PDUSet, parts...) }
	community := element(4, []byte("private"))
	message := func(parts ...[]byte) []byte { return element(0x30, parts...) }
	ofValue := func(value []byte) []byte {
		return message(one, community, set(one, one, one, list(varbind(name, value))))
	}
	ofName := func(oid []byte) []byte {
		return message(one, community, set(one, one, one, list(varbind(element(6, oid), text))))
	}
	long := make([]byte, 128)
	for i := range long {
		long[i] = 1
	}

	for label, msg := range map[string][]byte{
		"empty":                       {},
		"one octet":                   {0x30},
		"no sequence":                 text,
		"indefinite length":           {0x30, 0x80, 2, 1, 1, 0, 0},
		"length of five octets":       {0x30, 0x85, 0, 0, 0, 0, 1, 0},
		"length beyond 31 bits":       {0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0},
		"version too wide":            message(number(0, 0, 0, 0, 1), community, set(one, one, one, list(varbind(name, text)))),
		"no community":                message(one, set(one, one, one, list(varbind(name, text)))),
		"octets after the PDU":        message(one, community, set(one, one, one, list(varbind(name, text))), []byte{0}),
		"octets after the variables":  message(one, community, set(one, one, one, list(varbind(name, text)), []byte{5, 0})),
		"empty request-id":            message(one, community, set(number(), one, one, list(varbind(name, text)))),
		"request-id of five octets":   message(one, community, set(number(0, 0, 0, 0, 1), one, one, list(varbind(name, text)))),
		"text for an error-index":     message(one, community, set(one, one, text, list(varbind(name, text)))),
		"no list":                     message(one, community, set(one, one, one)),
		"unknown PDU":                 message(one, community, element(0xa9, one, one, one, list(varbind(name, text)))),
		"variable without a value":    message(one, community, set(one, one, one, list(varbind(name)))),
		"variable of three":           message(one, community, set(one, one, one, list(varbind(name, text, text)))),
		"string beyond its variable":  message(one, community, set(one, one, one, list(varbind(name, []byte{4, 2, 'x'})))),
		"variable beyond the list":    message(one, community, set(one, one, one, element(0x30, []byte{0x30, 127}, name, text))),
		"unknown type of value":       ofValue(element(0x45, []byte{1})),
		"constructed string":          ofValue(element(0x24, text)),
		"INTEGER of five octets":      ofValue(number(0, 0, 0, 0, 1)),
		"empty INTEGER":               ofValue(number()),
		"negative Counter32":          ofValue(element(0x41, []byte{0xff})),
		"Gauge32 beyond 32 bits":      ofValue(element(0x42, []byte{1, 0, 0, 0, 0})),
		"Counter64 beyond 64 bits":    ofValue(element(0x46, []byte{1, 0, 0, 0, 0, 0, 0, 0, 0})),
		"IpAddress of three octets":   ofValue(element(0x40, []byte{127, 0, 0})),
		"null with contents":          ofValue([]byte{5, 1, 0}),
		"endOfMibView with contents":  ofValue([]byte{0x82, 1, 0}),
		"empty name":                  ofName(nil),
		"truncated name":              ofName([]byte{0x2b, 0x86}),
		"name with a leading zero":    ofName([]byte{0x2b, 0x80, 1}),
		"sub-identifier too large":    ofName([]byte{0x2b, 0x90, 0x80, 0x80, 0x80, 0}),
		"sub-identifier far too long": ofName([]byte{0x2b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}),
		"name of 129 sub-identifiers": ofName(long),
	} {
		t.Run(label, func(t *testing.T) {
			e, d := newV2c(t)
			reply, done := e.Answer(source, msg)
			if reply != nil || done != nil || d.tested() != 0 {
				t.Errorf("answered with %x", reply)
			}
			if n := e.own(t, "1.3.6.1.2.1.11.6.0").Int; n != 1 {
				t.Errorf("snmpInASNParseErrs is %d", n)
			}
		})
	}

	// What differs only in how long its lengths are, is well formed.
	e, d := newV2c(t)
	good := message(one, community, set(number(0, 0, 0, 1), one, one, []byte{0x30, 0x84, 0, 0, 0, byte(len(name) + 7), 0x30, 0x82, 0, byte(len(name) + 3)}, name, text))
	if _, done := e.Answer(source, good); done == nil || d.tested() != 1 {
		t.Error("a message with long lengths is refused")
	}
}

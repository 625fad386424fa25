package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/iad/mib"
)

var testsOfObjects = []*Test{
	{Name: "objects", Title: "Every object is there, with values that the module permits", Quick: true, run: objects},
	{Name: "banks", Title: "The rows of iadUpgBankTable agree with each other and with iadUpgSoftwareVersion", Quick: true, run: banks},
	{Name: "no-such-instance", Title: "Rows that do not exist are reported as such", Quick: true, run: noSuchInstance},
	{Name: "read-only", Title: "Read-only objects cannot be written", Quick: true, run: readOnly},
	{Name: "wrong-values", Title: "Values of a wrong type, length or range are refused, each with its error-status", Quick: true, run: wrongValues},
	{Name: "atomic-set", Title: "A SET takes effect as a whole or not at all", Quick: true, run: atomicSet},
	{Name: "read-back", Title: "What was written is read back", Quick: true, run: readBack},
	{Name: "server-address", Title: "Address and type of a server fit together", Quick: true, run: serverAddress},
	{Name: "server-protocol", Title: "A protocol that is not supported cannot be written", Quick: true, run: serverProtocol},
	{Name: "password", Title: "A password is never shown, and is discarded when the server changes", Quick: true, run: password},
	{Name: "password-plain", Title: "A password in a message without privacy is refused, or is stored", Quick: true, needs: needNoPrivacy, run: passwordPlain},
}

// tables are the tables with the indexes that always exist.
var tables = []struct {
	row     *mib.Object
	indexes []uint32
}{
	{mib.BankEntry, []uint32{1, 2}},
	{mib.ServerEntry, []uint32{1, 2, 3, 4}},
	{mib.FileEntry, []uint32{1, 2, 3, 4, 5, 6}},
}

// permitted reports whether a value is one that the module permits. A failure cause may be
// one that was added later.
func permitted(o *mib.Object, v mib.Value) (bool, string) {
	if o.TC == "IadUpgFailCause" && v.Type == mib.Integer && v.Int > 0 {
		return true, ""
	}
	status, why := o.Check(v)
	return status == mib.NoError, why
}

func objects(t *T) {
	for _, o := range mib.Objects {
		if o.Kind == mib.Scalar {
			t.instance(o)
		}
	}
	for _, table := range tables {
		for _, column := range table.row.Columns {
			for _, index := range table.indexes {
				if column.Access != mib.NotAccessible {
					t.instance(column, index)
				}
			}
		}
	}
	for _, row := range []*mib.Object{mib.BankEntry, mib.ServerEntry, mib.FileEntry, mib.HistEntry, mib.EventEntry} {
		rows := map[uint32]bool{}
		err := t.client.Walk(t.ctx, row, func(column *mib.Object, index mib.OID, v mib.Value) {
			if len(index) == 1 {
				rows[index[0]] = true
			}
			ok, why := permitted(column, v)
			t.check("OBJ-VALUE", ok, "%s%s: %s", column.Name, suffix(index), why)
		})
		t.check("OBJ-ORDER", err == nil, "GETBULK through %s: %v", row.Name, err)
		for _, table := range tables {
			if table.row == row {
				t.check("OBJ-ROWS", len(rows) == len(table.indexes), "%s has %d rows; want %d", row.Name, len(rows), len(table.indexes))
			}
		}
	}
	t.check("REQ-NONE", t.number(mib.ReqCommand) == int64(mib.OperationKindNone), "iadUpgReqCommand reads %d; want none(1)", t.number(mib.ReqCommand))
}

// instance checks that an instance exists and has a value of the module.
func (t *T) instance(o *mib.Object, index ...uint32) {
	v := t.get(o, index...)
	if !t.check("OBJ-THERE", !v.IsException(), "%s%s: %s", o.Name, suffix(index), v.Type) {
		return
	}
	ok, why := permitted(o, v)
	t.check("OBJ-VALUE", ok, "%s%s: %s", o.Name, suffix(index), why)
}

func banks(t *T) {
	list, err := t.client.Banks(t.ctx)
	t.answered(err)
	running, next := 0, 0
	for _, b := range list {
		if b.Running {
			running++
			t.check("BANK-VERSION", b.Version == t.first.Version, "iadUpgBankVersion of the running bank is %q, iadUpgSoftwareVersion is %q", b.Version, t.first.Version)
			t.check("BANK-VERSION", b.ConfigFormat == t.first.ConfigFormat, "iadUpgBankConfigFormat of the running bank is %d, iadUpgConfigFormat is %d", b.ConfigFormat, t.first.ConfigFormat)
			t.check("BANK-STATE", b.State == mib.BankStateGood || b.State == mib.BankStateTrial, "the running bank is in state %s", b.State)
		}
		if b.Next {
			next++
		}
		t.check("BANK-STATE", b.State == mib.BankStateTrial || b.TriesLeft == 0, "iadUpgBankTriesLeft of bank %d is %d in state %s", b.Number, b.TriesLeft, b.State)
		t.check("BANK-SIZE", b.Size <= b.Capacity || b.Capacity == 0, "iadUpgBankSize %d is more than iadUpgBankCapacity %d", b.Size, b.Capacity)
	}
	t.check("BANK-ROLES", running == 1 || running == 0 && t.first.Rescue(), "%d banks are running", running)
	t.check("BANK-ROLES", next == 1 || t.first.Rescue(), "%d banks have the role nextBoot", next)
}

func noSuchInstance(t *T) {
	for _, x := range []struct {
		object *mib.Object
		index  uint32
	}{{mib.BankState, 3}, {mib.BankState, 0}, {mib.ServerPort, 5}, {mib.FileName, 7}, {mib.HistState, 0}, {mib.OpState, 1}} {
		v := t.get(x.object, x.index)
		t.check("OBJ-MISSING", v.Type == mib.NoSuchInstance, "%s.%d: %s; want noSuchInstance", x.object.Name, x.index, v.Type)
	}
	for _, x := range []struct {
		object *mib.Object
		index  uint32
		value  mib.Value
	}{{mib.ServerPort, 5, mib.Uint32(69)}, {mib.FileName, 7, mib.Str("x")}} {
		status, _ := t.set(t.v(x.object, x.value, x.index))
		t.check("SET-CREATE", status == mib.NoCreation || status == mib.NotWritable || status == mib.InconsistentName,
			"%s.%d: %s; want noCreation", x.object.Name, x.index, status)
	}
}

func readOnly(t *T) {
	for _, o := range mib.Objects {
		index := uint32(0)
		switch {
		case o.Access != mib.ReadOnly:
			continue
		case o.Kind == mib.Column:
			if o.Row == mib.HistEntry || o.Row == mib.EventEntry {
				continue
			}
			index = 1
		}
		v := t.get(o, index)
		if v.IsException() {
			continue // judged by the test objects
		}
		t.refuses("SET-READONLY", mib.NotWritable, 1, t.v(o, v, index))
	}
}

// wrong returns values that an object cannot have, by error-status.
func wrong(o *mib.Object) map[mib.Status]mib.Value {
	values := map[mib.Status]mib.Value{}
	if o.Type == mib.OctetString {
		values[mib.WrongType] = mib.Int32(1)
	} else {
		values[mib.WrongType] = mib.Str("1")
	}
	switch {
	case o.IsBits:
		values[mib.WrongValue] = mib.Octets(mib.Bits(len(o.Enums)))
	case o.Type == mib.OctetString && len(o.Ranges) > 0:
		longest := o.Ranges[len(o.Ranges)-1].Max
		if longest < 1000 {
			values[mib.WrongLength] = mib.Str(strings.Repeat("x", int(longest)+1))
		}
	case len(o.Enums) > 0:
		values[mib.WrongValue] = mib.Int32(o.Enums[len(o.Enums)-1].Number + 1)
	case len(o.Ranges) > 0:
		if most := o.Ranges[len(o.Ranges)-1].Max; most < 1<<31-1 {
			v := mib.Value{Type: o.Type, Int: most + 1}
			values[mib.WrongValue] = v
		}
	}
	return values
}

func wrongValues(t *T) {
	for _, o := range mib.Objects {
		if o.Access != mib.ReadWrite {
			continue
		}
		index := uint32(0)
		if o.Kind == mib.Column {
			index = 1
		}
		before := t.get(o, index)
		for _, status := range []mib.Status{mib.WrongType, mib.WrongLength, mib.WrongValue} {
			if v, ok := wrong(o)[status]; ok {
				t.refuses("SET-VALUE", status, 1, t.v(o, v, index))
			}
		}
		after := t.get(o, index)
		t.check("SET-ATOMIC", before.Equal(after), "%s was %s, and is %s after SETs that failed", o.Name, show(o, before), show(o, after))
	}
}

func atomicSet(t *T) {
	const row = 4
	path, timeout := t.get(mib.ServerPath, row), t.get(mib.ServerTimeout, row)
	name := t.get(mib.FileName, uint32(mib.FileTypeOtherData))
	unchanged := func() {
		t.check("SET-ATOMIC", path.Equal(t.get(mib.ServerPath, row)), "iadUpgServerPath.4 was written by a SET that failed")
		t.check("SET-ATOMIC", timeout.Equal(t.get(mib.ServerTimeout, row)), "iadUpgServerTimeout.4 was written by a SET that failed")
		t.check("SET-ATOMIC", name.Equal(t.get(mib.FileName, uint32(mib.FileTypeOtherData))), "iadUpgFileName.otherData was written by a SET that failed")
	}
	other := []mib.Varbind{
		t.v(mib.ServerPath, mib.Str("in-part"), row), t.v(mib.ServerTimeout, mib.Uint32(17), row),
		t.v(mib.FileName, mib.Str("in-part"), uint32(mib.FileTypeOtherData)),
	}
	for position := range len(other) + 1 {
		t.refuses("SET-VALUE", mib.WrongValue, position+1, slices.Insert(slices.Clone(other), position, t.v(mib.ServerTimeout, mib.Uint32(601), 3))...)
		unchanged()
		t.refuses("SET-READONLY", mib.NotWritable, position+1, slices.Insert(slices.Clone(other), position, t.v(mib.OpState, mib.OperationStateIdle.Value()))...)
		unchanged()
	}
	// What can only be refused when all of the SET is looked at.
	operation := t.operation().ID
	t.set(append(slices.Clone(other), t.v(mib.ReqServer, mib.Uint32(0)), t.v(mib.ReqCommand, mib.OperationKindBackupConfig.Value()))...)
	t.check("REQ-NOTHING", t.operation().ID == operation, "backupConfig without a server started an operation")
	unchanged()
	t.check("SET-ATOMIC", t.number(mib.ReqServer) == mib.ReqServer.Default.Int, "iadUpgReqServer was written by a SET that failed")
}

func readBack(t *T) {
	const row = 4
	values := []mib.Varbind{
		t.v(mib.ServerAddressType, mib.InetAddressTypeIpv4.Value(), row), t.v(mib.ServerAddress, mib.Octets([]byte{192, 0, 2, 7}), row),
		t.v(mib.ServerPort, mib.Uint32(6969), row), t.v(mib.ServerUser, mib.Str("somebody"), row),
		t.v(mib.ServerPath, mib.Str("some/where"), row), t.v(mib.ServerTimeout, mib.Uint32(77), row),
		t.v(mib.FileName, mib.Str("ein Name ü"), uint32(mib.FileTypeOtherData)),
		t.v(mib.FileExpectSize, mib.Uint32(123456), uint32(mib.FileTypeOtherData)),
		t.v(mib.FileExpectDigest, mib.Octets(bytes.Repeat([]byte{0xa5}, 32)), uint32(mib.FileTypeOtherData)),
	}
	same := func(when string) {
		for _, vb := range values {
			vbs, err := t.client.Get(t.ctx, vb.OID)
			t.answered(err)
			t.check("SET-READ", vbs[0].Value.Equal(vb.Value), "%s: it reads %s%s", t.describe([]mib.Varbind{vb}), vbs[0].Value, when)
		}
	}
	t.write(values...)
	same("")
	// An empty row, and names as they were.
	values = []mib.Varbind{
		t.v(mib.ServerAddressType, mib.InetAddressTypeUnknown.Value(), row), t.v(mib.ServerAddress, mib.Octets(nil), row),
		t.v(mib.ServerPort, mib.Uint32(0), row), t.v(mib.ServerUser, mib.Str(""), row), t.v(mib.ServerPath, mib.Str(""), row),
		t.v(mib.ServerTimeout, *mib.ServerTimeout.Default, row),
		t.v(mib.FileName, mib.Str(""), uint32(mib.FileTypeOtherData)), t.v(mib.FileExpectSize, mib.Uint32(0), uint32(mib.FileTypeOtherData)),
		t.v(mib.FileExpectDigest, mib.Octets(nil), uint32(mib.FileTypeOtherData)),
	}
	t.write(values...)
	same(" after it was reset")
}

func serverAddress(t *T) {
	const row = 3
	for _, x := range []struct {
		typ     mib.InetAddressType
		address []byte
	}{
		{mib.InetAddressTypeIpv4, []byte{192, 0, 2}}, {mib.InetAddressTypeIpv4, make([]byte, 16)},
		{mib.InetAddressTypeIpv6, []byte{192, 0, 2, 1}}, {mib.InetAddressTypeUnknown, []byte{192, 0, 2, 1}}, {mib.InetAddressTypeIpv4, nil},
	} {
		t.refuses("SRV-ADDRESS", mib.InconsistentValue, 0, t.v(mib.ServerAddressType, x.typ.Value(), row), t.v(mib.ServerAddress, mib.Octets(x.address), row))
	}
	t.check("SRV-ADDRESS", t.number(mib.ServerAddressType, row) == int64(mib.InetAddressTypeUnknown), "iadUpgServerAddressType.3 was written by a SET that failed")
}

func serverProtocol(t *T) {
	for _, p := range []mib.Protocol{mib.ProtocolTftp, mib.ProtocolFtp, mib.ProtocolFtps} {
		vb := t.v(mib.ServerProtocol, p.Value(), 4)
		if t.first.Speaks(p) {
			status, _ := t.set(vb)
			t.check("SRV-PROTOCOL", status == mib.NoError, "%s is in iadUpgProtocolsSupported, and writing it fails with %s", p, status)
		} else {
			t.refuses("SRV-PROTOCOL", mib.WrongValue, 1, vb)
		}
	}
	t.set(t.v(mib.ServerProtocol, t.protocol().Value(), 4))
}

// writePassword writes a password and reports whether the device took it.
func (t *T) writePassword(value string, vbs ...mib.Varbind) bool {
	status, _ := t.set(append(vbs, t.v(mib.ServerPassword, mib.Str(value), 4))...)
	return status == mib.NoError
}

func password(t *T) {
	address := func(last byte) []mib.Varbind {
		return []mib.Varbind{t.v(mib.ServerAddressType, mib.InetAddressTypeIpv4.Value(), 4), t.v(mib.ServerAddress, mib.Octets([]byte{192, 0, 2, last}), 4)}
	}
	stored := func() bool {
		v := t.get(mib.ServerPassword, 4)
		t.check("SRV-PASSWORD", len(v.Bytes) == 0, "iadUpgServerPassword reads %d bytes; want none", len(v.Bytes))
		return t.number(mib.ServerPasswordSet, 4) == int64(mib.TruthValueTrue)
	}
	t.write(address(1)...)
	if !t.writePassword("geheim") {
		t.skip("the device accepts no password from this user")
	}
	t.check("SRV-PASSWORD", stored(), "iadUpgServerPasswordSet is not true after a password was written")
	for what, change := range map[string][]mib.Varbind{
		"address": address(2), "port": {t.v(mib.ServerPort, mib.Uint32(2121), 4)},
	} {
		t.writePassword("geheim")
		t.write(change...)
		t.check("SRV-PASSWORD-KEPT", !stored(), "the password is kept although the %s of the server changed", what)
	}
	t.writePassword("geheim", address(3)...)
	t.check("SRV-PASSWORD-KEPT", stored(), "a password in the same SET as a new address is not stored")
	t.writePassword("")
	t.check("SRV-PASSWORD", !stored(), "iadUpgServerPasswordSet is true after an empty password was written")
	t.write(t.v(mib.ServerAddressType, mib.InetAddressTypeUnknown.Value(), 4), t.v(mib.ServerAddress, mib.Octets(nil), 4), t.v(mib.ServerPort, mib.Uint32(0), 4))
}

func passwordPlain(t *T) {
	status, index := t.set(t.v(mib.ServerPassword, mib.Str("geheim"), 4))
	switch status {
	case mib.NoError:
		t.record(EntryNote, "this device accepts passwords in messages without privacy")
		t.set(t.v(mib.ServerPassword, mib.Str(""), 4))
	default:
		t.check("SRV-PASSWORD-PLAIN", status == mib.AuthorizationError && index == 1, "%s, error-index %d; want authorizationError, 1", status, index)
	}
	t.check("SRV-PASSWORD-PLAIN", t.number(mib.ServerPasswordSet, 4) == int64(mib.TruthValueFalse), "iadUpgServerPasswordSet is true after a password was refused or removed")
}

// seconds shows a duration.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

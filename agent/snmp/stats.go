package snmp

import (
	"sync/atomic"

	"example.com/iad/mib"
)

// stats are the counters that the engine serves.
type stats struct {
	// RFC 3418 section 2, the snmp group.
	inPkts, inBadVersions, inBadCommunityNames, inBadCommunityUses, inASNParseErrs, silentDrops atomic.Uint32
	// RFC 3412 section 5.
	unknownSecurityModels, invalidMsgs, unknownPDUHandlers atomic.Uint32
	// RFC 3413 section 4.1.2.
	unknownContexts atomic.Uint32
	// RFC 3414 section 5.
	unsupportedSecLevels, notInTimeWindows, unknownUserNames, unknownEngineIDs, wrongDigests, decryptionErrors atomic.Uint32
}

// Names of objects that Reports and notifications carry.
var (
	oidSysUpTime   = mib.MustParseOID("1.3.6.1.2.1.1.3.0")
	oidSnmpTrapOID = mib.MustParseOID("1.3.6.1.6.3.1.1.4.1.0")

	oidUnknownPDUHandlers = mib.MustParseOID("1.3.6.1.6.3.11.2.1.3.0")
	oidUnknownContexts    = mib.MustParseOID("1.3.6.1.6.3.12.1.5.0")
)

// scalar is an object that the engine itself serves.
type scalar struct {
	oid   mib.OID
	value func() mib.Value
}

// ownScalars returns the engine's objects in lexicographic order.
func (e *Engine) ownScalars() []scalar {
	constant := func(v mib.Value) func() mib.Value { return func() mib.Value { return v } }
	counter := func(c *atomic.Uint32) func() mib.Value {
		return func() mib.Value { return mib.Value{Type: mib.Counter32, Int: int64(c.Load())} }
	}
	zero := constant(mib.Value{Type: mib.Counter32})
	sys, s := e.cfg.System, &e.stats
	objectID := sys.ObjectID
	if len(objectID) == 0 {
		objectID = mib.OID{0, 0}
	}

	list := []struct {
		oid   string
		value func() mib.Value
	}{
		// RFC 3418 section 2: the system group.
		{"1.3.6.1.2.1.1.1.0", constant(mib.Str(sys.Descr))},
		{"1.3.6.1.2.1.1.2.0", constant(mib.ID(objectID))},
		{"1.3.6.1.2.1.1.3.0", func() mib.Value { return mib.Ticks(e.upTime()) }},
		{"1.3.6.1.2.1.1.4.0", constant(mib.Str(sys.Contact))},
		{"1.3.6.1.2.1.1.5.0", constant(mib.Str(sys.Name))},
		{"1.3.6.1.2.1.1.6.0", constant(mib.Str(sys.Location))},
		// RFC 3418 section 2: the snmp group.
		{"1.3.6.1.2.1.11.1.0", counter(&s.inPkts)},
		{"1.3.6.1.2.1.11.3.0", counter(&s.inBadVersions)},
		{"1.3.6.1.2.1.11.4.0", counter(&s.inBadCommunityNames)},
		{"1.3.6.1.2.1.11.5.0", counter(&s.inBadCommunityUses)},
		{"1.3.6.1.2.1.11.6.0", counter(&s.inASNParseErrs)},
		{"1.3.6.1.2.1.11.30.0", constant(mib.Int32(2))}, // authenticationFailure traps are disabled
		{"1.3.6.1.2.1.11.31.0", counter(&s.silentDrops)},
		{"1.3.6.1.2.1.11.32.0", zero}, // no proxy
	}
	if len(e.cfg.Users) > 0 {
		list = append(list, []struct {
			oid   string
			value func() mib.Value
		}{
			// RFC 3411 section 5: the engine.
			{"1.3.6.1.6.3.10.2.1.1.0", constant(mib.Octets(e.cfg.EngineID))},
			{"1.3.6.1.6.3.10.2.1.2.0", constant(mib.Int32(int64(e.cfg.Boots)))},
			{"1.3.6.1.6.3.10.2.1.3.0", func() mib.Value { return mib.Int32(int64(e.engineTime())) }},
			{"1.3.6.1.6.3.10.2.1.4.0", constant(mib.Int32(int64(e.cfg.MaxSize)))},
			// RFC 3412 section 5: message processing and dispatching.
			{"1.3.6.1.6.3.11.2.1.1.0", counter(&s.unknownSecurityModels)},
			{"1.3.6.1.6.3.11.2.1.2.0", counter(&s.invalidMsgs)},
			{"1.3.6.1.6.3.11.2.1.3.0", counter(&s.unknownPDUHandlers)},
			// RFC 3413 section 4.1.2: contexts. The one there is, is always available.
			{"1.3.6.1.6.3.12.1.4.0", zero},
			{"1.3.6.1.6.3.12.1.5.0", counter(&s.unknownContexts)},
			// RFC 3414 section 5: usmStats.
			{"1.3.6.1.6.3.15.1.1.1.0", counter(&s.unsupportedSecLevels)},
			{"1.3.6.1.6.3.15.1.1.2.0", counter(&s.notInTimeWindows)},
			{"1.3.6.1.6.3.15.1.1.3.0", counter(&s.unknownUserNames)},
			{"1.3.6.1.6.3.15.1.1.4.0", counter(&s.unknownEngineIDs)},
			{"1.3.6.1.6.3.15.1.1.5.0", counter(&s.wrongDigests)},
			{"1.3.6.1.6.3.15.1.1.6.0", counter(&s.decryptionErrors)},
		}...)
	}
	scalars := make([]scalar, len(list))
	for i, o := range list {
		scalars[i] = scalar{mib.MustParseOID(o.oid), o.value}
	}
	return scalars
}

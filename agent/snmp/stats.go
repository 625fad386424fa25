package snmp

import (
	"slices"
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
	value func(*Engine) mib.Value
}

// ownScalars are the engine's objects in lexicographic order, without and with SNMPv3.
var ownScalars, ownScalarsV3 = makeScalars()

func makeScalars() (community, all []scalar) {
	text := func(of func(*System) string) func(*Engine) mib.Value {
		return func(e *Engine) mib.Value { return mib.Str(of(&e.cfg.System)) }
	}
	number := func(of func(*Engine) int64) func(*Engine) mib.Value {
		return func(e *Engine) mib.Value { return mib.Int32(of(e)) }
	}
	counter := func(of func(*stats) *atomic.Uint32) func(*Engine) mib.Value {
		return func(e *Engine) mib.Value {
			return mib.Value{Type: mib.Counter32, Int: int64(of(&e.stats).Load())}
		}
	}
	zero := func(*Engine) mib.Value { return mib.Value{Type: mib.Counter32} }

	type object struct {
		oid   string
		value func(*Engine) mib.Value
	}
	list := []object{
		// RFC 3418 section 2: the system group.
		{"1.3.6.1.2.1.1.1.0", text(func(s *System) string { return s.Descr })},
		{"1.3.6.1.2.1.1.2.0", func(e *Engine) mib.Value {
			if id := e.cfg.System.ObjectID; len(id) > 0 {
				return mib.ID(id)
			}
			return mib.ID(mib.OID{0, 0})
		}},
		{"1.3.6.1.2.1.1.3.0", func(e *Engine) mib.Value { return mib.Ticks(e.upTime()) }},
		{"1.3.6.1.2.1.1.4.0", text(func(s *System) string { return s.Contact })},
		{"1.3.6.1.2.1.1.5.0", text(func(s *System) string { return s.Name })},
		{"1.3.6.1.2.1.1.6.0", text(func(s *System) string { return s.Location })},
		// RFC 3418 section 2: the snmp group.
		{"1.3.6.1.2.1.11.1.0", counter(func(s *stats) *atomic.Uint32 { return &s.inPkts })},
		{"1.3.6.1.2.1.11.3.0", counter(func(s *stats) *atomic.Uint32 { return &s.inBadVersions })},
		{"1.3.6.1.2.1.11.4.0", counter(func(s *stats) *atomic.Uint32 { return &s.inBadCommunityNames })},
		{"1.3.6.1.2.1.11.5.0", counter(func(s *stats) *atomic.Uint32 { return &s.inBadCommunityUses })},
		{"1.3.6.1.2.1.11.6.0", counter(func(s *stats) *atomic.Uint32 { return &s.inASNParseErrs })},
		{"1.3.6.1.2.1.11.30.0", number(func(*Engine) int64 { return 2 })}, // authenticationFailure traps are disabled
		{"1.3.6.1.2.1.11.31.0", counter(func(s *stats) *atomic.Uint32 { return &s.silentDrops })},
		{"1.3.6.1.2.1.11.32.0", zero}, // no proxy
	}
	n := len(list)
	list = append(list,
		// RFC 3411 section 5: the engine.
		object{"1.3.6.1.6.3.10.2.1.1.0", func(e *Engine) mib.Value { return mib.Octets(e.cfg.EngineID) }},
		object{"1.3.6.1.6.3.10.2.1.2.0", number(func(e *Engine) int64 { return int64(e.cfg.Boots) })},
		object{"1.3.6.1.6.3.10.2.1.3.0", number(func(e *Engine) int64 { return int64(e.engineTime()) })},
		object{"1.3.6.1.6.3.10.2.1.4.0", number(func(e *Engine) int64 { return int64(e.cfg.MaxSize) })},
		// RFC 3412 section 5: message processing and dispatching.
		object{"1.3.6.1.6.3.11.2.1.1.0", counter(func(s *stats) *atomic.Uint32 { return &s.unknownSecurityModels })},
		object{"1.3.6.1.6.3.11.2.1.2.0", counter(func(s *stats) *atomic.Uint32 { return &s.invalidMsgs })},
		object{"1.3.6.1.6.3.11.2.1.3.0", counter(func(s *stats) *atomic.Uint32 { return &s.unknownPDUHandlers })},
		object{oidTargetSpinLock.String(), number(func(e *Engine) int64 { return int64(e.targetLock) })},
		// RFC 3413 section 4.1.2: contexts. The one there is, is always available.
		object{"1.3.6.1.6.3.12.1.4.0", zero},
		object{"1.3.6.1.6.3.12.1.5.0", counter(func(s *stats) *atomic.Uint32 { return &s.unknownContexts })},
		// RFC 3414 section 5: usmStats.
		object{"1.3.6.1.6.3.15.1.1.1.0", counter(func(s *stats) *atomic.Uint32 { return &s.unsupportedSecLevels })},
		object{"1.3.6.1.6.3.15.1.1.2.0", counter(func(s *stats) *atomic.Uint32 { return &s.notInTimeWindows })},
		object{"1.3.6.1.6.3.15.1.1.3.0", counter(func(s *stats) *atomic.Uint32 { return &s.unknownUserNames })},
		object{"1.3.6.1.6.3.15.1.1.4.0", counter(func(s *stats) *atomic.Uint32 { return &s.unknownEngineIDs })},
		object{"1.3.6.1.6.3.15.1.1.5.0", counter(func(s *stats) *atomic.Uint32 { return &s.wrongDigests })},
		object{"1.3.6.1.6.3.15.1.1.6.0", counter(func(s *stats) *atomic.Uint32 { return &s.decryptionErrors })},
		object{oidUsmUserSpinLock.String(), number(func(e *Engine) int64 { return int64(e.userLock) })},
	)
	scalars := make([]scalar, len(list))
	for i, o := range list {
		scalars[i] = scalar{mib.MustParseOID(o.oid), o.value}
	}
	community = slices.Clone(scalars[:n])
	for _, s := range scalars[n:] {
		if s.oid.Compare(oidTargetSpinLock) == 0 {
			community = append(community, s)
		}
	}
	return community, scalars
}

// scalars are the objects that this engine serves itself.
func (e *Engine) scalars() []scalar {
	if len(e.cfg.Users) > 0 {
		return ownScalarsV3
	}
	return ownScalars
}

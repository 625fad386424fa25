package snmp

import "example.com/iad/mib"

// What Reports of the USM count (RFC 3414 section 5).
var (
	UnsupportedSecLevels = mib.MustParseOID("1.3.6.1.6.3.15.1.1.1.0")
	NotInTimeWindows     = mib.MustParseOID("1.3.6.1.6.3.15.1.1.2.0")
	UnknownUserNames     = mib.MustParseOID("1.3.6.1.6.3.15.1.1.3.0")
	UnknownEngineIDs     = mib.MustParseOID("1.3.6.1.6.3.15.1.1.4.0")
	WrongDigests         = mib.MustParseOID("1.3.6.1.6.3.15.1.1.5.0")
	DecryptionErrors     = mib.MustParseOID("1.3.6.1.6.3.15.1.1.6.0")
)

// Package snmp is the SNMP engine of a device that has no snmpd: a command
// responder and notification originator for SNMPv1, v2c and v3 (the parts of
// RFC 3411 to 3418 that a device needs), serving one object tree, the system
// group and its own statistics.
//
// Nothing is allowed unless the configuration says so: SNMPv1 and v2c answer
// only to communities, v3 only to users, each with the source addresses,
// security levels and views (RFC 3415) that it was given.
//
// # What comes from gosnmp
//
// The names of the USM protocols and the derivation of localized keys are
// gosnmp's. Messages are read and written here, because what arrives from the
// network is judged before anybody is known to have sent it, and gosnmp's
// decoder is made for a manager that trusts its agent: it takes octet strings
// longer than their varbind, integers wider than 32 bits and lengths of inner
// sequences that do not add up, keeps eight bits of non-repeaters and of the
// error-index, does not tell a wrong digest from a message it could not
// decrypt (each has its own Report), and never says why in a way that a
// program can ask. Here every length must agree with the one around it, and a
// message is read without panics, without recursion, and in bounded memory.
//
// # Order of work
//
// One goroutine reads requests and answers them one after another; requests
// are answered from memory, so none waits for another for long. A SET is
// tested and committed, then answered, and only then told that it is done:
// what it starts begins after the answer has left.
package snmp

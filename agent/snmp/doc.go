// Package snmp is the SNMP engine of a device that has no snmpd: a command
// responder and notification originator for SNMPv1, v2c and v3 (the parts of
// RFC 3411 to 3418 that a device needs), serving one object tree, the system
// group, its users and sinks, and its own statistics.
//
// Nothing is allowed unless the configuration says so: SNMPv1 and v2c answer
// only to communities, v3 only to users, each with the source addresses,
// security levels and views (RFC 3415) that it was given.
//
// Managers may change the keys of users (usmUserTable of RFC 3414) and the addresses of
// sinks (snmpTargetAddrTable of RFC 3413), but neither add rows nor remove them. A change is
// stored before the SET is answered, and holds for messages after that answer.
//
// # Order of work
//
// A datagram is read by package internal/snmp, which also authenticates and
// decrypts it; usm.go asks for these in the order of RFC 3414 and reports what
// fails, and respond.go answers what is left.
//
// One goroutine reads requests and answers them one after another; requests
// are answered from memory, so none waits for another for long. Those that wait
// together are read, and answered, with one system call. A SET is
// tested and committed, then answered, and only then marked as done:
// what it starts begins after the answer has left.
package snmp

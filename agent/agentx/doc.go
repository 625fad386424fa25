// Package agentx makes the object tree of package mib a subagent of an SNMP
// master agent such as net-snmp's snmpd, by the AgentX protocol, version 1
// ([RFC 2741]).
//
// A [Session] keeps one connection with one AgentX session to the master. When
// the connection breaks, or the master stops answering, it dials again with
// growing, jittered pauses, opens a new session and registers the tree again.
//
// # SET
//
// A SET spreads over several subagents and the master's own objects, so it runs
// in phases (RFC 2741 section 7.2.4): TestSet reserves, CommitSet makes the
// values visible, and then either CleanupSet ends the transaction or UndoSet
// takes it back. What a SET starts begins at CleanupSet after a CommitSet. A
// connection that is lost earlier takes the transaction back, and nothing
// starts.
//
// snmpd sends a request again every second until it is answered. A repeated
// request gets the stored answer; its handler does not run a second time.
//
// # What is taken from go-agentx
//
// The vocabulary of github.com/posteo/go-agentx v0.3.0 is used throughout: PDU
// types, flags, error, reason and variable type codes, the header. So are its
// encoders of Open, Register, Unregister and Close, which are the PDUs that it
// encodes completely and correctly. Not taken are:
//
//   - its decoders: Variable.UnmarshalBinary reads numbers from the wrong
//     offset and panics on OBJECT IDENTIFIER values and on short input, and a
//     Get PDU is read up to its first search range only;
//   - its encoder of Response: it knows little-endian order only, divides
//     sysUpTime by 100 instead of multiplying it, and wants OBJECT IDENTIFIER
//     values as text;
//   - its client and session: no TestSet, CommitSet, UndoSet, CleanupSet,
//     Notify and Ping; an unknown PDU type or a read error panics; a PDU that
//     arrives in two pieces is lost; the packet identifiers of the master
//     and of the subagent share one table.
//
// # Security
//
// AgentX has no authentication: who can connect to the master's socket can be a
// subagent, and who can pose as the master can command the device. Addresses
// are therefore limited to Unix sockets and the loopback interface.
//
// [RFC 2741]: https://www.rfc-editor.org/rfc/rfc2741
package agentx

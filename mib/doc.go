// Package mib is IAD-UPGRADE-MIB in Go: the module's text, its objects,
// enumerations and notifications as generated from that text, and the object
// tree that serves them.
//
// A Module places the objects below a root, which is DefaultRoot until
// somebody owns a Private Enterprise Number. A Tree answers Get and Next and
// carries out Set for a front end, an SNMP engine or an AgentX session, on
// behalf of an Instrumentation, the device. The tree judges everything that
// the module's text decides: which objects exist, who may write them, types,
// sizes, ranges, labels. Both front ends thus give the same answers. What
// depends on the state of the device is left to the Instrumentation.
//
// The protocol operations are those of RFC 3416, the syntaxes those of
// RFC 2578 and RFC 2579.
package mib

//go:generate go run -C gen .

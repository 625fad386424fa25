// Package agent makes a device of two software banks, configuration data and a
// way to fetch files: it binds the objects of IAD-UPGRADE-MIB to the procedure
// engine, and turns the engine's events into notifications.
//
// A SET takes this way: a front end (package agentx or snmp), the object tree
// (package mib: syntax, access, range), [Agent.Test] (what fits together), the
// procedure engine, then transfers and banks. An event takes the way back. An
// event is handed to each front end until it has accepted it; its number does
// not change (iadUpgEventSeq).
//
// What a board must provide is the interface [Platform].
package agent

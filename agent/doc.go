// Package agent makes a device of two software banks, configuration data and a
// way to fetch files: it binds the objects of IAD-UPGRADE-MIB to the procedure
// engine, and turns the engine's events into notifications.
//
// The path of a SET by SNMP: agent/snmp/socket_linux.go (elsewhere socket.go) takes the datagram,
// engine.go and guard.go sort by version and limit strangers, access.go or usm.go with replays.go and
// internal/snmp (ber.go, message.go, pdu.go, keys.go, protocols.go) decode it, respond.go asks the object
// tree: mib/tree.go, syntax.go and set.go check names, syntax and ranges. Then set.go here makes
// one change of it, and agent/procedure judges it (request.go, refusals.go), writes it to the
// journal (engine.go, journal.go) and starts the operation (task.go). By AgentX it comes through
// agent/agentx: link.go, session.go, decode.go, serve.go, set.go and replay.go.
//
// An event takes the way back: view.go and notify.go hand it to each front end until it has
// accepted it; its number does not change (iadUpgEventSeq).
//
// What a board must provide is the interface [Platform].
package agent

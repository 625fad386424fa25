// Package control is the HTTP interface by which a lab sees and changes virtual devices
// while they run. openapi.json describes it; [Server] is its server, [Client] its client.
package control

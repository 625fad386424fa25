// Package device is an SNMP client for one device with IAD-UPGRADE-MIB: it reads the
// objects of the module as Go values and writes commands.
//
// A command goes this way: [Client.Start] reads iadUpgReqLock, writes file server, files
// and request with one SET (request.go, encoded in values.go, sent in client.go) and
// returns the operation that the device has accepted, or a [RefusalError]. A device that
// does not answer, behind snmpd also one whose agent is away, is [ErrNoAnswer].
package device

// Package manager is the management system's side of an upgrade (the IADMS):
// it commands a device by SNMP SET requests to IAD-UPGRADE-MIB, follows it by
// notifications and by polling, and judges success, failure and time-out.
//
// [Client] talks to one device. [Listener] receives notifications of many.
// [Servers] are a TFTP and an FTP server for backups and images. [Upgrade]
// carries one device through the whole procedure:
//
//	100 command the backup of the configuration data
//	110 follow it
//	120 judge it; on failure ask the operator, then 100 again or end
//	130 command the update of the software
//	140 follow it
//	150 judge it
//	160 on failure go back to the old software, then 130 again or end
//	170 command the recovery of the configuration data, converted if needed
//	180 follow it
//	190 judge it; on failure ask the operator, then 170 again or end
//
// The TFTP server is the package's own, because pin/tftp has no windows
// (RFC 7440): on a line of 20 ms round trip it would be some fifty times slower.
// What pin/tftp still serves for is to read small backups back from an
// [ExternalServer], and to test the server with a client of another hand.
//
// The package prints nothing and asks nobody: an [Observer] is told what
// happens and an [Operator] decides.
package manager

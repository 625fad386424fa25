// Package trap receives the notifications of IAD-UPGRADE-MIB: SNMPv2c and SNMPv3 traps
// and informs.
//
// # From the socket to the terminal
//
// listener.go reads a datagram; internal/snmp decodes it (message.go, pdu.go, ber.go), and
// usm.go has it authenticated and then decrypted, if it is of SNMPv3 (keys.go and protocols.go
// there). notification.go finds the objects of its variables (mib/module.go) and sets the
// fields of a [Notification] (manager/device/values.go, mib/bits.go). sequence.go drops what
// came before; listener.go queues the rest for each [Subscription]. cmd/iadms/command/watch.go
// prints it, in words of status.go beside it, report/report.go, manager/rescue.go and of mib
// (causes.go, object.go, zz_objects.go). engine.go is beside the path: it has the listener's identity.
package trap

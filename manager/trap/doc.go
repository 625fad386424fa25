// Package trap receives the notifications of IAD-UPGRADE-MIB: SNMPv2c and SNMPv3 traps
// and informs.
//
// A notification goes this way: [Listener] reads the datagram (listener.go) with the
// decoder of package internal/snmp, usm.go has an SNMPv3 message authenticated and then
// decrypted, notification.go turns the variables into
// a [Notification], sequence.go drops what was received before, and the listener
// delivers it to each [Subscription] whose [Filter] it passes.
package trap

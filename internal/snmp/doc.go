// Package snmp reads and writes SNMP messages: BER, PDUs, the messages of SNMPv1,
// v2c and v3, and the User-based Security Model's keys, digests and ciphers. It is
// for code that reads datagrams from strangers: the engine on a device
// (agent/snmp) and the manager's notification listener.
//
// gosnmp's decoder is not used for that. It is made for a manager that reads
// answers of an agent it asked: it takes byte strings longer than their varbind,
// integers wider than 32 bits and lengths of inner sequences that do not add up,
// keeps eight bits of non-repeaters and of the error-index, does not distinguish a wrong
// digest from a message it could not decrypt (each has its own Report), and slices
// its input without looking at its length in places. Here every length must agree
// with the one around it, and a message is read without panics, without recursion,
// and in memory proportional to its own size.
//
// # Order of work
//
// ReadV3 reads what is not encrypted. Message.Authentic needs Keys made from a
// MasterKey, which costs a few hashes for each engine; only then does AddPrivacy
// derive the key with which Message.Open decrypts. Making a MasterKey hashes a
// megabyte: do it once for each passphrase, never for a datagram.
package snmp

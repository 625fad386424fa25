// Package tftpwire reads and writes the packets of the Trivial File Transfer
// Protocol: RFC 1350, its option extension (RFC 2347) and the options blksize
// (RFC 2348), timeout and tsize (RFC 2349) and windowsize (RFC 7440).
//
// It knows packets only: who sends what and when is the business of the client
// and the server that use it. Parsing allocates nothing for DATA and ACK.
package tftpwire

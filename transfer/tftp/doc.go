// Package tftp is the Trivial File Transfer Protocol for both of its ends: RFC 1350,
// its option extension (RFC 2347) and the options blksize (RFC 2348), timeout and tsize
// (RFC 2349) and windowsize (RFC 7440). The client is package transfer.
//
// Parsing allocates nothing for DATA and ACK.
package tftp

// Package tftp is the Trivial File Transfer Protocol for both of its ends: RFC 1350,
// its option extension (RFC 2347) and the options blksize (RFC 2348), timeout and tsize
// (RFC 2349) and windowsize (RFC 7440).
//
// A [Link] is one end of a transfer, over whose socket a [Sender] or a [Receiver] moves one
// file. Which server, which terms to ask for and when to ask for smaller ones is the
// business of the client, package transfer; who may have which file, and how many at once,
// that of a server.
package tftp

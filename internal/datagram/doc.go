// Package datagram receives several UDP datagrams with one system call, and answers them
// with one. Linux can do that; elsewhere there is no Batch. The standard library has no
// such calls, and golang.org/x/net/ipv4 allocates an address for each datagram.
package datagram

// Package memdisk is a file system in memory for many virtual devices in one process.
// What is equal is stored once: the contents of files are kept in pieces, and equal pieces
// of any files of any disks of the process share their memory until one is changed; their
// tails are compressed while no file is open. A [Disk.Clone] costs little more than its
// names.
//
// The rules are those of a POSIX file system as far as package durable and its callers
// rely on them. Permissions are recorded and not enforced.
package memdisk

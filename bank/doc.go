// Package bank keeps the software of a device in two banks: it installs signed
// images into the bank that is not running, records durably which bank starts
// next, and decides at each start which one does.
//
// Each bank is a file system of its own that holds an image in split form, see package
// image; one payload may be on a raw partition instead, see [Partition]. The boot record is on a third file system, in two copies, of which one is always
// whole.
//
// The life of an update:
//
//	Install    writing, verifying, ready   running bank untouched
//	Activate   trial, next                 the running bank becomes the fallback
//	Boot       trial, one try less         after the restart
//	Confirm    good                        or GiveUp: failed, the fallback is next
//
// Install and Activate check signatures, hardware and version rules, Boot and Restore
// never do: nothing may keep the fallback from starting. Boot compares
// hashes only. See [BootTable] for the decision, and package durable for the order
// of the writes.
package bank

// Package sim makes virtual IADs: the real agent with its banks, on a disk in
// memory or in a directory, with a power switch. A reset is a real restart of
// everything but the disk. Many devices fit into one process.
//
// Programs of the software (self-test, converters) are run as on a board unless
// [Hooks] replace them.
package sim

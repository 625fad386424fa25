// Package sim makes virtual IADs: the real agent with its banks, on a disk in
// memory or in a directory, with a power switch. A reset is a real restart of
// everything but the disk. Many devices fit into one process.
//
// What goes wrong in a device is a [Fault]: Config.Faults has those of the beginning,
// Device.Inject gives it others while it runs. A [Network] gives many devices an address
// each on one socket.
//
// Programs of the software (self-test, converters) are run as on a board unless
// [Hooks] replace them.
package sim

// Package crashfs is test support: file systems in memory that lose power.
//
// A [Disk] is what lies on the medium: it does not change. [Disk.Start] puts power
// on and gives a [Machine], whose file systems are afero's. Every operation of theirs
// that changes something passes one counter; at the one chosen by [Machine.CutAt]
// power fails, before it, in its middle or after it, and from then on every call
// returns [ErrPowerLost]. What was written counts as durable only after Sync of the
// file, and a name (created, removed, renamed) only after Sync of its directory.
// [Machine.Disks] then yields the disks that could be found: everything unsynced
// lost, everything kept, and the mixtures between.
//
// [Sweep] does that for every operation of a piece of work, starts each disk again, and
// can cut the power during the recovery as well. Errors other than the loss of power
// are set by [Machine.Fail], [Machine.Limit], [Machine.ReadOnly] and [Disk.Flip].
//
// The model is as pessimistic as POSIX permits: unsynced writes and names reach the
// medium in any combination and order, a write perhaps in part, and syncing a file
// does not make its name last. Only a single rename is taken as atomic.
package crashfs

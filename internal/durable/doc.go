// Package durable is the one place that knows how to write so that it lasts:
// after a function of this package has returned nil, what it wrote is found
// again after a loss of power, and whatever instant the power fails at, either
// the old or the new content is found, never a mixture.
//
// # What a file system promises
//
// Only this much is relied on (POSIX fsync(2), and what ext4, UBIFS and JFFS2 do
// in practice): content is on the medium after Sync of the file; names (made,
// renamed, removed) are after Sync of the directory that holds them; a rename
// replaces the old name at once or not at all. Everything not yet synced may be
// there afterwards or not, in any combination and order.
//
// # Order of writes
//
// Replacing a file ([ReplaceFile], [SaveFrame]; the pointer and the files of
// configuration data, the manifest in a bank): the new content goes to
// NAME.tmp; the file is synced, for a rename may reach the medium before the
// content does and would then name an empty file; it is renamed over NAME; the
// directory is synced, for until then the old file may come back although the
// caller has reported that the new one is there. A leftover NAME.tmp means nothing
// and is overwritten by the next attempt.
//
// Two-copy record ([Record]; boot record, journal, settings, SNMP identity, users and targets that managers changed): BASE.a and BASE.b, each a frame with a sequence
// number and a CRC. The older copy is overwritten in place and synced; only then
// does it count, because it has the higher number. A cut in the middle spoils the
// copy that was the older one, so the newer one is found. The directory is synced
// when a copy is created. No name changes later, but when a copy that a cut spoiled is
// set aside: nothing depends on a rename, and no new block is needed, or else what was
// set aside makes room; so a full partition does not stop a switch. A copy that was
// written and does not exist is damage as well.
//
// Switch of the software bank (package bank, Install then Activate):
//
//  1. record: the running bank is next, the other one is writing. Synced before
//     anything is erased, or a cut would leave a half-erased bank selected.
//  2. the files of the other bank are removed but those that the new image may
//     share, the directory synced, so that no old file comes back under the new
//     manifest; then signature and manifest are replaced as above.
//  3. payloads: each created (directory synced, so that a part of it can be found and
//     continued), written, synced; the directory again at the end, for names that an
//     earlier process created but did not sync before it was killed.
//  4. all of it read back from the medium and compared with what was stored, whose hashes are
//     those of the manifest. Where the file system can, a large payload is read back during
//     step 3 already, but for its newest part.
//  5. record: ready. Only now may the bank be selected; content and names have
//     been synced since step 3.
//  6. record, at activation: next is the other bank, on trial, with its tries.
//     One write switches everything; nothing has to agree with it later.
//  7. record, at each start on trial: one try less, before the software starts,
//     or software that hangs would be started for ever.
//
// Payload on a raw partition (package bank, in place of the file of step 3; step 2 begins
// with the first of these):
//
//  1. the first block is zeroed or erased, and synced: a boot loader finds nothing there,
//     whatever else is still there.
//  2. the payload but for its first block is written. Every few megabytes it is synced, and
//     a marker in the bank's directory is replaced: how much is there, and the first block.
//  3. all of it is synced, and a marker says that it is complete. From now on nothing but
//     the first block is written.
//  4. the first block is written and synced; the marker drops it.
//
// A UBI volume is replaced by an update that UBI itself makes atomic.
//
// Import of configuration data (package agent/config): the new generation gets a
// directory of its own, whose name is synced; each of its files, the description with
// their hashes last, is written as a replaced file is, which syncs the directory too;
// last the pointer file is replaced as above. Until that rename is on the medium the old generation is
// in force; after it the new one is whole, for all of it was synced before.
//
// Journal and events (package agent/procedure): one two-copy record holds the
// operation, the history and the events, so that the end of an operation, its line in
// the history and its event become durable by one write and cannot disagree. The state
// that a step leads to is written, and synced, before the step is taken, and an event
// before it is sent; so after a cut the journal contains everything that was reported,
// and every step that may have been taken is known to have been begun. Where the
// partition is full the journal leaves out the oldest of what was sent: the copy then
// needs no more room than it has.
//
// # Killed, then cut
//
// A process that is killed leaves what it wrote unsynced. The next process reads it as
// if it were durable; a loss of power then removes it. So a record or frame is synced
// before anything acts on it ([OpenRecord], [LoadFrame]), and the name of a directory
// or file is synced even if it exists already ([MkdirAll], [OpenAppender]).
//
// # Versions
//
// Every frame carries the version of its content. A reader that finds a version above
// the one it knows reports [ErrNewer]; the file is renamed, not overwritten
// ([QuarantineAs]), so that it can be restored by hand. No software restores it by
// itself: that would undo what happened since. The newest [MaxQuarantined] of each name
// are kept.
package durable

// Package audit keeps the record of who did what: a chain of entries in the engine's
// append-only log, and copies of it in plain files.
//
// Each entry has the SHA-256 of its JSON without the digest, which includes the digest of
// the entry before. So an entry that is changed, removed or inserted is found. Who can
// write everything can also compute the rest of the chain again, or cut off its end: note
// the digest of a recent entry elsewhere, and compare.
package audit

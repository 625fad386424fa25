// Package config keeps the configuration data of a device: the files of five
// kinds that an operator backs up before new software is installed, and gives
// back afterwards.
//
// A file is text. Its first line is "iad-config KIND FORMAT"; the rest belongs
// to the device's software. A complete set of files in one format is a
// generation; it lies in a directory of its own and is never changed once it was
// in force. A pointer file says which generation that is.
//
//	pointer                  number in force, the one before, highest number given
//	gen-00000003/userData    the files, named as their kinds
//	gen-00000003/generation  format, sizes and digests; written last
//
// An import is staged as the next generation: its directory and files are
// written and synced, then the description, and only then may Commit replace
// the pointer, which is the one step that puts it in force. So at any instant
// the pointer names a whole generation, the old one or the new one. A directory
// with a number higher than any that the pointer knows was staged and not
// committed; Open removes it. A directory to be deleted is renamed first, so
// that one half deleted is not taken for a damaged one.
//
// Numbers, names and failure causes are those of IAD-UPGRADE-MIB:
// IadUpgFileType, iadUpgConfigGeneration, iadUpgConfigDigest, IadUpgFailCause.
package config

package files

import (
	"path"

	"example.com/iad/manager/device"
)

// ConfiguredTarget is a device of the operator's configuration, known by a name that stands for
// one unit wherever that is reached.
type ConfiguredTarget struct {
	// Name is what the configuration calls the device; empty: it was given by its
	// address, which is judged by nothing, because addresses change.
	Name string
	// StandsFor reports whether another name that a device ID was met under still is
	// a device of its own in the configuration; nil: each one is. A name that was
	// removed, or has the same address as this one, is not.
	StandsFor func(name string) bool
}

// TargetFile says which device a configured name stands for. The .identity of that
// device's backups names the target in turn; if the two disagree, this one counts.
func TargetFile(name string) string { return path.Join("target", device.FolderName(name)+".json") }

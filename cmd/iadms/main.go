// Command iadms is the management system for integrated access devices that
// have IAD-UPGRADE-MIB: it builds and signs software images, and upgrades,
// backs up, recovers and watches devices.
package main

import (
	"os"

	"example.com/iad/cmd/iadms/command"
)

// version is set when the program is linked.
var version = "unreleased"

func main() { os.Exit(command.Main(version)) }

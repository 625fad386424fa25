// Package fleet makes and runs many virtual devices from one description: how many there
// are, what kinds of devices they are, where they answer, who may manage them, and their
// faults. A [Config] may come from command line flags or from a TOML file, which have the
// same names.
package fleet

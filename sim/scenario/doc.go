// Package scenario plays what happens to a fleet of virtual devices: a file describes the
// fleet, the commands of a manager, what is done to devices and when, and what must hold
// at the end. The verdict is a [Result].
package scenario

//go:build !linux

package board

import "errors"

// Reboot always fails: boards run Linux.
func Reboot() error { return errors.New("only Linux can be rebooted") }

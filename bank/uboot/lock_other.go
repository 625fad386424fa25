//go:build !linux

package uboot

// LockTools does nothing where there is no fw_setenv.
func LockTools() (unlock func(), err error) { return func() {}, nil }

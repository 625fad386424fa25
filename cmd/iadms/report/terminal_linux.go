package report

import (
	"os"

	"golang.org/x/sys/unix"
)

// hideControls keeps a terminal from echoing ^C and the like, which would displace the
// bars. restore undoes that. In the background it changes nothing, because the system
// would stop this process.
func hideControls(f *os.File) (restore func()) {
	set := func(show bool) bool {
		fd := int(f.Fd())
		if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || group != unix.Getpgrp() {
			return false
		}
		mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil || mode.Lflag&unix.ECHOCTL != 0 == show {
			return false
		}
		mode.Lflag ^= unix.ECHOCTL
		return unix.IoctlSetTermios(fd, unix.TCSETS, mode) == nil
	}
	if !set(false) {
		return func() {}
	}
	return func() { set(true) }
}

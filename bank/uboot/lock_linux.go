package uboot

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// toolsLock is the file that fw_printenv and fw_setenv lock.
const toolsLock = "/var/lock/fw_printenv.lock"

// lockWait is how long another program may use the environment.
const lockWait = 5 * time.Second

// LockTools keeps fw_setenv from changing an environment meanwhile. Where there is no
// place for its lock file, it cannot be running with one either.
func LockTools() (unlock func(), err error) {
	file, err := os.OpenFile(toolsLock, os.O_WRONLY|os.O_CREATE, 0o666) //durable: means nothing after a restart
	if err != nil {
		return func() {}, nil
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR && err != unix.EWOULDBLOCK || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", toolsLock, err)
	}
	return func() { file.Close() }, nil
}

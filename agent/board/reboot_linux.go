package board

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Reboot restarts the board at once, by reboot(2). Nothing else is stopped in an orderly
// way: what has to last is synced. It returns only if that fails.
func Reboot() error {
	unix.Sync()
	return fmt.Errorf("reboot: %w", unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
}

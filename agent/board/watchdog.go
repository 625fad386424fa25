package board

import (
	"fmt"
	"os"
)

// Watchdog is a hardware watchdog by Linux's watchdog interface: once opened it
// restarts the device unless it is kicked more often than its period.
type Watchdog struct{ file *os.File }

// OpenWatchdog opens a device such as /dev/watchdog, which starts it.
func OpenWatchdog(path string) (*Watchdog, error) {
	file, err := os.OpenFile(path, os.O_WRONLY, 0) //durable: a device
	if err != nil {
		return nil, fmt.Errorf("watchdog: %w", err)
	}
	return &Watchdog{file}, nil
}

// Kick puts the restart off by one period. It may be called on a nil Watchdog,
// for devices without one, and does nothing then.
func (w *Watchdog) Kick() error {
	if w == nil {
		return nil
	}
	return w.write("k")
}

// Stop ends the watching, if the driver lets it be ended. Without Stop it goes on
// after the end of this process: a crashed agent restarts the device.
func (w *Watchdog) Stop() error {
	if w == nil {
		return nil
	}
	err := w.write("V") // the driver's magic letter
	if cerr := w.file.Close(); err == nil {
		err = cerr
	}
	return err
}

func (w *Watchdog) write(letter string) error {
	if _, err := w.file.WriteString(letter); err != nil {
		return fmt.Errorf("watchdog: %w", err)
	}
	return nil
}

package bench

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// speeds are the usual ones.
var speeds = map[int]uint32{
	9600: unix.B9600, 19200: unix.B19200, 38400: unix.B38400, 57600: unix.B57600,
	115200: unix.B115200, 230400: unix.B230400, 460800: unix.B460800, 921600: unix.B921600,
}

// openSerial opens NAME or NAME@SPEED with 8 bits, no parity and no flow control.
func openSerial(spec string) (io.ReadCloser, error) {
	name, speedText, given := strings.Cut(spec, "@")
	speed := 115200
	if given {
		var err error
		if speed, err = strconv.Atoi(speedText); err != nil || speeds[speed] == 0 {
			return nil, fmt.Errorf("console %s: %q is not a speed such as 115200", name, speedText)
		}
	}
	// Without O_NONBLOCK, opening waits for a modem's carrier.
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	raw, err := f.SyscallConn() // f.Fd would make reading block, even when f is closed
	if err == nil {
		controlErr := raw.Control(func(fd uintptr) { err = setMode(int(fd), speeds[speed]) })
		err = errors.Join(err, controlErr)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("console %s: it is not a serial device: %w", name, err)
	}
	return f, nil
}

// setMode sets a terminal to raw bytes at a speed.
func setMode(fd int, speed uint32) error {
	mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	mode.Iflag, mode.Oflag, mode.Lflag = 0, 0, 0
	mode.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | speed
	mode.Ispeed, mode.Ospeed = speed, speed
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, mode)
}

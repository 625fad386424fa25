//go:build !linux

package bench

import (
	"fmt"
	"io"
)

// openSerial needs Linux; ser2net or a similar program offers a serial port over TCP.
func openSerial(spec string) (io.ReadCloser, error) {
	return nil, fmt.Errorf("console %s: serial devices are read on Linux only; use tcp:HOST:PORT", spec)
}

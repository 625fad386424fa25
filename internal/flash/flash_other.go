//go:build !linux

package flash

import (
	"errors"
	"io"
)

// MTD is an open MTD device: there are none but on Linux.
type MTD struct{ io.ReaderAt }

var errLinux = errors.New("raw flash memory can be used on Linux only")

// OpenMTD always fails.
func OpenMTD(string, bool) (*MTD, error) { return nil, errLinux }

// NOR, Size, EraseBlock, WriteUnit, Bad, MarkBad, Unlock, Erase, WriteAt and Close are never reached.
func (*MTD) NOR() bool                          { return false }
func (*MTD) Size() int64                        { return 0 }
func (*MTD) EraseBlock() int64                  { return 0 }
func (*MTD) WriteUnit() int64                   { return 1 }
func (*MTD) Bad(int64) (bool, error)            { return false, errLinux }
func (*MTD) MarkBad(int64) error                { return errLinux }
func (*MTD) Unlock(int64)                       {}
func (*MTD) Erase(int64) error                  { return errLinux }
func (*MTD) WriteAt([]byte, int64) (int, error) { return 0, errLinux }
func (*MTD) Close() error                       { return nil }

// InUse never fails.
func InUse(string) error { return nil }

// VolumeInUse never fails.
func VolumeInUse(string) error { return nil }

// UBISize always fails.
func UBISize(string) (int64, error) { return 0, errLinux }

// UpdateUBI always fails.
func UpdateUBI(string, int64) (io.WriteCloser, error) { return nil, errLinux }

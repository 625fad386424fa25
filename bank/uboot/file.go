package uboot

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/afero"
)

// File is a copy in a block device or a file, at an offset in bytes.
type File struct {
	Fs     afero.Fs
	Name   string
	Offset int64
}

func (f File) String() string { return fmt.Sprintf("%s at %#x", f.Name, f.Offset) }

// Read fills data; what is behind the end of a file reads as zeros.
func (f File) Read(data []byte) (err error) {
	file, err := f.Fs.Open(f.Name)
	if err != nil {
		return reason(err)
	}
	defer file.Close()
	if _, err = file.ReadAt(data, f.Offset); errors.Is(err, io.EOF) {
		err = nil
	}
	return reason(err)
}

// Write replaces the copy in place: the name never changes, so only the content is synced.
func (f File) Write(data []byte) error { return f.writeAt(data, f.Offset) }

// PutByte replaces one byte.
func (f File) PutByte(offset int64, b byte) error { return f.writeAt([]byte{b}, f.Offset+offset) }

func (f File) writeAt(data []byte, offset int64) error {
	file, err := f.Fs.OpenFile(f.Name, os.O_WRONLY, 0) //durable: in place and synced, the other copy is whole meanwhile
	if err != nil {
		return reason(err)
	}
	_, err = file.WriteAt(data, offset)
	if err == nil {
		err = file.Sync()
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	return reason(err)
}

// reason is err without the name of the file, which the caller's message has.
func reason(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

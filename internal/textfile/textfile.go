// Package textfile reads the small files that people write: settings, keys,
// certificates, lists.
package textfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxSize bounds a file, in bytes. A larger one is something else, or has no end at all.
const maxSize = 1 << 20

// Read reads a file of UTF-8 text, without the byte order mark that some editors put
// before it.
func Read(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := ReadFrom(f, name)
	return data, errors.Join(err, f.Close())
}

// ReadFrom is Read for an open file; name is for errors.
func ReadFrom(r io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxSize:
		return nil, fmt.Errorf("%s is larger than %d bytes: is it the right file?", name, maxSize)
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		return nil, fmt.Errorf("%s is in UTF-16: save it as UTF-8", name)
	}
	return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), nil
}

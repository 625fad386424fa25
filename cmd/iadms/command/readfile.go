package command

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxSmallFile bounds keys, settings and lists of targets, in octets. What is
// larger is something else, or has no end at all.
const maxSmallFile = 1 << 20

// readSmallFile reads a file that a person or a program of ours wrote.
func readSmallFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := readSmall(f, name)
	return data, errors.Join(err, f.Close())
}

func readSmall(r io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSmallFile+1))
	if err == nil && len(data) > maxSmallFile {
		err = fmt.Errorf("%s: larger than %d octets: not the file that was meant", name, maxSmallFile)
	}
	return data, err
}

// readTextFile is readSmallFile for text, without the byte order mark that some editors
// put before it.
func readTextFile(name string) ([]byte, error) {
	data, err := readSmallFile(name)
	if err != nil {
		return nil, err
	}
	return plainText(data, name)
}

func plainText(data []byte, name string) ([]byte, error) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return nil, fmt.Errorf("%s is in UTF-16: save it as UTF-8", name)
	}
	return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), nil
}

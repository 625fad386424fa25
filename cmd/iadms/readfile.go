package main

import (
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

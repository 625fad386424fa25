package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
)

// goodName is the copy, in the root folder, of the settings that the device last
// started with.
const goodName = settingsName + ".good"

// loadOrGood reads the settings of the device in root. If a loss of power or a bad
// medium has damaged the file, the copy takes its place, and damage of the
// settings says so. A mistake of somebody who edited the file is an error: what
// was changed is not to look as if it counted.
func loadOrGood(root, file string) (*settings, error) {
	s, err := load(file)
	if err == nil && s.DeviceID != "" && (s.SNMP.Listen != "" || s.AgentX != "") {
		return s, nil
	}
	text, terr := os.ReadFile(file)
	copied, cerr := os.ReadFile(filepath.Join(root, goodName))
	if terr != nil || cerr != nil || !damaged(text, copied) {
		return s, err
	}
	good, gerr := load(filepath.Join(root, goodName))
	if gerr != nil {
		return s, err
	}
	good.damage = fmt.Sprintf("%s is damaged (%d octets, not %d); the settings of the last start are used: copy %s over it, or write it anew",
		file, len(text), len(copied), goodName)
	return good, nil
}

// damaged tells whether text became what it is by itself: it is cut off, or no
// text.
func damaged(text, copied []byte) bool {
	return bytes.HasPrefix(copied, text) && len(text) < len(copied) ||
		!utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0
}

// keepGood copies the settings that the device has started with.
func (s *settings) keepGood(root string) error {
	name := filepath.Join(root, goodName)
	if was, err := os.ReadFile(name); s.damage != "" || err == nil && bytes.Equal(was, s.text) {
		return nil
	}
	return durable.ReplaceFile(afero.NewOsFs(), name, s.text, 0o600)
}

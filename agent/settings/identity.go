package settings

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Prefixes of a value that is not in iad.toml itself.
const (
	fromFile    = "@" // the first line of a file, such as /etc/hw_revision
	fromProgram = "|" // the first line that a program prints
)

// identify replaces the settings that say where the device's identity is by what is found
// there.
func (s *Settings) identify() error {
	for _, v := range []struct {
		key   string
		value *string
	}{{"device_id", &s.DeviceID}, {"model", &s.Model}, {"hardware", &s.Hardware}} {
		where := *v.value
		if !strings.HasPrefix(where, fromFile) && !strings.HasPrefix(where, fromProgram) {
			continue
		}
		line, err := firstLine(where)
		if err != nil {
			return fmt.Errorf("%s line %d: %s: %w", s.file, s.line(v.key, 0), v.key, err)
		}
		*v.value = line
	}
	return nil
}

const (
	identityWait = 10 * time.Second
	maxIdentity  = 255
)

func firstLine(where string) (string, error) {
	name := where[1:]
	if !filepath.IsAbs(name) {
		return "", fmt.Errorf("%q is not an absolute path", name)
	}
	var text []byte
	var err error
	if strings.HasPrefix(where, fromProgram) {
		ctx, cancel := context.WithTimeout(context.Background(), identityWait)
		defer cancel()
		cmd := exec.CommandContext(ctx, name)
		cmd.WaitDelay = time.Second
		if text, err = cmd.Output(); err != nil {
			return "", fmt.Errorf("%s: %w", name, errors.Join(context.Cause(ctx), err))
		}
	} else if text, err = os.ReadFile(name); err != nil {
		return "", err
	}
	// A device tree ends its texts with a zero byte.
	line, _, _ := bytes.Cut(bytes.TrimLeft(text, "\r\n"), []byte("\n"))
	value := strings.Trim(string(line), " \t\r\x00")
	switch {
	case value == "":
		return "", fmt.Errorf("%s has no text in its first line", name)
	case len(value) > maxIdentity || !printable(value):
		return "", fmt.Errorf("the first line of %s is not a text of at most %d bytes", name, maxIdentity)
	}
	return value, nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' })
}

package fleet

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is the maximum length of a name, in bytes.
const maxName = 64

// CheckName reports why s cannot be the name of a device, site, pool or another object:
// names have 1 to 64 of the characters a-z, A-Z, 0-9, '.', '_' and '-', and neither begin
// nor end with '.' or contain "..". So they can be used in keys, addresses of web pages
// and names of files.
func CheckName(s string) error {
	switch {
	case s == "":
		return errors.New("must not be empty")
	case len(s) > maxName:
		return fmt.Errorf("%.20q... is longer than %d characters", s, maxName)
	case s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, ".."):
		return fmt.Errorf("%q must not begin or end with a dot or contain two dots in a row", s)
	}
	for i := range len(s) {
		if !nameByte(s[i]) {
			return fmt.Errorf("%q must consist of letters, digits, '.', '_' and '-'", s)
		}
	}
	return nil
}

func nameByte(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '.' || b == '_' || b == '-'
}

// NameFor makes a name from any text, such as the address of a device: what a name
// cannot contain becomes '-'. It returns "" if nothing is left.
func NameFor(text string) string {
	mapped := strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf && nameByte(byte(r)) {
			return r
		}
		return '-'
	}, text)
	for strings.Contains(mapped, "..") {
		mapped = strings.ReplaceAll(mapped, "..", ".")
	}
	mapped = mapped[:min(len(mapped), maxName)]
	return strings.Trim(mapped, ".-")
}

// checkText reports why s cannot be a text that people write in one line.
func checkText(s string, most int) error {
	switch {
	case !utf8.ValidString(s):
		return errors.New("must be UTF-8")
	case len(s) > most:
		return fmt.Errorf("must have at most %d bytes, and has %d", most, len(s))
	case strings.ContainsFunc(s, unicode.IsControl):
		return errors.New("must not contain control characters")
	}
	return nil
}

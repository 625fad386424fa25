package config

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"example.com/iad/mib"
)

// Kinds returns all kinds in the order of their numbers.
func Kinds() []mib.FileType {
	return []mib.FileType{mib.FileTypeUserData, mib.FileTypePortData, mib.FileTypeProtocolParams, mib.FileTypeDefaultParams, mib.FileTypeOtherData}
}

// ParseKind returns the kind of configuration data with that name in IadUpgFileType.
func ParseKind(name string) (mib.FileType, bool) {
	k, ok := mib.ParseFileType(name)
	return k, ok && k != mib.FileTypeSoftware
}

const (
	headerWord = "iad-config"
	// maxHeader bounds the first line, which never needs more than 37
	// bytes but may have been indented or padded by an editor.
	maxHeader = 128
)

// ParseHeader reads the first line of a configuration file, "iad-config KIND
// FORMAT": KIND is a name of IadUpgFileType, FORMAT a number from 1 to
// 4294967295. Words are separated by blanks or tabs; the line may end with CR
// LF. A byte order mark is refused: the software gets the file byte for byte, and
// may not know the mark. The error is an *Error with mib.FailCauseConfigParseError.
func ParseHeader(data []byte) (mib.FileType, uint32, error) {
	for _, mark := range []string{"\xef\xbb\xbf", "\xff\xfe", "\xfe\xff"} {
		if bytes.HasPrefix(data, []byte(mark)) {
			return 0, 0, parseError("the file begins with a byte order mark (% x); save it as UTF-8 without one", mark)
		}
	}
	line, _, found := bytes.Cut(data[:min(len(data), maxHeader+1)], []byte("\n"))
	if !found && len(data) > maxHeader {
		return 0, 0, parseError("the first line is longer than %d bytes", maxHeader)
	}
	words := strings.Fields(string(line))
	if len(words) != 3 || words[0] != headerWord {
		return 0, 0, parseError("the first line is %q and not \"iad-config KIND FORMAT\"", line)
	}
	kind, ok := ParseKind(words[1])
	if !ok {
		return 0, 0, parseError("the first line names the unknown kind %q", words[1])
	}
	format, err := strconv.ParseUint(words[2], 10, 32)
	if err != nil || format == 0 {
		return 0, 0, parseError("the first line gives %q as format, which is a number from 1 to 4294967295", words[2])
	}
	return kind, uint32(format), nil
}

// WithHeader returns a configuration file: the first line for kind and
// format, then body.
func WithHeader(kind mib.FileType, format uint32, body []byte) []byte {
	return append(fmt.Appendf(nil, "%s %s %d\n", headerWord, kind, format), body...)
}

// Body returns what follows the first line of a configuration file. It shares
// memory with data.
func Body(data []byte) []byte {
	_, body, _ := bytes.Cut(data, []byte("\n"))
	return body
}

// Set is configuration data: the complete file, first line included, of each
// kind that there is. A kind that is missing is at the software's defaults.
type Set map[mib.FileType][]byte

// Kinds returns the kinds in the set in the order of their numbers.
func (s Set) Kinds() []mib.FileType {
	return slices.Sorted(maps.Keys(s))
}

// Format returns the format that all files of the set are in. The error is an
// *Error: mib.FailCauseConfigParseError if a first line is wrong or names another kind than
// the file is filed under, mib.FailCauseConfigFormatMismatch if formats differ, mib.FailCauseConfigReadError
// if the set is empty.
func (s Set) Format() (uint32, error) {
	var common uint32
	for _, kind := range s.Kinds() {
		named, format, err := ParseHeader(s[kind])
		if err != nil {
			return 0, fail(mib.FailCauseConfigParseError, kind.String(), err)
		}
		if named != kind {
			return 0, fail(mib.FailCauseConfigParseError, kind.String(), fmt.Errorf("the first line says %s", named))
		}
		if common == 0 {
			common = format
		}
		if format != common {
			return 0, fail(mib.FailCauseConfigFormatMismatch, kind.String(),
				fmt.Errorf("the file is in format %d, others are in format %d; take all from one backup", format, common))
		}
	}
	if common == 0 {
		return 0, fail(mib.FailCauseConfigReadError, "", fmt.Errorf("there is no configuration data"))
	}
	return common, nil
}

// Bare reports whether each file is its first line alone: a backup of software that
// ran on its defaults. An empty set is bare.
func (s Set) Bare() bool {
	for _, data := range s {
		if len(bytes.TrimSpace(Body(data))) != 0 {
			return false
		}
	}
	return true
}

// Digest returns SHA-256 over the files in the order of their kinds, as
// iadUpgConfigDigest has it; nil if the set is empty.
func (s Set) Digest() []byte {
	if len(s) == 0 {
		return nil
	}
	h := sha256.New()
	for _, kind := range s.Kinds() {
		h.Write(s[kind])
	}
	return h.Sum(nil)
}

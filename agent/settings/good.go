package settings

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
)

// Names in the root directory: a copy of the settings that the device last started
// with, and its digest, in the form of sha256sum(1).
const (
	GoodName    = Name + ".good" // exported: with it, a directory is a device
	goodSumName = GoodName + ".sha256"
)

// endLine is the last line of a complete settings file. A file may lack it: what
// it holds is then compared with the copy.
const endLine = "# end"

// maxSettings bounds settings in bytes.
const maxSettings = 1 << 20

// byteOrderMark is what some editors put before UTF-8 text.
var byteOrderMark = []byte("\xef\xbb\xbf")

// isUTF16 reports whether text has the byte order mark of UTF-16.
func isUTF16(text []byte) bool {
	return bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff"))
}

// closeToOthers takes the right to read a file with secrets from others: to refuse it would
// keep the device from starting, or new software out.
func closeToOthers(file string, info fs.FileInfo, secrets string) {
	if info.Mode().Perm()&0o077 == 0 {
		return
	}
	fmt.Fprintf(os.Stderr, "iad: %s could be read by others (mode %04o) and holds %s: its mode is 0600 now; change the %[3]s if others were on this machine\n",
		file, info.Mode().Perm(), secrets)
	if err := os.Chmod(file, 0o600); err != nil {
		fmt.Fprintln(os.Stderr, "iad:", err)
	}
}

// read reads a settings file.
func read(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", file)
	}
	closeToOthers(file, info, "passwords")
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSettings+1))
	if err == nil && len(data) > maxSettings {
		err = fmt.Errorf("%s is larger than %d bytes", file, maxSettings)
	}
	return data, err
}

// LoadOrGood reads the settings of the device in root. If a loss of power or a bad
// medium has damaged, cut off or removed the file, the copy takes its place, and
// damage of the settings says so. A mistake of somebody who edited the file is an
// error: what was changed must not look as if it counted.
func LoadOrGood(root, file string) (*Settings, error) {
	good := readGood(root)
	if !good.of(root, file) {
		good = goodCopy{}
	}
	text, err := read(file)
	if err != nil {
		if s := good.instead(root, err.Error()); s != nil {
			return s, nil
		}
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w; make a device with 'iad init' first", err)
		}
		return nil, err
	}
	s, err := parse(file, text)
	damage, doubt := good.judge(text)
	var where *toml.DecodeError
	if damage == "" && errors.As(err, &where) && !hasendLine(text) {
		if row, _ := where.Position(); row >= bytes.Count(bytes.TrimSpace(text), []byte("\n"))+1 {
			damage = "it ends in the middle of a setting"
		}
	}
	if damage != "" {
		if s := good.instead(root, fmt.Sprintf("%s is damaged: %s", file, damage)); s != nil {
			return s, nil
		}
	}
	if err == nil && doubt != "" {
		s.doubt = fmt.Sprintf("%s %s; %s is kept as it was: if the file is right, run 'iad settings accept', or end it with the line %q", file, doubt, GoodName, endLine)
	}
	return s, err
}

// goodCopy is the copy of the settings, without text if there is none.
type goodCopy struct {
	text []byte
	// sum and source are what was recorded of it: its SHA-256, and the file that
	// it is a copy of. Both are empty if an older release made it.
	sum, source string
}

func readGood(root string) (g goodCopy) {
	name := filepath.Join(root, GoodName)
	if text, err := read(name); err == nil {
		g.text = text
	}
	line, err := os.ReadFile(filepath.Join(root, goodSumName))
	if err != nil {
		return g
	}
	for text := range strings.Lines(string(line)) {
		text = strings.TrimRight(text, "\n")
		if source, ok := strings.CutPrefix(text, sourcePrefix); ok {
			g.source = source
		} else if sum, ok := strings.CutSuffix(text, "  "+GoodName); ok && len(sum) == hex.EncodedLen(sha256.Size) {
			g.sum = sum
		}
	}
	return g
}

const sourcePrefix = "# copy of "

// sourceName is how the copy names the file that it is a copy of: a device may be
// moved to another directory.
func sourceName(root, file string) string {
	absRoot, err := filepath.Abs(root)
	abs, ferr := filepath.Abs(file)
	if err != nil || ferr != nil {
		return file
	}
	if rel, err := filepath.Rel(absRoot, abs); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return abs
}

// of reports whether the copy was made of that file, as far as is known.
func (g goodCopy) of(root, file string) bool {
	return g.source == "" || g.source == sourceName(root, file)
}

// instead returns the settings of the copy, nil if it has none that can be used.
// why says what is wrong with the file.
func (g goodCopy) instead(root, why string) *Settings {
	if g.text == nil {
		return nil
	}
	s, err := parse(filepath.Join(root, GoodName), g.text)
	if err != nil || !s.serves() {
		return nil
	}
	if g.sum != "" && g.sum != digest(g.text) {
		why += "; the copy is not the one that was recorded either"
	}
	s.damage = why + "; the settings of the last good start are used, from " + GoodName +
		": copy it over the file, or correct the file and run 'iad settings accept'"
	return s
}

// judge compares text with the copy. damage says why text is not what somebody
// wrote, doubt why it must not replace the copy although it may be.
func (g goodCopy) judge(text []byte) (damage, doubt string) {
	switch {
	case isUTF16(text):
		return "it is in UTF-16, not UTF-8", ""
	case !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0:
		return "it is not text", ""
	}
	text, good := bytes.TrimPrefix(text, byteOrderMark), bytes.TrimPrefix(g.text, byteOrderMark)
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return "it is empty", ""
	case endsComplete(text), bytes.Equal(bytes.TrimSpace(text), bytes.TrimSpace(good)), g.sum != "" && (g.sum == digest(text) || g.sum == digest(append(byteOrderMark[:3:3], text...))):
		return "", ""
	case bytes.HasPrefix(good, text):
		return fmt.Sprintf("it is cut off after %d of %d bytes", len(text), len(good)), ""
	case hasendLine(good) && !hasendLine(text):
		return fmt.Sprintf("it is cut off: the line %q is missing", endLine), ""
	case g.sum != "" && g.sum != digest(g.text):
		return "", "has changed, and the copy to compare it with is lost or damaged"
	case g.text == nil:
		return "", ""
	}
	lost := lostSettings(good, text)
	switch {
	case lost == "":
		return "", ""
	case !bytes.HasSuffix(bytes.TrimSpace(text), lastTable(good)):
		return fmt.Sprintf("it ends early; missing: %s", lost), ""
	}
	return "", "lacks " + lost
}

// hasendLine reports whether a line of text is endLine.
func hasendLine(text []byte) bool {
	for line := range bytes.Lines(text) {
		if string(bytes.TrimSpace(line)) == endLine {
			return true
		}
	}
	return false
}

// endsComplete reports whether endLine is the last line that is not blank.
func endsComplete(text []byte) bool {
	text = bytes.TrimSpace(text)
	return string(bytes.TrimSpace(text[bytes.LastIndexByte(text, '\n')+1:])) == endLine
}

// lastTable is text from the header of its last table on.
func lastTable(text []byte) []byte {
	text = bytes.TrimSpace(text)
	return text[bytes.LastIndex(text, []byte("\n["))+1:]
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Finding is what was found wrong with the file of the settings, "" for nothing.
func (s *Settings) Finding() string { return cmp.Or(s.damage, s.doubt) }

// Accept makes the settings, which Load has read from file, those of the last good
// start, although they have less than these. It returns what is no longer set.
func (s *Settings) Accept(root, file, version string) (lost string, err error) {
	if s.DeviceID == "" {
		return "", fmt.Errorf("%s has no device_id: it cannot be accepted", file)
	}
	if !s.serves() {
		return "", fmt.Errorf("%s has neither snmp.listen nor agentx: nobody could reach the device", file)
	}
	if _, _, err := s.Config(root, version); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	if good := readGood(root); good.of(root, file) && good.text != nil {
		lost = lostSettings(good.text, s.text)
	}
	if err := WriteGood(root, file, s.text); err != nil {
		return "", err
	}
	parts, err := s.Root(root)
	if err == nil {
		err = parts.KeepPlaces(true)
	}
	return lost, err
}

// KeepGood copies the settings that the device has started with, unless they are
// the copy or may not replace it. file is where they were read.
func (s *Settings) KeepGood(root, file string) error {
	if s.damage != "" || s.doubt != "" {
		return nil
	}
	return WriteGood(root, file, s.text)
}

// WriteGood makes text the copy, without a byte order mark, which earlier releases
// cannot read. The digest comes second: a copy that equals the file is good whatever
// the digest says.
func WriteGood(root, file string, text []byte) error {
	text = bytes.TrimPrefix(text, byteOrderMark)
	sum := fmt.Sprintf("%s%s\n%s  %s\n", sourcePrefix, sourceName(root, file), digest(text), GoodName)
	for _, f := range []struct{ name, text string }{{GoodName, string(text)}, {goodSumName, sum}} {
		name := filepath.Join(root, f.name)
		if was, err := os.ReadFile(name); err == nil && string(was) == f.text {
			continue
		}
		if err := durable.ReplaceFile(afero.NewOsFs(), name, []byte(f.text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

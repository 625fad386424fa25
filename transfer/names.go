package transfer

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPath is the longest path, in bytes, that is sent to a server: a TFTP
// request is a single datagram of at most 512 bytes (RFC 2347).
const maxPath = 400

// remotePath joins the server's directory and a file name into the path that is
// sent. The name may hold spaces and any printable text in UTF-8, and may lie
// below the directory ("a/b"). Refused: names that leave the directory (an
// absolute name when there is one, an element ".." also with backslashes),
// control characters (CR and LF would end an FTP command), spaces at either end
// (servers cut them off), a directory instead of a file.
func remotePath(dir, name string) (string, error) {
	if name == "" {
		return "", errors.New("the file has no name")
	}
	if strings.HasSuffix(name, "/") || name == "." || strings.HasSuffix(name, "/.") {
		return "", fmt.Errorf("%.80q is the name of a directory", name)
	}
	path := name
	if dir != "" {
		if strings.HasPrefix(name, "/") || strings.HasPrefix(name, `\`) {
			return "", fmt.Errorf("%.80q is absolute but the server has the directory %.80q", name, dir)
		}
		path = strings.TrimRight(dir, "/") + "/" + name
	}
	return path, checkPath(path)
}

func checkPath(path string) error {
	switch {
	case len(path) > maxPath:
		return fmt.Errorf("path of %d bytes, more than %d", len(path), maxPath)
	case !utf8.ValidString(path):
		return fmt.Errorf("%.80q is not UTF-8", path)
	case strings.ContainsFunc(path, unicode.IsControl):
		return fmt.Errorf("%.80q holds a control character", path)
	case strings.TrimSpace(path) != path:
		return fmt.Errorf("%.80q starts or ends with a space", path)
	}
	for _, element := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		if element == ".." {
			return fmt.Errorf("%.80q leaves its directory", path)
		}
	}
	return nil
}

// checkCredential refuses what would break out of an FTP command.
func checkCredential(what, s string) error {
	if strings.ContainsAny(s, "\r\n\x00") {
		return fmt.Errorf("the %s holds a line end or a zero", what)
	}
	return nil
}

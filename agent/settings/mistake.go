package settings

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

const seeReference = "; 'iad settings --reference' lists all settings"

// mistake is an error of somebody who edited the file. It names keys and lines but no
// values, which may be secret.
type mistake struct {
	text string
	err  error
}

func (e *mistake) Error() string { return e.text }
func (e *mistake) Unwrap() error { return e.err }

// decodeError describes what is wrong with a file in terms of its settings.
func decodeError(file string, err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var list []string
		for _, key := range unknown.Errors {
			row, _ := key.Position()
			list = append(list, fmt.Sprintf("line %d: %s is not a setting", row, strings.Join(key.Key(), ".")))
		}
		return &mistake{file + " " + strings.Join(list, "; ") + seeReference, err}
	}
	var where *toml.DecodeError
	if !errors.As(err, &where) {
		return fmt.Errorf("%s: %w", file, err)
	}
	row, column := where.Position()
	reason, _ := strings.CutPrefix(where.Error(), "toml: ")
	key := strings.Join(where.Key(), ".")
	switch {
	case strings.Contains(reason, "already"):
		return &mistake{fmt.Sprintf("%s line %d: %s is set twice", file, row, key), err}
	case key != "":
		return &mistake{fmt.Sprintf("%s line %d: %s must be %s", file, row, key, expected(key)), err}
	}
	return &mistake{fmt.Sprintf("%s line %d, column %d: not valid TOML (%s); write settings as KEY = VALUE, with text in quotes", file, row, column, reason), err}
}

// mistake returns an error for a setting whose value cannot be used; n is the number
// of its section among those of the same name.
func (s *Settings) mistake(key string, n int) error {
	where := ""
	if line := s.line(key, n); line > 0 {
		where = fmt.Sprintf("%s line %d: ", s.file, line)
	}
	return fmt.Errorf("%s%s must be %s", where, key, expected(key))
}

// line returns where a setting is in the file, 0 if it is not there or in an inline
// table.
func (s *Settings) line(key string, n int) int {
	var p unstable.Parser
	p.Reset(bytes.TrimPrefix(s.text, byteOrderMark))
	section, seen := "", map[string]int{}
	for p.NextExpression() {
		var parts []string
		line := 0
		for it := p.Expression().Key(); it.Next(); {
			parts = append(parts, string(it.Node().Data))
			line = p.Shape(it.Node().Raw).Start.Line
		}
		name := strings.Join(parts, ".")
		switch p.Expression().Kind {
		case unstable.Table:
			section = name
		case unstable.ArrayTable:
			section = name
			seen[name]++
		case unstable.KeyValue:
			if strings.TrimPrefix(section+"."+name, ".") == key && max(0, seen[section]-1) == n {
				return line
			}
		}
	}
	return 0
}

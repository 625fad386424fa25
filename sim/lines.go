package sim

import (
	"bytes"
	"fmt"

	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// checkLines accepts files of "key = value" lines, empty lines and comments.
func checkLines(set config.Set) error {
	for _, k := range set.Kinds() {
		for i, line := range bytes.Split(config.Body(set[k]), []byte("\n")) {
			line = bytes.TrimSpace(line)
			if len(line) == 0 || line[0] == '#' {
				continue
			}
			if key, _, ok := bytes.Cut(line, []byte("=")); !ok || len(bytes.TrimSpace(key)) == 0 {
				return &procedure.Failure{Code: mib.FailCauseConfigParseError,
					Text: fmt.Sprintf("%s, line %d: %.40q is not \"key = value\"", k, i+2, line)}
			}
		}
	}
	return nil
}

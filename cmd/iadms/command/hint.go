package command

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"example.com/iad/cmd/iadms/report"
)

// hint returns a command line to paste into a shell. It uses the same store and
// credentials as this call, wherever they came from.
func (g *globals) hint(words ...string) string {
	line := append([]string{"iadms"}, words...)
	for _, f := range []struct{ name, value, preset string }{
		{"config", g.config, defaultConfig()}, {"credentials", g.credentials, ""}, {"store", g.store, defaultStore()}, {"root-oid", g.rootOID, ""},
	} {
		if f.value != f.preset {
			line = append(line, "--"+f.name, f.value)
		}
	}
	for i, word := range line {
		line[i] = shellQuote(word)
	}
	return strings.Join(line, " ")
}

// shellQuote quotes a word for a POSIX shell if necessary.
func shellQuote(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:,=@%+", r)
	}
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// notRepeated are flags that retryLine does not repeat; hint adds the others.
var notRepeated = []string{"resume", "check", "targets", "config", "credentials", "store", "root-oid"}

// retryLine returns the command that resumes targets with the flags of this call, which
// never contain passwords. If there are more targets than a line of the summary names, it
// names the file with all of them: the others are done.
func (r *upgradeRun) retryLine(targets []string) string {
	words := []string{"upgrade", "--resume"}
	if len(targets) > report.MaxNamed && r.targets != "" && r.targets != "-" {
		words = append(append(words, r.arguments...), "--targets", r.targets)
	} else {
		words = append(words, targets...)
	}
	r.flagsMu.Lock() // see asBefore
	defer r.flagsMu.Unlock()
	r.flags.Visit(func(f *pflag.Flag) {
		value := f.Value.String()
		if _, list := f.Value.(pflag.SliceValue); list {
			value = strings.TrimSuffix(strings.TrimPrefix(value, "["), "]")
		}
		switch {
		case slices.Contains(notRepeated, f.Name):
		case f.Value.Type() != "bool":
			words = append(words, "--"+f.Name, value)
		case value == "true":
			words = append(words, "--"+f.Name)
		default:
			words = append(words, "--"+f.Name+"="+value)
		}
	})
	return r.hint(words...)
}

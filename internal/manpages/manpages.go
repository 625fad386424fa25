// Package manpages writes manual pages. Only tests import it: the generator brings
// template engines along, which the program for boards has no room for.
package manpages

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

// Test writes a page for each command of a program into the directory that
// IAD_MAN names, or else into a temporary one, and checks the pages. The date is
// SOURCE_DATE_EPOCH, if that is set, and the version is VERSION.
func Test(t *testing.T, newRoot func() *cobra.Command) {
	// Defaults in the home directory are written as for any user.
	for name, value := range map[string]string{"HOME": "~", "XDG_CONFIG_HOME": "", "XDG_DATA_HOME": ""} {
		t.Setenv(name, value)
	}
	dir := os.Getenv("IAD_MAN")
	if dir == "" {
		dir = t.TempDir()
	}
	root := newRoot()
	root.DisableAutoGenTag = true // it would name the generator instead of the project
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			root.RemoveCommand(cmd) // its help says it all
		}
	}
	each(root, prepare)
	header := &doc.GenManHeader{Source: strings.TrimSpace(root.Name() + " " + os.Getenv("VERSION")), Manual: "Upgrades of integrated access devices"}
	if err := doc.GenManTree(root, header, dir); err != nil {
		t.Fatal(err)
	}
	each(root, func(cmd *cobra.Command) {
		if !cmd.IsAvailableCommand() && cmd.HasParent() {
			return
		}
		name := filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1")
		page, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			return
		}
		page = option.ReplaceAll(page, []byte(".TP\n$1\n"))
		if err := os.WriteFile(name, page, 0o666); err != nil {
			t.Error(err)
		}
		for _, heading := range []string{"NAME", "SYNOPSIS", "DESCRIPTION"} {
			if !bytes.Contains(page, []byte("\n.SH "+heading+"\n")) {
				t.Errorf("%s: no %s", cmd.CommandPath(), heading)
			}
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !bytes.Contains(page, []byte(`\fB--`+f.Name+`\fP`)) {
				t.Errorf("%s: nothing on --%s", cmd.CommandPath(), f.Name)
			}
		})
	})
}

// option is an option with its text, as the generator writes it: not indented.
var option = regexp.MustCompile(`(?m)(?:^\.PP\n)?^(\\fB-.*)\n\t`)

func each(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, sub := range cmd.Commands() {
		each(sub, f)
	}
}

// prepare makes Markdown of the texts of a command, which the generator takes them for.
func prepare(cmd *cobra.Command) {
	cmd.Long = markdown(cmd.Long)
	seen := func(f *pflag.Flag) {
		_, f.Usage = pflag.UnquoteUsage(f)
		f.Usage = escape(f.Usage)
	}
	cmd.LocalNonPersistentFlags().VisitAll(seen)
	cmd.PersistentFlags().VisitAll(seen)
}

var escape = strings.NewReplacer(`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "<", `\<`, "[", `\[`, "#", `\#`).Replace

// markdown makes verbatim text of lines that are indented, as in tables.
func markdown(text string) string {
	const fence = "```\n"
	var b strings.Builder
	verbatim := false
	for line := range strings.Lines(text) {
		if indented := line[0] == ' '; indented != verbatim && line != "\n" {
			b.WriteString(fence)
			verbatim = indented
		}
		if !verbatim {
			line = escape(line)
		}
		b.WriteString(line)
	}
	if verbatim {
		b.WriteString("\n" + fence)
	}
	return b.String()
}

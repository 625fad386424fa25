package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// columns is the width of help.
const columns = 80

// heading is the annotation of a flag with its title from Group.
const heading = "heading"

// Group shows flags under a heading in the help.
func Group(flags *pflag.FlagSet, title string, names ...string) {
	for _, name := range names {
		_ = flags.SetAnnotation(name, heading, []string{title}) // only fails for a flag that does not exist
	}
}

// showHelp prints help like cobra, but wrapped, and without a template, which costs iad
// 1.6 MB.
func showHelp(cmd *cobra.Command, _ []string) {
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s\n\n", fill(text))
	_ = printUsage(cmd) // an error cannot be reported anywhere
}

func printUsage(cmd *cobra.Command) error {
	var b strings.Builder
	b.WriteString("Usage:\n" + wrap(" ", strings.Fields(cmd.UseLine()), 4) + "\n")
	if cmd.Example != "" {
		b.WriteString("\nExamples:\n" + cmd.Example + "\n")
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\nAvailable Commands:\n")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() || sub.Name() == "help" {
				name := fmt.Sprintf("  %-*s", sub.NamePadding(), sub.Name())
				b.WriteString(wrap(name, strings.Fields(sub.Short), len(name)+1) + "\n")
			}
		}
	}
	const others = "Flags"
	var titles []string
	groups := make(map[string]*pflag.FlagSet)
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		title := others
		if list := f.Annotations[heading]; len(list) > 0 {
			title = list[0]
		}
		if groups[title] == nil {
			titles = append(titles, title)
			groups[title] = pflag.NewFlagSet(title, pflag.ContinueOnError)
		}
		groups[title].AddFlag(f)
	})
	for _, title := range titles {
		if title != others {
			printFlags(&b, title, groups[title])
		}
	}
	if groups[others] != nil {
		printFlags(&b, others, groups[others])
	}
	printFlags(&b, "Global Flags", cmd.InheritedFlags())
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\nUse \"%s COMMAND --help\" for more information about a command.\n", cmd.CommandPath())
	}
	_, err := fmt.Fprint(cmd.OutOrStdout(), b.String())
	return err
}

func printFlags(b *strings.Builder, title string, flags *pflag.FlagSet) {
	const excess = 5 // pflag lets a line be longer by so many
	if flags.HasAvailableFlags() {
		fmt.Fprintf(b, "\n%s:\n%s", title, flags.FlagUsagesWrapped(columns-excess))
	}
}

// fill wraps paragraphs. Indented lines, as in tables, stay as they are.
func fill(text string) string {
	var b strings.Builder
	var words []string
	for line := range strings.SplitSeq(text+"\n", "\n") {
		if line != "" && line[0] != ' ' {
			words = append(words, strings.Fields(line)...)
			continue
		}
		if len(words) > 0 {
			b.WriteString(wrap("", words, 0) + "\n")
			words = nil
		}
		b.WriteString(line + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}

// wrap appends words to a first string, which is not wrapped, and indents further lines.
func wrap(first string, words []string, indent int) string {
	line, text := first, ""
	for _, word := range words {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > columns:
			text += line + "\n"
			line = strings.Repeat(" ", indent) + word
		default:
			line += " " + word
		}
	}
	return text + line
}

// Package cli holds what the command lines of the programs have in common.
package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Strict makes root refuse commands, help topics and missing flags that cobra lets
// pass or reports without a type: "image verfy" would print help and succeed. usage
// marks an error as a mistake on the command line. Call it when the tree of
// commands is complete.
func Strict(root *cobra.Command, usage func(error) error) {
	help := &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show help about a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest := find(root, args)
			if len(rest) > 0 {
				return usage(unknown(about, rest[0]))
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			about, _ := find(root, args)
			var names []string
			for _, sub := range about.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, sub.Name())
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	root.SetHelpCommand(help)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	root.SetHelpFunc(showHelp)
	root.SetUsageFunc(printUsage)
	strict(root, usage)
}

func strict(cmd *cobra.Command, usage func(error) error) {
	for _, sub := range cmd.Commands() {
		strict(sub, usage)
	}
	topic := !cmd.HasSubCommands() && !cmd.Runnable()
	if topic {
		// It has no usage.
		cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), fill(cmd.Long)) })
	}
	if topic || cmd.HasSubCommands() {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(unknown(cmd, args[0]))
			}
			return nil
		}
	}
	if !cmd.Runnable() {
		// Of what does not run cobra shows the help before it looks at arguments.
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	if check := cmd.Args; check != nil && !topic && !cmd.HasSubCommands() {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			switch {
			case err == nil:
				return nil
			case len(args) > 0 && strings.HasPrefix(err.Error(), "unknown command"): // cobra.NoArgs
				err = fmt.Errorf("%s takes no arguments, and %q is one; see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
			}
			return usage(err)
		}
	}
	requireFlags(cmd, usage)
}

// requireFlags does what cobra does with required flags, but with an error that usage
// has marked.
func requireFlags(cmd *cobra.Command, usage func(error) error) {
	var required []string
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if slices.Contains(f.Annotations[cobra.BashCompOneRequiredFlag], "true") {
			required = append(required, f.Name)
		}
	})
	if len(required) == 0 {
		return
	}
	// Not in Args, which cobra calls before a program has filled in flags from its
	// environment.
	next := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, given []string) error {
		var missing []string
		for _, name := range required {
			if !cmd.Flags().Changed(name) {
				missing = append(missing, "--"+name)
			}
		}
		switch {
		case len(missing) == 1:
			return usage(fmt.Errorf("%s is required; see %s --help", missing[0], cmd.CommandPath()))
		case len(missing) > 1:
			return usage(fmt.Errorf("%s are required; see %s --help", strings.Join(missing, ", "), cmd.CommandPath()))
		case next != nil:
			return next(cmd, given)
		}
		return nil
	}
}

// find returns the command that the first of args name, and the rest of them.
func find(root *cobra.Command, args []string) (*cobra.Command, []string) {
	cmd := root
	for len(args) > 0 {
		i := slices.IndexFunc(cmd.Commands(), func(sub *cobra.Command) bool { return sub.Name() == args[0] || sub.HasAlias(args[0]) })
		if i < 0 {
			break
		}
		cmd, args = cmd.Commands()[i], args[1:]
	}
	return cmd, args
}

// unknown names a command that does not exist, and those that look like it.
func unknown(cmd *cobra.Command, name string) error {
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	remedy := "see " + cmd.CommandPath() + " --help"
	if like := cmd.SuggestionsFor(name); len(like) > 0 {
		remedy = "did you mean " + strings.Join(like, " or ") + "?"
	}
	return fmt.Errorf("unknown command %q for %q; %s", name, cmd.CommandPath(), remedy)
}

// Package cli has what the command lines of all programs share.
package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Strict makes root refuse unknown commands, unknown help topics and missing flags, which
// cobra accepts or reports without a type: "image verfy" would print help and succeed. It
// also sets flags from the environment: variable returns the environment variable of a
// flag, or "" for none. Mistakes are marked as by Usage. Call Strict when the tree of
// commands is complete.
func Strict(root *cobra.Command, variable func(flag string) string) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return Usage(err) })
	next := root.PersistentPreRunE
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		if err := FromEnvironment(cmd.Flags(), variable); err != nil || next == nil {
			return err
		}
		return next(cmd, args)
	}
	help := &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show help about a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest := find(root, args)
			if len(rest) > 0 {
				return Usage(unknown(about, rest[0]))
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
	strict(root)
}

func strict(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
	topic := !cmd.HasSubCommands() && !cmd.Runnable()
	if topic {
		// A topic has no usage.
		cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), fill(cmd.Long)) })
	}
	if topic || cmd.HasSubCommands() {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return Usage(unknown(cmd, args[0]))
			}
			return nil
		}
	}
	if !cmd.Runnable() {
		// Before checking arguments, cobra shows the help of a command that does not run.
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
			return Usage(err)
		}
	}
	requireFlags(cmd)
}

// requireFlags checks required flags like cobra, but with an error that counts as wrong
// usage.
func requireFlags(cmd *cobra.Command) {
	var required []string
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if slices.Contains(f.Annotations[cobra.BashCompOneRequiredFlag], "true") {
			required = append(required, f.Name)
		}
	})
	if len(required) == 0 {
		return
	}
	// Not in Args, which cobra calls before flags are set from the environment.
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
			return Usage(fmt.Errorf("%s is required; see %s --help", missing[0], cmd.CommandPath()))
		case len(missing) > 1:
			return Usage(fmt.Errorf("%s are required; see %s --help", strings.Join(missing, ", "), cmd.CommandPath()))
		case next != nil:
			return next(cmd, given)
		}
		return nil
	}
}

// find returns the command that the first of args name, and the remaining arguments.
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

// unknown returns an error for a command that does not exist, with similar ones.
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

package command

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"example.com/iad/internal/cli"
	"example.com/iad/manager"
)

// flagValuesKnown are values that a shell completes.
var flagValuesKnown = map[string][]string{
	"protocol":   {"tftp", "ftp", "ftps"},
	"on-fail":    policyNames(),
	"time-limit": {"backup=", "update=", "restore=", "recover="},
	"log-level":  {"debug", "info", "warn", "error"},
	"log-format": {"text", "json"},
}

// policyNames lists what --on-fail takes; the name of a file follows other=.
func policyNames() []string {
	var names []string
	for _, kind := range manager.PolicyKinds() {
		name := string(kind)
		if kind == manager.PolicyOther {
			name += "="
		}
		names = append(names, name)
	}
	return names
}

// addCompletion has shells complete configured devices where a command takes a TARGET,
// and the values of flags.
func addCompletion(g *globals, root *cobra.Command) {
	devices := func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		if cli.FromEnvironment(cmd.Flags(), variable) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		s, err := g.loadSettings()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.Sorted(maps.Keys(s.Devices)), cobra.ShellCompDirectiveNoFileComp
	}
	for _, cmd := range append(root.Commands(), root) {
		if strings.Contains(cmd.Use, " TARGET") {
			cmd.ValidArgsFunction = devices
		}
		for name, values := range flagValuesKnown {
			if f := cmd.LocalFlags().Lookup(name); f == nil || f.Value.Type() == "duration" {
				continue
			}
			if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
				panic(err) // the flag is there
			}
		}
	}
}

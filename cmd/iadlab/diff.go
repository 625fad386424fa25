package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"example.com/iad/conformance"
	"example.com/iad/internal/cli"
)

func diffCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff BEFORE.json AFTER.json",
		Short: "Compare two runs",
		Long: `diff compares two reports that "iadlab test --json" wrote, of two releases of
software for instance, and lists the tests and requirements whose verdicts
differ. The exit status is 3 if something became worse: it passed before and does
not now, or fails now and did not before.`,
		Example: `  iadlab diff release-1.json release-2.json`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var runs [2]*conformance.Run
			for i, name := range args {
				var err error
				if runs[i], err = conformance.ReadFile(name); err != nil {
					return cli.Usage(err)
				}
			}
			changes := conformance.Diff(runs[0], runs[1])
			worse := 0
			for _, c := range changes {
				if c.Worse() {
					worse++
				}
			}
			if err := printChanges(cmd.OutOrStdout(), changes, asJSON); err != nil {
				return err
			}
			if worse > 0 {
				return verdictError(fmt.Sprintf("%d of %d changes are for the worse", worse, len(changes)))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the changes as JSON")
	return cmd
}

func printChanges(w io.Writer, changes []conformance.Change, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(append([]conformance.Change{}, changes...))
	}
	if len(changes) == 0 {
		_, err := fmt.Fprintln(w, "no verdict differs")
		return err
	}
	show := func(v conformance.Verdict) string {
		if v == "" {
			return "absent"
		}
		return string(v)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range changes {
		mark := " "
		if c.Worse() {
			mark = "!"
		}
		fmt.Fprintf(t, "%s %s\t%s\t%s → %s\t%s\n", mark, c.What, c.Name, show(c.Before), show(c.After), c.Text)
	}
	return t.Flush()
}

func listCommand() *cobra.Command {
	var requirements, asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tests, or the requirements",
		Args:  cobra.NoArgs,
		Example: `  iadlab list
  iadlab list --requirements`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := cmd.OutOrStdout()
			if asJSON {
				e := json.NewEncoder(w)
				e.SetIndent("", "  ")
				return e.Encode(map[string]any{"tests": conformance.Tests(), "requirements": conformance.Requirements})
			}
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			if requirements {
				for _, r := range conformance.Requirements {
					fmt.Fprintf(t, "%s\t%s\t%s\n", r.ID, r.Object, r.Text)
				}
				return t.Flush()
			}
			for _, test := range conformance.Tests() {
				suite := "full"
				if test.Quick {
					suite = "quick"
				}
				fmt.Fprintf(t, "%s\t%s\t%s\n", test.Name, suite, test.Title)
			}
			return t.Flush()
		},
	}
	cmd.Flags().BoolVar(&requirements, "requirements", false, "list the requirements")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print tests and requirements as JSON")
	return cmd
}

package command

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// everyCommand calls f for each command.
func everyCommand(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, sub := range cmd.Commands() {
		everyCommand(sub, f)
	}
}

// Help fits a terminal of 80 columns.
func TestHelpFits(t *testing.T) {
	everyCommand(newRoot("test"), func(cmd *cobra.Command) {
		if cmd.HasParent() && cmd.Parent().Name() == "completion" {
			return // cobra's text
		}
		var out strings.Builder
		cmd.SetOut(&out)
		if err := cmd.Help(); err != nil || out.Len() == 0 {
			t.Errorf("%s: %v, %d bytes of help", cmd.CommandPath(), err, out.Len())
		}
		for line := range strings.Lines(out.String()) {
			if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > 80 && !strings.Contains(line, "(default \"") {
				t.Errorf("%s: %d columns: %s", cmd.CommandPath(), utf8.RuneCountInString(line), line)
			}
		}
	})
}

// What iadms tells programs about an upgrade sets no flag in an iadms that they call.
func TestVariablesOfProgramsSetNoFlag(t *testing.T) {
	everyCommand(newRoot("test"), func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if name := variable(f.Name); slices.Contains([]string{"IADMS_DEVICE", "IADMS_TARGET", "IADMS_SOFTWARE_VERSION"}, name) {
				t.Errorf("%s --%s: %s is what programs are given", cmd.CommandPath(), f.Name, name)
			}
		})
	})
}

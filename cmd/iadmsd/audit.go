package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"example.com/iad/fleet/audit"
)

func auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Check the record of who did what",
		Long:  "Check the record of who did what, from the copies in plain files.",
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "verify DIRECTORY",
		Short: "Check that no entry was changed, removed or inserted",
		Long: `Check the chain of digests in the copies that iadmsd keeps in DATA/audit. The
digest that is printed is that of the last entry: note it elsewhere to notice
later if the end is cut off.`,
		Example: `  iadmsd audit verify /var/lib/iadmsd/audit`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			head, err := audit.VerifyDir(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "OK: %d entries, the last with SHA-256 %s\n", head.Seq, head.Digest)
			return err
		},
	})
	return cmd
}

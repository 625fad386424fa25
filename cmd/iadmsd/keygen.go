package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"example.com/iad/fleet/seal"
)

func keygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Create the key that credentials of devices are encrypted with",
		Long: `Create the key that the credentials of devices are encrypted with, for --key of
all nodes and workers. A file that exists is kept, and is an error. No key is
created if IADMSD_CLUSTER, IADMSD_JOIN or IADMSD_NATS is set: a process that joins
others needs theirs.

Keep a copy of the key, but not with the copies of the data: without the key, all
credentials have to be entered again. age-keygen writes such keys too.`,
		Example: `  iadmsd keygen /etc/iadmsd/iadmsd.key`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range []string{"IADMSD_CLUSTER", "IADMSD_JOIN", "IADMSD_NATS"} {
				if os.Getenv(name) != "" {
					return fmt.Errorf("%s is set, so this process joins others and needs their key; copy it from one of them to %s", name, args[0])
				}
			}
			_, created, err := seal.ReadOrCreateKey(args[0])
			switch {
			case err != nil:
				return err
			case !created:
				return fmt.Errorf("%s is a key already and is kept", args[0])
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "created %s; keep a copy of it elsewhere\n", args[0])
			return err
		},
	}
}

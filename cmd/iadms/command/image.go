package command

import "github.com/spf13/cobra"

func newImage(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Make, sign and check software images",
		Long: `An image is one tar file: a manifest that names version, hardware and every
file with its digest, the manifest's signature, and the files. With --split these
are written as separate files to a directory. Keys and signatures are those of minisign.`,
	}
	cmd.AddCommand(newImageKeygen(g), newImageBuild(), newImageSign(), newImageInspect(g), newImageVerify(g), newImageDiff(g), newImageTrust(g))
	return cmd
}

package command

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/afero"
	"github.com/spf13/cobra"

	"example.com/iad/bank/image"
	"example.com/iad/cmd/iadms/report"
	"example.com/iad/internal/textfile"
)

func newImageVerify(g *globals) *cobra.Command {
	var trust []string
	cmd := &cobra.Command{
		Use:     "verify FILE --trust KEY.pub",
		Short:   "Check an image as a device would: signature, structure, digests",
		Example: "  iadms image verify fw-2.0.0.iad --trust release.pub",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			trusted, err := readTrust(trust)
			if err != nil {
				return err
			}
			img, err := openImage(args[0], trusted)
			if err != nil {
				return err
			}
			if g.json {
				return report.PrintJSON(cmd.OutOrStdout(), reportOf(img))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "OK: %s is %s for %s, signed by %s\n",
				args[0], img.Manifest.Version, strings.Join(img.Manifest.Hardware, ", "), keyNames(img))
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&trust, "trust", nil, "`file` with a public key, or trust chain; may be repeated")
	if err := cmd.MarkFlagRequired("trust"); err != nil {
		panic(err) // a name that is not defined above
	}
	return cmd
}

// openImage inspects an image of either form, and with keys verifies it.
func openImage(name string, trust *image.Trust) (img *image.Info, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	split, err := startsManifest(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	switch {
	case split && trust != nil:
		img, err = image.VerifySplit(afero.NewOsFs(), name, trust)
	case split:
		img, err = image.InspectSplit(afero.NewOsFs(), name)
	case trust != nil:
		img, err = image.Verify(f, trust)
	default:
		img, err = image.Inspect(f)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return img, nil
}

// readTrust reads public keys and trust chains.
func readTrust(names []string) (*image.Trust, error) {
	trust := image.TrustKeys()
	for _, name := range names {
		data, err := textfile.Read(name)
		if err != nil {
			return nil, err
		}
		if trust, err = trust.With(data); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return trust, nil
}

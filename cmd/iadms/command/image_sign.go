package command

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"example.com/iad/bank/image"
)

func newImageSign() *cobra.Command {
	var keys []string
	var output string
	var add bool
	cmd := &cobra.Command{
		Use:   "sign FILE --key KEY [-o FILE]",
		Short: "Sign an image again, with other keys, or add signatures",
		Long: `Sign an image again. FILE is an image, which is rewritten with the new signature, or
written to another file with -o; or the manifest of an image in split form, whose
signature is written beside it. With --add, the signatures that it has are kept: so each
of several people signs on their own machine. Devices that know one signature only read
the first one.`,
		Example: `  iadms image sign fw-2.0.0.iad --key production.key
  iadms image sign fw-2.0.0.iad --add --key second.key`,
		Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error { return signImage(args[0], keys, add, output) },
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "private key `file`; may be repeated")
	cmd.Flags().BoolVar(&add, "add", false, "keep the signatures that the image has")
	cmd.Flags().StringVarP(&output, "output", "o", "", "`file` to write (default: the image itself)")
	if err := cmd.MarkFlagRequired("key"); err != nil {
		panic(err) // a name that is not defined above
	}
	return cmd
}

func signImage(name string, keyFiles []string, add bool, output string) error {
	keys, err := readKeys(keyFiles)
	if err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	split, err := startsManifest(f)
	if err != nil {
		return err
	}
	if !split {
		return writeFile(cmp.Or(output, name), func(w io.Writer) error { return image.Sign(w, f, add, keys...) })
	}
	manifest, err := io.ReadAll(io.LimitReader(f, image.MaxManifest+1))
	if err != nil {
		return err
	}
	h := image.NewHead(manifest, nil)
	if add {
		if h.Signature, err = os.ReadFile(name + image.SignatureSuffix); err != nil {
			return err
		}
	}
	if err := h.Parse(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := h.Sign(add, keys...); err != nil {
		return err
	}
	return writeFile(cmp.Or(output, name+image.SignatureSuffix), func(w io.Writer) error {
		_, err := w.Write(h.Signature)
		return err
	})
}

// startsManifest reports whether a file is a manifest, the main file of the split form.
func startsManifest(f io.ReadSeeker) (bool, error) {
	var first [1]byte
	switch _, err := io.ReadFull(f, first[:]); {
	case errors.Is(err, io.EOF):
		return false, errors.New("the file is empty")
	case errors.Is(err, syscall.EISDIR):
		return false, fmt.Errorf("a directory; name the image file or, in split form, its %s", image.ManifestName)
	case err != nil:
		return false, err
	}
	_, err := f.Seek(0, io.SeekStart)
	return first[0] == '{', err
}

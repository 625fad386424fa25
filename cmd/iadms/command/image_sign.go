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
	var key, output string
	cmd := &cobra.Command{
		Use:   "sign FILE --key KEY [-o FILE]",
		Short: "Sign an image again, with another key",
		Long: `Sign an image again. FILE is an image, which is rewritten with the new signature, or
written to another file with -o; or the manifest of an image in split form, whose
signature is written beside it.`,
		Example: "  iadms image sign fw-2.0.0.iad --key production.key",
		Args:    exactly(1),
		RunE:    func(_ *cobra.Command, args []string) error { return signImage(args[0], key, output) },
	}
	cmd.Flags().StringVar(&key, "key", "", "private key `file`")
	cmd.Flags().StringVarP(&output, "output", "o", "", "`file` to write (default: the image itself)")
	if err := cmd.MarkFlagRequired("key"); err != nil {
		panic(err) // a name that is not defined above
	}
	return cmd
}

func signImage(name, keyFile, output string) error {
	key, err := readKey(keyFile)
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
		return writeFile(cmp.Or(output, name), func(w io.Writer) error { return image.Sign(w, f, false, key) })
	}
	manifest, err := io.ReadAll(io.LimitReader(f, image.MaxManifest+1))
	if err != nil {
		return err
	}
	h := image.NewHead(manifest, nil)
	if err := h.Parse(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := h.Sign(false, key); err != nil {
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

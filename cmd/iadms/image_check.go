package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"text/tabwriter"
	"unicode"

	"aead.dev/minisign"
	"github.com/spf13/afero"
	"github.com/spf13/cobra"

	"example.com/iad/bank"
)

func newImageInspect(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "inspect FILE",
		Short:   "Show what an image holds, and check its digests",
		Long:    "Show what an image holds, and check its digests. FILE is an image or, in split form, its manifest. Who signed it is not judged: see verify.",
		Example: "  iadms image inspect fw-2.0.0.iad",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			img, err := openImage(args[0], nil)
			if err != nil {
				return err
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), reportOf(img))
			}
			return printImage(cmd.OutOrStdout(), img)
		},
	}
}

func newImageVerify(g *globals) *cobra.Command {
	var trust []string
	cmd := &cobra.Command{
		Use:     "verify FILE --trust KEY.pub",
		Short:   "Check an image as a device would: signature, structure, digests",
		Example: "  iadms image verify fw-2.0.0.iad --trust release.pub",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := readTrust(trust)
			if err != nil {
				return err
			}
			img, err := openImage(args[0], keys)
			if err != nil {
				return err
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), reportOf(img))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "OK: %s is %s for %s, signed by %s\n",
				args[0], img.Manifest.Version, strings.Join(img.Manifest.Hardware, ", "), keyName(img))
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&trust, "trust", nil, "public key `file`; repeat for more")
	if err := cmd.MarkFlagRequired("trust"); err != nil {
		panic(err) // a name that is not defined above
	}
	return cmd
}

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
	cmd.Flags().StringVarP(&output, "output", "o", "", "`file` to write; default: the same")
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
		return writeFile(firstOf(output, name), func(w io.Writer) error { return bank.SignImage(w, f, key) })
	}
	manifest, err := io.ReadAll(io.LimitReader(f, bank.MaxManifest+1))
	if err != nil {
		return err
	}
	m, err := bank.ParseManifest(manifest)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	signature, err := bank.Sign(manifest, key, "file:"+bank.ManifestName+"\tversion:"+m.Version)
	if err != nil {
		return err
	}
	return writeFile(firstOf(output, name+bank.SignatureSuffix), func(w io.Writer) error {
		_, err := w.Write(signature)
		return err
	})
}

// startsManifest tells the split form, whose main file is a manifest.
func startsManifest(f io.ReadSeeker) (bool, error) {
	var first [1]byte
	switch _, err := io.ReadFull(f, first[:]); {
	case errors.Is(err, io.EOF):
		return false, errors.New("the file is empty")
	case errors.Is(err, syscall.EISDIR):
		return false, fmt.Errorf("a directory; name the image file or, in split form, its %s", bank.ManifestName)
	case err != nil:
		return false, err
	}
	_, err := f.Seek(0, io.SeekStart)
	return first[0] == '{', err
}

// openImage inspects an image of either form, and with keys verifies it.
func openImage(name string, trust []minisign.PublicKey) (img *bank.Image, err error) {
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
		img, err = bank.VerifySplit(afero.NewOsFs(), name, trust)
	case split:
		img, err = bank.InspectSplit(afero.NewOsFs(), name)
	case trust != nil:
		img, err = bank.VerifyImage(f, trust)
	default:
		img, err = bank.Inspect(f)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return img, nil
}

func readTrust(names []string) ([]minisign.PublicKey, error) {
	keys := make([]minisign.PublicKey, 0, len(names))
	for _, name := range names {
		data, err := readTextFile(name)
		if err != nil {
			return nil, err
		}
		key, err := bank.ReadPublicKey(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func keyName(img *bank.Image) string { return fmt.Sprintf("minisign key %016X", img.KeyID) }

// imageReport is the JSON form of inspect and verify.
type imageReport struct {
	*bank.Manifest
	Digest         string `json:"manifest_sha256"`
	Key            string `json:"signature_key"`
	TrustedComment string `json:"trusted_comment"`
	Size           int64  `json:"size"`
}

func reportOf(img *bank.Image) imageReport {
	return imageReport{img.Manifest, hex.EncodeToString(img.ManifestDigest), keyName(img), visible(img.TrustedComment), img.Size}
}

// visible makes a text of an image fit for a terminal: it may come from anybody, as long as
// no signature was verified.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(s, string(unicode.ReplacementChar)))
}

func printImage(w io.Writer, img *bank.Image) error {
	m := img.Manifest
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, visible(value))
		}
	}
	line("version", m.Version)
	line("hardware", strings.Join(m.Hardware, ", "))
	line("configuration format", fmt.Sprint(m.ConfigFormat))
	line("installs over", m.MinVersion)
	line("new floor", m.Floor)
	if m.NoReset {
		line("takes effect", "without a reset, where the device can do that")
	}
	line("self-test", m.SelfTest)
	for _, c := range m.Converters {
		line("converter", fmt.Sprintf("%d to %d: %s", c.From, c.To, c.Payload))
	}
	line("signed by", keyName(img)+" ("+img.TrustedComment+")")
	line("manifest SHA-256", hex.EncodeToString(img.ManifestDigest))
	line("size", fmt.Sprintf("%d octets", img.Size))
	for _, p := range m.Payloads {
		fmt.Fprintf(t, "  %s\t%d octets\t%04o\t%s\n", p.Name, p.Size, uint16(p.Mode), p.SHA256)
	}
	return t.Flush()
}

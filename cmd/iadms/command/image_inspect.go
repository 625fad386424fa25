package command

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"

	"example.com/iad/bank/image"
	"example.com/iad/cmd/iadms/report"
)

func newImageInspect(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "inspect FILE",
		Short:   "Show what an image holds, and check its digests",
		Long:    "Show what an image holds, and check its digests. FILE is an image or, in split form, its manifest. The signature is not verified; see image verify. A difference from another file is checked, but what it makes of that file is not: image diff does that.",
		Example: "  iadms image inspect fw-2.0.0.iad",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			img, err := openImage(args[0], nil)
			if err != nil {
				return err
			}
			if g.json {
				return report.PrintJSON(cmd.OutOrStdout(), reportOf(img))
			}
			return printImage(cmd.OutOrStdout(), img)
		},
	}
}

// keyNames names the keys of all signatures.
func keyNames(img *image.Info) string {
	var all []string
	for _, id := range img.KeyIDs {
		all = append(all, fmt.Sprintf("minisign key %016X", id))
	}
	return strings.Join(all, ", ")
}

// imageReport is the JSON form of inspect and verify.
type imageReport struct {
	*image.Manifest
	Digest         string `json:"manifest_sha256"`
	Key            string `json:"signature_key"`
	TrustedComment string `json:"trusted_comment"`
	Size           int64  `json:"size"`
}

func reportOf(img *image.Info) imageReport {
	return imageReport{img.Manifest, hex.EncodeToString(img.ManifestDigest), keyNames(img), visible(img.TrustedComment), img.Size}
}

// visible makes a text of an image safe for a terminal: until a signature is verified it
// may come from anybody.
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

func printImage(w io.Writer, img *image.Info) error {
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
		line("takes effect", "without a reset, if the device supports that")
	}
	line("self-test", m.SelfTest)
	for _, c := range m.Converters {
		line("converter", fmt.Sprintf("%d to %d: %s", c.From, c.To, c.Payload))
	}
	line("signed by", keyNames(img)+" ("+img.TrustedComment+")")
	if m.Format != image.PlainFormat {
		line("image format", fmt.Sprintf("%d: devices that do not read it refuse the image", m.Format))
	}
	if m.Key != "" {
		line("encrypted", "files that have an encoding; a device needs a key for it")
	}
	line("manifest SHA-256", hex.EncodeToString(img.ManifestDigest))
	line("size", fmt.Sprintf("%d bytes", img.Size))
	for _, p := range m.Payloads {
		mode := fmt.Sprintf("%04o", uint16(p.Mode))
		if p.Target != image.TargetFile {
			mode = string(p.Target)
		}
		fmt.Fprintf(t, "  %s\t%d bytes\t%s\t%s\n", p.Name, p.Size, mode, p.SHA256)
		for _, e := range p.Encodings {
			what := "all of it"
			if e.Base != nil {
				what = fmt.Sprintf("difference from a file of %d bytes, %.16s…", e.Base.Size, e.Base.SHA256)
			}
			fmt.Fprintf(t, "    %s\t%d bytes\t%s\t%s\n", e.File, e.Size, e.Codec, what)
		}
	}
	return t.Flush()
}

package command

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"example.com/iad/bank/image"
	"example.com/iad/cmd/iadms/report"
	"example.com/iad/internal/cli"
	"example.com/iad/internal/textfile"
)

func newImageTrust(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Manage the keys that devices trust, and replace them by upgrades",
		Long: `A trust chain is a file of numbered documents. Each lists the keys that sign images, and
the roots: keys that are kept offline and sign only the next document. Devices take the
chain from an image (image build --trust-chain), follow it from the document that they
hold to the last one, and never go back to an older one.

The file holds no secrets. It can be carried to the machines with the private keys, one
after the other, and signed there. A change starts the next document; until enough roots
of the document before, and of its own, have signed it, further changes go into it too
and discard the signatures that it has.`,
		Example: `  iadms image trust init --root a.pub --root b.pub --root c.pub \
        --root-threshold 2 --key release.pub -o trust.chain
  iadms image trust sign trust.chain --key a.key     # where root a is kept
  iadms image trust sign trust.chain --key b.key
  iadms image trust rotate trust.chain --key release.pub --to release-2.pub`,
	}
	cmd.AddCommand(newTrustInit(g), newTrustAdd(g), newTrustRemove(g), newTrustRotate(g), newTrustSign(g), newTrustInspect(g))
	return cmd
}

// trustKeys are the flags that name keys and thresholds.
type trustKeys struct {
	roots, keys              []string
	rootThreshold, threshold int
}

func (o *trustKeys) thresholds(cmd *cobra.Command) {
	cmd.Flags().IntVar(&o.rootThreshold, "root-threshold", 0, "`number` of roots that must sign a document")
	cmd.Flags().IntVar(&o.threshold, "threshold", 0, "`number` of keys that must sign an image")
}

// set takes over the thresholds that were given.
func (o *trustKeys) set(t *image.Trust) {
	if o.rootThreshold != 0 {
		t.RootThreshold = o.rootThreshold
	}
	if o.threshold != 0 {
		t.Threshold = o.threshold
	}
}

func newTrustInit(g *globals) *cobra.Command {
	var o trustKeys
	var output string
	var serial uint32
	cmd := &cobra.Command{
		Use:   "init --root FILE.pub --key FILE.pub -o CHAIN",
		Short: "Write the first document of a new trust chain",
		Long: `Write the first document of a new trust chain, to be signed by its roots. Devices that
have public keys alone follow it if one of these keys has signed it too.

A chain for devices whose roots were lost begins above the serial that they hold: name it
with --serial, and put the file into the setting trust at each device.`,
		Example: `  iadms image trust init --root a.pub --root b.pub --root c.pub \
        --root-threshold 2 --key release.pub -o trust.chain`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			t := &image.Trust{Format: image.TrustFormat, Serial: serial, RootThreshold: 1, Threshold: 1}
			var err error
			if t.Roots, err = readPublicKeys(o.roots); err != nil {
				return err
			}
			if t.Keys, err = readPublicKeys(o.keys); err != nil {
				return err
			}
			o.set(t)
			if _, err := os.Stat(output); err == nil {
				return fmt.Errorf("%s exists; change it with add, remove or rotate, or name another file", output)
			}
			if t, err = t.Sign(); err != nil {
				return err
			}
			return saveChain(cmd.OutOrStdout(), output, image.Chain{t}, g.json)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.roots, "root", nil, "`file` with the public key of a root; may be repeated")
	f.StringArrayVar(&o.keys, "key", nil, "`file` with a public key that signs images; may be repeated")
	o.thresholds(cmd)
	f.Uint32Var(&serial, "serial", 1, "`number` of the document")
	f.StringVarP(&output, "output", "o", "", "`file` to write")
	requireFlags(cmd, "root", "key", "output")
	return cmd
}

func newTrustAdd(g *globals) *cobra.Command {
	var o trustKeys
	cmd := &cobra.Command{
		Use:   "add CHAIN",
		Short: "Add keys or roots, or change how many must sign",
		Example: `  iadms image trust add trust.chain --key release-2.pub
  iadms image trust add trust.chain --root d.pub --root-threshold 3`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeChain(cmd, g, args[0], func(t *image.Trust) error {
				roots, err := readPublicKeys(o.roots)
				if err != nil {
					return err
				}
				keys, err := readPublicKeys(o.keys)
				if err != nil {
					return err
				}
				t.Roots, t.Keys = append(t.Roots, roots...), append(t.Keys, keys...)
				o.set(t)
				return nil
			})
		},
	}
	cmd.Flags().StringArrayVar(&o.roots, "root", nil, "`file` with the public key of a root; may be repeated")
	cmd.Flags().StringArrayVar(&o.keys, "key", nil, "`file` with a public key that signs images; may be repeated")
	o.thresholds(cmd)
	return cmd
}

func newTrustRemove(g *globals) *cobra.Command {
	var o trustKeys
	cmd := &cobra.Command{
		Use:   "remove CHAIN",
		Short: "Remove keys or roots",
		Long: `Remove keys or roots. Devices that hold the new document refuse images of a key that was
removed; software that they hold already still starts.`,
		Example: `  iadms image trust remove trust.chain --key release.pub
  iadms image trust remove trust.chain --root 3F2A9C0011223344 # file lost`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeChain(cmd, g, args[0], func(t *image.Trust) error {
				for _, name := range o.roots {
					i, err := findKey(t.Roots, name, "roots")
					if err != nil {
						return err
					}
					t.Roots = slices.Delete(t.Roots, i, i+1)
				}
				for _, name := range o.keys {
					i, err := findKey(t.Keys, name, "keys")
					if err != nil {
						return err
					}
					t.Keys = slices.Delete(t.Keys, i, i+1)
				}
				o.set(t)
				return nil
			})
		},
	}
	cmd.Flags().StringArrayVar(&o.roots, "root", nil, "`key` to remove from the roots, the file of the public key or its ID; may be repeated")
	cmd.Flags().StringArrayVar(&o.keys, "key", nil, "`key` to remove from those that sign images, the file of the public key or its ID; may be repeated")
	o.thresholds(cmd)
	return cmd
}

func newTrustRotate(g *globals) *cobra.Command {
	var root, key, to string
	cmd := &cobra.Command{
		Use:   "rotate CHAIN (--key OLD | --root OLD) --to NEW.pub",
		Short: "Replace a key or a root by another one",
		Example: `  iadms image trust rotate trust.chain --key release.pub --to release-2.pub
  iadms image trust rotate trust.chain --root 3F2A9C0011223344 --to d.pub`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (root == "") == (key == "") {
				return cli.Usage(fmt.Errorf("name either a key with --key or a root with --root"))
			}
			return changeChain(cmd, g, args[0], func(t *image.Trust) error {
				next, err := readPublicKeys([]string{to})
				if err != nil {
					return err
				}
				list, old, what := t.Keys, key, "keys"
				if root != "" {
					list, old, what = t.Roots, root, "roots"
				}
				i, err := findKey(list, old, what)
				if err == nil {
					list[i] = next[0]
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "`key` of a root, the file of the public key or its ID")
	cmd.Flags().StringVar(&key, "key", "", "`key` that signs images, the file of the public key or its ID")
	cmd.Flags().StringVar(&to, "to", "", "`file` with the public key that replaces it")
	requireFlags(cmd, "to")
	return cmd
}

func newTrustSign(g *globals) *cobra.Command {
	var keys []string
	cmd := &cobra.Command{
		Use:   "sign CHAIN --key ROOT.key",
		Short: "Sign the last document with a root",
		Long: `Sign the last document with a root, of the document before or its own. The first document
may also be signed with the key that devices have now. Look at what you sign with inspect.`,
		Example: "  iadms image trust sign trust.chain --key a.key",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			chain, err := readChain(args[0])
			if err != nil {
				return err
			}
			last := chain.Last()
			may := last.Roots
			if len(chain) > 1 {
				may = slices.Concat(may, chain[len(chain)-2].Roots)
			}
			for _, name := range keys {
				key, err := readKey(name)
				if err != nil {
					return err
				}
				if len(chain) > 1 && !slices.ContainsFunc(may, func(k image.Key) bool { return k.Equal(key.Public()) }) {
					return fmt.Errorf("%s is not a root of document %d or %d; nothing was signed", name, last.Serial-1, last.Serial)
				}
				if last, err = last.Sign(key); err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
			}
			chain[len(chain)-1] = last
			return saveChain(cmd.OutOrStdout(), args[0], chain, g.json)
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "private key `file`; may be repeated")
	requireFlags(cmd, "key")
	return cmd
}

func newTrustInspect(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "inspect CHAIN",
		Short:   "Show the documents, and who has signed them",
		Example: "  iadms image trust inspect trust.chain",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			chain, err := readChain(args[0])
			if err != nil {
				return err
			}
			return printChain(cmd.OutOrStdout(), chain, chain, g.json)
		},
	}
}

func requireFlags(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a name that is not defined
		}
	}
}

// readPublicKeys reads files with public keys.
func readPublicKeys(names []string) (keys []image.Key, err error) {
	for _, name := range names {
		data, err := textfile.Read(name)
		if err != nil {
			return nil, err
		}
		key, err := image.ReadPublicKey(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		keys = append(keys, image.Key{PublicKey: key})
	}
	return keys, nil
}

// findKey finds a key by its ID or by the file of the public key.
func findKey(keys []image.Key, name, what string) (int, error) {
	id, err := strconv.ParseUint(name, 16, 64)
	if err != nil || len(name) != 16 {
		found, err := readPublicKeys([]string{name})
		if errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("%w; if the file is lost, name the key by its ID, which inspect shows", err)
		}
		if err != nil {
			return 0, err
		}
		id = found[0].ID()
	}
	i := slices.IndexFunc(keys, func(k image.Key) bool { return k.ID() == id })
	if i < 0 {
		return 0, fmt.Errorf("%s is not among the %s; inspect shows them", name, what)
	}
	return i, nil
}

func readChain(name string) (image.Chain, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(data, []byte("{")) {
		return nil, fmt.Errorf("%s is not a trust chain; make one with iadms image trust init", name)
	}
	chain, err := image.ParseChain(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return chain, nil
}

// completeChain reads a chain whose last document is signed.
func completeChain(name string) (data []byte, last *image.Trust, err error) {
	chain, err := readChain(name)
	if err != nil {
		return nil, nil, err
	}
	if what := missingSignatures(chain); what != "" {
		return nil, nil, fmt.Errorf("%s: document %d is not complete: it needs %s; sign it with iadms image trust sign", name, chain.Last().Serial, what)
	}
	return chainBytes(chain), chain.Last(), nil
}

func chainBytes(chain image.Chain) (data []byte) {
	for _, t := range chain {
		data = append(data, t.Record()...)
	}
	return data
}

// missingSignatures says which signatures the last document needs, "" for none.
func missingSignatures(chain image.Chain) string {
	before, own := chain.Missing()
	var all []string
	if before > 0 {
		all = append(all, fmt.Sprintf("%d more by roots of document %d", before, chain.Last().Serial-1))
	}
	if own > 0 {
		all = append(all, fmt.Sprintf("%d more by its own roots", own))
	}
	return strings.Join(all, " and ")
}

// changeChain changes the last document, or the next one if that is complete.
func changeChain(cmd *cobra.Command, g *globals, name string, change func(*image.Trust) error) error {
	chain, err := readChain(name)
	if err != nil {
		return err
	}
	last := chain.Last()
	next := last.Next()
	draft := missingSignatures(chain) != ""
	if draft {
		next.Serial = last.Serial
		chain = chain[:len(chain)-1]
	}
	if err := change(next); err != nil {
		return err
	}
	if slices.Equal(names(next.Roots), names(last.Roots)) && slices.Equal(names(next.Keys), names(last.Keys)) &&
		next.RootThreshold == last.RootThreshold && next.Threshold == last.Threshold {
		return cli.Usage(errors.New("nothing changes; name keys or thresholds"))
	}
	serial := next.Serial
	if next, err = next.Sign(); err != nil {
		return fmt.Errorf("document %d would not be valid: %w", serial, err)
	}
	chain = append(chain, next)
	if first := len(chain) - image.MaxTrustDocuments; first > 0 {
		chain = chain[first:] // devices that hold older documents need an image in between
	}
	return saveChain(cmd.OutOrStdout(), name, chain, g.json)
}

func names(keys []image.Key) (all []string) {
	for _, k := range keys {
		all = append(all, k.String())
	}
	return all
}

// saveChain writes a chain and prints its last document.
func saveChain(w io.Writer, name string, chain image.Chain, asJSON bool) error {
	if err := writeFile(name, func(w io.Writer) error { _, err := w.Write(chainBytes(chain)); return err }); err != nil {
		return err
	}
	return printChain(w, chain, chain[len(chain)-1:], asJSON)
}

type trustReport struct {
	Serial        uint32      `json:"serial"`
	Roots         []keyReport `json:"roots"`
	RootThreshold int         `json:"root_threshold"`
	Keys          []keyReport `json:"keys"`
	Threshold     int         `json:"threshold"`
	Others        []string    `json:"other_signatures"`
	Complete      bool        `json:"complete"`
	Missing       string      `json:"missing,omitempty"`
}

type keyReport struct {
	ID     string `json:"id"`
	Key    string `json:"public_key"`
	Signed bool   `json:"signed"`
}

func keyReports(t *image.Trust, keys []image.Key) (all []keyReport) {
	signed := t.SignedBy(keys)
	for _, k := range keys {
		all = append(all, keyReport{keyID(k.ID()), k.String(),
			slices.ContainsFunc(signed, func(s image.Key) bool { return s.Equal(k.PublicKey) })})
	}
	return all
}

func keyID(id uint64) string { return fmt.Sprintf("%016X", id) }

// printChain prints some last documents of a chain.
func printChain(w io.Writer, chain, some image.Chain, asJSON bool) error {
	var all []trustReport
	for i := len(chain) - len(some); i < len(chain); i++ {
		t := chain[i]
		r := trustReport{Serial: t.Serial, Roots: keyReports(t, t.Roots), RootThreshold: t.RootThreshold,
			Keys: keyReports(t, t.Keys), Threshold: t.Threshold, Others: []string{}, Missing: missingSignatures(chain[:i+1])}
		r.Complete = r.Missing == ""
		for _, id := range t.SignatureIDs() {
			if !slices.ContainsFunc(t.Roots, func(k image.Key) bool { return k.ID() == id }) {
				r.Others = append(r.Others, keyID(id))
			}
		}
		all = append(all, r)
	}
	if asJSON {
		return report.PrintJSON(w, map[string]any{"documents": all})
	}
	for _, r := range all {
		state := "complete"
		if !r.Complete {
			state = "NOT COMPLETE: needs " + r.Missing
		}
		fmt.Fprintf(w, "document %d, %s\n", r.Serial, state)
		fmt.Fprintf(w, "  roots, of which %d must sign the next document:\n", r.RootThreshold)
		for _, k := range r.Roots {
			fmt.Fprintf(w, "    %s%s\n", k.ID, map[bool]string{true: "  has signed this one"}[k.Signed])
		}
		fmt.Fprintf(w, "  keys, of which %d must sign an image:\n", r.Threshold)
		for _, k := range r.Keys {
			fmt.Fprintf(w, "    %s\n", k.ID)
		}
		if len(r.Others) > 0 {
			fmt.Fprintf(w, "  other signatures: %s\n", strings.Join(r.Others, ", "))
		}
	}
	return nil
}

package command

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"aead.dev/minisign"
	"github.com/spf13/afero"
	"github.com/spf13/cobra"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/frame"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/cli"
	"example.com/iad/internal/executable"
	"example.com/iad/internal/textfile"
)

type buildOptions struct {
	manifest   image.Manifest
	converters []string
	selftest   string
	partition  string
	split      string
	keys       []string
	trustChain string
	output     string
	compress   string
	deltaFrom  []string
	identity   keyOptions
	encryptTo  []string
	recipients []agefile.Recipient // of encryptTo
	// interpreters exist on the devices, but not on this machine.
	interpreters []string
}

func newImageBuild() *cobra.Command {
	o := new(buildOptions)
	cmd := &cobra.Command{
		Use:   "build --version V --hardware MODEL --key KEY (-o FILE | --split DIR) FILE...",
		Short: "Build and sign an image from files",
		Long: `Build and sign an image from files. On a device they become files in the directory
of a bank. On boards whose boot loader reads a raw partition, flash memory or a
UBI volume, --partition names the file that is written there, such as a FIT image;
boards without such a partition refuse the image.

With --compress, devices fetch less: files are stored compressed, in frames of 256 KiB
of which an interrupted download resumes at any. With --delta-from, they are stored as
differences from those of an older image. A device that runs this older software
fetches the difference; with --split any other device fetches all of the file instead,
and one that does not read compressed images fetches the plain files, by their own
manifest ` + image.PlainManifestName + `. An image file holds one form of each file: with
--delta-from, only devices that run the older software can install it.

With --encrypt-to, files are encrypted to a key that the devices of a model or a batch have
(image_keys in iad.toml; age-keygen makes one). Names, sizes and digests of the files stay
readable. There are then no plain files beside the manifest, and only devices that read
image format 3 and have the key can install the image. If an older image is encrypted,
--identity names the file with a key that decrypts it.`,
		Example: `  iadms image build --version 2.0.0 --hardware IAD-4FXS --config-format 2 \
        --selftest selftest --converter 1:2:convert \
    --key release.key -o fw-2.0.0.iad app
  iadms image build --version 2.0.0 --hardware IAD-4FXS --key release.key \
        --compress xz --delta-from fw-1.0.0.iad --split fw-2.0.0 app`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 && o.partition == "" {
				return cli.Usage(fmt.Errorf("name the files that make up the software"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.build(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.compress, "compress", "", "compress the files by `method`: xz")
	f.StringArrayVar(&o.deltaFrom, "delta-from", nil, "older image `file` (or its manifest, in split form) to store differences from; may be repeated with --split")
	o.identity.registerFor(f, "the images of --delta-from")
	f.StringArrayVar(&o.encryptTo, "encrypt-to", nil, "encrypt the files to this age `recipient`, whose key devices have; may be repeated; implies --compress xz")
	f.StringVar(&o.manifest.Version, "version", "", "`version` of the software, such as 2.0.0 (semver.org)")
	f.StringSliceVar(&o.manifest.Hardware, "hardware", nil, "hardware `model` that the software runs on; may be repeated")
	f.Uint32Var(&o.manifest.ConfigFormat, "config-format", 1, "`number` of the configuration data format")
	f.StringVar(&o.manifest.MinVersion, "min-version", "", "lowest `version` that it may replace")
	f.StringVar(&o.manifest.Floor, "floor", "", "devices refuse anything below this `version` once this software is confirmed")
	f.BoolVar(&o.manifest.NoReset, "no-reset", false, "the software takes effect without a reset, if the device supports that")
	f.StringVar(&o.partition, "partition", "", "`file` to write to the raw partition of a bank")
	f.StringVar(&o.selftest, "selftest", "", "`file` to run after the start; exit status 0 means healthy")
	f.StringArrayVar(&o.converters, "converter", nil, "`FROM:TO:FILE`: program that converts configuration data between two formats")
	f.StringSliceVar(&o.interpreters, "interpreter", nil, "`path` of an interpreter that exists on the devices but not here; may be repeated")
	f.StringArrayVar(&o.keys, "key", nil, "private key `file`; may be repeated. Devices that know one signature only read that of the first one")
	f.StringVar(&o.trustChain, "trust-chain", "", "`file` with the trust chain that devices follow, see image trust")
	f.StringVarP(&o.output, "output", "o", "", "image `file` to write")
	f.StringVar(&o.split, "split", "", "write manifest, signature and files to `directory` instead")
	for _, name := range []string{"version", "hardware", "key"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a name that is not defined above
		}
	}
	return cmd
}

func (o *buildOptions) build(ctx context.Context, w, progress io.Writer, names []string) error {
	if (o.output == "") == (o.split == "") {
		return cli.Usage(fmt.Errorf("name either an image file with -o or a directory with --split"))
	}
	for _, text := range o.encryptTo {
		r, err := agefile.ParseRecipient(text)
		if err != nil {
			return cli.Usage(fmt.Errorf("--encrypt-to: %w", err))
		}
		o.recipients = append(o.recipients, r)
	}
	if len(o.recipients) > 0 && o.compress == "" {
		o.compress = string(frame.XZ)
	}
	switch {
	case o.compress != "" && o.compress != string(frame.XZ):
		return cli.Usage(fmt.Errorf("--compress %q: unknown method (want xz)", o.compress))
	case o.compress == "" && len(o.deltaFrom) > 0:
		return cli.Usage(fmt.Errorf("--delta-from needs --compress xz: differences are compressed"))
	case len(o.deltaFrom) > 1 && o.split == "":
		return cli.Usage(fmt.Errorf("an image file holds differences from one older image; use --split for several"))
	}
	if err := o.checkOutput(names); err != nil {
		return cli.Usage(err)
	}
	files, err := o.payloads(names)
	if err != nil {
		return err
	}
	keys, err := readKeys(o.keys)
	if err != nil {
		return err
	}
	if o.compress != "" {
		if files, err = o.encode(ctx, w, progress, files); err != nil {
			return err
		}
	}
	if len(o.recipients) > 0 {
		if o.manifest.Key, err = image.Encrypt(files, o.recipients...); err != nil {
			return err
		}
	}
	if o.trustChain != "" {
		chain, err := o.chain(keys)
		if err != nil {
			return err
		}
		files = append([]image.PayloadFile{chain}, files...)
	}
	if o.split != "" {
		return image.BuildSplit(afero.NewOsFs(), o.split, o.manifest, files, keys...)
	}
	return writeFile(o.output, func(w io.Writer) error { return image.Build(w, o.manifest, files, keys...) })
}

// chain returns the trust chain as a file of the image, which devices that follow it must
// accept. More signatures can be added later.
func (o *buildOptions) chain(keys []minisign.PrivateKey) (image.PayloadFile, error) {
	data, last, err := completeChain(o.trustChain)
	if err != nil {
		return image.PayloadFile{}, err
	}
	if !slices.ContainsFunc(last.Keys, func(k image.Key) bool {
		return slices.ContainsFunc(keys, func(p minisign.PrivateKey) bool { return k.Equal(p.Public()) })
	}) {
		return image.PayloadFile{}, fmt.Errorf("%s: document %d does not list the key that signs the image, so devices would refuse it; sign with a key that inspect shows", o.trustChain, last.Serial)
	}
	return image.PayloadFile{Name: image.TrustName, Mode: 0o644, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}}, nil
}

// checkOutput refuses to overwrite an input file with the image.
func (o *buildOptions) checkOutput(names []string) error {
	target, err := os.Stat(o.output)
	if o.output == "" || err != nil {
		return nil // nothing is there
	}
	inputs := slices.Concat(o.keys, []string{o.trustChain, o.selftest, o.partition}, o.deltaFrom, names)
	for _, text := range o.converters {
		inputs = append(inputs, text[strings.LastIndexByte(text, ':')+1:])
	}
	for _, name := range inputs {
		if info, err := os.Stat(name); err == nil && os.SameFile(target, info) {
			return fmt.Errorf("-o %s would overwrite the input file %s", o.output, name)
		}
	}
	return nil
}

// payloads returns the files of the image: the one for the partition, those named, then the
// self-test and the converters, which are made executable.
func (o *buildOptions) payloads(names []string) ([]image.PayloadFile, error) {
	var files []image.PayloadFile
	index := make(map[string]int)
	add := func(name string, program bool) error {
		at, ok := index[name]
		if !ok {
			file, err := image.FileFrom(afero.NewOsFs(), name)
			if err != nil {
				return err
			}
			at = len(files)
			files, index[name] = append(files, file), at
		}
		if program {
			files[at].Mode |= 0o555
			return o.checkProgram(name)
		}
		return nil
	}
	if o.partition != "" {
		if err := add(o.partition, false); err != nil {
			return nil, err
		}
		files[0].Target = image.TargetPartition
	}
	for _, name := range names {
		if err := add(name, false); err != nil {
			return nil, err
		}
	}
	if o.selftest != "" {
		if err := add(o.selftest, true); err != nil {
			return nil, err
		}
		o.manifest.SelfTest = filepath.Base(o.selftest)
	}
	for _, text := range o.converters {
		c, name, err := parseConverter(text)
		if err != nil {
			return nil, cli.Usage(err)
		}
		if err := add(name, true); err != nil {
			return nil, err
		}
		o.manifest.Converters = append(o.manifest.Converters, c)
	}
	return files, nil
}

// checkProgram returns an error for a program that cannot run, which a device would only
// find out while its new software is on trial.
func (o *buildOptions) checkProgram(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := executable.Read(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if !p.Script || slices.Contains(o.interpreters, p.Interpreter) {
		return nil
	}
	if _, err := os.Stat(p.Interpreter); err != nil {
		return fmt.Errorf("%s: its interpreter %s does not exist on this machine; if the devices have it, add --interpreter %s",
			name, p.Interpreter, p.Interpreter)
	}
	return nil
}

func parseConverter(text string) (image.Converter, string, error) {
	parts := strings.SplitN(text, ":", 3)
	if len(parts) != 3 {
		return image.Converter{}, "", fmt.Errorf("--converter %q: use FROM:TO:FILE", text)
	}
	from, errFrom := strconv.ParseUint(parts[0], 10, 32)
	to, errTo := strconv.ParseUint(parts[1], 10, 32)
	if errFrom != nil || errTo != nil {
		return image.Converter{}, "", fmt.Errorf("--converter %q: the formats must be numbers", text)
	}
	return image.Converter{From: uint32(from), To: uint32(to), Payload: filepath.Base(parts[2])}, parts[2], nil
}

// writeFile writes a file that appears under its name only when it is complete.
func writeFile(name string, write func(io.Writer) error) (err error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s exists and is not a regular file; name another one", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the first error is the one that matters
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}

func readKeys(names []string) (keys []minisign.PrivateKey, err error) {
	for _, name := range names {
		key, err := readKey(name)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// readKey reads a private key. Its password comes from the environment or a prompt.
func readKey(name string) (minisign.PrivateKey, error) {
	data, err := textfile.Read(name)
	if err != nil {
		return minisign.PrivateKey{}, err
	}
	password := ""
	if image.KeyEncrypted(data) {
		if password, err = keyPassword("Password of " + name); err != nil {
			return minisign.PrivateKey{}, err
		}
	}
	key, err := image.ReadPrivateKey(data, password)
	if err != nil {
		return key, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

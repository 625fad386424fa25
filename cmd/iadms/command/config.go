package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/afero"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/internal/agefile"
	"example.com/iad/internal/cli"
	"example.com/iad/internal/durable"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

func newConfig(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show and compare configuration data in backups",
		Long: `Show and compare the configuration data in backups, which may be encrypted.

A backup is the path of its directory. Devices whose settings have backup.recipients send
their backups encrypted; --identity names the file with the operator's key, as age-keygen
writes it. Each encrypted file is an ordinary age file.`,
	}
	cmd.AddCommand(newConfigDecrypt(g), newConfigDiff(g))
	return cmd
}

// keyOptions are keys for encrypted backups, or for encrypted images.
type keyOptions struct{ names []string }

func (o *keyOptions) register(f *pflag.FlagSet) { o.registerFor(f, "backups") }

func (o *keyOptions) registerFor(f *pflag.FlagSet, what string) {
	f.StringArrayVar(&o.names, "identity", nil, "`file` with an age key that decrypts "+what+"; may be repeated")
}

// keys reads the files, which only their owner may be able to read.
func (o *keyOptions) keys() (keys files.Keys, err error) {
	for _, name := range o.names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("--identity: %w", err))
		}
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
			return nil, cli.Usage(fmt.Errorf("--identity: others may read %s (mode %04o): chmod 600 %s", name, info.Mode().Perm(), name))
		}
		ids, err := agefile.ReadIdentities(data)
		if err != nil {
			return nil, cli.Usage(fmt.Errorf("--identity: %s: %w", name, err))
		}
		keys = append(keys, ids...)
	}
	return keys, nil
}

// openDirectory reads a backup that is a directory of this machine.
func (o *keyOptions) openDirectory(dir string) (map[mib.FileType][]byte, error) {
	keys, err := o.keys()
	if err != nil {
		return nil, err
	}
	full, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(full); err != nil || !info.IsDir() {
		return nil, cli.Usage(fmt.Errorf("%s is not the directory of a backup", dir))
	}
	// From above, because a backup is compared with those beside it.
	return keys.Open(afero.NewBasePathFs(afero.NewOsFs(), filepath.Dir(full)), filepath.Base(full))
}

func newConfigDecrypt(*globals) *cobra.Command {
	var keys keyOptions
	var output string
	cmd := &cobra.Command{
		Use:   "decrypt BACKUP --output DIR",
		Short: "Write the configuration data of a backup as plain text",
		Long: `Write the configuration data of a backup as plain text, to a new directory that only you
can read. To recover something other than what was backed up, edit the files there, copy
them to a directory beside the backup in the store, and name that with iadms recover
--from: what a device needs encrypted is encrypted for it.`,
		Example: "  iadms config decrypt ~/.local/share/iadms/backup/IAD-0001/20260102T030405Z-1 \\\n    --identity operator.key --output plain",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			contents, err := keys.openDirectory(args[0])
			if err != nil {
				return err
			}
			if err := os.Mkdir(output, 0o700); err != nil {
				if errors.Is(err, fs.ErrExist) {
					return cli.Usage(fmt.Errorf("--output: %s exists; name a new directory", output))
				}
				return err
			}
			for _, kind := range files.ConfigKinds {
				data, ok := contents[kind]
				if !ok {
					continue
				}
				if err := durable.ReplaceFile(afero.NewOsFs(), filepath.Join(output, kind.String()+".cfg"), data, 0o600); err != nil {
					return err
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d files in %s, plain text: delete them when they are no longer needed\n", len(contents), output)
			return nil
		},
	}
	keys.register(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "", "new `directory` for the files")
	_ = cmd.MarkFlagRequired("output")
	return cmd
}

// A configDiff is what config diff shows of one kind of configuration data.
type configDiff struct {
	Kind string `json:"kind"`
	Diff string `json:"diff"` // unified; empty: no difference
}

func newConfigDiff(g *globals) *cobra.Command {
	var keys keyOptions
	cmd := &cobra.Command{
		Use:     "diff OLD NEW",
		Short:   "Show the differences between two backups",
		Example: "  iadms config diff backup/IAD-0001/20260102T030405Z-1 \\\n    backup/IAD-0001/20260103T030405Z-1 --identity operator.key",
		Args:    exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			old, err := keys.openDirectory(args[0])
			if err != nil {
				return err
			}
			next, err := keys.openDirectory(args[1])
			if err != nil {
				return err
			}
			list := []configDiff{}
			for _, kind := range files.ConfigKinds {
				if old[kind] == nil && next[kind] == nil {
					continue
				}
				name := kind.String() + ".cfg"
				list = append(list, configDiff{kind.String(),
					udiff.Unified(filepath.Join(args[0], name), filepath.Join(args[1], name), string(old[kind]), string(next[kind]))})
			}
			if g.json {
				return report.PrintJSON(cmd.OutOrStdout(), list)
			}
			for _, d := range list {
				fmt.Fprint(cmd.OutOrStdout(), d.Diff)
			}
			return nil
		},
	}
	keys.register(cmd.Flags())
	return cmd
}

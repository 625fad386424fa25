package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/iad/bank/image"
	"example.com/iad/cmd/iadms/report"
	"example.com/iad/internal/cli"
)

const keyPasswordVariable = "IADMS_KEY_PASSWORD"

func newImageKeygen(g *globals) *cobra.Command {
	var output string
	var force, plain bool
	cmd := &cobra.Command{
		Use:   "keygen -o NAME",
		Short: "Make a key pair: NAME.pub for devices, NAME.key to sign images",
		Long: `Make a key pair in minisign's formats. The password of the private key comes
from IADMS_KEY_PASSWORD or is asked for on a terminal. With an empty password, or
without the variable and a terminal, the key is not encrypted.`,
		Example: "  iadms image keygen -o release",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return keygen(cmd.OutOrStdout(), output, force, plain, g.json)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`name` of the two files, without suffix")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite existing files")
	cmd.Flags().BoolVar(&plain, "no-password", false, "do not ask: leave the private key unencrypted")
	if err := cmd.MarkFlagRequired("output"); err != nil {
		panic(err) // a name that is not defined above
	}
	return cmd
}

func keygen(w io.Writer, name string, force, plain, asJSON bool) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	password := ""
	var err error
	if !plain {
		if password, err = newKeyPassword(name + ".key"); err != nil {
			return err
		}
	}
	public, private, err := image.GenerateKey(password)
	if err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{{name + ".key", private, 0o600}, {name + ".pub", public, 0o644}} {
		if err := writeNew(file.name, file.data, file.mode, flags); err != nil {
			if errors.Is(err, os.ErrExist) {
				return fmt.Errorf("%w: without it, no more images could be signed for devices that trust it; use --force to overwrite it", err)
			}
			return err
		}
	}
	if asJSON {
		return report.PrintJSON(w, map[string]any{"public_key": name + ".pub", "private_key": name + ".key", "encrypted": password != ""})
	}
	how := "encrypted"
	if password == "" {
		how = "not encrypted: keep it where only you can read it"
	}
	fmt.Fprintf(w, "%s.pub: install it on devices\n%s.key: signs images (%s)\n", name, name, how)
	return nil
}

func writeNew(name string, data []byte, mode os.FileMode, flags int) error {
	f, err := os.OpenFile(name, flags, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
}

// keyPassword returns the password of an encrypted key.
func keyPassword(prompt string) (string, error) {
	if password, ok := os.LookupEnv(keyPasswordVariable); ok {
		return password, nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return "", cli.Usage(fmt.Errorf("the key is encrypted: set %s", keyPasswordVariable))
	}
	return readPassword(prompt)
}

// newKeyPassword asks twice, because nobody sees what is typed.
func newKeyPassword(name string) (string, error) {
	if password, ok := os.LookupEnv(keyPasswordVariable); ok {
		return password, nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return "", nil
	}
	first, err := readPassword("Password for " + name + " (empty for none)")
	if err != nil || first == "" {
		return "", err
	}
	second, err := readPassword("Repeat the password")
	if err == nil && first != second {
		err = errors.New("the two passwords differ")
	}
	return first, err
}

func readPassword(prompt string) (string, error) {
	fmt.Fprint(os.Stderr, prompt, ": ")
	data, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(os.Stderr)
	return strings.TrimRight(string(data), "\r\n"), err
}

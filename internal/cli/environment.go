package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// Variable returns the environment variable of a flag in a program whose variables start
// with prefix.
func Variable(prefix, flag string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// FromEnvironment sets flags that were not given from the environment.
func FromEnvironment(flags *pflag.FlagSet, variable func(flag string) string) (err error) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Value.Type() == "bool" && (f.Name == "help" || f.Name == "version") {
			return
		}
		name := variable(f.Name)
		value, ok := os.LookupEnv(name)
		if name == "" || !ok {
			return
		}
		if e := flags.Set(f.Name, value); e != nil {
			err = errors.Join(err, Usage(fmt.Errorf("environment variable %s: %w", name, e)))
		}
	})
	return err
}

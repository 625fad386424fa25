package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/afero"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/iad/internal/cli"
	"example.com/iad/internal/durable"
	"example.com/iad/internal/textfile"
	"example.com/iad/sim/fleet"
	"example.com/iad/sim/scenario"
)

func playCommand() *cobra.Command {
	var dir, junit string
	var seed uint64
	var asJSON, quiet bool
	var timeout time.Duration
	var log cli.LogFlags
	cmd := &cobra.Command{
		Use:   "play FILE.toml",
		Short: "Play a scenario and judge how it ended",
		Long: `play runs the devices that a scenario describes, runs the commands of a manager or
waits for a manager from outside, does to the devices what the scenario says, and
checks what must hold at the end. The documentation, docs/iadsim.md, describes the
file; deploy/scenarios has examples.

The exit status is 0 if everything holds, 1 if something does not, and 2 if the file
cannot be used. The directory of the play has the addresses of the devices, keys,
credentials and images, and afterwards the output of the commands and the backups
of iadms. Without --dir it is a temporary one, which is removed if the play passes.`,
		Example: `  iadsim play deploy/scenarios/power-cuts.toml
  iadsim play deploy/scenarios/bad-network.toml --seed 4 --junit report.xml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			text, err := textfile.Read(args[0])
			if err != nil {
				return err
			}
			s, err := scenario.Parse(text, filepath.Dir(args[0]))
			if err != nil {
				return cli.Usage(fmt.Errorf("%s: %w", args[0], err))
			}
			if cmd.Flags().Changed("seed") {
				s.Fleet.Seed = seed
			}
			if timeout > 0 {
				s.Timeout = fleet.Duration(timeout)
			}
			if s.Title == "" {
				s.Title = strings.TrimSuffix(filepath.Base(args[0]), ".toml")
			}
			logger, err := log.Logger(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			saveMemory()
			o := scenario.Options{Dir: dir, Version: version, Log: logger}
			if dir == "" {
				if o.Dir, err = os.MkdirTemp("", "iadsim-play-"); err != nil {
					return err
				}
			} else if o.Dir, err = emptyDirectory(dir); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if !quiet {
				o.Progress = progress(out, asJSON, cmd.ErrOrStderr())
			}
			r, err := s.Play(cmd.Context(), o)
			if dir == "" && (err != nil || r.Passed) {
				defer func() { err = errors.Join(err, os.RemoveAll(o.Dir)) }()
			}
			if err != nil {
				return err
			}
			if junit != "" {
				var b bytes.Buffer
				if err := r.WriteJUnit(&b); err != nil {
					return err
				}
				if err := durable.ReplaceFile(afero.NewOsFs(), junit, b.Bytes(), 0o644); err != nil {
					return err
				}
			}
			if asJSON {
				err = json.NewEncoder(out).Encode(r)
			} else {
				err = printResult(out, r)
			}
			if err == nil && !r.Passed {
				err = fmt.Errorf("%s: failed; %s has the output of the commands", args[0], o.Dir)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "empty or new directory of the play, which is kept (default: a temporary one)")
	f.Uint64Var(&seed, "seed", 0, "decides which devices get which faults (default: that of the file)")
	f.DurationVar(&timeout, "timeout", 0, "time limit of the play (default: that of the file, or 10m)")
	f.StringVar(&junit, "junit", "", "write the verdict to a file in the XML format of JUnit")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON; what happens is printed on standard error")
	f.BoolVarP(&quiet, "quiet", "q", false, "print the result only")
	log.Register(f, "error")
	return cmd
}

// emptyDirectory makes a directory, or takes an empty one, and returns its absolute path.
func emptyDirectory(name string) (string, error) {
	if err := os.MkdirAll(name, 0o755); err != nil {
		return "", err
	}
	list, err := os.ReadDir(name)
	if err != nil {
		return "", err
	}
	if len(list) > 0 {
		return "", cli.Usage(fmt.Errorf("--dir %s is not empty; name another directory, or remove what is in it", name))
	}
	return filepath.Abs(name)
}

// progress prints what happens, to standard error if the result is JSON.
func progress(out io.Writer, asJSON bool, stderr io.Writer) func(time.Duration, string) {
	if asJSON {
		out = stderr
	}
	var mu sync.Mutex
	return func(at time.Duration, text string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, "%7.2f s  %s\n", at.Seconds(), text)
	}
}

// printResult prints the verdict for people.
func printResult(w io.Writer, r *scenario.Result) error {
	var b strings.Builder
	failed := 0
	for _, c := range r.Checks {
		if c.Passed {
			fmt.Fprintf(&b, "%s  %s\n", coloured(w, "32", "ok  "), c.Name)
			continue
		}
		failed++
		fmt.Fprintf(&b, "%s  %s: %s\n", coloured(w, "31", "FAIL"), c.Name, strings.ReplaceAll(c.Detail, "\n", "\n      "))
	}
	verdict := coloured(w, "32", "PASSED")
	if !r.Passed {
		verdict = coloured(w, "31", "FAILED")
	}
	fmt.Fprintf(&b, "%s: %s: %d of %d checks, %d faults, seed %d, in %.1f s\n", verdict, r.Title, len(r.Checks)-failed, len(r.Checks), len(r.Faults), r.Seed, r.Seconds)
	_, err := io.WriteString(w, b.String())
	return err
}

// coloured colours a text on a terminal, unless NO_COLOR is set.
func coloured(w io.Writer, colour, text string) string {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

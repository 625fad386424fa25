package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"example.com/iad/agent"
	"example.com/iad/agent/settings"
	"example.com/iad/bank"
	"example.com/iad/internal/cli"
)

// loaderCommand is for the engineer at the console of a board.
func loaderCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "loader",
		Short: "Show or set which bank the boot loader starts",
		Long: `loader reads and writes what the boot loader of a board acts on: the bank that
starts next, how many starts it has left while it is on trial, and the bank to
fall back on. The section [loader] of ROOT/iad.toml says where that is kept.`,
		Example: `  iad loader show --root /var/lib/iad
  iad loader set --root /var/lib/iad --next 1`,
	}
	cmd.AddCommand(loaderShowCommand(), loaderSetCommand())
	return cmd
}

// loaderReport is what loader show prints.
type loaderReport struct {
	Started  int      `json:"started"` // 0: the loader did not say
	Why      string   `json:"why"`
	Lost     bool     `json:"lost"`
	Next     int      `json:"next"`
	Counted  bool     `json:"counted"` // whether starts of next are counted
	Left     int      `json:"left"`
	Fallback *int     `json:"fallback"` // null: this loader keeps none
	Recorded int      `json:"recorded_next"`
	Findings []string `json:"findings"`
}

func loaderShowCommand() *cobra.Command {
	var root, file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show --root DIR",
		Short: "Show what the boot loader starts next, whether the device runs or not",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := openLoader(root, file)
			if err != nil {
				return err
			}
			r, err := reportLoader(c)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(r)
			}
			return r.write(cmd.OutOrStdout())
		},
	}
	deviceFlags(cmd, &root, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func reportLoader(c agent.Config) (loaderReport, error) {
	var r loaderReport
	r.Started, r.Why = c.Loader.Started()
	s, err := c.Loader.Load()
	switch {
	case errors.Is(err, bank.ErrLoaderLost):
		r.Lost, r.Findings = true, append(r.Findings, err.Error())
	case err != nil:
		return r, err
	default:
		r.Next, r.Counted, r.Left = s.Next, s.Left != bank.Uncounted, max(s.Left, 0)
		if s.Fallback != bank.FallbackNotKept {
			r.Fallback = &s.Fallback
		}
		if f, ok := c.Loader.(interface{ Findings() []string }); ok {
			r.Findings = append(r.Findings, f.Findings()...)
		}
	}
	st := agent.Peek(c)
	r.Recorded = st.Banks.Next
	if !r.Lost && r.Recorded != 0 && r.Recorded != r.Next {
		r.Findings = append(r.Findings, fmt.Sprintf("the boot record has bank %d as the next one; it follows the boot loader at the next start", r.Recorded))
	}
	return r, nil
}

func (r loaderReport) write(w io.Writer) error {
	bankOr := func(n int, none string) string {
		if n == 0 {
			return none
		}
		return "bank " + strconv.Itoa(n)
	}
	text := "started:   " + bankOr(r.Started, "unknown")
	if r.Why != "" {
		text += " (" + r.Why + ")"
	}
	text += "\n"
	switch {
	case r.Lost:
		text += "next:      unknown, the state is lost\n"
	case r.Counted:
		text += fmt.Sprintf("next:      bank %d, on trial, starts left: %d\n", r.Next, r.Left)
	default:
		text += fmt.Sprintf("next:      bank %d\n", r.Next)
	}
	switch {
	case r.Lost:
	case r.Fallback == nil:
		text += "fallback:  not kept by this boot loader\n"
	default:
		text += fmt.Sprintf("fallback:  %s\n", bankOr(*r.Fallback, "none"))
	}
	for _, f := range r.Findings {
		text += "finding:   " + f + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

func loaderSetCommand() *cobra.Command {
	var root, file string
	var s bank.LoaderState
	cmd := &cobra.Command{
		Use:   "set --root DIR --next BANK",
		Short: "Set which bank the boot loader starts next; the agent must not be running",
		Long: `set writes the boot loader's choice. The boot record follows it at the next
start. Without --left the software counts as good; --left N starts it on trial.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("left") {
				s.Left = bank.Uncounted
			}
			switch {
			case s.Next != 1 && s.Next != 2:
				return cli.Usage(fmt.Errorf("--next %d: want 1 or 2", s.Next))
			case s.Left < bank.Uncounted || s.Left > 255:
				return cli.Usage(fmt.Errorf("--left %d: want 0 to 255", s.Left))
			case s.Fallback < 0 || s.Fallback > 2 || s.Fallback == s.Next:
				return cli.Usage(fmt.Errorf("--fallback %d: want the other bank, or 0 for none", s.Fallback))
			}
			lock, err := lockDevice(root)
			if err != nil {
				return err
			}
			defer lock.Release()
			c, err := openLoader(root, file)
			if err != nil {
				return err
			}
			if err := c.Loader.Store(s); err != nil {
				return err
			}
			r, err := reportLoader(c)
			if err != nil {
				return err
			}
			return r.write(cmd.OutOrStdout())
		},
	}
	deviceFlags(cmd, &root, &file)
	f := cmd.Flags()
	f.IntVar(&s.Next, "next", 0, "bank to start, 1 or 2")
	f.IntVar(&s.Left, "left", 0, "starts left on trial (default: the software is good, and starts are not counted)")
	f.IntVar(&s.Fallback, "fallback", 0, "bank to fall back on, 0 for none")
	_ = cmd.MarkFlagRequired("next")
	return cmd
}

// openLoader is the configuration of a device that has a boot loader.
func openLoader(root, file string) (agent.Config, error) {
	c, _, err := open(root, file)
	if err == nil && c.Loader == nil {
		err = fmt.Errorf("%s has no section [loader]: the agent chooses the bank itself", cmp.Or(file, filepath.Join(root, settings.Name)))
	}
	return c, err
}

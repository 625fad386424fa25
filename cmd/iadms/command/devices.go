package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"example.com/iad/manager/device"
)

func newDevices(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "devices",
		Short:   "List the devices of the configuration file and what they run",
		Example: "  iadms devices",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := g.loadSettings()
			if err != nil {
				return err
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			e := json.NewEncoder(cmd.OutOrStdout())
			if !g.json {
				fmt.Fprintln(t, "NAME\tADDRESS\tDEVICE\tMODEL\tSOFTWARE\tSTATE")
			}
			for _, name := range slices.Sorted(maps.Keys(s.Devices)) {
				r := g.look(cmd, s, name)
				if g.json {
					if err := e.Encode(r); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.Address, r.Device, r.Model, r.Version, r.State)
			}
			return t.Flush()
		},
	}
}

type deviceReport struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Device  string `json:"device,omitempty"`
	Model   string `json:"model,omitempty"`
	Version string `json:"software_version,omitempty"`
	State   string `json:"state"`
}

// look queries one device. An error becomes its state.
func (g *globals) look(cmd *cobra.Command, s *settings, name string) deviceReport {
	r := deviceReport{Name: name, Address: s.Devices[name].Address}
	t, err := g.target(s, name)
	if err != nil {
		r.State = err.Error()
		return r
	}
	t.Timeout, t.Retries = time.Second, 1
	c, err := device.Dial(t)
	if err != nil {
		r.State = err.Error()
		return r
	}
	defer c.Close()
	d, err := c.Device(cmd.Context())
	if err == nil {
		r.Device, r.Model, r.Version = d.ID, d.Model, d.Version
		var op *device.Operation
		if op, err = c.Operation(cmd.Context()); err == nil {
			r.State = "idle"
			if op.ID != 0 && !op.Final() {
				r.State = fmt.Sprintf("%s %s", op.Kind, op.State)
			}
		}
	}
	switch {
	case errors.Is(err, device.ErrNoAnswer):
		r.State = "no answer"
	case errors.Is(err, device.ErrCredentials):
		r.State = "credentials refused"
	case err != nil:
		r.State = err.Error()
	}
	return r
}

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
				fmt.Fprintln(t, "NAME\tADDRESS\tDEVICE\tMODEL\tSOFTWARE\tTRUST\tSTATE")
			}
			for _, name := range slices.Sorted(maps.Keys(s.Devices)) {
				r := g.look(cmd, s, name)
				if g.json {
					if err := e.Encode(r); err != nil {
						return err
					}
					continue
				}
				trust := ""
				if r.Trust != nil {
					trust = "keys"
					if *r.Trust > 0 {
						trust = fmt.Sprintf("document %d", *r.Trust)
					}
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, r.Address, r.Device, r.Model, r.Version, trust, r.State)
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
	// Trust is the serial of its trust document, 0 if it trusts the keys in its settings; nil if
	// it does not answer.
	Trust *uint32 `json:"trust_serial,omitempty"`
	State string  `json:"state"`
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
		r.Device, r.Model, r.Version, r.Trust = d.ID, d.Model, d.Version, &d.TrustSerial
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

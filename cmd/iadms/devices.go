package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/afero"
	"github.com/spf13/cobra"

	"example.com/iad/manager"
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
	Version string `json:"version,omitempty"`
	State   string `json:"state"`
}

// look asks one device; what goes wrong is its state.
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

func newLogs(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "logs TARGET",
		Short:   "Show the events that a device remembers, and the upgrade journal kept here",
		Example: "  iadms logs 192.0.2.10",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, _, err := g.dial(args[0])
			if err != nil {
				return err
			}
			defer client.Close()
			events, err := client.Events(cmd.Context())
			if err != nil {
				return err
			}
			if g.json {
				e := json.NewEncoder(cmd.OutOrStdout())
				for _, ev := range events {
					if err := e.Encode(eventReport{ev.Seq, ev.Type.String(), knownTime(ev.Time), ev.OpID, causeName(ev.Cause), ev.Text}); err != nil {
						return err
					}
				}
				return nil
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "EVENT\tTIME\tWHAT\tOPERATION\tCAUSE")
			for _, ev := range events {
				fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\n", ev.Seq, timeText(ev.Time), ev.Type, ev.OpID, firstOf(ev.Text, causeName(ev.Cause)))
			}
			if err := t.Flush(); err != nil {
				return err
			}
			return g.printJournal(cmd, client)
		},
	}
}

type eventReport struct {
	Seq   uint32     `json:"seq"`
	Type  string     `json:"type"`
	Time  *time.Time `json:"time,omitempty"`
	OpID  uint32     `json:"operation,omitempty"`
	Cause string     `json:"cause,omitempty"`
	Text  string     `json:"text,omitempty"`
}

// printJournal tells how far the last upgrade from here got.
func (g *globals) printJournal(cmd *cobra.Command, client *device.Client) error {
	d, err := client.Device(cmd.Context())
	if err != nil {
		return err
	}
	dir := afero.NewBasePathFs(afero.NewOsFs(), filepath.Join(g.store, "journal"))
	r, err := manager.NewJournal(dir, d.ID).Load()
	if errors.Is(err, manager.ErrNoRecord) {
		return nil
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "iadms:", err)
		return nil
	}
	fmt.Fprintf(cmd.OutOrStdout(), "last upgrade from here: %s, begun %s, stage %s, image %s, backup %s\n",
		r.Address, timeText(r.Started), r.Stage, r.Image, r.Folder)
	return nil
}

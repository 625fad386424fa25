package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"example.com/iad/fleet"
	"example.com/iad/fleet/client"
	"example.com/iad/fleet/operations"
	"example.com/iad/internal/cli"
)

// settings are the commands for sites, groups, schedules, users, nodes and damaged objects.
func (f *fleetFlags) settings() []*cobra.Command {
	return []*cobra.Command{
		f.remove("remove-credentials NAME", "Remove SNMP credentials that no device needs", (*client.Client).RemoveSecret),
		f.sites(), f.putSite(), f.remove("remove-site SITE", "Remove a site without devices", (*client.Client).RemoveSite),
		f.groups(), f.putGroup(), f.remove("remove-group GROUP", "Remove a group; its devices stay", (*client.Client).RemoveGroup),
		f.schedules(), f.putSchedule(), f.remove("remove-schedule SCHEDULE", "Remove a schedule; campaigns that it created continue", (*client.Client).RemoveSchedule),
		f.users(), f.putUser(), f.remove("remove-user USER", "Remove a user, whose sessions and tokens end", (*client.Client).RemoveUser),
		f.nodes(), f.remove("remove-node NODE", "Remove a node for good that does not run", (*client.Client).RemoveNode),
		f.damage(), f.removeDamage(),
	}
}

// removal is a method of the client that removes the object with a name.
type removal func(*client.Client, context.Context, string) error

func (f *fleetFlags) remove(use, short string, do removal) *cobra.Command {
	return f.with(use, short, 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		if err := do(c, cmd.Context(), args[0]); err != nil {
			return err
		}
		return f.done(cmd, args[0], "removed")
	})
}

// done prints what happened to an object.
func (f *fleetFlags) done(cmd *cobra.Command, name, what string) error {
	return f.print(cmd, map[string]string{"name": name, "state": what}, func(w io.Writer) { fmt.Fprintf(w, "%s  %s\n", name, what) })
}

func (f *fleetFlags) sites() *cobra.Command {
	return f.with("sites", "List the sites", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Sites(cmd.Context())
		if err != nil {
			return err
		}
		return printRows(cmd.OutOrStdout(), f.json, "SITE TIME_ZONE PARALLEL TITLE", list, func(s fleet.Site) []any {
			return []any{s.Name, s.TimeZone, s.Parallel, manualText(s.Title)}
		}, func(s fleet.Site) any { return s })
	})
}

func (f *fleetFlags) putSite() *cobra.Command {
	var s fleet.Site
	c := f.with("put-site SITE", "Add a site, or replace what is known of it", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		s.Name = args[0]
		if err := s.Validate(); err != nil {
			return cli.Usage(err)
		}
		if err := c.PutSite(cmd.Context(), s); err != nil {
			return err
		}
		return f.done(cmd, s.Name, "saved")
	})
	c.Flags().StringVar(&s.Title, "title", "", "`title` for people")
	c.Flags().StringVar(&s.TimeZone, "time-zone", "", "`zone` of maintenance windows, such as Europe/Berlin (default: that of the campaign)")
	c.Flags().IntVar(&s.Parallel, "parallel", 0, "maximum `number` of devices in progress, of all campaigns (default: as many as the campaigns allow)")
	return c
}

func (f *fleetFlags) groups() *cobra.Command {
	return f.with("groups", "List the groups", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Groups(cmd.Context())
		if err != nil {
			return err
		}
		return printRows(cmd.OutOrStdout(), f.json, "GROUP FILTER", list, func(g fleet.Group) []any { return []any{g.Name, manualText(g.Filter)} },
			func(g fleet.Group) any { return g })
	})
}

func (f *fleetFlags) putGroup() *cobra.Command {
	return f.with("put-group GROUP FILTER", "Add a group, or replace its filter", 2, func(cmd *cobra.Command, c *client.Client, args []string) error {
		if err := c.PutGroup(cmd.Context(), fleet.Group{Name: args[0], Filter: args[1]}); err != nil {
			return err
		}
		return f.done(cmd, args[0], "saved")
	})
}

func (f *fleetFlags) schedules() *cobra.Command {
	return f.with("schedules", "List the schedules", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Schedules(cmd.Context())
		if err != nil {
			return err
		}
		return printRows(cmd.OutOrStdout(), f.json, "SCHEDULE OPERATION DAYS AT TIME_ZONE DISABLED FILTER", list, func(s fleet.Schedule) []any {
			days := "every"
			if len(s.Days) > 0 {
				days = strings.Join(s.Days, ",")
			}
			return []any{s.Name, s.Spec.Operation, days, s.At, manualText(s.TimeZone), s.Disabled, manualText(s.Spec.Filter)}
		}, func(s fleet.Schedule) any { return s })
	})
}

func (f *fleetFlags) putSchedule() *cobra.Command {
	c := f.with("put-schedule SCHEDULE FILE", "Add or replace a schedule from a JSON file", 2, func(cmd *cobra.Command, c *client.Client, args []string) error {
		text, err := os.ReadFile(args[1])
		if err != nil {
			return err
		}
		var s fleet.Schedule
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&s); err != nil {
			return cli.Usage(fmt.Errorf("%s is not a schedule: %w", args[1], err))
		}
		s.Name = args[0]
		if err := s.Validate(); err != nil {
			return cli.Usage(fmt.Errorf("%s: %w", args[1], err))
		}
		if err := c.PutSchedule(cmd.Context(), s); err != nil {
			return fmt.Errorf("%s: %w", args[1], err)
		}
		return f.done(cmd, s.Name, "saved")
	})
	c.Long = `put-schedule reads what "iadms fleet schedules --json" prints. This one backs up all devices every night:

  {
    "at": "02:30",
    "time_zone": "Europe/Berlin",
    "spec": {"title": "Nightly backup", "operation": "backup", "filter": "true"}
  }`
	return c
}

func (f *fleetFlags) users() *cobra.Command {
	return f.with("users", "List the users", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Users(cmd.Context())
		if err != nil {
			return err
		}
		return printRows(cmd.OutOrStdout(), f.json, "USER ROLE ADDED BY", list, func(u client.User) []any {
			return []any{u.Name, u.Role, timeText(u.Created), u.By}
		}, func(u client.User) any { return u })
	})
}

func (f *fleetFlags) putUser() *cobra.Command {
	var role string
	var password bool
	c := f.with("put-user USER", "Add a user, or change role and password", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		if !cmd.Flags().Changed("role") {
			users, err := c.Users(cmd.Context())
			if err != nil {
				return err
			}
			if i := slices.IndexFunc(users, func(u client.User) bool { return u.Name == args[0] }); i >= 0 {
				role = string(users[i].Role)
			}
		}
		if err := operations.CheckRole(operations.Role(role)); err != nil {
			return cli.Usage(fmt.Errorf("--role: %w", err))
		}
		text := ""
		if password {
			var err error
			if text, err = passwordOf(cmd, args[0]); err != nil {
				return err
			}
			if text == "" {
				return cli.Usage(errors.New("the password is empty"))
			}
		}
		if err := c.PutUser(cmd.Context(), args[0], operations.Role(role), text); err != nil {
			return err
		}
		return f.done(cmd, args[0], "saved")
	})
	c.Long = `put-user adds a user or changes one. With --password it asks for the password, or reads it from
standard input without a terminal. Without it, a present password is kept, and a new user cannot log in.`
	c.Flags().StringVar(&role, "role", string(operations.Viewer), "`role` of the user: viewer, operator or admin; without it, a user who exists keeps the present one")
	c.Flags().BoolVar(&password, "password", false, "set the password")
	return c
}

func (f *fleetFlags) nodes() *cobra.Command {
	return f.with("nodes", "List the processes that store", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Nodes(cmd.Context())
		if err != nil {
			return err
		}
		return printRows(cmd.OutOrStdout(), f.json, "NAME STATE", list, func(n operations.Node) []any {
			state := "has everything"
			switch {
			case n.Offline:
				state = "does not answer"
			case !n.Current:
				state = "copies what it has missed"
			}
			return []any{n.Name, state}
		}, func(n operations.Node) any { return n })
	})
}

func (f *fleetFlags) damage() *cobra.Command {
	return f.with("damage", "List stored objects that cannot be read and are skipped", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Damage(cmd.Context())
		if err != nil {
			return err
		}
		return printRows(cmd.OutOrStdout(), f.json, "PLACE KEY REVISION NOTICED PROBLEM", list, func(d operations.Damage) []any {
			return []any{d.Place, d.Key, d.Revision, timeText(d.Noticed), manualText(d.Problem)}
		}, func(d operations.Damage) any { return d })
	})
}

func (f *fleetFlags) removeDamage() *cobra.Command {
	return f.with("remove-damage PLACE KEY REVISION", "Remove a stored object that cannot be read", 3, func(cmd *cobra.Command, c *client.Client, args []string) error {
		revision, err := strconv.ParseUint(args[2], 10, 64)
		if err != nil {
			return cli.Usage(fmt.Errorf("REVISION %q: use the number that iadms fleet damage prints", args[2]))
		}
		if err := c.RemoveDamage(cmd.Context(), args[0], args[1], revision); err != nil {
			return err
		}
		return f.done(cmd, args[0]+" "+args[1], "removed")
	})
}

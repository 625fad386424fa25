package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"example.com/iad/fleet"
	"example.com/iad/fleet/client"
	"example.com/iad/fleet/operations"
	"example.com/iad/internal/cli"
)

func (f *fleetFlags) campaigns() *cobra.Command {
	return f.with("campaigns", "List the campaigns, the newest first", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Campaigns(cmd.Context())
		if err != nil {
			return err
		}
		return printRows(cmd.OutOrStdout(), f.json, "CAMPAIGN STATE OPERATION DEVICES ENDED FAILED WAITING TITLE", list, func(r operations.CampaignRow) []any {
			return []any{r.Campaign.ID, r.Campaign.State, r.Campaign.Spec.Operation, r.Counts.Total, r.Counts.Ended(), r.Counts.Failed, r.Counts.Waiting, manualText(r.Campaign.Spec.Title)}
		}, func(r operations.CampaignRow) any { return r })
	})
}

func (f *fleetFlags) campaign() *cobra.Command {
	return f.with("campaign CAMPAIGN", "Show a campaign and how it goes", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		d, err := c.Campaign(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return f.print(cmd, d, func(w io.Writer) { printCampaign(w, d) })
	})
}

func printCampaign(w io.Writer, d operations.CampaignDetail) {
	fmt.Fprintf(w, "%s  %s", d.Campaign.ID, d.Campaign.State)
	if d.Campaign.Reason != "" {
		fmt.Fprintf(w, ": %s", manualText(d.Campaign.Reason))
	}
	if d.Campaign.WaitingFor != "" {
		fmt.Fprintf(w, "; waits for %s", manualText(d.Campaign.WaitingFor))
	}
	fmt.Fprintf(w, "\n%s\n", countsText(d.Total))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, wave := range d.Waves {
		fmt.Fprintf(t, "wave %d\t%s\n", i+1, countsText(wave))
	}
	for _, cause := range d.Failures {
		fmt.Fprintf(t, "failed\t%s: %d\n", manualText(cause.Value), cause.Count)
	}
	_ = t.Flush() // w reports its own errors
}

func countsText(c fleet.Counts) string {
	return fmt.Sprintf("%d of %d ended: %d succeeded, %d unchanged, %d failed; %d in progress, %d wait for an answer", c.Ended(), c.Total, c.Succeeded, c.Unchanged, c.Failed,
		c.Running, c.Waiting)
}

func (f *fleetFlags) create() *cobra.Command {
	var id string
	var submit bool
	c := f.with("create SPECIFICATION", "Make a draft of a campaign from a JSON file", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		text, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		var spec fleet.CampaignSpec
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&spec); err != nil {
			return cli.Usage(fmt.Errorf("%s is not the specification of a campaign: %w", args[0], err))
		}
		if err := spec.Validate(); err != nil {
			return cli.Usage(fmt.Errorf("%s: %w", args[0], err))
		}
		made, err := c.CreateCampaign(cmd.Context(), id, spec)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if submit {
			if made, err = c.SubmitCampaign(cmd.Context(), made.ID); err != nil {
				return err
			}
		}
		return f.print(cmd, made, func(w io.Writer) { fmt.Fprintf(w, "%s  %s\n", made.ID, made.State) })
	})
	c.Long = `create makes a draft from the specification in a file. docs/fleet.md describes the
specification; this one upgrades a canary of 5 devices, waits an hour, and upgrades the others:

  {
    "title": "Spring upgrade",
    "operation": "upgrade",
    "image": "DIGEST, as iadms fleet images prints it",
    "filter": "site == \"berlin\" and version < \"2.0.0\"",
    "waves": [{"name": "canary", "count": 5, "soak": "1h"}, {}],
    "thresholds": [{"failed_percent": 10, "min_sample": 5, "action": "stop"}]
  }`
	c.Flags().StringVar(&id, "id", "", "`ID` of the campaign, up to 26 characters a-z, 0-9 and -; empty: made from the title")
	c.Flags().BoolVar(&submit, "submit", false, "submit the draft at once")
	return c
}

func (f *fleetFlags) undo() *cobra.Command {
	var id string
	var submit bool
	c := f.with("undo CAMPAIGN", "Make a draft of a campaign that takes back what another one changed", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		d, err := c.Campaign(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if !d.Campaign.Spec.Operation.ChangesAccess() {
			return cli.Usage(fmt.Errorf("campaign %s cannot be undone: its operation is %s, and only %s and %s can", args[0], d.Campaign.Spec.Operation, fleet.OperationRotate, fleet.OperationMove))
		}
		made, err := c.CreateCampaign(cmd.Context(), id, d.Campaign.WayBack())
		if err != nil {
			return err
		}
		if submit {
			if made, err = c.SubmitCampaign(cmd.Context(), made.ID); err != nil {
				return err
			}
		}
		return f.print(cmd, made, func(w io.Writer) { fmt.Fprintf(w, "%s  %s\n", made.ID, made.State) })
	})
	c.Long = `undo makes a draft with the waves, thresholds and windows of a campaign with the operation
rotate-credentials or move-targets that has ended. The devices that it changed get back the
credentials, or the addresses for notifications, that they had before.`
	c.Example = "  iadms fleet undo summer --id summer-back --submit"
	c.Flags().StringVar(&id, "id", "", "`ID` of the campaign, up to 26 characters a-z, 0-9 and -; empty: made from the title")
	c.Flags().BoolVar(&submit, "submit", false, "submit the draft at once")
	return c
}

// command is a command that changes the state of a campaign.
func (f *fleetFlags) command(name, short string, do commandOf) *cobra.Command {
	return f.with(name+" CAMPAIGN", short, 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		after, err := do(c, cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return f.print(cmd, after, func(w io.Writer) { fmt.Fprintf(w, "%s  %s\n", after.ID, after.State) })
	})
}

func (f *fleetFlags) approve() *cobra.Command {
	var digest, comment string
	c := f.with("approve CAMPAIGN", "Approve the campaign of another person", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		if digest == "" {
			return cli.Usage(errors.New("which specification have you read? Give --digest DIGEST, as iadms fleet campaign --json prints it"))
		}
		after, err := c.ApproveCampaign(cmd.Context(), args[0], digest, comment)
		if err != nil {
			return err
		}
		return f.print(cmd, after, func(w io.Writer) { fmt.Fprintf(w, "%s  %s\n", after.ID, after.State) })
	})
	c.Example = "  iadms fleet approve spring --digest 5f3c..."
	c.Flags().StringVar(&digest, "digest", "", "`digest` of the specification that you approve")
	c.Flags().StringVar(&comment, "comment", "", "`text` for the audit")
	return c
}

func (f *fleetFlags) runs() *cobra.Command {
	var state string
	c := f.with("runs CAMPAIGN", "List the devices of a campaign", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		var all []operations.RunRow
		for {
			page, err := c.Runs(cmd.Context(), operations.RunQuery{Campaign: args[0], State: fleet.RunState(state), Wave: -1, Offset: len(all), Limit: operations.MaxPage})
			if err != nil {
				return err
			}
			all = append(all, page.Runs...)
			if len(page.Runs) == 0 || len(all) >= page.Total {
				break
			}
		}
		return printRuns(cmd, f.json, all)
	})
	c.Flags().StringVar(&state, "state", "", "only runs in this `state`, such as failed")
	return c
}

func printRuns(cmd *cobra.Command, asJSON bool, rows []operations.RunRow) error {
	return printRows(cmd.OutOrStdout(), asJSON, "CAMPAIGN DEVICE WAVE STATE ATTEMPT PROGRESS", rows, func(r operations.RunRow) []any {
		progress := fmt.Sprintf("%d %s", r.Progress.Step, manualText(r.Progress.Phase))
		switch {
		case r.Failure != nil:
			progress = manualText(r.Failure.Cause + ": " + r.Failure.Text)
		case r.Change != nil:
			progress = manualText(r.Change.String())
		case r.State.Final():
			progress = manualText(r.OldVersion) + " -> " + manualText(r.NewVersion)
		}
		return []any{r.Campaign, r.Device, r.Wave + 1, r.State, r.Attempt, progress}
	}, func(r operations.RunRow) any { return r })
}

// errEnded ends a stream of events.
var errEnded = errors.New("the campaign has ended")

func (f *fleetFlags) watch() *cobra.Command {
	return f.with("watch CAMPAIGN", "Follow a campaign until it ends", 1,
		func(cmd *cobra.Command, c *client.Client, args []string) error {
			id := args[0]
			var d operations.CampaignDetail
			look := func() (err error) {
				if d, err = c.Campaign(cmd.Context(), id); err == nil && d.Campaign.State.Final() {
					err = errEnded
				}
				return err
			}
			var problem error
			ctx := cmd.Context()
			for {
				// What happened before the stream began is in the campaign.
				err := c.Events(ctx, id, func() { problem = look() }, func(e fleet.Event) error {
					if problem != nil {
						return problem
					}
					if err := f.printEvent(cmd, e); err != nil {
						return err
					}
					if e.Kind == fleet.EventCampaign {
						return look()
					}
					return nil
				})
				if errors.Is(problem, errEnded) {
					err = problem
				}
				switch {
				case errors.Is(err, errEnded):
					if !f.json {
						printCampaign(cmd.OutOrStdout(), d)
					}
					if d.Total.Failed > 0 {
						return &campaignError{id, d.Total}
					}
					return nil
				case !errors.Is(err, io.ErrUnexpectedEOF) || ctx.Err() != nil:
					return err
				}
			}
		})
}

// printEvent prints an event in a line.
func (f *fleetFlags) printEvent(cmd *cobra.Command, e fleet.Event) error {
	return f.print(cmd, e, func(w io.Writer) {
		fmt.Fprintf(w, "%s  %s", timeText(e.Time), e.Kind)
		if e.Device != "" {
			fmt.Fprintf(w, "  %s", e.Device)
		}
		if e.State != "" {
			fmt.Fprintf(w, "  %s", e.State)
		}
		if e.Progress.Step != 0 {
			fmt.Fprintf(w, "  %d %s", e.Progress.Step, manualText(e.Progress.Phase))
		}
		if e.Text != "" {
			fmt.Fprintf(w, "  %s", manualText(e.Text))
		}
		fmt.Fprintln(w)
	})
}

// campaignError says that devices of a campaign failed.
type campaignError struct {
	id     string
	counts fleet.Counts
}

func (e *campaignError) Error() string {
	return fmt.Sprintf("campaign %s: %d of %d devices failed; iadms fleet runs %s --state failed lists them", e.id, e.counts.Failed, e.counts.Total, e.id)
}

func (f *fleetFlags) questions() *cobra.Command {
	return f.with("questions", "List the open questions in groups, the largest first", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Questions(cmd.Context())
		if err != nil {
			return err
		}
		return printRows(cmd.OutOrStdout(), f.json, "GROUP DEVICES CAMPAIGN STEP CAUSE CHOICES FIRST", list, func(g operations.QuestionGroup) []any {
			q := g.Questions[0]
			return []any{g.Group, g.Count, q.Campaign, int(q.Step), manualText(q.Cause), q.Choices, q.Device}
		}, func(g operations.QuestionGroup) any { return g })
	})
}

func (f *fleetFlags) answer() *cobra.Command {
	var choice, image string
	c := f.with("answer QUESTIONS", "Answer all questions of a group, or that of one device", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		a := fleet.Answer{Choice: fleet.Choice(choice), Image: image}
		if _, ok := a.Choice.Manager(); !ok {
			return cli.Usage(fmt.Errorf("unknown choice %q; iadms fleet questions lists the possible ones", choice))
		}
		n := 1
		var err error
		if campaign, device, one := strings.Cut(args[0], "/"); !one {
			n, err = c.AnswerGroup(cmd.Context(), args[0], a)
		} else if a.Question, err = questionOf(cmd, c, campaign, device); err == nil {
			err = c.Answer(cmd.Context(), campaign, device, a)
		}
		if err != nil {
			return err
		}
		return f.print(cmd, map[string]int{"answered": n}, func(w io.Writer) { fmt.Fprintf(w, "%d questions answered\n", n) })
	})
	c.Long = `answer answers the questions of a group, as "iadms fleet questions" lists them, or the question of one
device, as CAMPAIGN/DEVICE. To modify configuration data, use the web pages.`
	c.Example = "  iadms fleet answer 5f3c0a9be41d7c22 --choice retry\n  iadms fleet answer spring/gw-001 --choice give-up"
	c.Flags().StringVar(&choice, "choice", "", "the `answer`")
	c.Flags().StringVar(&image, "image-digest", "", "`digest` of the image, with the choice other-image")
	return c
}

// questionOf returns the ID of the open question of a device.
func questionOf(cmd *cobra.Command, c *client.Client, campaign, device string) (string, error) {
	groups, err := c.Questions(cmd.Context())
	if err != nil {
		return "", err
	}
	for _, g := range groups {
		for _, q := range g.Questions {
			if q.Campaign == campaign && q.Device == device {
				return q.ID, nil
			}
		}
	}
	return "", fmt.Errorf("device %s has no open question in campaign %s", device, campaign)
}

package api

import (
	"context"
	"net/http"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

// CampaignPath names a campaign in a path.
type CampaignPath struct {
	ID string `path:"id"`
}

func (s *server) registerCampaigns() {
	register(s, operation(operations.Read, http.MethodGet, "/campaigns", "list-campaigns", "List the campaigns, the newest first"),
		func(ctx context.Context, by operations.Caller, _ *struct{}) ([]operations.CampaignRow, error) {
			rows, err := s.Service.Campaigns(ctx, by)
			return list(rows), err
		})
	register(s, operation(operations.CreateCampaign, http.MethodPost, "/campaigns", "create-campaign", "Make a draft of a campaign"),
		func(ctx context.Context, by operations.Caller, in *struct {
			Body struct {
				ID   string             `json:"id,omitempty" doc:"Up to 26 characters a-z, 0-9 and -; empty: made from the title" example:"spring"`
				Spec fleet.CampaignSpec `json:"spec"`
			}
		}) (*fleet.Campaign, error) {
			return s.Service.CreateCampaign(ctx, by, in.Body.ID, in.Body.Spec)
		})
	register(s, operation(operations.Read, http.MethodGet, "/campaigns/{id}", "get-campaign", "Show a campaign and how it goes"),
		func(ctx context.Context, by operations.Caller, in *CampaignPath) (operations.CampaignDetail, error) {
			d, err := s.Service.Campaign(ctx, by, in.ID)
			if err != nil {
				return operations.CampaignDetail{}, err
			}
			d.Waves, d.Failures, d.Slowest = list(d.Waves), list(d.Failures), list(d.Slowest)
			return *d, nil
		})
	register(s, operation(operations.EditCampaign, http.MethodPut, "/campaigns/{id}", "edit-campaign", "Change the specification of a campaign that is not approved"),
		func(ctx context.Context, by operations.Caller, in *struct {
			CampaignPath
			Body fleet.CampaignSpec
		}) (*fleet.Campaign, error) {
			return s.Service.EditCampaign(ctx, by, in.ID, in.Body)
		})
	register(s, operation(operations.ApproveCampaign, http.MethodPost, "/campaigns/{id}/approve", "approve-campaign", "Approve a campaign of another person"),
		func(ctx context.Context, by operations.Caller, in *struct {
			CampaignPath
			Body struct {
				Digest  string `json:"digest" doc:"The digest of the specification that is approved, from GET /campaigns/{id}"`
				Comment string `json:"comment,omitempty" maxLength:"1000"`
			}
		}) (*fleet.Campaign, error) {
			return s.Service.ApproveCampaign(ctx, by, in.ID, in.Body.Digest, in.Body.Comment)
		})
	for _, command := range []struct {
		action        operations.Action
		name, summary string
		do            func(context.Context, operations.Caller, string) (*fleet.Campaign, error)
	}{
		{operations.SubmitCampaign, "submit", "Submit a draft: it waits for its approval, or for its time", s.Service.SubmitCampaign},
		{operations.PauseCampaign, "pause", "Start no further devices until the campaign is resumed", s.Service.PauseCampaign},
		{operations.ResumeCampaign, "resume", "Continue a paused campaign", s.Service.ResumeCampaign},
		{operations.StopCampaign, "stop", "End a campaign; devices in progress are finished", s.Service.StopCampaign},
	} {
		register(s, operation(command.action, http.MethodPost, "/campaigns/{id}/"+command.name, command.name+"-campaign", command.summary),
			func(ctx context.Context, by operations.Caller, in *CampaignPath) (*fleet.Campaign, error) {
				return command.do(ctx, by, in.ID)
			})
	}
	register(s, operation(operations.Read, http.MethodGet, "/campaigns/{id}/runs", "list-runs", "List the runs of a campaign, in pages"),
		func(ctx context.Context, by operations.Caller, in *struct {
			CampaignPath
			Page
			State fleet.RunState `query:"state" enum:"pending,queued,running,retrying,waiting,succeeded,unchanged,failed,canceled"`
			Wave  int            `query:"wave" minimum:"-1" default:"-1" doc:"-1: all waves"`
		}) (operations.RunPage, error) {
			p, err := s.Service.Runs(ctx, by, operations.RunQuery{Campaign: in.ID, State: in.State, Wave: in.Wave, Offset: in.Offset, Limit: in.Limit})
			if err != nil {
				return operations.RunPage{}, err
			}
			p.Runs = list(p.Runs)
			return *p, nil
		})
	register(s, operation(operations.Read, http.MethodGet, "/schedules", "list-schedules", "List the schedules"),
		func(ctx context.Context, by operations.Caller, _ *struct{}) ([]fleet.Schedule, error) {
			schedules, err := s.Service.Schedules(ctx, by)
			return list(schedules), err
		})
	registerEmpty(s, operation(operations.WriteSchedule, http.MethodPut, "/schedules/{name}", "put-schedule", "Add or change a schedule"),
		func(ctx context.Context, by operations.Caller, in *struct {
			Named
			Body ScheduleInput
		}) error {
			b := in.Body
			return s.Service.PutSchedule(ctx, by, fleet.Schedule{
				Name: in.Name, Spec: b.Spec, Days: b.Days, At: b.At, TimeZone: b.TimeZone, For: b.For, Disabled: b.Disabled,
			})
		})
	registerEmpty(s, operation(operations.WriteSchedule, http.MethodDelete, "/schedules/{name}", "remove-schedule", "Remove a schedule"),
		func(ctx context.Context, by operations.Caller, in *Named) error {
			return s.Service.RemoveSchedule(ctx, by, in.Name)
		})
}

// ScheduleInput is what operators set of a schedule.
type ScheduleInput struct {
	Spec     fleet.CampaignSpec `json:"spec"`
	Days     []string           `json:"days,omitempty" doc:"mon, tue, wed, thu, fri, sat, sun; none: every day"`
	At       string             `json:"at" example:"02:30"`
	TimeZone string             `json:"time_zone,omitempty" example:"Europe/Berlin"`
	For      fleet.Duration     `json:"for,omitzero" doc:"How long after its start a campaign starts devices; empty: until the next one"`
	Disabled bool               `json:"disabled,omitempty"`
}

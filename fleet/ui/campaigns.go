package ui

import (
	"errors"
	"net/http"
	"net/url"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

func (p *page) campaigns() error {
	rows, err := p.Service.Campaigns(p.r.Context(), p.by)
	if err != nil {
		return err
	}
	p.show(http.StatusOK, "campaigns", "Campaigns", rows)
	return nil
}

// campaignForm is the form of a specification.
type campaignForm struct {
	ID                         string // of the campaign that is edited; empty: it is new
	Images                     []fleet.Image
	Groups                     []fleet.Group
	Waves, Thresholds, Windows int // rows
	Match                      *operations.Match
	Problem                    string // of the filter
}

func (p *page) formData(id string, values url.Values) (f campaignForm, err error) {
	f = campaignForm{ID: id, Waves: rowsFor(values, "waves", 3), Thresholds: rowsFor(values, "thresholds", 2), Windows: rowsFor(values, "windows", 2)}
	if f.Images, err = p.Service.Images(p.r.Context(), p.by); err != nil {
		return f, err
	}
	if f.Groups, err = p.Service.Groups(p.r.Context(), p.by); err != nil {
		return f, err
	}
	if filter := values.Get("filter"); filter != "" {
		f.Match, err = p.Service.Match(p.r.Context(), p.by, filter)
		if problems := fleet.FieldErrors(err); len(problems) > 0 {
			f.Problem, err = problems[0].Problem, nil
		}
	}
	return f, err
}

// newCampaign shows an empty form, or that of a copy.
func (p *page) newCampaign() error {
	values := defaults()
	if id := p.r.URL.Query().Get("copy"); id != "" {
		d, err := p.Service.Campaign(p.r.Context(), p.by, id)
		if err != nil {
			return err
		}
		values = valuesOf(&d.Campaign.Spec)
	}
	if filter := p.r.URL.Query().Get("filter"); filter != "" {
		values.Set("filter", filter)
	}
	return p.showForm(http.StatusOK, "", values, nil)
}

func (p *page) showForm(status int, id string, values url.Values, problems []*fleet.FieldError) error {
	f, err := p.formData(id, values)
	if err != nil {
		return err
	}
	title := "New campaign"
	if id != "" {
		title = "Edit campaign " + id
	}
	p.write(status, "campaign_form", view{Title: title, Data: f, Values: values, Problems: problems})
	return nil
}

func (p *page) editForm() error {
	d, err := p.Service.Campaign(p.r.Context(), p.by, p.r.PathValue("id"))
	if err != nil {
		return err
	}
	return p.showForm(http.StatusOK, d.Campaign.ID, valuesOf(&d.Campaign.Spec), nil)
}

func (p *page) createCampaign() error {
	return p.submitForm("", func(spec fleet.CampaignSpec) (string, error) {
		c, err := p.Service.CreateCampaign(p.r.Context(), p.by, p.value("id"), spec)
		if err != nil {
			return "", err
		}
		return c.ID, nil
	}, "created")
}

func (p *page) editCampaign() error {
	id := p.r.PathValue("id")
	return p.submitForm(id, func(spec fleet.CampaignSpec) (string, error) {
		_, err := p.Service.EditCampaign(p.r.Context(), p.by, id, spec)
		return id, err
	}, "edited")
}

// submitForm handles the form of a specification: it counts devices, adds a wave, or
// stores what was entered.
func (p *page) submitForm(id string, store func(fleet.CampaignSpec) (string, error), done string) error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	if p.value("do") == "count" { // without JavaScript
		return p.showForm(http.StatusOK, id, p.r.PostForm, nil)
	}
	spec, rows, err := specOf(p.r.PostForm)
	problems := fleet.FieldErrors(err)
	if err == nil {
		if err = spec.Validate(); err == nil {
			var stored string
			if stored, err = store(spec); err == nil {
				return p.done("/campaigns/"+url.PathEscape(stored), done)
			}
		}
		problems = rows.inForm(fleet.FieldErrors(err))
	}
	if len(problems) == 0 {
		if !errors.Is(err, operations.ErrConflict) {
			return err
		}
		problems = []*fleet.FieldError{{Field: "id", Problem: err.Error()}}
	}
	return p.showForm(http.StatusUnprocessableEntity, id, p.r.PostForm, problems)
}

// match is a part of the form: how many devices a filter selects.
func (p *page) match() error {
	filter := p.r.URL.Query().Get("filter")
	f := campaignForm{}
	if filter != "" {
		m, err := p.Service.Match(p.r.Context(), p.by, filter)
		if problems := fleet.FieldErrors(err); len(problems) > 0 {
			f.Problem = problems[0].Problem
		} else if err != nil {
			return err
		}
		f.Match = m
	}
	p.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	return sets["campaign_form"].ExecuteTemplate(p.w, "match", f)
}

type campaignData struct {
	*operations.CampaignDetail
	Runs  *operations.RunPage
	Pager pager
	State fleet.RunState // of the runs that are shown
	Wave  int
	// States are those that runs can have.
	States []fleet.RunState
	Image  string // version of the image; empty: none
}

func (p *page) campaign() error { return p.showCampaign(nil) }

func (p *page) showCampaign(refused error) error {
	id := p.r.PathValue("id")
	d, err := p.Service.Campaign(p.r.Context(), p.by, id)
	if err != nil {
		return err
	}
	data := campaignData{CampaignDetail: d, State: fleet.RunState(p.r.URL.Query().Get("state")), Wave: p.number("wave", -1), States: fleet.RunStates()}
	data.Runs, err = p.Service.Runs(p.r.Context(), p.by, operations.RunQuery{
		Campaign: id, State: data.State, Wave: data.Wave, Offset: max(0, p.number("offset", 0)), Limit: pageSize,
	})
	if err != nil {
		return err
	}
	data.Pager = pagerOf(p.r.URL, data.Runs.Offset, len(data.Runs.Runs), data.Runs.Total)
	if d.Campaign.Spec.Image != "" {
		images, err := p.Service.Images(p.r.Context(), p.by)
		if err != nil {
			return err
		}
		for _, i := range images {
			if i.Digest == d.Campaign.Spec.Image {
				data.Image = i.Version
			}
		}
	}
	if refused != nil {
		return p.refuse(refused, "campaign", d.Campaign.Spec.Title, data)
	}
	p.show(http.StatusOK, "campaign", d.Campaign.Spec.Title, data)
	return nil
}

func (p *page) commandCampaign() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	ctx, id, command := p.r.Context(), p.r.PathValue("id"), p.r.PathValue("command")
	var err error
	done := map[string]string{"submit": "submitted", "approve": "approved", "pause": "paused", "resume": "resumed", "stop": "stopped"}[command]
	switch command {
	case "submit":
		_, err = p.Service.SubmitCampaign(ctx, p.by, id)
	case "approve":
		_, err = p.Service.ApproveCampaign(ctx, p.by, id, p.value("digest"), p.value("comment"))
	case "pause":
		_, err = p.Service.PauseCampaign(ctx, p.by, id)
	case "resume":
		_, err = p.Service.ResumeCampaign(ctx, p.by, id)
	case "undo":
		return p.undoCampaign(id)
	case "stop":
		_, err = p.Service.StopCampaign(ctx, p.by, id)
	default:
		err = operations.ErrNotFound
	}
	if err != nil && errors.Is(err, operations.ErrConflict) {
		return p.showCampaign(err)
	} else if err != nil {
		return err
	}
	return p.done("/campaigns/"+url.PathEscape(id), done)
}

// undoCampaign makes a draft of a campaign that takes back what another one changed.
func (p *page) undoCampaign(id string) error {
	d, err := p.Service.Campaign(p.r.Context(), p.by, id)
	if err != nil {
		return err
	}
	if !d.Campaign.Spec.Operation.ChangesAccess() {
		return operations.ErrNotFound
	}
	c, err := p.Service.CreateCampaign(p.r.Context(), p.by, "", d.Campaign.WayBack())
	if problems := fleet.FieldErrors(err); len(problems) > 0 {
		spec := d.Campaign.WayBack()
		return p.showForm(http.StatusUnprocessableEntity, "", valuesOf(&spec), problems)
	}
	if errors.Is(err, operations.ErrConflict) {
		return p.showCampaign(err)
	}
	if err != nil {
		return err
	}
	return p.done("/campaigns/"+url.PathEscape(c.ID), "created")
}

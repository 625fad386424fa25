package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/campaign"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/inventory"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/view"
)

// checkSpec checks what a valid specification refers to: filters, images and programs.
func (s *Service) checkSpec(ctx context.Context, spec *fleet.CampaignSpec, prefix string) error {
	var problems []error
	check := func(name, text string) {
		if err := inventory.Check(prefix+name, text); err != nil {
			problems = append(problems, err)
		}
	}
	check("filter", spec.Filter)
	for i, w := range spec.Waves {
		if w.Filter != "" {
			check(fmt.Sprintf("waves[%d].filter", i), w.Filter)
		}
	}
	images := map[string]string{prefix + "image": spec.Image}
	for i, policy := range spec.Options.OnFailure {
		if _, digest, ok := strings.Cut(policy, "="); ok {
			images[fmt.Sprintf("%soptions.on_failure[%d]", prefix, i)] = digest
		}
	}
	for name, digest := range images {
		if digest == "" {
			continue
		}
		_, _, err := s.store.Images.Get(ctx, digest)
		if errors.Is(err, engine.ErrNotFound) {
			problems = append(problems, field(name, "there is no image %.12s…; add it first", digest))
		} else if err != nil {
			return err
		}
	}
	programs := map[string]string{"options.verify_with": spec.Options.VerifyWith, "options.convert_with": spec.Options.ConvertWith}
	for name, program := range programs {
		if program == "" {
			continue
		}
		workers, err := s.store.Workers(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(workers, func(w *fleet.Worker) bool { return slices.Contains(w.Programs, program) }) {
			problems = append(problems, field(prefix+name, "no worker has a program named %q; an admin registers programs on the workers", program))
		}
	}
	if err := s.checkChange(ctx, spec); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// Campaigns implements operations.Service.
func (s *Service) Campaigns(ctx context.Context, by operations.Caller) ([]operations.CampaignRow, error) {
	if err := s.permit(ctx, by, operations.Read, "campaigns"); err != nil {
		return nil, err
	}
	list, err := s.store.Campaigns.List(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b *fleet.Campaign) int {
		return cmp.Or(b.Created.Compare(a.Created), strings.Compare(a.ID, b.ID))
	})
	rows := make([]operations.CampaignRow, len(list))
	for i, c := range list {
		rows[i].Campaign = *c
		if rows[i].Counts, _, err = s.view.Counts(ctx, c.ID); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// Campaign implements operations.Service.
func (s *Service) Campaign(ctx context.Context, by operations.Caller, id string) (*operations.CampaignDetail, error) {
	if err := s.permit(ctx, by, operations.Read, "campaign/"+id); err != nil {
		return nil, err
	}
	c, err := s.campaign(ctx, id)
	if err != nil {
		return nil, err
	}
	d := &operations.CampaignDetail{Campaign: *c, Digest: c.Spec.Digest(), Slowest: []operations.RunRow{}}
	if d.Total, d.Waves, err = s.view.Counts(ctx, id); err != nil {
		return nil, err
	}
	for len(d.Waves) < max(len(c.Spec.Waves), 1) {
		d.Waves = append(d.Waves, fleet.Counts{})
	}
	failures, err := s.view.Failures(ctx, id)
	if err != nil {
		return nil, err
	}
	d.Failures = counts(failures)
	err = s.view.Slowest(ctx, id, 10, func(r *fleet.Run) error { d.Slowest = append(d.Slowest, operations.RowOf(r)); return nil })
	return d, err
}

func (s *Service) campaign(ctx context.Context, id string) (*fleet.Campaign, error) {
	c, _, err := s.store.Campaigns.Get(ctx, id)
	return c, failed(err, "campaign", id)
}

// CreateCampaign implements operations.Service.
func (s *Service) CreateCampaign(ctx context.Context, by operations.Caller, id string, spec fleet.CampaignSpec) (*fleet.Campaign, error) {
	if id == "" {
		id = s.idFor(spec.Title, by.Request)
	}
	if err := s.permitRotation(ctx, by, &spec, id); err != nil {
		return nil, err
	}
	var created *fleet.Campaign
	err := s.change(ctx, by, operations.CreateCampaign, "campaign/"+id, func() (effect, error) {
		if err := fleet.CheckID(id); err != nil {
			return effect{}, field("id", "%v", err)
		}
		if err := s.completeSpec(ctx, &spec); err != nil {
			return effect{}, err
		}
		switch _, _, err := s.store.Campaigns.Get(ctx, id); {
		case err == nil:
			return effect{}, conflict("there is a campaign %s already; choose another ID", id)
		case !errors.Is(err, engine.ErrNotFound):
			return effect{}, failed(err, "campaign", id)
		}
		if err := s.renewSecret(ctx, &spec, id); err != nil {
			return effect{}, err
		}
		c := &fleet.Campaign{ID: id, Spec: spec, State: fleet.CampaignDraft, Reason: "created by " + by.Name, Created: s.now(), CreatedBy: by.Name}
		_, err := s.store.Campaigns.Create(ctx, c)
		if errors.Is(err, engine.ErrConflict) {
			return effect{}, conflict("there is a campaign %s already; choose another ID", id)
		}
		created = c
		return effect{after: c}, err
	})
	if err == nil && created == nil { // a repeated request
		return s.campaign(ctx, id)
	}
	return created, err
}

// completeSpec validates a specification of a person.
func (s *Service) completeSpec(ctx context.Context, spec *fleet.CampaignSpec) error {
	spec.ApprovalRequired = spec.ApprovalRequired || s.cfg.RequireApproval
	if err := spec.Validate(); err != nil {
		return err
	}
	return s.checkSpec(ctx, spec, "")
}

// idFor makes an ID from a title and the time, or for a request, so that its repetition has
// the same one, from the request's ID.
func (s *Service) idFor(title, request string) string {
	slug := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, title)
	for strings.Contains(slug, "--") {
		slug = strings.ReplaceAll(slug, "--", "-")
	}
	slug = strings.Trim(slug[:min(len(slug), 12)], "-")
	suffix := s.now().Format("060102-150405")
	if request != "" {
		suffix = shortDigest(request)
	}
	return strings.Trim(slug+"-"+suffix, "-")
}

// alter changes a campaign and returns it as it is then.
func (s *Service) alter(ctx context.Context, by operations.Caller, action operations.Action, id string, change func(*fleet.Campaign) error) (*fleet.Campaign, error) {
	var after *fleet.Campaign
	err := s.change(ctx, by, action, "campaign/"+id, func() (effect, error) {
		var before fleet.Campaign
		var err, refused error
		after, err = s.store.Campaigns.Change(ctx, func(c *fleet.Campaign) error {
			before = *c
			refused = change(c)
			return refused
		}, id)
		if refused != nil { // what is missing or damaged may be another object
			return effect{}, refusal(refused)
		}
		return effect{before: &before, after: after}, failed(err, "campaign", id)
	})
	if err != nil {
		return nil, err
	}
	if after == nil { // a repeated request
		return s.campaign(ctx, id)
	}
	event := fleet.Event{Time: s.now(), Kind: fleet.EventCampaign, Campaign: id, State: string(after.State), Text: after.Reason}
	if err := s.store.Record(ctx, &event); err != nil {
		s.log.Warn("event not recorded", "campaign", id, "err", err)
	}
	return after, nil
}

// EditCampaign implements operations.Service.
func (s *Service) EditCampaign(ctx context.Context, by operations.Caller, id string, spec fleet.CampaignSpec) (*fleet.Campaign, error) {
	return s.alter(ctx, by, operations.EditCampaign, id, func(c *fleet.Campaign) error {
		permitted := &c.Spec
		if permitted.Operation != fleet.OperationRotate {
			permitted = &spec
		}
		if err := s.permitRotation(ctx, by, permitted, id); err != nil {
			return err
		}
		edited := *c
		if err := campaign.Edit(&edited, spec, by.Name); err != nil { // before a secret is stored for it
			return err
		}
		if err := s.completeSpec(ctx, &spec); err != nil {
			return err
		}
		if err := s.renewSecret(ctx, &spec, id); err != nil {
			return err
		}
		return campaign.Edit(c, spec, by.Name)
	})
}

// SubmitCampaign implements operations.Service.
func (s *Service) SubmitCampaign(ctx context.Context, by operations.Caller, id string) (*fleet.Campaign, error) {
	return s.alter(ctx, by, operations.SubmitCampaign, id, func(c *fleet.Campaign) error {
		if err := s.permitRotation(ctx, by, &c.Spec, id); err != nil {
			return err
		}
		return campaign.Submit(c, by.Name)
	})
}

// ApproveCampaign implements operations.Service. A token acts for its user: somebody's
// tokens cannot approve what that person created.
func (s *Service) ApproveCampaign(ctx context.Context, by operations.Caller, id, digest, comment string) (*fleet.Campaign, error) {
	return s.alter(ctx, by, operations.ApproveCampaign, id, func(c *fleet.Campaign) error {
		if err := s.permitRotation(ctx, by, &c.Spec, id); err != nil {
			return err
		}
		return campaign.Approve(c, by.Name, comment, digest, s.now())
	})
}

// PauseCampaign implements operations.Service.
func (s *Service) PauseCampaign(ctx context.Context, by operations.Caller, id string) (*fleet.Campaign, error) {
	return s.alter(ctx, by, operations.PauseCampaign, id, func(c *fleet.Campaign) error { return campaign.Pause(c, by.Name) })
}

// ResumeCampaign implements operations.Service.
func (s *Service) ResumeCampaign(ctx context.Context, by operations.Caller, id string) (*fleet.Campaign, error) {
	return s.alter(ctx, by, operations.ResumeCampaign, id, func(c *fleet.Campaign) error {
		if err := s.permitRotation(ctx, by, &c.Spec, id); err != nil {
			return err
		}
		all, waves, err := s.view.Counts(ctx, id)
		if err != nil {
			return err
		}
		var wave fleet.Counts
		if c.Wave < len(waves) {
			wave = waves[c.Wave]
		}
		return campaign.Resume(c, by.Name, all, wave)
	})
}

// StopCampaign implements operations.Service.
func (s *Service) StopCampaign(ctx context.Context, by operations.Caller, id string) (*fleet.Campaign, error) {
	return s.alter(ctx, by, operations.StopCampaign, id, func(c *fleet.Campaign) error { return campaign.Stop(c, by.Name, s.now()) })
}

// Runs implements operations.Service.
func (s *Service) Runs(ctx context.Context, by operations.Caller, q operations.RunQuery) (*operations.RunPage, error) {
	if err := s.permit(ctx, by, operations.Read, "campaign/"+q.Campaign); err != nil {
		return nil, err
	}
	limit, err := pageSize(q.Limit)
	if err = errors.Join(err, offset(q.Offset)); err != nil {
		return nil, err
	}
	if q.State != "" && !slices.Contains(fleet.RunStates(), q.State) {
		return nil, field("state", "must be one of %v, and is %.40q", fleet.RunStates(), string(q.State))
	}
	page := &operations.RunPage{Runs: []operations.RunRow{}, Offset: q.Offset}
	page.Total, err = s.view.Runs(ctx, view.RunQuery{Campaign: q.Campaign, State: q.State, Wave: q.Wave, Offset: q.Offset, Limit: limit}, func(r *fleet.Run) error {
		page.Runs = append(page.Runs, operations.RowOf(r))
		return nil
	})
	return page, err
}

// Questions implements operations.Service.
func (s *Service) Questions(ctx context.Context, by operations.Caller) ([]operations.QuestionGroup, error) {
	if err := s.permit(ctx, by, operations.Read, "questions"); err != nil {
		return nil, err
	}
	found, err := s.view.QuestionGroups(ctx)
	if err != nil {
		return nil, err
	}
	groups := make([]operations.QuestionGroup, 0, len(found))
	for _, g := range found {
		group := operations.QuestionGroup{Group: g.Group, Count: g.Count}
		if err := s.view.Questions(ctx, g.Group, 100, func(r *fleet.Run) error { group.Questions = append(group.Questions, *r.Question); return nil }); err != nil {
			return nil, err
		}
		if len(group.Questions) > 0 { // or else all were answered in the meantime
			groups = append(groups, group)
		}
	}
	return groups, nil
}

// Answer implements operations.Service.
func (s *Service) Answer(ctx context.Context, by operations.Caller, campaign, device string, a fleet.Answer) error {
	return s.change(ctx, by, operations.AnswerQuestion, "run/"+campaign+"/"+device, func() (effect, error) {
		a.Group = false
		if err := s.checkAnswer(ctx, device, &a); err != nil {
			return effect{}, err
		}
		question, err := s.answer(ctx, by, campaign, device, a)
		return effect{before: question, after: a}, err
	})
}

// checkAnswer checks what an answer refers to.
func (s *Service) checkAnswer(ctx context.Context, device string, a *fleet.Answer) error {
	if a.Image != "" {
		if _, _, err := s.store.Images.Get(ctx, a.Image); errors.Is(err, engine.ErrNotFound) {
			return field("image", "there is no image %.12s…; add it first", a.Image)
		} else if err != nil {
			return err
		}
	}
	if a.Backup != "" {
		b, _, err := s.store.Backups.Get(ctx, device, a.Backup)
		if errors.Is(err, engine.ErrNotFound) || err == nil && b.EditOf == "" {
			return field("backup", "must be an edited copy of a backup of %s", device)
		}
		return err
	}
	return nil
}

// answer stores an answer, which queues the run, and returns the question. A worker goes
// on with it at once, whatever the window: a person has just decided so.
func (s *Service) answer(ctx context.Context, by operations.Caller, campaign, device string, a fleet.Answer) (*fleet.Question, error) {
	var question *fleet.Question
	run, err := s.store.Runs.Change(ctx, func(r *fleet.Run) error {
		if r.State != fleet.RunWaiting || r.Question == nil {
			return conflict("device %s does not wait for an answer in campaign %s: it is %s", device, campaign, r.State)
		}
		if err := a.Check(r.Question); err != nil {
			return err
		}
		question = r.Question
		a.By, a.Time = by.Name, s.now()
		answer := a
		r.Answer, r.State, r.Queued = &answer, fleet.RunQueued, a.Time
		return nil
	}, campaign, device)
	if err != nil {
		return nil, failed(err, "run", campaign+"/"+device)
	}
	if err := s.store.Queue(ctx, run, engine.Urgent); err != nil {
		s.log.Warn("workers not notified yet; the scheduler does it later", "campaign", campaign, "device", device, "err", err)
	}
	return question, nil
}

// AnswerGroup implements operations.Service.
func (s *Service) AnswerGroup(ctx context.Context, by operations.Caller, group string, a fleet.Answer) (int, error) {
	var answered []string
	err := s.change(ctx, by, operations.AnswerQuestion, "questions/"+group, func() (effect, error) {
		a.Group = true
		if a.Backup != "" {
			return effect{}, field("backup", "an edited backup belongs to one device and cannot answer a group")
		}
		if err := s.checkAnswer(ctx, "", &a); err != nil {
			return effect{}, err
		}
		var waiting []*fleet.Run
		if err := s.view.Questions(ctx, group, 0, func(r *fleet.Run) error { waiting = append(waiting, r); return nil }); err != nil {
			return effect{}, err
		}
		if len(waiting) == 0 {
			return effect{}, notFound("group of questions", group)
		}
		for _, r := range waiting {
			one := a
			one.Question = r.Question.ID
			_, err := s.answer(ctx, by, r.Campaign, r.Device, one)
			var other *failure
			if errors.As(err, &other) {
				continue // answered by somebody else, or gone
			}
			if err != nil {
				return effect{}, err
			}
			answered = append(answered, r.Device)
		}
		return effect{after: struct {
			fleet.Answer
			Devices []string `json:"devices"`
		}{a, answered}}, nil
	})
	return len(answered), err
}

// Workers implements operations.Service.
func (s *Service) Workers(ctx context.Context, by operations.Caller) ([]fleet.Worker, error) {
	if err := s.permit(ctx, by, operations.Read, "workers"); err != nil {
		return nil, err
	}
	list, err := s.store.Workers(ctx)
	all := make([]fleet.Worker, len(list))
	for i, w := range list {
		all[i] = *w
	}
	slices.SortFunc(all, func(a, b fleet.Worker) int {
		return cmp.Or(strings.Compare(a.Pool, b.Pool), strings.Compare(a.Host, b.Host), strings.Compare(a.ID, b.ID))
	})
	return all, err
}

// drainTime is how long a worker has to react.
const drainTime = 2 * engine.LeaseTime

// DrainWorker implements operations.Service.
func (s *Service) DrainWorker(ctx context.Context, by operations.Caller, id string, drain bool) error {
	return s.change(ctx, by, operations.DrainWorker, "worker/"+id, func() (effect, error) {
		ctx, cancel := context.WithTimeout(ctx, drainTime)
		defer cancel()
		for {
			list, err := s.store.Workers(ctx)
			if err != nil {
				return effect{}, err
			}
			i := slices.IndexFunc(list, func(w *fleet.Worker) bool { return w.ID == id })
			if i < 0 {
				return effect{}, notFound("worker", id)
			}
			if list[i].Drain == drain {
				return effect{after: list[i]}, nil
			}
			if err := s.store.Drain(id, drain); err != nil {
				return effect{}, err
			}
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
				return effect{}, conflict("worker %s does not react", id)
			}
		}
	})
}

// Nodes implements operations.Service.
func (s *Service) Nodes(ctx context.Context, by operations.Caller) ([]operations.Node, error) {
	if err := s.permit(ctx, by, operations.Read, "nodes"); err != nil {
		return nil, err
	}
	nodes, err := s.store.Engine.Nodes(ctx)
	list := make([]operations.Node, len(nodes))
	for i, n := range nodes {
		list[i] = operations.Node(n)
	}
	return list, err
}

// RemoveNode implements operations.Service.
func (s *Service) RemoveNode(ctx context.Context, by operations.Caller, name string) error {
	return s.change(ctx, by, operations.RemoveNode, "node/"+name, func() (effect, error) {
		err := s.store.Engine.RemoveNode(ctx, name)
		if errors.Is(err, engine.ErrConflict) {
			return effect{}, conflict("node %.80q runs; stop it first, and remove it only if it will not run again under this name", name)
		}
		return effect{}, failed(err, "node", name)
	})
}

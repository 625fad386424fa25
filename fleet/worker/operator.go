package worker

import (
	"context"
	"crypto/rand"
	"fmt"
	"path"
	"slices"
	"strconv"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/internal/durable"
	"example.com/iad/manager"
	"example.com/iad/manager/files"
)

// parking is an operator that stores the question and ends the run.
type parking struct {
	run      *run
	modifier *modifier
}

// Ask implements manager.Operator. A failure that may pass, and after which the campaign tries
// the device again, is no question yet: the attempt ends.
func (p parking) Ask(_ context.Context, q manager.Question) (manager.Answer, error) {
	attempted := p.run.run
	now := time.Now().UTC()
	attempted.Failure = failure(q.Failure, q.Step, now)
	if _, retry := p.run.campaign.Spec.Retry.Next(&attempted, p.run.campaign.Spec.Deadline, now); retry {
		return manager.Answer{Choice: manager.GiveUp}, nil
	}
	question := fleet.QuestionOf(q, p.run.run.Campaign, p.run.run.Device, rand.Text(), time.Now().UTC())
	question.Backup = p.run.run.Backup
	err := p.run.update(p.run.ctx, func(r *fleet.Run) { r.Question, r.Answer, p.run.consumed = question, nil, false })
	if err != nil {
		return manager.Answer{}, err
	}
	return manager.Answer{}, fmt.Errorf("question %s: %w", question.ID, manager.ErrParked)
}

// answered gives the stored answer if the manager asks the question again that it belongs
// to. Otherwise others decides.
type answered struct {
	parking
	others manager.Operator
}

var _ manager.Operator = answered{}

// Ask implements manager.Operator.
func (a answered) Ask(ctx context.Context, q manager.Question) (manager.Answer, error) {
	question, answer := a.run.run.Question, a.run.run.Answer
	if question == nil || answer == nil || a.run.consumed {
		return a.others.Ask(ctx, q)
	}
	a.run.consumed = true
	choice, known := answer.Choice.Manager()
	a.run.gaveUp = choice == manager.GiveUp && known
	if !known || answer.Question != question.ID || q.Step != question.Step || !slices.Contains(q.Choices, choice) {
		return a.others.Ask(ctx, q) // something else has happened since
	}
	out := manager.Answer{Choice: choice}
	if choice == manager.OtherFile {
		img, err := a.run.worker.image(ctx, answer.Image)
		if err != nil {
			return manager.Answer{}, err
		}
		out.Image = img
	}
	if choice == manager.Modify {
		a.modifier.edited = answer.Backup
	}
	return out, nil
}

// modifier gives the device the backup that a person has edited, or has a program convert
// the data.
type modifier struct {
	run     *run
	program *program // nil: none
	edited  string   // the ID of a backup; empty: none
}

var _ manager.Modifier = (*modifier)(nil)

// Modify implements manager.Modifier.
func (m *modifier) Modify(ctx context.Context, mod manager.Modification) error {
	if m.edited == "" {
		if m.program == nil {
			return fmt.Errorf("nobody has edited the configuration data: %w", manager.ErrUnchanged)
		}
		args := []string{
			strconv.FormatUint(uint64(mod.From), 10), strconv.FormatUint(uint64(mod.To), 10),
			path.Join(m.run.worker.cfg.Dir, mod.Original), path.Join(m.run.worker.cfg.Dir, mod.Draft),
		}
		return m.program.run(ctx, args, "IADMS_DEVICE="+mod.Device)
	}
	s := m.run.worker.cfg.Store
	edited, _, err := s.Backups.Get(ctx, m.run.run.Device, m.edited)
	if err != nil {
		return err
	}
	m.edited = ""
	for _, f := range edited.Files {
		data, err := s.BackupFile(ctx, edited, f.Kind)
		if err != nil {
			return err
		}
		if err := durable.ReplaceFile(mod.Files, path.Join(mod.Draft, f.Kind+".cfg"), data, 0o600); err != nil {
			return err
		}
	}
	return files.SetFormat(mod.Files, mod.Draft, mod.To)
}

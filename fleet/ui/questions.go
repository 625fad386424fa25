package ui

import (
	"errors"
	"net/http"
	"slices"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

type questionsData struct {
	Groups []operations.QuestionGroup
	Images []fleet.Image
}

// GroupChoices are the answers that can be given to a whole group. An edit belongs to one
// device.
func (questionsData) GroupChoices(g operations.QuestionGroup) []fleet.Choice {
	return g.Questions[0].Choices
}

func (p *page) questionsData() (d questionsData, err error) {
	if d.Groups, err = p.Service.Questions(p.r.Context(), p.by); err != nil {
		return d, err
	}
	d.Images, err = p.Service.Images(p.r.Context(), p.by)
	return d, err
}

func (p *page) questions() error {
	d, err := p.questionsData()
	if err != nil {
		return err
	}
	p.show(http.StatusOK, "questions", "Questions", d)
	return nil
}

func (p *page) answerGroup() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	_, err := p.Service.AnswerGroup(p.r.Context(), p.by, p.r.PathValue("group"), p.answerOf())
	if err == nil {
		return p.done("/questions", "answered")
	}
	if errors.Is(err, operations.ErrNotFound) {
		err = &fleet.FieldError{Field: "group", Problem: "all questions of the group were answered meanwhile"}
	}
	d, problem := p.questionsData()
	if problem != nil {
		return problem
	}
	return p.refuse(err, "questions", "Questions", d)
}

// answerOf reads an answer from a form. The image of the form counts only with the choice
// for which there is one.
func (p *page) answerOf() fleet.Answer {
	a := fleet.Answer{Choice: fleet.Choice(p.value("choice")), Question: p.value("question")}
	if a.Choice == fleet.ChoiceOtherImage {
		a.Image = p.value("image")
	}
	return a
}

type questionData struct {
	Question fleet.Question
	Images   []fleet.Image
	// CanEdit: the configuration data can be edited here.
	CanEdit bool
}

func (p *page) question() error { return p.showQuestion(nil) }

func (p *page) showQuestion(refused error) error {
	d, err := p.questionsData()
	if err != nil {
		return err
	}
	id, device := p.r.PathValue("id"), p.r.PathValue("device")
	for _, g := range d.Groups {
		for _, q := range g.Questions {
			if q.Campaign != id || q.Device != device {
				continue
			}
			data := questionData{Question: q, Images: d.Images, CanEdit: slices.Contains(q.Choices, fleet.ChoiceModify) && q.Backup != ""}
			if refused != nil {
				return p.refuse(refused, "question", "Question of "+device, data)
			}
			p.show(http.StatusOK, "question", "Question of "+device, data)
			return nil
		}
	}
	if refused != nil {
		return refused
	}
	return operations.ErrNotFound
}

func (p *page) answer() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	err := p.Service.Answer(p.r.Context(), p.by, p.r.PathValue("id"), p.r.PathValue("device"), p.answerOf())
	if err != nil {
		return p.showQuestion(err)
	}
	return p.done("/questions", "answered")
}

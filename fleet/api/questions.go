package api

import (
	"context"
	"net/http"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

func (s *server) registerQuestions() {
	register(s, operation(operations.Read, http.MethodGet, "/questions", "list-questions", "List the open questions in groups, the largest first"),
		func(ctx context.Context, by operations.Caller, _ *struct{}) ([]operations.QuestionGroup, error) {
			groups, err := s.Service.Questions(ctx, by)
			return list(groups), err
		})
	registerEmpty(s, operation(operations.AnswerQuestion, http.MethodPost, "/questions/{campaign}/{device}/answer", "answer-question", "Answer the question of one device"),
		func(ctx context.Context, by operations.Caller, in *struct {
			Campaign string `path:"campaign"`
			Device   string `path:"device"`
			Body     struct {
				Decision
				Question string `json:"question" doc:"The ID of the question, so that no other question is answered by mistake"`
				Backup   string `json:"backup,omitempty" doc:"With the choice modify: the ID of the edited backup"`
			}
		}) error {
			b := in.Body
			return s.Service.Answer(ctx, by, in.Campaign, in.Device, fleet.Answer{Question: b.Question, Choice: b.Choice, Image: b.Image, Backup: b.Backup})
		})
	register(s, operation(operations.AnswerQuestion, http.MethodPost, "/question-groups/{group}/answer", "answer-group", "Answer all questions of a group", tag("questions")),
		func(ctx context.Context, by operations.Caller, in *struct {
			Group string `path:"group"`
			Body  Decision
		}) (Answered, error) {
			n, err := s.Service.AnswerGroup(ctx, by, in.Group, fleet.Answer{Choice: in.Body.Choice, Image: in.Body.Image, Group: true})
			return Answered{Count: n}, err
		})
}

// Decision is an answer to a question.
type Decision struct {
	Choice fleet.Choice `json:"choice" enum:"give-up,retry,other-image,restore,modify,keep-newer,give-last,keep-defaults,overwrite,use-as-is"`
	Image  string       `json:"image,omitempty" doc:"With the choice other-image: the digest of the image"`
}

// Answered says how many questions were answered.
type Answered struct {
	Count int `json:"count"`
}

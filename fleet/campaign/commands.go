package campaign

import (
	"fmt"
	"strings"
	"time"

	"example.com/iad/fleet"
)

// StateError says that something cannot be done to a campaign in its state.
type StateError struct {
	Campaign string
	State    fleet.CampaignState
	// Action is a verb, such as "pause".
	Action string
	// Remedy says what can be done instead; empty: nothing.
	Remedy string
}

func (e *StateError) Error() string {
	text := fmt.Sprintf("cannot %s campaign %s: it is %s", e.Action, e.Campaign, describe(e.State))
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

func describe(s fleet.CampaignState) string {
	switch s {
	case fleet.CampaignDraft:
		return "a draft"
	case fleet.CampaignAwaiting:
		return "awaiting approval"
	}
	return string(s)
}

// ApprovalError says why an approval is not accepted.
type ApprovalError struct{ Campaign, Reason string }

func (e *ApprovalError) Error() string {
	return fmt.Sprintf("campaign %s is not approved: %s", e.Campaign, e.Reason)
}

// Edit changes the specification of a campaign that has not been approved. It becomes a
// draft.
func Edit(c *fleet.Campaign, spec fleet.CampaignSpec, by string) error {
	if c.State != fleet.CampaignDraft && c.State != fleet.CampaignAwaiting {
		return &StateError{c.ID, c.State, "edit", "copy it to a new campaign"}
	}
	c.Spec, c.EditedBy, c.State, c.Approval = spec, by, fleet.CampaignDraft, nil
	c.Reason = "edited by " + by
	return nil
}

// Submit ends the draft: the campaign waits for its approval, or for its time if it needs
// none.
func Submit(c *fleet.Campaign, by string) error {
	if c.State != fleet.CampaignDraft {
		return &StateError{c.ID, c.State, "submit", ""}
	}
	c.State, c.Reason = fleet.CampaignScheduled, "submitted by "+by
	if c.Spec.ApprovalRequired {
		c.State = fleet.CampaignAwaiting
	}
	return nil
}

// Approve approves the specification with this digest (CampaignSpec.Digest). Whoever
// created or edited the campaign cannot approve it.
func Approve(c *fleet.Campaign, by, comment, digest string, now time.Time) error {
	switch {
	case c.State != fleet.CampaignAwaiting:
		return &StateError{c.ID, c.State, "approve", ""}
	case strings.EqualFold(by, c.CreatedBy) || strings.EqualFold(by, c.EditedBy):
		return &ApprovalError{c.ID, by + " created or edited it; another person has to approve it"}
	case digest != c.Spec.Digest():
		return &ApprovalError{c.ID, "it was edited in the meantime; look at it again"}
	}
	c.State, c.Reason = fleet.CampaignScheduled, "approved by "+by
	c.Approval = &fleet.Approval{By: by, Time: now, Comment: comment, Digest: digest}
	return nil
}

// Pause stops starting devices until Resume.
func Pause(c *fleet.Campaign, by string) error {
	if c.State != fleet.CampaignRunning && c.State != fleet.CampaignScheduled {
		return &StateError{c.ID, c.State, "pause", ""}
	}
	c.State, c.Reason = fleet.CampaignPaused, "paused by "+by
	return nil
}

// Resume continues a paused campaign. A person has seen what paused it: thresholds count
// from the present counts on, those of all runs and those of the current wave, and a wave
// that waited for a person, or missed its MinSuccess, is released.
func Resume(c *fleet.Campaign, by string, all, wave fleet.Counts) error {
	if c.State != fleet.CampaignPaused {
		return &StateError{c.ID, c.State, "resume", ""}
	}
	c.Reason = "resumed by " + by
	if c.Started.IsZero() {
		c.State = fleet.CampaignScheduled
		return nil
	}
	c.State = fleet.CampaignRunning
	c.Forgiven = &fleet.Forgiven{Campaign: all, Wave: c.Wave, InWave: wave}
	if c.Wave < len(c.Spec.Waves) && (!c.WaveEnded.IsZero() || missed(&c.Spec.Waves[c.Wave], wave)) {
		c.Released = max(c.Released, c.Wave+1)
	}
	return nil
}

// Stop ends a campaign: no device is started any more. Devices whose procedure has begun
// to change them are finished.
func Stop(c *fleet.Campaign, by string, now time.Time) error {
	if c.State.Final() {
		return &StateError{c.ID, c.State, "stop", ""}
	}
	c.State, c.Reason, c.Ended = fleet.CampaignStopped, "stopped by "+by, now
	return nil
}

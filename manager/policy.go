package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"example.com/iad/manager/files"
)

// Policy is a decision made in advance: what to do after a failure.
type Policy struct {
	Kind PolicyKind
	// Image is the image to install next, for PolicyOther.
	Image *files.Image
}

// PolicyKind is a kind of policy.
type PolicyKind string

// Kinds of policies.
const (
	PolicyAdvice  PolicyKind = "advice"  // retry if the device advises it
	PolicyAsk     PolicyKind = "ask"     // ask a person
	PolicyOther   PolicyKind = "other"   // repeat step 130 with another image, once
	PolicyEdit    PolicyKind = "edit"    // modify the configuration data and repeat step 170
	PolicyRestore PolicyKind = "restore" // restore the old software and end
	PolicyService PolicyKind = "service" // like restore, unless only the file server failed
	PolicyKeep    PolicyKind = "keep"    // keep configuration data that are newer than the backup, and end
	PolicyGiveUp  PolicyKind = "give-up" // end; the device keeps what it runs
)

// PolicyKinds lists the kinds of policies.
func PolicyKinds() []PolicyKind {
	return []PolicyKind{PolicyAdvice, PolicyAsk, PolicyOther, PolicyEdit, PolicyRestore, PolicyService, PolicyKeep, PolicyGiveUp}
}

// ParsePolicy parses the name of a policy; open opens the image of "other=FILE".
func ParsePolicy(s string, open func(name string) (*files.Image, error)) (Policy, error) {
	name, file, hasFile := strings.Cut(s, "=")
	p := Policy{Kind: PolicyKind(name)}
	if !slices.Contains(PolicyKinds(), p.Kind) || hasFile != (p.Kind == PolicyOther) {
		return p, fmt.Errorf("unknown policy %q (want advice, ask, other=FILE, edit, restore, service, keep or give-up)", s)
	}
	if !hasFile {
		return p, nil
	}
	var err error
	p.Image, err = open(file)
	return p, err
}

// Policies is an operator with a list of policies: the first one that fits the failure
// decides; if none fits, it gives up. It is for one upgrade.
type Policies struct {
	List []Policy
	// Automatic decides for PolicyAdvice.
	Automatic Automatic
	// Human is asked for PolicyAsk; nil: PolicyAsk never fits.
	Human Operator

	used []bool
}

var _ Operator = (*Policies)(nil)

// Ask implements Operator.
func (p *Policies) Ask(ctx context.Context, q Question) (Answer, error) {
	if p.used == nil {
		p.used = make([]bool, len(p.List))
	}
	for i, policy := range p.List {
		switch policy.Kind {
		case PolicyAsk:
			if p.Human != nil {
				return p.Human.Ask(ctx, q)
			}
		case PolicyAdvice:
			answer, err := p.Automatic.Ask(ctx, q)
			if err != nil || answer.Choice != GiveUp {
				return answer, err
			}
		case PolicyOther:
			if !p.used[i] && slices.Contains(q.Choices, OtherFile) {
				p.used[i] = true
				return Answer{Choice: OtherFile, Image: policy.Image}, nil
			}
		case PolicyEdit:
			if slices.Contains(q.Choices, Modify) && q.Attempt <= p.Automatic.Retries {
				return Answer{Choice: Modify}, nil
			}
		case PolicyRestore:
			if slices.Contains(q.Choices, RestoreOld) {
				return Answer{Choice: RestoreOld}, nil
			}
			if q.Step == StepRestore {
				return Answer{Choice: GiveUp}, nil // the old software runs already
			}
		case PolicyService:
			// On its defaults a gateway is out of service. Once the file server works again
			// the recovery can be repeated. Nothing can be done about a device that does
			// not answer.
			if slices.Contains(q.Choices, RestoreOld) && !serverFailed(q.Failure) {
				return Answer{Choice: RestoreOld}, nil
			}
		case PolicyKeep:
			if slices.Contains(q.Choices, KeepNewer) {
				return Answer{Choice: KeepNewer}, nil
			}
		case PolicyGiveUp:
			return Answer{Choice: GiveUp}, nil
		}
	}
	return Answer{Choice: GiveUp}, nil
}

// serverFailed reports whether only the file server or the way to it has failed, or the
// device does not answer, so that nothing is known.
func serverFailed(err error) bool {
	var f *Failure
	return errors.As(err, &f) && (f.NoAnswer || transferFailed(f.Cause))
}

package service

import (
	"context"
	"errors"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
	"example.com/iad/manager/device"
)

// permitRotation checks the caller's role for a campaign that changes credentials.
func (s *Service) permitRotation(ctx context.Context, by operations.Caller, spec *fleet.CampaignSpec, id string) error {
	if spec.Operation != fleet.OperationRotate {
		return nil
	}
	return s.permit(ctx, by, operations.RotateCredentials, "campaign/"+id)
}

// checkChange checks what a specification refers to that changes access.
func (s *Service) checkChange(ctx context.Context, spec *fleet.CampaignSpec) error {
	for name, secret := range map[string]string{"credentials": spec.Credentials, "renew": spec.Renew} {
		if secret == "" || name == "credentials" && spec.Renew != "" { // made by renewSecret
			continue
		}
		v, err := s.store.Secrets.Get(ctx, secret)
		switch {
		case errors.Is(err, engine.ErrNotFound):
			return field(name, "there are no credentials %s; add them first", secret)
		case errors.Is(err, engine.ErrDamaged):
			return field(name, "the credentials %s are damaged; enter them again under this name", secret)
		case err != nil:
			return err
		case v.User == nil || device.PlainName(v.User.Auth) == "":
			return field(name, "the credentials %s are not those of an SNMPv3 user with authentication: only its passphrases can be changed through SNMP", secret)
		}
	}
	if spec.Back == "" {
		return nil
	}
	undone, _, err := s.store.Campaigns.Get(ctx, spec.Back)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return field("back", "there is no campaign %s", spec.Back)
	case err != nil:
		return err
	case undone.Spec.Operation != spec.Operation:
		return field("back", "the operation of campaign %s is %s; a campaign that undoes it has the same", spec.Back, undone.Spec.Operation)
	case !undone.State.Final():
		return field("back", "campaign %s is %s; stop it first, or wait until it has ended", spec.Back, undone.State)
	}
	return nil
}

// renewSecret stores the secret that a campaign makes, unless an earlier attempt has: it is
// never replaced, because devices may have it.
func (s *Service) renewSecret(ctx context.Context, spec *fleet.CampaignSpec, id string) error {
	if spec.Renew == "" {
		return nil
	}
	if spec.Credentials != "" && spec.Credentials != id {
		return field("credentials", "must be empty with renew: the new credentials are named after the campaign")
	}
	source, err := s.store.Secrets.Get(ctx, spec.Renew)
	if err != nil {
		return err
	}
	for {
		made, err := s.store.Secrets.Get(ctx, id)
		switch {
		case errors.Is(err, engine.ErrNotFound):
			renewed, err := source.Renewed(id, id)
			if err != nil {
				return field("renew", "%v", err)
			}
			if err = s.store.Secrets.Create(ctx, renewed); errors.Is(err, engine.ErrConflict) {
				continue // by the same request on another node, or by an attempt whose answer was lost
			}
			if err != nil {
				return err
			}
		case err != nil:
			return err
		case made.Campaign != id:
			return field("id", "there are credentials %s already; choose another ID for the campaign", id)
		default:
			if made.User == nil {
				return field("renew", "the credentials %s of the campaign have no user; make a new campaign", id)
			}
			if err := source.Credentials().User.CheckKeyChange(made.Credentials().User); err != nil {
				return field("renew", "the campaign has made credentials for another user already (%v); make a new campaign", err)
			}
		}
		spec.Credentials = id
		return nil
	}
}

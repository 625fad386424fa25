package service

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/inventory"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/view"
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

// replaceable returns an error if a secret that exists cannot be replaced.
func (s *Service) replaceable(ctx context.Context, name string) error {
	old, err := s.store.Secrets.Get(ctx, name)
	if errors.Is(err, engine.ErrNotFound) || errors.Is(err, engine.ErrDamaged) {
		return nil
	}
	if err == nil && old.Campaign != "" {
		err = conflict("the credentials %s were made for the campaign %s, and nobody else knows them; choose another name", name, old.Campaign)
	}
	return err
}

// forget removes a secret from those that are tried for devices, so that it can be removed. It
// refuses as long as a device may need it.
func (s *Service) forget(ctx context.Context, name string) error {
	campaigns, err := s.store.Campaigns.List(ctx)
	if err != nil {
		return err
	}
	for _, c := range campaigns {
		if !c.State.Final() && (c.Spec.Credentials == name || c.Spec.Renew == name) {
			return conflict("the credentials %s are those of the campaign %s, which is %s; stop it first", name, c.ID, c.State)
		}
	}
	f, err := inventory.Compile(fmt.Sprintf("previous_credentials contains %q", name))
	if err != nil {
		return err
	}
	var kept []string
	needed, example := 0, ""
	err = s.view.Devices(ctx, view.DeviceQuery{Filter: f}, func(d *fleet.Device) error {
		if !slices.Contains(d.PreviousCredentials, name) {
			return nil
		}
		kept = append(kept, d.Name)
		if needs(d, name) {
			needed, example = needed+1, d.Name
		}
		return nil
	})
	if err != nil {
		return err
	}
	if needed > 0 {
		return conflict("%d devices may still need the credentials %s, such as %s: they have not shown that they accept the new ones; rotate them again first", needed, name, example)
	}
	for _, device := range kept {
		_, err := s.store.Devices.Change(ctx, func(d *fleet.Device) error {
			if !slices.Contains(d.PreviousCredentials, name) {
				return store.ErrUnchanged
			}
			if needs(d, name) {
				return conflict("device %s may still need the credentials %s; rotate it again first", d.Name, name)
			}
			d.PreviousCredentials = slices.DeleteFunc(slices.Clone(d.PreviousCredentials), func(n string) bool { return n == name })
			if len(d.PreviousCredentials) == 0 {
				d.PreviousCredentials = nil
			}
			return nil
		}, device)
		if err != nil && !errors.Is(err, engine.ErrNotFound) {
			return err
		}
	}
	return nil
}

// dropWeaker removes previous credentials that protect a device less than those in force: they
// are never tried.
func (s *Service) dropWeaker(ctx context.Context, d *fleet.Device) error {
	inForce, err := s.store.Secrets.Get(ctx, d.SecretName())
	if errors.Is(err, engine.ErrNotFound) || errors.Is(err, engine.ErrDamaged) { // workers decide once they are entered
		return nil
	}
	if err != nil {
		return err
	}
	var kept []string
	for _, name := range d.PreviousCredentials {
		previous, err := s.store.Secrets.Get(ctx, name)
		switch {
		case errors.Is(err, engine.ErrNotFound), errors.Is(err, engine.ErrDamaged):
		case err != nil:
			return err
		case previous.Credentials().Weaker(inForce.Credentials()):
			if d.Contact.Credentials == name {
				d.Contact.Credentials = ""
			}
			continue
		}
		kept = append(kept, name)
	}
	d.PreviousCredentials = kept
	return nil
}

// needs reports whether a device may accept nothing but previous credentials.
func needs(d *fleet.Device, name string) bool {
	return d.Rotating != "" || d.Contact.Credentials == name
}

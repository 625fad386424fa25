package service

import (
	"context"
	"errors"
	"reflect"
	"slices"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/store"
)

// Secrets implements operations.Service.
func (s *Service) Secrets(ctx context.Context, by operations.Caller) ([]string, error) {
	if err := s.permit(ctx, by, operations.Read, "secrets"); err != nil {
		return nil, err
	}
	names, err := s.store.Secrets.Names(ctx)
	slices.Sort(names)
	return names, err
}

// PutSecret implements operations.Service. The audit has its name only.
func (s *Service) PutSecret(ctx context.Context, by operations.Caller, v fleet.Secret) error {
	return s.change(ctx, by, operations.WriteSecret, "secret/"+v.Name, func() (effect, error) {
		v.Campaign, v.Removing = "", false
		if err := v.Validate(); err != nil {
			return effect{}, err
		}
		if err := s.replaceable(ctx, &v); err != nil {
			return effect{}, err
		}
		return effect{}, s.store.Secrets.Put(ctx, &v)
	})
}

// replaceable returns an error if a secret that exists cannot be replaced by v.
func (s *Service) replaceable(ctx context.Context, v *fleet.Secret) error {
	stored, err := s.store.Secrets.Get(ctx, v.Name)
	if errors.Is(err, engine.ErrNotFound) || errors.Is(err, engine.ErrDamaged) {
		return nil
	}
	if err != nil {
		return err
	}
	if stored.Campaign != "" {
		return conflict("the credentials %s were made for the campaign %s, and nobody else knows them; choose another name", v.Name, stored.Campaign)
	}
	old := *stored
	if old.Removing = v.Removing; reflect.DeepEqual(&old, v) {
		return nil
	}
	return s.unclaimed(ctx, v.Name)
}

// unclaimed returns an error if a campaign that has not ended gives devices the secret of this
// name, makes another one from it, or may give it back to devices.
func (s *Service) unclaimed(ctx context.Context, name string) error {
	campaigns, err := s.store.Campaigns.List(ctx)
	if err != nil {
		return err
	}
	for _, c := range campaigns {
		if c.State.Final() {
			continue
		}
		if c.Spec.Credentials == name || c.Spec.Renew == name {
			return conflict("the credentials %s are those of the campaign %s, which is %s; stop it first", name, c.ID, c.State)
		}
		if c.Spec.Operation != fleet.OperationRotate || c.Spec.Back == "" {
			continue
		}
		runs, err := s.store.Runs.List(ctx, c.Spec.Back)
		if err != nil {
			return err
		}
		for _, r := range runs {
			if r.Change != nil && r.Change.From == name {
				return conflict("the campaign %s, which is %s, gives the credentials %s back to devices such as %s; stop it first", c.ID, c.State, name, r.Device)
			}
		}
	}
	return nil
}

// RemoveSecret implements operations.Service. It refuses as long as a device may need the secret.
func (s *Service) RemoveSecret(ctx context.Context, by operations.Caller, name string) error {
	return s.change(ctx, by, operations.WriteSecret, "secret/"+name, func() (effect, error) {
		if err := fleet.CheckName(name); err != nil {
			return effect{}, notFound("secret", name)
		}
		if err := s.unneeded(ctx, name, nil); err != nil {
			return effect{}, err
		}
		// A worker that gives a device the secret stores that before it looks at the mark.
		if err := s.markRemoving(ctx, name, true); err != nil {
			return effect{}, err
		}
		var kept []string
		err := s.unneeded(ctx, name, &kept)
		if err == nil {
			err = s.forget(ctx, name, kept)
		}
		if err == nil {
			return effect{}, failed(s.store.Secrets.Remove(ctx, name), "secret", name)
		}
		// As it was, also if whoever asked for it has gone away.
		return effect{}, errors.Join(err, s.markRemoving(context.WithoutCancel(ctx), name, false))
	})
}

// markRemoving marks a secret as one that is about to be removed, or as one that is not. One that
// cannot be read is not marked: no device can get it.
func (s *Service) markRemoving(ctx context.Context, name string, removing bool) error {
	err := s.store.Secrets.Change(ctx, name, func(v *fleet.Secret) error {
		if v.Removing == removing {
			return store.ErrUnchanged
		}
		v.Removing = removing
		return nil
	})
	if errors.Is(err, engine.ErrNotFound) || errors.Is(err, engine.ErrDamaged) {
		return nil
	}
	return err
}

// errListed ends the list of devices.
var errListed = errors.New("listed")

// unneeded returns an error if a campaign or a device needs the secret of this name. kept gets the
// devices for which it is kept; nil: nothing does.
func (s *Service) unneeded(ctx context.Context, name string, kept *[]string) error {
	if err := s.unclaimed(ctx, name); err != nil {
		return err
	}
	inForce, needed, example := 0, 0, ""
	err := s.store.Devices.Watch(ctx, func(c store.Change[fleet.Device]) error {
		d := c.Value
		switch {
		case c.Synced:
			return errListed
		case d == nil:
		case d.SecretName() == name:
			inForce++
		case slices.Contains(d.PreviousCredentials, name):
			if kept != nil {
				*kept = append(*kept, d.Name)
			}
			if needs(d, name) {
				needed, example = needed+1, d.Name
			}
		}
		return nil
	})
	switch {
	case !errors.Is(err, errListed):
		return err
	case inForce > 0:
		return conflict("the credentials %s are those of %d devices", name, inForce)
	case needed > 0:
		return conflict("%d devices may still need the credentials %s, such as %s: they have not shown that they accept the new ones; rotate them again first", needed, name, example)
	}
	return nil
}

// forget removes a secret from those that are tried for devices.
func (s *Service) forget(ctx context.Context, name string, devices []string) error {
	for _, device := range devices {
		_, err := s.store.Devices.Change(ctx, func(d *fleet.Device) error {
			if !slices.Contains(d.PreviousCredentials, name) {
				return store.ErrUnchanged
			}
			if d.SecretName() == name || needs(d, name) {
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

// needs reports whether a device may accept nothing but previous credentials.
func needs(d *fleet.Device, name string) bool {
	return d.Rotating != "" || d.Contact.Credentials == name
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

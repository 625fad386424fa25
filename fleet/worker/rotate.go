package worker

import (
	"errors"
	"fmt"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
)

// rotate gives the device other credentials, and returns the access that is valid then. The
// inventory has the old and the new ones before the device is asked to change, so that it is
// reached with one of them whatever happens in between; another attempt continues from there.
func (r *run) rotate(a *access, d *fleet.Device, undone *fleet.Change) (after *access, unchanged bool, err error) {
	name := r.campaign.Spec.Credentials
	if undone != nil {
		if name = undone.From; d.SecretName() != undone.To && d.SecretName() != name {
			return a, false, unsuitable("the credentials of %s have been changed since campaign %s, from %s to %s; choose its credentials in a new campaign",
				d.Name, r.campaign.Spec.Back, undone.To, d.SecretName())
		}
	}
	next, err := r.worker.cfg.Store.Secrets.Get(r.ctx, name)
	if errors.Is(err, engine.ErrNotFound) {
		return a, false, unsuitable("there are no credentials %s any more; store them again under this name", name)
	}
	if err != nil {
		return a, false, err
	}
	if next.Removing {
		return a, false, removing(name)
	}
	if a.secret.Name == next.Name { // from an earlier attempt, or another campaign
		err := r.prove(next)
		return a, r.run.Change == nil, err
	}
	if err := checkRotation(d, a.secret, next); err != nil {
		return a, false, err
	}
	if err := r.begin(&fleet.Change{From: a.secret.Name, To: next.Name}); err != nil {
		return a, false, err
	}
	old := *d
	if d, err = r.changeDevice(r.ctx, func(d *fleet.Device) {
		d.ReplaceCredentials(next.Name)
		d.Rotating, d.Contact.Credentials = r.run.Campaign, a.secret.Name
	}); err != nil {
		return a, false, err
	}
	// Whoever removes the credentials looks for such devices after they have been marked.
	if old.SecretName() != name {
		now, err := r.worker.cfg.Store.Secrets.Get(r.ctx, name)
		if err != nil && !errors.Is(err, engine.ErrNotFound) {
			return a, false, err
		}
		if err != nil || now.Removing {
			return a, false, errors.Join(r.restore(&old, a.secret.Name), removing(name))
		}
	}
	changeErr := a.client.ChangeKeys(r.ctx, *next.Credentials().User, r.owned)
	if errors.Is(changeErr, manager.ErrNotOwner) {
		return a, false, changeErr
	}
	if r.ctx.Err() != nil {
		return a, false, r.ctx.Err()
	}
	// Which credentials are valid, only the device knows.
	now, err := r.worker.connect(r.ctx, d, r.log)
	if err != nil {
		return a, false, errors.Join(changeErr, err)
	}
	a.close()
	if now.secret.Name == next.Name {
		return now, false, r.prove(next)
	}
	var refused *device.SetError
	if errors.As(changeErr, &refused) && !refused.Uncertain() || errors.Is(changeErr, device.ErrNotSupported) { // they stay as they were
		if err := r.restore(&old, now.secret.Name); err != nil {
			return now, false, err
		}
		return now, false, changeErr
	}
	if changeErr == nil {
		changeErr = fmt.Errorf("%s: %w: it has accepted the change of its keys, but still has the old ones", now.client.Address(), device.ErrNoAnswer)
	}
	return now, false, changeErr
}

// removing: somebody removes the credentials that the device is to get.
func removing(name string) error {
	return &busyError{"the credentials " + name + " are being removed; store them again under this name, or remove them again and stop the campaign"}
}

// restore stores that the device has the credentials that it accepts, as before the change, which
// was not made.
func (r *run) restore(old *fleet.Device, accepted string) error {
	if _, err := r.changeDevice(r.ctx, func(d *fleet.Device) {
		d.Credentials, d.PreviousCredentials, d.Rotating = old.Credentials, old.PreviousCredentials, ""
		d.ReplaceCredentials(accepted)
		d.Contact.Credentials = ""
	}); err != nil {
		return err
	}
	return r.update(r.ctx, func(run *fleet.Run) { run.Change = nil })
}

// checkRotation reports why a device cannot get other credentials by a change of keys.
func checkRotation(d *fleet.Device, from, to *fleet.Secret) error {
	old, next := from.Credentials().User, to.Credentials().User
	switch {
	case old == nil:
		return unsuitable("%s: its credentials %s are SNMPv2c communities, which cannot be changed through SNMP; change them on the device, and then in the inventory", d.Name, from.Name)
	case next == nil:
		return unsuitable("%s: the credentials %s are SNMPv2c communities, and the device has an SNMPv3 user; choose credentials with a user", d.Name, to.Name)
	}
	if err := old.CheckKeyChange(next); err != nil {
		return &unsuitableError{fmt.Errorf("%s: from the credentials %s to %s: %w", d.Name, from.Name, to.Name, err)}
	}
	return nil
}

// prove stores that the device has the new credentials. Of those before, the ones that were
// in force stay, in case the device goes back to them.
func (r *run) prove(next *fleet.Secret) error {
	previous := ""
	if r.run.Change != nil {
		previous = r.run.Change.From
	}
	_, err := r.changeDevice(r.ctx, func(d *fleet.Device) {
		d.ReplaceCredentials(next.Name)
		d.Rotating, d.Contact.Credentials = "", ""
		if previous != "" && previous != next.Name {
			d.PreviousCredentials = []string{previous}
		}
	})
	if err != nil || r.run.Change == nil {
		return err
	}
	return r.update(r.ctx, func(run *fleet.Run) {
		done := *run.Change
		done.Done = true
		run.Change = &done
	})
}

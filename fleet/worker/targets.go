package worker

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"example.com/iad/fleet"
	"example.com/iad/manager/device"
)

// moveTargets gives notification targets of the device other addresses. The addresses before
// are in the run before the first one is changed, for the way back and for another attempt.
func (r *run) moveTargets(client *device.Client, undone *fleet.Change) (unchanged bool, err error) {
	targets, err := client.NotificationTargets(r.ctx)
	if err != nil {
		return false, err
	}
	var moves []fleet.MovedTarget
	switch {
	case r.run.Change != nil: // an earlier attempt has begun
		moves = r.run.Change.Targets
	case undone != nil:
		moves, err = r.backMoves(targets, undone)
	default:
		moves, err = r.newMoves(targets)
	}
	if err != nil || len(moves) == 0 {
		return true, err
	}
	// Everything is checked before anything is changed.
	rows := make([]device.NotificationTarget, len(moves))
	for i, m := range moves {
		row := slices.IndexFunc(targets, func(t device.NotificationTarget) bool { return t.Row.String() == m.Row })
		if row < 0 {
			return false, unsuitable("%s: the notification target %s is not there any more", r.run.Device, device.Quoted(m.Name))
		}
		rows[i] = targets[row]
		to, err := fleet.ParseTarget(m.To)
		if err == nil {
			err = rows[i].CheckMove(to)
		}
		if err != nil {
			return false, &unsuitableError{fmt.Errorf("%s: %w", r.run.Device, err)}
		}
	}
	if r.run.Change == nil {
		if err := r.begin(&fleet.Change{Targets: moves}); err != nil {
			return false, err
		}
	}
	for i, m := range moves {
		to, err := fleet.ParseTarget(m.To)
		if err != nil {
			return false, err
		}
		if rows[i].Address == to && (!rows[i].Suspended || m.Suspended) {
			continue
		}
		if err := r.owned(); err != nil {
			return false, err
		}
		if err := client.MoveTarget(r.ctx, rows[i], to, !m.Suspended); err != nil {
			return false, err
		}
	}
	return false, r.update(r.ctx, func(run *fleet.Run) { run.Change = &fleet.Change{Targets: moves, Done: true} })
}

// newMoves returns the targets that have an address which is to be replaced; none: they have
// the new one already.
func (r *run) newMoves(targets []device.NotificationTarget) (moves []fleet.MovedTarget, err error) {
	spec := r.campaign.Spec.Targets
	to, err := fleet.ParseTarget(spec.To)
	if err != nil {
		return nil, err
	}
	from := make([]netip.AddrPort, len(spec.From))
	for i, text := range spec.From {
		if from[i], err = fleet.ParseTarget(text); err != nil {
			return nil, err
		}
	}
	there := false
	var all []string
	for _, t := range targets {
		if t.Address.IsValid() {
			all = append(all, t.Address.String())
		} else {
			all = append(all, "target "+device.Quoted(t.Name())+", which has a name instead of an address,")
		}
		if t.Suspended && (t.Address == to || slices.Contains(from, t.Address)) {
			return nil, unsuitable("%s: its notification target %s at %s is suspended (its snmpTargetAddrRowStatus is notInService), so nothing is sent to it; "+
				"if a campaign was interrupted while it moved the target, undo that campaign, or else activate or remove the target on the device",
				r.run.Device, device.Quoted(t.Name()), t.Address)
		}
		there = there || t.Address == to
		if slices.Contains(from, t.Address) {
			moves = append(moves, fleet.MovedTarget{Row: t.Row.String(), Name: t.Name(), From: t.Address.String(), To: to.String()})
		}
	}
	if len(moves) == 0 && !there {
		return nil, unsuitable("%s sends notifications to %s, and to none of the addresses that are replaced, %s", r.run.Device, strings.Join(all, ", "), strings.Join(spec.From, ", "))
	}
	return moves, nil
}

// backMoves returns the targets that another campaign has moved, the other way round. It may have
// left one suspended.
func (r *run) backMoves(targets []device.NotificationTarget, undone *fleet.Change) (moves []fleet.MovedTarget, err error) {
	for _, m := range undone.Targets {
		for _, t := range targets {
			at := t.Address.String()
			if t.Row.String() != m.Row || at == m.From && (!t.Suspended || m.Suspended) {
				continue
			}
			if at != m.To && at != m.From {
				return nil, unsuitable("%s: the notification target %s has been changed since campaign %s, from %s to %s; move it in a new campaign",
					r.run.Device, device.Quoted(m.Name), r.campaign.Spec.Back, m.To, t.Address)
			}
			moves = append(moves, fleet.MovedTarget{Row: m.Row, Name: m.Name, From: at, To: m.From, Suspended: m.Suspended})
		}
	}
	return moves, nil
}

package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
)

// External is a user whom another service has signed in.
type External struct {
	Subject string // identifies the user there for ever
	Name    string
	Role    operations.Role
}

// LoginExternal begins a session of a user whom verify returns; refused, which verify's error
// wraps, is counted and recorded like a wrong password. The user is added at the first login,
// and has the role that the other service gives at each. The error wraps ErrTooMany, or
// refused if the name belongs to somebody else here.
func (a *Access) LoginExternal(ctx context.Context, from string, refused error, verify func(context.Context) (External, error)) (id string, _ operations.Caller, _ error) {
	key := network(from)
	if a.guesses.blocked(key) {
		return "", operations.Caller{}, ErrTooMany
	}
	who, err := verify(ctx)
	var u User
	if err == nil {
		u, err = a.putExternal(ctx, who, refused)
	}
	if errors.Is(err, refused) {
		a.guesses.failed(key)
		object := "session"
		if name := fleet.NameFor(who.Name); name != "" {
			object = "user/" + name
		}
		return "", operations.Caller{}, errors.Join(err, a.record(ctx, fleet.AuditEntry{Actor: "nobody", From: from, Action: "session.begin", Object: object, Denied: true}))
	} else if err != nil {
		return "", operations.Caller{}, err
	}
	return a.begin(ctx, u, from)
}

// putExternal adds or changes the user of another service.
func (a *Access) putExternal(ctx context.Context, who External, refused error) (User, error) {
	name := fleet.NameFor(who.Name)
	if name == "" {
		return User{}, fmt.Errorf("%w: %q cannot be the name of a user here", refused, who.Name)
	}
	by := operations.Caller{Name: "iadmsd"}
	for {
		var old User
		entry, err := a.read(ctx, userKey(name), &old)
		u := old
		switch {
		case errors.Is(err, engine.ErrNotFound):
			u = User{Name: name, ID: newUserID(), Role: who.Role, Subject: who.Subject, Created: a.now(), By: by.Name}
			if err = a.create(ctx, userKey(name), u); err == nil {
				return u, a.audit(ctx, by, "user.create", "user/"+name, nil, u)
			}
		case err != nil:
			return User{}, err
		case old.Subject != who.Subject:
			return User{}, fmt.Errorf("%w: there is another user named %s here; an admin has to remove that one", refused, name)
		case old.Role == who.Role:
			return old, nil
		default:
			u.Role = who.Role
			u.Epoch++
			if err = a.update(ctx, entry, u); err == nil {
				return u, a.audit(ctx, by, "user.change", "user/"+name, old, u)
			}
		}
		if !errors.Is(err, engine.ErrConflict) {
			return User{}, err
		}
	}
}

// begin begins a session of a user.
func (a *Access) begin(ctx context.Context, u User, from string) (id string, _ operations.Caller, _ error) {
	if err := a.sweep(ctx); err != nil {
		return "", operations.Caller{}, err
	}
	id = base64.RawURLEncoding.EncodeToString(random(32))
	s := session{User: u.Name, UserID: u.ID, Epoch: u.Epoch, From: from, Created: a.now(), Seen: a.now()}
	if err := a.create(ctx, sessionKey(id), s); err != nil {
		return "", operations.Caller{}, err
	}
	caller := operations.Caller{Name: u.Name, Role: u.Role, From: from}
	return id, caller, a.audit(ctx, caller, "session.begin", "user/"+u.Name, nil, nil)
}

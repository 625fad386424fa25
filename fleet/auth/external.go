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

// LoginExternal begins a session of a user whom verify returns. The user is added at the first
// login, keeps the name of that time, and has the role that the other service gives at each. If
// verify's error wraps refused, that is recorded, and the sessions and tokens of the user end, if
// verify returns whose they are. The error wraps refused, too, if the name belongs to somebody
// else here.
func (a *Access) LoginExternal(ctx context.Context, from string, refused error, verify func(context.Context) (External, error)) (id string, _ operations.Caller, _ error) {
	who, err := verify(ctx)
	var u User
	switch {
	case err == nil:
		u, err = a.putExternal(ctx, who, refused)
	case errors.Is(err, refused) && who.Subject != "":
		err = errors.Join(err, a.endExternal(ctx, who.Subject))
	}
	if errors.Is(err, refused) {
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

// known is the name under which a subject was added.
type known struct {
	User string `json:"user"`
}

func subjectKey(subject string) string { return engine.Key("subject", hashOf(subject)) }

// external returns the user of a subject; entry is that of the user. The error wraps
// engine.ErrNotFound if there is none, or none any more.
func (a *Access) external(ctx context.Context, subject string) (u User, entry engine.Entry, err error) {
	var is known
	if _, err = a.read(ctx, subjectKey(subject), &is); err != nil {
		return u, entry, err
	}
	if entry, err = a.read(ctx, userKey(is.User), &u); err == nil && u.Subject != subject {
		err = engine.ErrNotFound
	}
	return u, entry, err
}

// know records the name under which a subject was added.
func (a *Access) know(ctx context.Context, subject, name string) error {
	var is known
	entry, err := a.read(ctx, subjectKey(subject), &is)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		err = a.create(ctx, subjectKey(subject), known{name})
	case err == nil && is.User != name:
		err = a.update(ctx, entry, known{name})
	}
	if errors.Is(err, engine.ErrConflict) {
		return nil // by another sign-in of the same user
	}
	return err
}

// putExternal adds or changes the user of another service.
func (a *Access) putExternal(ctx context.Context, who External, refused error) (User, error) {
	by := operations.Caller{Name: "iadmsd"}
	for {
		old, entry, err := a.external(ctx, who.Subject)
		name := old.Name
		if errors.Is(err, engine.ErrNotFound) {
			if name = fleet.NameFor(who.Name); name == "" {
				return User{}, fmt.Errorf("%w: %q cannot be the name of a user here", refused, who.Name)
			}
			old = User{}
			entry, err = a.read(ctx, userKey(name), &old)
		}
		u := old
		switch {
		case errors.Is(err, engine.ErrNotFound):
			u = User{Name: name, ID: newUserID(), Role: who.Role, Subject: who.Subject, Created: a.now(), By: by.Name}
			if err = a.create(ctx, userKey(name), u); err == nil {
				return u, errors.Join(a.know(ctx, who.Subject, name), a.audit(ctx, by, "user.create", "user/"+name, nil, u))
			}
		case err != nil:
			return User{}, err
		case old.Subject != who.Subject:
			return User{}, fmt.Errorf("%w: there is another user named %s here; an admin has to remove that one", refused, name)
		case old.Role == who.Role:
			return old, a.know(ctx, who.Subject, old.Name)
		default:
			u.Role = who.Role
			u.Epoch++
			if err = a.update(ctx, entry, u); err == nil {
				return u, a.audit(ctx, by, "user.change", "user/"+u.Name, old, u)
			}
		}
		if !errors.Is(err, engine.ErrConflict) {
			return User{}, err
		}
	}
}

// endExternal ends sessions and tokens of a user whom the other service no longer gives a role.
func (a *Access) endExternal(ctx context.Context, subject string) error {
	u, entry, err := a.external(ctx, subject)
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	tokens, err := all[Token](ctx, a, "token")
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if t.UserID == u.ID {
			if err := a.remove(ctx, tokenKey(t.ID)); err != nil {
				return err
			}
		}
	}
	old := u
	u.Epoch++
	if err := a.update(ctx, entry, u); err != nil {
		return err
	}
	return a.audit(ctx, operations.Caller{Name: "iadmsd"}, "user.change", "user/"+u.Name, old, u)
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

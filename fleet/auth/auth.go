package auth

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
)

// Errors of logins, sessions and tokens.
var (
	// ErrCredentials: the user, password, session or token is wrong or has expired; the error
	// does not say which.
	ErrCredentials = errors.New("the user name or the password is wrong")
	// ErrTooMany: too many attempts failed for this address or user.
	ErrTooMany = errors.New("too many failed attempts; try again in a minute")
)

// Lifetimes of sessions.
const (
	SessionLife = 12 * time.Hour // after the login
	SessionIdle = 2 * time.Hour  // after the last request
	// sessionTouch is how often the last request is stored.
	sessionTouch = 10 * time.Minute
	// maxTokenLife is the maximum lifetime of a token.
	maxTokenLife = 366 * 24 * time.Hour
)

// User is a person, or a program that has only tokens.
type User struct {
	// Name is its name; see fleet.CheckName.
	Name string `json:"name"`
	// ID is random, so that sessions and tokens of a user who was removed are not those of a
	// later user of the same name.
	ID   string          `json:"id,omitempty"`
	Role operations.Role `json:"role"`
	// Hash is that of the password; empty: the user cannot log in, but use tokens.
	Hash string `json:"hash,omitempty"`
	// Subject is whom another service knows the user as that signs the user in; see External.
	Subject string `json:"subject,omitempty"`
	// Epoch counts changes that end all sessions.
	Epoch   int       `json:"epoch"`
	Created time.Time `json:"created"`
	By      string    `json:"by"`
}

// Token lets a program act for a user.
type Token struct {
	// ID identifies the token and is a part of its text.
	ID   string `json:"id"`
	User string `json:"user"`
	// UserID is the ID of the user.
	UserID string `json:"user_id,omitempty"`
	// Name is for people; see fleet.CheckName.
	Name string          `json:"name"`
	Role operations.Role `json:"role"`
	// Hash is the SHA-256 of the secret part, in hexadecimal digits.
	Hash    string    `json:"hash,omitempty"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

type session struct {
	User    string    `json:"user"`
	UserID  string    `json:"user_id,omitempty"`
	Epoch   int       `json:"epoch"`
	From    string    `json:"from"`
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen"`
}

// Access answers who somebody is. It is safe for concurrent use.
type Access struct {
	bucket  *engine.Bucket
	record  func(context.Context, fleet.AuditEntry) error
	now     func() time.Time
	guesses *guesses
	// hashing limits how many passwords are hashed at the same time, each with 19 MiB.
	hashing chan struct{}
}

// New returns access to what is stored in the bucket engine.Access. record stores audit
// entries; see operations.Service. now is the clock.
func New(bucket *engine.Bucket, record func(context.Context, fleet.AuditEntry) error, now func() time.Time) *Access {
	return &Access{bucket: bucket, record: record, now: now, guesses: newGuesses(now), hashing: make(chan struct{}, 2)}
}

func userKey(name string) string  { return engine.Key("user", strings.ToLower(name)) }
func tokenKey(id string) string   { return engine.Key("token", id) }
func sessionKey(id string) string { return engine.Key("session", hashOf(id)) }

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func random(bytes int) []byte {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return b
}

// RandomPassword returns a password that cannot be guessed.
func RandomPassword() string { return base64.RawURLEncoding.EncodeToString(random(15)) }

func newUserID() string { return hex.EncodeToString(random(16)) }

// Bootstrap makes the user admin if there are no users, and reports whether it did.
// password is called before, and returns admin's password, which somebody must be able to
// find even if the process ends at once.
func (a *Access) Bootstrap(ctx context.Context, password func() (string, error)) (created bool, err error) {
	keys, err := a.bucket.Keys(ctx, engine.Key("user")+".*")
	if err != nil || len(keys) > 0 {
		return false, err
	}
	text, err := password()
	if err != nil {
		return false, err
	}
	u := User{Name: "admin", ID: newUserID(), Role: operations.Admin, Hash: hashPassword(text), Created: a.now(), By: "iadmsd"}
	if err := a.create(ctx, userKey(u.Name), u); errors.Is(err, engine.ErrConflict) {
		return false, nil // another node was faster
	} else if err != nil {
		return false, err
	}
	return true, a.audit(ctx, operations.Caller{Name: "iadmsd"}, "user.create", "user/admin", nil, u)
}

// Login checks a password and begins a session. It returns the ID of the session, which
// is to be kept in a cookie. The error wraps ErrCredentials or ErrTooMany if the user is
// not let in.
func (a *Access) Login(ctx context.Context, name, password, from string) (id string, _ operations.Caller, _ error) {
	u, err := a.checkPassword(ctx, name, password, from)
	if err != nil {
		return "", operations.Caller{}, err
	}
	return a.begin(ctx, u, from)
}

// checkPassword returns the user with this password.
func (a *Access) checkPassword(ctx context.Context, name, password, from string) (User, error) {
	keys := []string{network(from), "user " + strings.ToLower(name)}
	if a.guesses.blocked(keys...) {
		return User{}, ErrTooMany
	}
	var u User
	if fleet.CheckName(name) == nil {
		if _, err := a.read(ctx, userKey(name), &u); err != nil && !errors.Is(err, engine.ErrNotFound) {
			return User{}, err
		}
	}
	select {
	case a.hashing <- struct{}{}:
		defer func() { <-a.hashing }()
	case <-ctx.Done():
		return User{}, ctx.Err()
	}
	if a.guesses.blocked(keys...) { // those who waited with us may have failed
		return User{}, ErrTooMany
	}
	// Somebody who does not exist takes as long as somebody who does.
	ok := matchesPassword(cmp.Or(u.Hash, nobody), password) && u.Hash != "" && len(password) <= maxPassword
	if ok {
		return u, nil
	}
	a.guesses.failed(keys...)
	object := "user/" + fleet.NameFor(name)
	if err := a.record(ctx, fleet.AuditEntry{Actor: "nobody", From: from, Action: "session.begin", Object: object, Denied: true}); err != nil {
		return User{}, err
	}
	return User{}, ErrCredentials
}

// nobody is a hash that no password matches.
var nobody = fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", hashMemory, hashTime, hashThreads)

// Session returns whose session has this ID. The error wraps ErrCredentials if there is
// none, or none any more.
func (a *Access) Session(ctx context.Context, id, from string) (operations.Caller, error) {
	var s session
	entry, err := a.read(ctx, sessionKey(id), &s)
	if errors.Is(err, engine.ErrNotFound) || errors.Is(err, engine.ErrDamaged) {
		return operations.Caller{}, ErrCredentials
	} else if err != nil {
		return operations.Caller{}, err
	}
	u, err := a.User(ctx, s.User)
	if err != nil && !errors.Is(err, operations.ErrNotFound) {
		return operations.Caller{}, err
	}
	if err != nil || u.ID != s.UserID || u.Epoch != s.Epoch || a.expired(s) {
		_ = a.bucket.Delete(ctx, entry.Key, entry.Revision) // sweep does it otherwise
		return operations.Caller{}, ErrCredentials
	}
	if a.now().Sub(s.Seen) > sessionTouch {
		s.Seen = a.now()
		if err := a.update(ctx, entry, s); err != nil && !errors.Is(err, engine.ErrConflict) {
			return operations.Caller{}, err
		}
	}
	return operations.Caller{Name: u.Name, Role: u.Role, From: from}, nil
}

func (a *Access) expired(s session) bool {
	return a.now().Sub(s.Created) > SessionLife || a.now().Sub(s.Seen) > SessionIdle
}

// Logout ends a session.
func (a *Access) Logout(ctx context.Context, id string) error {
	entry, err := a.bucket.Get(ctx, sessionKey(id))
	if err == nil {
		err = a.bucket.Delete(ctx, entry.Key, entry.Revision)
	}
	if errors.Is(err, engine.ErrNotFound) || errors.Is(err, engine.ErrConflict) {
		return nil
	}
	return err
}

// sweep removes sessions and tokens that have expired.
func (a *Access) sweep(ctx context.Context) error {
	for _, kind := range []string{"session", "token"} {
		keys, err := a.bucket.Keys(ctx, engine.Key(kind)+".*")
		if err != nil {
			return err
		}
		for _, key := range keys {
			var s session
			var t Token
			entry, err := a.bucket.Get(ctx, key)
			if err != nil {
				continue // removed meanwhile
			}
			expired := json.Unmarshal(entry.Value, &s) == nil && a.expired(s)
			if kind == "token" {
				expired = json.Unmarshal(entry.Value, &t) == nil && a.now().After(t.Expires)
			}
			if expired {
				_ = a.bucket.Delete(ctx, key, entry.Revision) // the next sweep does it otherwise
			}
		}
	}
	return nil
}

// tokenPrefix makes tokens easy to find where they do not belong.
const tokenPrefix = "iadms_"

// Token returns for whom a token acts. The error wraps ErrCredentials if the token is
// wrong, or ErrTooMany.
func (a *Access) Token(ctx context.Context, text, from string) (operations.Caller, error) {
	key := network(from)
	if a.guesses.blocked(key) {
		return operations.Caller{}, ErrTooMany
	}
	id, secret, ok := strings.Cut(strings.TrimPrefix(text, tokenPrefix), "_")
	var t Token
	if _, err := hex.DecodeString(id); ok && err == nil && len(id) == 16 && strings.HasPrefix(text, tokenPrefix) {
		_, err := a.read(ctx, tokenKey(id), &t)
		if errors.Is(err, engine.ErrDamaged) {
			t = Token{}
		} else if err != nil && !errors.Is(err, engine.ErrNotFound) {
			return operations.Caller{}, err
		}
	}
	if t.Hash == "" || subtle.ConstantTimeCompare([]byte(t.Hash), []byte(hashOf(secret))) != 1 || a.now().After(t.Expires) {
		a.guesses.failed(key)
		return operations.Caller{}, ErrCredentials
	}
	u, err := a.User(ctx, t.User)
	if errors.Is(err, operations.ErrNotFound) || err == nil && u.ID != t.UserID {
		return operations.Caller{}, ErrCredentials
	} else if err != nil {
		return operations.Caller{}, err
	}
	return operations.Caller{Name: u.Name, Token: t.Name, Role: lesser(t.Role, u.Role), From: from}, nil
}

func lesser(a, b operations.Role) operations.Role {
	roles := operations.Roles()
	return roles[max(0, min(slices.Index(roles, a), slices.Index(roles, b)))]
}

// User returns a user. The error wraps operations.ErrNotFound if there is none.
func (a *Access) User(ctx context.Context, name string) (User, error) {
	var u User
	_, err := a.read(ctx, userKey(name), &u)
	if errors.Is(err, engine.ErrNotFound) {
		return u, fmt.Errorf("user %q: %w", name, operations.ErrNotFound)
	}
	return u, err
}

// Users returns all users without their hashes, sorted by name.
func (a *Access) Users(ctx context.Context, by operations.Caller) ([]User, error) {
	if err := a.check(ctx, by, operations.ManageAccess, "user"); err != nil {
		return nil, err
	}
	users, err := all[User](ctx, a, "user")
	slices.SortFunc(users, func(x, y User) int { return strings.Compare(x.Name, y.Name) })
	return users, err
}

// PutUser adds a user or changes one. An empty password: a user that exists keeps the
// present one, and a new user cannot log in. The sessions of a user whose password or role
// changes end.
func (a *Access) PutUser(ctx context.Context, by operations.Caller, name string, role operations.Role, password string) error {
	if err := a.check(ctx, by, operations.ManageAccess, "user/"+fleet.NameFor(name)); err != nil {
		return err
	}
	var problems []error
	if err := fleet.CheckName(name); err != nil {
		problems = append(problems, &fleet.FieldError{Field: "name", Problem: err.Error()})
	}
	if err := operations.CheckRole(role); err != nil {
		problems = append(problems, &fleet.FieldError{Field: "role", Problem: err.Error()})
	}
	if err := checkPassword(name, password); password != "" && err != nil {
		problems = append(problems, &fleet.FieldError{Field: "password", Problem: err.Error()})
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	var old User
	entry, err := a.read(ctx, userKey(name), &old)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		u := User{Name: name, ID: newUserID(), Role: role, Created: a.now(), By: by.Name}
		if password != "" {
			u.Hash = hashPassword(password)
		}
		if err := a.create(ctx, userKey(name), u); err != nil {
			return conflict(err, "user", name)
		}
		return a.audit(ctx, by, "user.create", "user/"+name, nil, u)
	case errors.Is(err, engine.ErrDamaged):
		return fmt.Errorf("user %q: %w: what is stored of the user is damaged; remove the user first", name, operations.ErrConflict)
	case err != nil:
		return err
	}
	if old.Subject != "" {
		return &fleet.FieldError{Field: "name", Problem: old.Name + " is signed in by another service, which says the role too; change it there, or remove the user here"}
	}
	if old.Role == operations.Admin && role != operations.Admin {
		if err := a.otherAdmin(ctx, old.Name); err != nil {
			return err
		}
	}
	u := old
	u.Role = role
	if password != "" {
		u.Hash = hashPassword(password)
	}
	if u.Role != old.Role || u.Hash != old.Hash {
		u.Epoch++
	}
	if err := a.update(ctx, entry, u); err != nil {
		return conflict(err, "user", name)
	}
	return a.audit(ctx, by, "user.change", "user/"+name, old, u)
}

// ChangePassword changes the caller's own password, which the caller has to know. All
// sessions of the caller end.
func (a *Access) ChangePassword(ctx context.Context, by operations.Caller, present, password string) error {
	u, err := a.checkPassword(ctx, by.Name, present, by.From)
	if errors.Is(err, ErrCredentials) {
		return &fleet.FieldError{Field: "present", Problem: "is not the present password"}
	} else if err != nil {
		return err
	}
	if err := checkPassword(u.Name, password); err != nil {
		return &fleet.FieldError{Field: "password", Problem: err.Error()}
	}
	entry, err := a.read(ctx, userKey(u.Name), &u)
	if err != nil {
		return err
	}
	old := u
	u.Hash = hashPassword(password)
	u.Epoch++
	if err := a.update(ctx, entry, u); err != nil {
		return conflict(err, "user", u.Name)
	}
	return a.audit(ctx, by, "user.change", "user/"+u.Name, old, u)
}

// HasPassword reports whether a user has a password here. Others use tokens, or are signed in by
// another service.
func (a *Access) HasPassword(ctx context.Context, name string) (bool, error) {
	var u User
	_, err := a.read(ctx, userKey(name), &u)
	return u.Hash != "", err
}

// RemoveUser removes a user, whose sessions and tokens end.
func (a *Access) RemoveUser(ctx context.Context, by operations.Caller, name string) error {
	if err := a.check(ctx, by, operations.ManageAccess, "user/"+fleet.NameFor(name)); err != nil {
		return err
	}
	var u User
	entry, err := a.read(ctx, userKey(name), &u)
	if errors.Is(err, engine.ErrNotFound) {
		return fmt.Errorf("user %q: %w", name, operations.ErrNotFound)
	} else if errors.Is(err, engine.ErrDamaged) {
		u = User{Name: name}
	} else if err != nil {
		return err
	}
	if u.Role == operations.Admin {
		if err := a.otherAdmin(ctx, u.Name); err != nil {
			return err
		}
	}
	tokens, err := all[Token](ctx, a, "token")
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if strings.EqualFold(t.User, u.Name) {
			if err := a.remove(ctx, tokenKey(t.ID)); err != nil {
				return err
			}
		}
	}
	if err := a.bucket.Delete(ctx, entry.Key, entry.Revision); err != nil {
		return conflict(err, "user", name)
	}
	return a.audit(ctx, by, "user.remove", "user/"+u.Name, u, nil)
}

// otherAdmin returns an error if nobody but this user is an admin.
func (a *Access) otherAdmin(ctx context.Context, name string) error {
	users, err := all[User](ctx, a, "user")
	if err != nil {
		return err
	}
	for _, u := range users {
		if u.Role == operations.Admin && u.Name != name {
			return nil
		}
	}
	return &fleet.FieldError{Field: "role", Problem: name + " is the only admin; make another user admin first"}
}

// Tokens returns the caller's tokens, and those of everybody for an admin, sorted by user
// and name, without their hashes.
func (a *Access) Tokens(ctx context.Context, by operations.Caller) ([]Token, error) {
	tokens, err := all[Token](ctx, a, "token")
	tokens = slices.DeleteFunc(tokens, func(t Token) bool {
		return !by.Role.May(operations.ManageAccess) && t.User != by.Name || a.now().After(t.Expires)
	})
	slices.SortFunc(tokens, func(x, y Token) int {
		return cmp.Or(strings.Compare(x.User, y.User), strings.Compare(x.Name, y.Name), strings.Compare(x.ID, y.ID))
	})
	return tokens, err
}

// CreateToken makes a token that acts for the caller and returns its text, which is not
// stored. A token cannot make tokens: the caller must have logged in.
func (a *Access) CreateToken(ctx context.Context, by operations.Caller, name string, role operations.Role, life time.Duration) (text string, _ Token, _ error) {
	if by.Token != "" {
		return "", Token{}, fmt.Errorf("%s: %w: a token cannot make tokens; log in", by.Actor(), operations.ErrForbidden)
	}
	var problems []error
	if err := fleet.CheckName(name); err != nil {
		problems = append(problems, &fleet.FieldError{Field: "name", Problem: err.Error()})
	}
	if err := operations.CheckRole(role); err != nil {
		problems = append(problems, &fleet.FieldError{Field: "role", Problem: err.Error()})
	} else if lesser(role, by.Role) != role {
		problems = append(problems, &fleet.FieldError{Field: "role", Problem: "must not exceed your own role, " + string(by.Role)})
	}
	if life < time.Minute || life > maxTokenLife {
		problems = append(problems, &fleet.FieldError{Field: "life", Problem: "must be from 1 minute to 366 days"})
	}
	if len(problems) > 0 {
		return "", Token{}, errors.Join(problems...)
	}
	u, err := a.User(ctx, by.Name)
	if err != nil {
		return "", Token{}, err
	}
	secret := base64.RawURLEncoding.EncodeToString(random(32))
	t := Token{
		ID: hex.EncodeToString(random(8)), User: by.Name, UserID: u.ID, Name: name, Role: role, Hash: hashOf(secret),
		Created: a.now(), Expires: a.now().Add(life),
	}
	if err := a.create(ctx, tokenKey(t.ID), t); err != nil {
		return "", Token{}, err
	}
	text = tokenPrefix + t.ID + "_" + secret
	t.Hash = ""
	return text, t, a.audit(ctx, by, "token.create", "token/"+t.User+"/"+t.Name, nil, t)
}

// RevokeToken removes a token of the caller; an admin can remove everybody's.
func (a *Access) RevokeToken(ctx context.Context, by operations.Caller, id string) error {
	var t Token
	entry, err := a.read(ctx, tokenKey(id), &t)
	if errors.Is(err, engine.ErrNotFound) || err == nil && t.User != by.Name && !by.Role.May(operations.ManageAccess) {
		return fmt.Errorf("token %q: %w", id, operations.ErrNotFound)
	} else if err != nil {
		return err
	}
	if err := a.bucket.Delete(ctx, entry.Key, entry.Revision); err != nil {
		return conflict(err, "token", id)
	}
	return a.audit(ctx, by, "token.revoke", "token/"+t.User+"/"+t.Name, t, nil)
}

// check returns an error, and records it, unless the caller may carry out an action.
func (a *Access) check(ctx context.Context, by operations.Caller, action operations.Action, object string) error {
	err := by.Check(action)
	if err != nil {
		return errors.Join(err, a.record(ctx, fleet.AuditEntry{
			Actor: by.Actor(), From: by.From, Action: string(action), Object: object, Denied: true, Request: by.Request,
		}))
	}
	return nil
}

// audit records a change of a user or token, without hashes.
func (a *Access) audit(ctx context.Context, by operations.Caller, action, object string, before, after any) error {
	return a.record(ctx, fleet.AuditEntry{
		Actor: by.Actor(), From: by.From, Action: action, Object: object, Request: by.Request, Content: by.Content, Before: shown(before), After: shown(after),
	})
}

// shown is what the audit shows of a user or token.
func shown(v any) json.RawMessage {
	switch o := v.(type) {
	case User:
		login := o.Hash != ""
		o.Hash = ""
		v = struct {
			User
			Password bool `json:"password"`
		}{o, login}
	case Token:
		o.Hash = ""
		v = o
	default:
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return text
}

func conflict(err error, kind, name string) error {
	if errors.Is(err, engine.ErrConflict) {
		return fmt.Errorf("%s %q: %w: it was changed by somebody else in the meantime; look at it again", kind, name, operations.ErrConflict)
	}
	return err
}

// all returns the objects of a kind that are not damaged, users without their hashes.
func all[T any](ctx context.Context, a *Access, kind string) ([]T, error) {
	keys, err := a.bucket.Keys(ctx, engine.Key(kind)+".*")
	if err != nil {
		return nil, err
	}
	list := make([]T, 0, len(keys))
	for _, key := range keys {
		var v T
		if _, err := a.read(ctx, key, &v); errors.Is(err, engine.ErrNotFound) || errors.Is(err, engine.ErrDamaged) {
			continue
		} else if err != nil {
			return nil, err
		}
		switch o := any(&v).(type) {
		case *User:
			o.Hash = ""
		case *Token:
			o.Hash = ""
		}
		list = append(list, v)
	}
	return list, nil
}

func (a *Access) read(ctx context.Context, key string, v any) (engine.Entry, error) {
	entry, err := a.bucket.Get(ctx, key)
	if err != nil {
		return entry, err
	}
	if err := json.Unmarshal(entry.Value, v); err != nil {
		return entry, a.bucket.Damaged(entry, err)
	}
	a.bucket.Sound(key, entry.Revision)
	return entry, nil
}

func (a *Access) create(ctx context.Context, key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = a.bucket.Create(ctx, key, text)
	return err
}

func (a *Access) update(ctx context.Context, entry engine.Entry, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = a.bucket.Update(ctx, entry.Key, text, entry.Revision)
	return err
}

func (a *Access) remove(ctx context.Context, key string) error {
	entry, err := a.bucket.Get(ctx, key)
	if err == nil {
		err = a.bucket.Delete(ctx, key, entry.Revision)
	}
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	return err
}

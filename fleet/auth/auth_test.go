package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/auth"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
)

const password = "correct horse battery"

var store *engine.Engine

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "auth")
	if err != nil {
		panic(err)
	}
	store, err = engine.Start(context.Background(), engine.Config{Data: dir})
	if err != nil {
		panic(err)
	}
	code := m.Run()
	store.Close()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// bench is access with a clock and an audit of its own, and no users.
type bench struct {
	*auth.Access
	now   time.Time
	mu    sync.Mutex
	audit []fleet.AuditEntry
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{now: time.Now()}
	bucket, err := store.Bucket(t.Context(), engine.Access)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := bucket.Keys(t.Context(), ">")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys { // of the test before
		e, err := bucket.Get(t.Context(), key)
		if err == nil {
			err = bucket.Delete(t.Context(), key, e.Revision)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b.Access = auth.New(bucket, func(_ context.Context, e fleet.AuditEntry) error {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.audit = append(b.audit, e)
		return nil
	}, func() time.Time { return b.now })
	return b
}

var boss = operations.Caller{Name: "boss", Role: operations.Admin}

func (b *bench) put(t *testing.T, name string, role operations.Role) {
	t.Helper()
	if err := b.PutUser(t.Context(), boss, name, role, password); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) login(t *testing.T, name string) string {
	t.Helper()
	id, caller, err := b.Login(t.Context(), name, password, "192.0.2.1")
	if err != nil || caller.Name != name || caller.From != "192.0.2.1" {
		t.Fatalf("%+v, %v", caller, err)
	}
	return id
}

// session reports whether a session is valid.
func (b *bench) session(t *testing.T, id string) bool {
	t.Helper()
	_, err := b.Session(t.Context(), id, "192.0.2.1")
	if err != nil && !errors.Is(err, auth.ErrCredentials) {
		t.Fatal(err)
	}
	return err == nil
}

func TestBootstrap(t *testing.T) {
	b := newBench(t)
	full := errors.New("no space left on device")
	if created, err := b.Bootstrap(t.Context(), func() (string, error) { return "", full }); created || !errors.Is(err, full) {
		t.Errorf("%v, %v", created, err)
	}
	if users, err := b.Users(t.Context(), boss); len(users) > 0 || err != nil {
		t.Errorf("a user whose password nobody knows: %+v (%v)", users, err)
	}
	first := auth.RandomPassword()
	created, err := b.Bootstrap(t.Context(), func() (string, error) {
		if users, err := b.Users(t.Context(), boss); len(users) > 0 || err != nil {
			t.Errorf("a user whose password nobody knows yet: %+v (%v)", users, err)
		}
		return first, nil
	})
	if err != nil || !created {
		t.Fatal(created, err)
	}
	_, caller, err := b.Login(t.Context(), "admin", first, "192.0.2.1")
	if err != nil || caller.Role != operations.Admin {
		t.Errorf("%+v, %v", caller, err)
	}
	again, err := b.Bootstrap(t.Context(), func() (string, error) { t.Error("a password is asked for"); return first, nil })
	if again || err != nil {
		t.Errorf("a second time: %v, %v", again, err)
	}
}

// The sessions and tokens of a user who was removed do not work for a later user of the
// same name, nor does a token that was created while the user was removed.
func TestUsersOfTheSameName(t *testing.T) {
	b, ctx := newBench(t), t.Context()
	bucket, err := store.Bucket(ctx, engine.Access)
	if err != nil {
		t.Fatal(err)
	}
	b.put(t, "anna", operations.Operator)
	session := b.login(t, "anna")
	text, made, err := b.CreateToken(ctx, operations.Caller{Name: "anna", Role: operations.Operator}, "ci", operations.Operator, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := bucket.Get(ctx, engine.Key("token", made.ID))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.RemoveUser(ctx, boss, "anna"); err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Create(ctx, kept.Key, kept.Value); err != nil {
		t.Fatal(err)
	}
	b.put(t, "anna", operations.Operator) // the first of that name did not use the session meanwhile
	if b.session(t, session) {
		t.Error("the session is one of the new user")
	}
	if by, err := b.Token(ctx, text, "192.0.2.1"); !errors.Is(err, auth.ErrCredentials) {
		t.Errorf("the token is one of the new user: %+v, %v", by, err)
	}
	if !b.session(t, b.login(t, "anna")) {
		t.Error("the new user has no session")
	}
}

func TestSessionsEnd(t *testing.T) {
	b := newBench(t)
	b.put(t, "anna", operations.Operator)
	b.put(t, "ben", operations.Admin)
	anna := operations.Caller{Name: "anna", Role: operations.Operator, From: "192.0.2.1"}

	idle := b.login(t, "anna")
	b.now = b.now.Add(auth.SessionIdle + time.Minute)
	if b.session(t, idle) {
		t.Error("an idle session lasts")
	}
	busy := b.login(t, "anna")
	for range 11 {
		b.now = b.now.Add(time.Hour)
		if !b.session(t, busy) {
			t.Fatal("a session in use ended")
		}
	}
	b.now = b.now.Add(time.Hour + time.Minute)
	if b.session(t, busy) {
		t.Error("a session lasts for ever")
	}
	for name, end := range map[string]func() error{
		"new role":         func() error { return b.PutUser(t.Context(), boss, "anna", operations.Viewer, "") },
		"new password":     func() error { return b.PutUser(t.Context(), boss, "anna", operations.Viewer, password) },
		"changed password": func() error { return b.ChangePassword(t.Context(), anna, password, password) },
		"removed user": func() error {
			err := b.RemoveUser(t.Context(), boss, "anna")
			b.put(t, "anna", operations.Operator)
			return err
		},
	} {
		id := b.login(t, "anna")
		other := b.login(t, "ben")
		if err := end(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if b.session(t, id) {
			t.Errorf("%s: the session lasts", name)
		}
		if !b.session(t, other) {
			t.Errorf("%s: another user's session ended", name)
		}
		b.put(t, "anna", operations.Operator)
	}
	id := b.login(t, "anna")
	if err := b.Logout(t.Context(), id); err != nil || b.session(t, id) {
		t.Errorf("after the logout the session lasts (%v)", err)
	}
	if err := b.Logout(t.Context(), id); err != nil {
		t.Errorf("a second logout: %v", err)
	}
}

func TestGuessingIsSlow(t *testing.T) {
	b := newBench(t)
	b.put(t, "anna", operations.Viewer)
	fails := func(user, from string) error {
		_, _, err := b.Login(t.Context(), user, "wrong password", from)
		return err
	}
	for i := range 10 { // each from another address
		if err := fails("anna", "192.0.2."+string(rune('0'+i))); !errors.Is(err, auth.ErrCredentials) {
			t.Fatal(err)
		}
	}
	if err := fails("anna", "198.51.100.1"); !errors.Is(err, auth.ErrTooMany) {
		t.Errorf("an eleventh address: %v", err)
	}
	for i := range 10 { // addresses of one network, each with another user
		if err := fails("user"+string(rune('0'+i)), "2001:db8::"+string(rune('1'+i%8))); !errors.Is(err, auth.ErrCredentials) {
			t.Fatal(err)
		}
	}
	if err := fails("somebody", "2001:db8::ffff:1"); !errors.Is(err, auth.ErrTooMany) {
		t.Errorf("another address of the network: %v", err)
	}
	b.now = b.now.Add(7 * time.Second)
	if err := fails("anna", "198.51.100.1"); !errors.Is(err, auth.ErrCredentials) {
		t.Errorf("after a pause: %v", err)
	}
	if err := fails("anna", "198.51.100.1"); !errors.Is(err, auth.ErrTooMany) {
		t.Errorf("twice after a pause: %v", err)
	}
}

func TestUsers(t *testing.T) {
	b := newBench(t)
	b.put(t, "anna", operations.Admin)
	fieldOf := func(err error) string {
		if f := fleet.FieldErrors(err); len(f) > 0 {
			return f[0].Field
		}
		return ""
	}
	for want, err := range map[string]error{
		"role":     b.PutUser(t.Context(), boss, "anna", operations.Viewer, ""),
		"name":     b.PutUser(t.Context(), boss, "../anna", operations.Viewer, password),
		"password": b.PutUser(t.Context(), boss, "ben", operations.Viewer, "short"),
		"present":  b.ChangePassword(t.Context(), operations.Caller{Name: "anna"}, "wrong password", password),
	} {
		if fieldOf(err) != want {
			t.Errorf("%s: %v", want, err)
		}
	}
	if err := b.PutUser(t.Context(), boss, "ben", operations.Viewer, "my name is ben, sir"); fieldOf(err) != "password" {
		t.Errorf("a password with the user's name: %v", err)
	}
	if err := b.RemoveUser(t.Context(), boss, "anna"); fieldOf(err) != "role" {
		t.Errorf("the only admin was removed: %v", err)
	}
	if err := b.PutUser(t.Context(), operations.Caller{Name: "eve", Role: operations.Operator}, "eve", operations.Admin, password); !errors.Is(err, operations.ErrForbidden) {
		t.Errorf("an operator made an admin: %v", err)
	}
	if last := b.audit[len(b.audit)-1]; !last.Denied || last.Actor != "eve" {
		t.Errorf("the audit does not say so: %+v", last)
	}
	b.put(t, "robot", operations.Operator)
	if err := b.PutUser(t.Context(), boss, "robot2", operations.Operator, ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Login(t.Context(), "robot2", "", "192.0.2.1"); !errors.Is(err, auth.ErrCredentials) {
		t.Errorf("a user without a password logged in: %v", err)
	}
	users, err := b.Users(t.Context(), boss)
	if err != nil || len(users) != 3 || users[0].Name != "anna" || users[0].Hash != "" {
		t.Errorf("%+v, %v", users, err)
	}
	for _, e := range b.audit {
		if strings.Contains(string(e.Before)+string(e.After), "argon2id") {
			t.Errorf("the audit has a hash: %+v", e)
		}
	}
}

func TestTokens(t *testing.T) {
	b := newBench(t)
	b.put(t, "anna", operations.Operator)
	anna := operations.Caller{Name: "anna", Role: operations.Operator}
	if _, _, err := b.CreateToken(t.Context(), anna, "ci", operations.Admin, time.Hour); err == nil || !strings.Contains(err.Error(), "role") {
		t.Errorf("a token that may more than its user: %v", err)
	}
	text, made, err := b.CreateToken(t.Context(), anna, "ci", operations.Operator, time.Hour)
	if err != nil || made.Hash != "" {
		t.Fatalf("%+v, %v", made, err)
	}
	by, err := b.Token(t.Context(), text, "192.0.2.1")
	if err != nil || by.Role != operations.Operator || by.Actor() != "anna/ci" {
		t.Errorf("%+v, %v", by, err)
	}
	if _, _, err := b.CreateToken(t.Context(), by, "more", operations.Viewer, time.Hour); !errors.Is(err, operations.ErrForbidden) {
		t.Errorf("a token made a token: %v", err)
	}
	ben := operations.Caller{Name: "ben", Role: operations.Operator}
	if list, err := b.Tokens(t.Context(), ben); err != nil || len(list) != 0 {
		t.Errorf("another user sees %+v, %v", list, err)
	}
	if err := b.RevokeToken(t.Context(), ben, made.ID); !errors.Is(err, operations.ErrNotFound) {
		t.Errorf("another user revoked it: %v", err)
	}
	if list, err := b.Tokens(t.Context(), boss); err != nil || len(list) != 1 || list[0].Hash != "" {
		t.Errorf("an admin sees %+v, %v", list, err)
	}
	if err := b.RevokeToken(t.Context(), anna, made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Token(t.Context(), text, "192.0.2.1"); !errors.Is(err, auth.ErrCredentials) {
		t.Errorf("after it was revoked: %v", err)
	}
}

// TestNothingSecretIsStored looks at what is stored.
func TestNothingSecretIsStored(t *testing.T) {
	b := newBench(t)
	b.put(t, "anna", operations.Operator)
	session := b.login(t, "anna")
	token, _, err := b.CreateToken(t.Context(), operations.Caller{Name: "anna", Role: operations.Operator}, "ci", operations.Operator, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := store.Bucket(t.Context(), engine.Access)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := bucket.Keys(t.Context(), ">")
	if err != nil || len(keys) != 3 {
		t.Fatalf("%v, %v", keys, err)
	}
	for _, key := range keys {
		e, err := bucket.Get(t.Context(), key)
		if err != nil || !json.Valid(e.Value) {
			t.Fatalf("%s: %s, %v", key, e.Value, err)
		}
		for _, secret := range []string{password, session, token[len(token)-43:]} {
			if strings.Contains(key+string(e.Value), secret) {
				t.Errorf("%s has a secret: %s", key, e.Value)
			}
		}
	}
}

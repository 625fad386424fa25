package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"example.com/iad/fleet"
	"example.com/iad/fleet/auth"
	"example.com/iad/fleet/operations"
)

// Me says for whom a token acts.
type Me struct {
	Name  string          `json:"name"`
	Token string          `json:"token"`
	Role  operations.Role `json:"role"`
}

// User is a user without the password.
type User struct {
	Name    string          `json:"name"`
	Role    operations.Role `json:"role"`
	Created time.Time       `json:"created"`
	By      string          `json:"by"`
}

// UserInput is what an admin sets of a user.
type UserInput struct {
	Role operations.Role `json:"role" enum:"viewer,operator,admin"`
	// Password is empty to keep the present one; a new user without one cannot log in.
	Password string `json:"password,omitempty" doc:"Empty: a present password is kept; a new user without one cannot log in." format:"password"`
}

// Token is a token without its secret.
type Token struct {
	ID      string          `json:"id"`
	User    string          `json:"user"`
	Name    string          `json:"name"`
	Role    operations.Role `json:"role"`
	Created time.Time       `json:"created"`
	Expires time.Time       `json:"expires"`
}

func tokenOf(t auth.Token) Token {
	return Token{ID: t.ID, User: t.User, Name: t.Name, Role: t.Role, Created: t.Created, Expires: t.Expires}
}

// Login asks for a token.
type Login struct {
	User     string          `json:"user"`
	Password string          `json:"password" format:"password"`
	Name     string          `json:"name" doc:"The name of the token, for people."`
	Role     operations.Role `json:"role,omitempty" enum:"viewer,operator,admin" doc:"Empty: the role of the user."`
	Life     fleet.Duration  `json:"life,omitzero" doc:"How long the token is valid, such as 720h; empty: 30 days."`
}

// NewToken is a token that was made.
type NewToken struct {
	Token Token `json:"token"`
	// Text is what programs send. It is not shown again.
	Text string `json:"text" doc:"What programs send. It is not shown again."`
}

// defaultLife is how long a token is valid for which nobody says so.
const defaultLife = 30 * 24 * time.Hour

func (s *server) registerAccess() {
	open := func(op *huma.Operation) {
		op.Description = "Requires no token."
		op.Metadata = map[string]any{metaOpen: true}
		op.Security = []map[string][]string{}
	}
	// The address of the client is not a part of the request that the library decodes.
	type login struct {
		From
		Body Login
	}
	op := operation(operations.Read, http.MethodPost, "/login", "login", "Make a token with a user name and a password", open)
	op.Tags = []string{"access"}
	register(s, op, func(ctx context.Context, _ operations.Caller, in *login) (NewToken, error) {
		// A session is begun for the password's sake, and ended.
		id, by, err := s.Access.Login(ctx, in.Body.User, in.Body.Password, in.host)
		if err != nil {
			return NewToken{}, err
		}
		if err := s.Access.Logout(ctx, id); err != nil {
			return NewToken{}, err
		}
		role, life := in.Body.Role, time.Duration(in.Body.Life)
		if role == "" {
			role = by.Role
		}
		if life == 0 {
			life = defaultLife
		}
		text, t, err := s.Access.CreateToken(ctx, by, in.Body.Name, role, life)
		return NewToken{Token: tokenOf(t), Text: text}, err
	})
	access := func(op *huma.Operation) { op.Tags = []string{"access"} }
	register(s, operation(operations.Read, http.MethodGet, "/me", "get-me", "Show for whom the token acts", access),
		func(_ context.Context, by operations.Caller, _ *struct{}) (Me, error) {
			return Me{Name: by.Name, Token: by.Token, Role: by.Role}, nil
		})
	register(s, operation(operations.ManageAccess, http.MethodGet, "/users", "list-users", "List the users", access),
		func(ctx context.Context, by operations.Caller, _ *struct{}) ([]User, error) {
			users, err := s.Access.Users(ctx, by)
			out := make([]User, len(users))
			for i, u := range users {
				out[i] = User{Name: u.Name, Role: u.Role, Created: u.Created, By: u.By}
			}
			return out, err
		})
	registerEmpty(s, operation(operations.ManageAccess, http.MethodPut, "/users/{name}", "put-user", "Add or change a user", access),
		func(ctx context.Context, by operations.Caller, in *struct {
			Named
			Body UserInput
		}) error {
			return s.once(ctx, by, "user/"+in.Name, func() error {
				return s.Access.PutUser(ctx, by, in.Name, in.Body.Role, in.Body.Password)
			}, "user.create", "user.change")
		})
	registerEmpty(s, operation(operations.ManageAccess, http.MethodDelete, "/users/{name}", "remove-user", "Remove a user, whose sessions and tokens end", access),
		func(ctx context.Context, by operations.Caller, in *Named) error {
			return s.once(ctx, by, "", func() error { return s.Access.RemoveUser(ctx, by, in.Name) }, "user.remove")
		})
	register(s, operation(operations.Read, http.MethodGet, "/tokens", "list-tokens", "List the user's tokens; for an admin, all tokens", access),
		func(ctx context.Context, by operations.Caller, _ *struct{}) ([]Token, error) {
			tokens, err := s.Access.Tokens(ctx, by)
			out := make([]Token, len(tokens))
			for i, t := range tokens {
				out[i] = tokenOf(t)
			}
			return out, err
		})
	registerEmpty(s, operation(operations.Read, http.MethodDelete, "/tokens/{id}", "revoke-token", "Revoke a token", access),
		func(ctx context.Context, by operations.Caller, in *struct {
			ID string `path:"id"`
		}) error {
			return s.once(ctx, by, "", func() error { return s.Access.RevokeToken(ctx, by, in.ID) }, "token.revoke")
		})
}

// once carries out a request about access, unless it was carried out before as one of the actions.
func (s *server) once(ctx context.Context, by operations.Caller, object string, do func() error, actions ...string) error {
	if done, err := s.Service.Repeated(ctx, by, object, actions); err != nil || done {
		return err
	}
	return do()
}

// From is the address of the client.
type From struct{ host string }

// Resolve implements huma.Resolver.
func (f *From) Resolve(ctx huma.Context) []error {
	f.host = auth.Host(ctx.RemoteAddr())
	return nil
}

// Named is the name of an object in the path.
type Named struct {
	Name string `path:"name"`
}

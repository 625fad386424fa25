package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"example.com/iad/fleet/openid"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/ui"
	"example.com/iad/internal/cli"
)

// openIDOptions are the flags of the role api for users whom another service signs in.
type openIDOptions struct {
	config     openid.Config
	secretFile string
	roles      []string
	pages      string
	openID     *openid.Provider // nil without --openid-issuer
}

func (o *openIDOptions) register(f *pflag.FlagSet) {
	f.StringVar(&o.config.Issuer, "openid-issuer", "", "let users sign in through the OpenID Connect provider at `URL`")
	f.StringVar(&o.config.ClientID, "openid-client", "", "`ID` of this service at the provider")
	f.StringVar(&o.secretFile, "openid-secret-file", "", "`file` with the secret for that ID, in one line (default: a client without a secret)")
	f.StringVar(&o.pages, "openid-pages", "", "`URL` of these web pages; the provider sends browsers back to URL"+ui.OpenIDPath)
	f.StringArrayVar(&o.roles, "openid-role", nil, "users with this word in the claim get a role, `WORD=ROLE`: viewer, operator or admin; may be given several times")
	f.StringVar(&o.config.RoleClaim, "openid-role-claim", "roles", "`claim` with the words; realm_access.roles leads into an object")
	f.StringVar(&o.config.NameClaim, "openid-name-claim", "preferred_username", "`claim` with the name of the user")
	cli.Group(f, "OpenID Connect", "openid-issuer", "openid-client", "openid-secret-file", "openid-pages", "openid-role", "openid-role-claim", "openid-name-claim")
}

// check makes the provider.
func (o *openIDOptions) check() error {
	if o.config.Issuer == "" {
		if o.config.ClientID != "" || o.pages != "" || o.secretFile != "" || len(o.roles) > 0 {
			return errors.New("name the provider with --openid-issuer URL")
		}
		return nil
	}
	pages, err := url.Parse(o.pages)
	if err != nil || pages.Host == "" || pages.Scheme != "https" && pages.Scheme != "http" || strings.Trim(pages.Path, "/") != "" || pages.RawQuery != "" {
		return fmt.Errorf("--openid-pages %q: use the address of these pages in browsers, such as https://noc.example:8443", o.pages)
	}
	o.config.Redirect = pages.Scheme + "://" + pages.Host + ui.OpenIDPath
	if o.config.ClientID == "" {
		return errors.New("--openid-client is missing: the ID under which the provider knows this service")
	}
	o.config.Roles = make(map[string]operations.Role)
	for _, text := range o.roles {
		word, role, ok := strings.Cut(text, "=")
		if !ok || word == "" {
			return fmt.Errorf("--openid-role %q: use WORD=ROLE, such as noc-staff=operator", text)
		}
		o.config.Roles[word] = operations.Role(role)
	}
	if len(o.roles) == 0 {
		return errors.New("--openid-role is missing: without it nobody gets a role")
	}
	if o.secretFile != "" {
		text, err := os.ReadFile(o.secretFile)
		if err != nil {
			return fmt.Errorf("--openid-secret-file: %w", err)
		}
		if o.config.Secret = strings.TrimSpace(string(text)); o.config.Secret == "" {
			return fmt.Errorf("--openid-secret-file %s is empty", o.secretFile)
		}
	}
	if o.openID, err = openid.New(o.config); err != nil {
		return fmt.Errorf("OpenID Connect: %w", err)
	}
	return nil
}

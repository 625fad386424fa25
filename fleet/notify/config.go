package notify

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"example.com/iad/fleet"
)

// Config says who is notified of what. An admin writes it: users of the service cannot change it.
type Config struct {
	// Allow are the networks, such as 192.0.2.0/24, that may be connected to.
	Allow []string `toml:"allow"`
	// Webhooks get each event as soon as it happens.
	Webhooks []Webhook `toml:"webhook"`
	// Mail gets the events of a while in one message; nil: nobody does.
	Mail *Mail `toml:"mail"`

	networks []netip.Prefix
}

// Webhook is an HTTP server that gets events.
type Webhook struct {
	// Name identifies it; see fleet.CheckName.
	Name string `toml:"name"`
	// URL is called with POST.
	URL string `toml:"url"`
	// Events are the kinds of events: campaign, threshold, question, run or worker; none:
	// campaign, threshold and question.
	Events []fleet.EventKind `toml:"events"`
	// SecretFile is a file with the key of signatures, at least 16 bytes.
	SecretFile string `toml:"secret_file"`

	secret []byte
}

// Mail is a mail server and who gets mail.
type Mail struct {
	// Server is HOST:PORT.
	Server string `toml:"server"`
	// TLS is starttls (default), tls, or none, for a server on this machine.
	TLS  string   `toml:"tls"`
	From string   `toml:"from"`
	To   []string `toml:"to"`
	// User and PasswordFile are for signing in; empty: without.
	User         string `toml:"user"`
	PasswordFile string `toml:"password_file"`
	// Events are as for webhooks.
	Events []fleet.EventKind `toml:"events"`
	// Gather is how long to wait for further events before a message is sent, 1s to 1h;
	// default: 1m.
	Gather fleet.Duration `toml:"gather"`
	// URL is the address of the service's pages, for links; empty: there are none.
	URL string `toml:"url"`

	password string
}

// Values of Mail.TLS.
const (
	startTLS    = "starttls"
	implicitTLS = "tls"
	noTLS       = "none"
)

var defaultEvents = []fleet.EventKind{fleet.EventCampaign, fleet.EventThreshold, fleet.EventQuestion}

// Read reads a file. Names of files in it are relative to its directory.
func Read(name string) (*Config, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	c, err := parse(text, filepath.Dir(name))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func parse(text []byte, dir string) (*Config, error) {
	c := new(Config)
	decoder := toml.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(c); err != nil {
		return nil, mistake(err)
	}
	var problems []error
	add := func(field, format string, args ...any) {
		problems = append(problems, &fleet.FieldError{Field: field, Problem: fmt.Sprintf(format, args...)})
	}
	for i, text := range c.Allow {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			add(fmt.Sprintf("allow[%d]", i), "%.60q must be a network such as 192.0.2.0/24", text)
		}
		c.networks = append(c.networks, network.Masked())
	}
	if len(c.Allow) == 0 && (len(c.Webhooks) > 0 || c.Mail != nil) {
		add("allow", "must list the networks of the webhooks and of the mail server, or nothing can be sent")
	}
	names := map[string]bool{}
	for i := range c.Webhooks {
		field := func(name string) string { return fmt.Sprintf("webhook[%d].%s", i, name) }
		w := &c.Webhooks[i]
		if err := fleet.CheckName(w.Name); err != nil {
			add(field("name"), "%v", err)
		}
		if names[w.Name] {
			add(field("name"), "%q is the name of two webhooks", w.Name)
		}
		names[w.Name] = true
		if u, err := url.Parse(w.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			add(field("url"), "must be a URL such as https://hooks.example.net/iad, without user and password")
		}
		checkEvents(add, field("events"), w.Events)
		var err error
		if w.secret, err = readSecret(dir, w.SecretFile); err != nil {
			add(field("secret_file"), "%v", err)
		} else if w.secret != nil && len(w.secret) < 16 {
			add(field("secret_file"), "%s must have at least 16 bytes", w.SecretFile)
		}
	}
	if c.Mail != nil {
		c.Mail.check(dir, add)
	}
	return c, errors.Join(problems...)
}

// mistake is the text of an error in a file: where it is, without names of Go types.
func mistake(err error) error {
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		row, _ := unknown.Errors[0].Position()
		return fmt.Errorf("line %d: unknown setting %s", row, strings.Join(unknown.Errors[0].Key(), "."))
	}
	var where *toml.DecodeError
	if errors.As(err, &where) {
		row, _ := where.Position()
		if key := where.Key(); len(key) > 0 {
			return fmt.Errorf("line %d: %s has a value of the wrong kind", row, strings.Join(key, "."))
		}
		return fmt.Errorf("line %d: %s", row, strings.TrimPrefix(where.Error(), "toml: "))
	}
	return err
}

func checkEvents(add func(field, format string, args ...any), field string, events []fleet.EventKind) {
	known := append(slices.Clone(defaultEvents), fleet.EventRun, fleet.EventWorker)
	for _, kind := range events {
		if !slices.Contains(known, kind) {
			add(field, "unknown kind of event %.40q (want %v)", string(kind), known)
		}
	}
}

func (m *Mail) check(dir string, add func(field, format string, args ...any)) {
	if host, port, err := net.SplitHostPort(m.Server); err != nil || host == "" || port == "" {
		add("mail.server", "must be HOST:PORT")
	}
	m.TLS = cmp.Or(m.TLS, startTLS)
	if !slices.Contains([]string{startTLS, implicitTLS, noTLS}, m.TLS) {
		add("mail.tls", "must be starttls, tls or none, and is %.40q", m.TLS)
	}
	if m.TLS == noTLS && m.User != "" {
		add("mail.user", "must be empty without TLS: the password would not be encrypted")
	}
	if _, err := mail.ParseAddress(m.From); err != nil {
		add("mail.from", "%.80q is not a mail address", m.From)
	}
	if len(m.To) == 0 {
		add("mail.to", "must list at least one address")
	}
	for i, to := range m.To {
		if _, err := mail.ParseAddress(to); err != nil {
			add(fmt.Sprintf("mail.to[%d]", i), "%.80q is not a mail address", to)
		}
	}
	checkEvents(add, "mail.events", m.Events)
	m.Gather = cmp.Or(m.Gather, fleet.Duration(time.Minute))
	if m.Gather < fleet.Duration(time.Second) || m.Gather > fleet.Duration(time.Hour) {
		add("mail.gather", "must be from 1s to 1h")
	}
	password, err := readSecret(dir, m.PasswordFile)
	if err != nil {
		add("mail.password_file", "%v", err)
	}
	m.password = string(password)
	if (m.User == "") != (m.password == "") {
		add("mail.user", "user and password_file are given together")
	}
}

// readSecret reads the secret in a file, without white space around it. It returns nil for
// no file.
func readSecret(dir, name string) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s holds a secret and others may read it (mode %04o); chmod 600 %s", name, info.Mode().Perm(), name)
	}
	text, err := os.ReadFile(name)
	return bytes.TrimSpace(text), err
}

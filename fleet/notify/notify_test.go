package notify_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/notify"
	"example.com/iad/fleet/seal"
	"example.com/iad/fleet/store"
)

const secret = "0123456789abcdef0123"

// configure writes a file and the secrets beside it, and reads it.
func configure(t *testing.T, text string) (*notify.Config, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"secret": secret + "\n", "short": "x", "notify.toml": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "open"), []byte(secret), 0o644); err != nil {
		t.Fatal(err)
	}
	return notify.Read(filepath.Join(dir, "notify.toml"))
}

func open(t *testing.T) *store.Store {
	t.Helper()
	e, err := engine.Start(t.Context(), engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	key, err := seal.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), e, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// logged is what a notifier logs.
type logged struct {
	mu    sync.Mutex
	lines chan string
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.lines <- string(p):
	default:
	}
	return len(p), nil
}

// run runs a notifier that has begun to listen, until stop.
func run(t *testing.T, s *store.Store, text string) (log chan string, stop func()) {
	t.Helper()
	c, err := configure(t, text)
	if err != nil {
		t.Fatal(err)
	}
	l := &logged{lines: make(chan string, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- notify.New(c, s, slog.New(slog.NewTextHandler(l, nil))).Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return l.lines, stop
}

// listening waits until a target has a position.
func listening(t *testing.T, s *store.Store, name string) {
	t.Helper()
	bucket, err := s.Engine.Bucket(t.Context(), engine.Settings)
	if err != nil {
		t.Fatal(err)
	}
	found := fmt.Errorf("found")
	_ = bucket.Watch(t.Context(), engine.Key("notify", name), func(c engine.Change) error {
		if len(c.Value) > 0 {
			return found
		}
		return nil
	})
}

func record(t *testing.T, s *store.Store, events ...fleet.Event) {
	t.Helper()
	for _, e := range events {
		e.Time = time.Now()
		if err := s.Record(t.Context(), &e); err != nil {
			t.Fatal(err)
		}
	}
}

// hook is a webhook's server. It answers with codes in turn, then with 204.
type hook struct {
	*httptest.Server
	got   chan *http.Request
	body  chan []byte
	mu    sync.Mutex
	codes []int
}

func newHook(t *testing.T, codes ...int) *hook {
	h := &hook{got: make(chan *http.Request, 100), body: make(chan []byte, 100), codes: codes}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		code := http.StatusNoContent
		if len(h.codes) > 0 {
			code, h.codes = h.codes[0], h.codes[1:]
		}
		h.mu.Unlock()
		if code == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(code)
		h.got <- r
		h.body <- body
	}))
	t.Cleanup(h.Close)
	return h
}

// next returns the next message, which must be signed.
func (h *hook) next(t *testing.T) notify.Message {
	t.Helper()
	r, body := <-h.got, <-h.body
	if want := notify.Signature([]byte(secret), r.Header.Get("Iad-Timestamp"), body); r.Header.Get("Iad-Signature") != want || r.Method != http.MethodPost {
		t.Errorf("%s, signature %q, want %q", r.Method, r.Header.Get("Iad-Signature"), want)
	}
	var m notify.Message
	if err := json.Unmarshal(body, &m); err != nil || r.Header.Get("Iad-Event-Id") != fmt.Sprint(m.ID) {
		t.Errorf("%s: %v", body, err)
	}
	return m
}

func settings(url string) string {
	return fmt.Sprintf("allow = [\"127.0.0.0/8\"]\n[[webhook]]\nname = \"ops\"\nurl = %q\nsecret_file = \"secret\"\n", url)
}

// A webhook gets the events that it is for, in order, again after a failure that may
// pass, and the next one after one that will not.
func TestWebhook(t *testing.T) {
	s := open(t)
	h := newHook(t, 503, 204, 400, 302)
	log, stop := run(t, s, settings(h.URL+"/token-in-url"))
	listening(t, s, "webhook/ops")
	record(t, s, fleet.Event{Kind: fleet.EventStep, Device: "a"}, fleet.Event{Kind: fleet.EventCampaign, Campaign: "spring", State: "running"},
		fleet.Event{Kind: fleet.EventThreshold, Campaign: "spring", State: "paused"}, fleet.Event{Kind: fleet.EventRun, Device: "a"},
		fleet.Event{Kind: fleet.EventQuestion, Campaign: "spring", Device: "b"}, fleet.Event{Kind: fleet.EventCampaign, Campaign: "spring", State: "done"})
	first, again := h.next(t), h.next(t)
	if first.Event.State != "running" || first.ID != again.ID || !first.Event.Time.Equal(again.Event.Time) {
		t.Errorf("%+v, again %+v", first, again)
	}
	for _, want := range []fleet.Event{{Kind: fleet.EventThreshold, State: "paused"}, {Kind: fleet.EventQuestion}, {Kind: fleet.EventCampaign, State: "done"}} {
		if m := h.next(t); m.Event.Kind != want.Kind || m.Event.State != want.State {
			t.Errorf("%+v, want %+v", m, want)
		}
	}
	stop()
	close(log)
	dropped := 0
	for text := range log {
		if strings.Contains(text, "dropped") {
			dropped++
		}
		if strings.Contains(text, "token-in-url") || strings.Contains(text, secret) {
			t.Errorf("a secret is in the log: %s", text)
		}
	}
	if dropped != 2 {
		t.Errorf("%d notifications dropped, want 2", dropped)
	}
	// After a restart it continues where it was.
	record(t, s, fleet.Event{Kind: fleet.EventCampaign, Campaign: "autumn", State: "running"})
	run(t, s, settings(h.URL))
	m := h.next(t)
	if m.Event.State == "done" { // sent, and ended before that was stored
		m = h.next(t)
	}
	if m.Event.Campaign != "autumn" {
		t.Errorf("after a restart: %+v", m)
	}
}

// Nothing outside the allowed networks is connected to, by address or by name.
func TestNetworks(t *testing.T) {
	s := open(t)
	h := newHook(t)
	for _, url := range []string{h.URL, strings.Replace(h.URL, "127.0.0.1", "localhost", 1)} {
		log, stop := run(t, s, strings.Replace(settings(url), "127.0.0.0/8", "192.0.2.0/24", 1))
		listening(t, s, "webhook/ops")
		record(t, s, fleet.Event{Kind: fleet.EventCampaign, Campaign: "spring"})
		if text := <-log; !strings.Contains(text, "dropped") || !strings.Contains(text, "is not in a network that allow lists") {
			t.Errorf("%s: %s", url, text)
		}
		stop()
	}
	if len(h.got) > 0 {
		t.Error("the webhook was called")
	}
}

// The URL of a webhook, which often holds a token, is not in the log.
func TestURLIsNotLogged(t *testing.T) {
	s := open(t)
	h := newHook(t)
	h.Close()
	log, _ := run(t, s, settings(h.URL+"/token-in-url"))
	listening(t, s, "webhook/ops")
	record(t, s, fleet.Event{Kind: fleet.EventCampaign, Campaign: "spring"})
	if text := <-log; !strings.Contains(text, "not sent yet") || strings.Contains(text, "token-in-url") {
		t.Error(text)
	}
}

// mailServer accepts mail and returns what it got.
func mailServer(t *testing.T) (address string, got chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got = make(chan string, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				text := ""
				fmt.Fprint(c, "220 test\r\n")
				for in, data := bufio.NewScanner(c), false; in.Scan(); {
					line := in.Text()
					text += line + "\n"
					switch word, _, _ := strings.Cut(strings.ToUpper(line), " "); {
					case data && line == ".":
						data = false
						got <- text
						fmt.Fprint(c, "250 ok\r\n")
					case data:
					case word == "EHLO":
						fmt.Fprint(c, "250-test\r\n250 8BITMIME\r\n")
					case word == "DATA":
						data = true
						fmt.Fprint(c, "354 go on\r\n")
					case word == "QUIT":
						fmt.Fprint(c, "221 bye\r\n")
						return
					default:
						fmt.Fprint(c, "250 ok\r\n")
					}
				}
			}()
		}
	}()
	return l.Addr().String(), got
}

// One message has the events of a while, and what devices say gets into no header.
func TestMail(t *testing.T) {
	s := open(t)
	address, got := mailServer(t)
	run(t, s, fmt.Sprintf("allow = [\"127.0.0.1/32\"]\n[mail]\nserver = %q\ntls = \"none\"\nfrom = \"iadms@example.net\"\nto = [\"ops@example.net\", \"night@example.net\"]\ngather = \"1s\"\nurl = \"https://fleet.example.net/\"\n", address))
	listening(t, s, "mail")
	record(t, s, fleet.Event{Kind: fleet.EventQuestion, Campaign: "spring", Device: "a", Text: "x\r\nBcc: evil@example.net"}, fleet.Event{Kind: fleet.EventQuestion, Campaign: "spring", Device: "b"},
		fleet.Event{Kind: fleet.EventThreshold, Campaign: "spring", State: "paused", Text: "5 devices failed"})
	session := <-got
	for _, want := range []string{"RCPT TO:<ops@example.net>", "RCPT TO:<night@example.net>"} {
		if !strings.Contains(session, want) {
			t.Errorf("missing %q in\n%s", want, session)
		}
	}
	_, text, _ := strings.Cut(session, "DATA\n")
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	if got := m.Header.Get("Subject"); got != "[iadms] campaign spring is paused: 5 devices failed (and 2 more)" || m.Header.Get("Auto-Submitted") != "auto-generated" || m.Header.Get("Bcc") != "" {
		t.Errorf("header %v", m.Header)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"device a waits for an answer: x  Bcc: evil@example.net", "device b waits", "https://fleet.example.net"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("missing %q in\n%s", want, body)
		}
	}
}

// A server that does not encrypt gets no mail where encryption is required.
func TestMailIsEncrypted(t *testing.T) {
	s := open(t)
	address, got := mailServer(t)
	log, _ := run(t, s, fmt.Sprintf("allow = [\"127.0.0.1/32\"]\n[mail]\nserver = %q\nfrom = \"a@example.net\"\nto = [\"b@example.net\"]\ngather = \"1s\"\n", address))
	listening(t, s, "mail")
	record(t, s, fleet.Event{Kind: fleet.EventCampaign, Campaign: "spring"})
	if text := <-log; !strings.Contains(text, "STARTTLS") {
		t.Error(text)
	}
	if len(got) > 0 {
		t.Errorf("sent without encryption: %s", <-got)
	}
}

func TestMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"x = 1":                    "line 1: unknown setting x",
		"allow = 3":                "line 1: allow has a value of the wrong kind",
		"allow = [\"10.0.0.1\"]":   "allow[0]:",
		settings("ftp://x"):        "webhook[0].url:",
		settings("https://u:p@x/"): "webhook[0].url:",
		settings("http://x") + "events = [\"step\"]\n":                                                                                            "webhook[0].events: unknown kind of event \"step\"",
		strings.Replace(settings("http://x"), `"ops"`, `"a b"`, 1):                                                                                "webhook[0].name:",
		strings.Replace(settings("http://x"), `"secret"`, `"short"`, 1):                                                                           "webhook[0].secret_file: short must have at least 16 bytes",
		strings.Replace(settings("http://x"), `"secret"`, `"open"`, 1):                                                                            "others may read it",
		strings.Replace(settings("http://x"), `"secret"`, `"none"`, 1):                                                                            "no such file",
		strings.Replace(settings("http://x"), `["127.0.0.0/8"]`, "[]", 1):                                                                         "allow: must list the networks",
		settings("http://x") + strings.SplitAfter(settings("http://y"), "\n")[1] + "name = \"ops\"\nurl = \"http://y\"\n":                         `"ops" is the name of two webhooks`,
		"allow = [\"10.0.0.0/8\"]\n[mail]\nserver = \"x\"\nfrom = \"a\"\ntls = \"ssl\"\n":                                                         "mail.server:",
		"allow = [\"10.0.0.0/8\"]\n[mail]\nserver = \"x:25\"\nfrom = \"a@b\"\n":                                                                   "mail.to:",
		"allow = [\"10.0.0.0/8\"]\n[mail]\nserver = \"x:25\"\nfrom = \"a@b\"\nto=[\"c@d\"]\ntls=\"none\"\nuser=\"u\"\npassword_file=\"secret\"\n": "would not be encrypted",
	} {
		if _, err := configure(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if c, err := configure(t, ""); err != nil || len(c.Webhooks) != 0 {
		t.Errorf("an empty file: %v", err)
	}
}

// A damaged position does not keep a target from getting what happens from then on.
func TestDamagedPosition(t *testing.T) {
	s := open(t)
	b, err := s.Engine.Bucket(t.Context(), engine.Settings)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(t.Context(), engine.Key("notify", "webhook/ops"), []byte("{")); err != nil {
		t.Fatal(err)
	}
	record(t, s, fleet.Event{Kind: fleet.EventCampaign, Campaign: "winter", State: "done"})
	h := newHook(t, 204)
	run(t, s, settings(h.URL))
	err = b.Watch(t.Context(), engine.Key("notify", "webhook/ops"), func(c engine.Change) error {
		if !c.Synced && string(c.Value) != "{" {
			return context.Canceled
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	record(t, s, fleet.Event{Kind: fleet.EventCampaign, Campaign: "spring", State: "running"})
	if m := h.next(t); m.Event.Campaign != "spring" {
		t.Errorf("%+v", m)
	}
	if found := s.Engine.Damage(); len(found) != 0 {
		t.Errorf("reported after it was replaced: %+v", found)
	}
}

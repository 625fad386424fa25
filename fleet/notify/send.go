package notify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wneessen/go-mail"

	"example.com/iad/fleet"
)

// Message is the body of a webhook.
type Message struct {
	// ID is the number of the event. It is the same if the event is sent again.
	ID    uint64      `json:"id"`
	Event fleet.Event `json:"event"`
}

// refused is an error that will not pass.
type refused struct{ text string }

func (r *refused) Error() string { return r.text }

// sendLimit is how long one attempt may take.
const sendLimit = 30 * time.Second

// dialer connects to addresses in networks. The address is checked that is connected to,
// not the name that it was found by.
func dialer(networks []netip.Prefix) *net.Dialer {
	return &net.Dialer{Timeout: 10 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		ip := at.Addr().Unmap().WithZone("")
		if !slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(ip) }) {
			return &refused{fmt.Sprintf("%s is not in a network that allow lists", ip)}
		}
		return nil
	}}
}

// Signature is the value of the header Iad-Signature: the HMAC-SHA256 of the timestamp, a
// dot and the body, in hexadecimal digits.
func Signature(secret []byte, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(timestamp + "."))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// client is that of all webhooks.
func client(networks []netip.Prefix) *http.Client {
	return &http.Client{
		Timeout: sendLimit,
		Transport: &http.Transport{
			DialContext: dialer(networks).DialContext, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: sendLimit,
			MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// hook sends to a webhook.
type hook struct {
	Webhook
	client *http.Client
	now    func() time.Time
}

func (h *hook) send(ctx context.Context, list []Message) error {
	body, err := json.Marshal(list[0])
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	timestamp := strconv.FormatInt(h.now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "iadmsd")
	req.Header.Set("Iad-Event-Id", strconv.FormatUint(list[0].ID, 10))
	req.Header.Set("Iad-Timestamp", timestamp)
	if h.secret != nil {
		req.Header.Set("Iad-Signature", Signature(h.secret, timestamp, body))
	}
	answer, err := h.client.Do(req)
	if err != nil {
		var not *refused
		if errors.As(err, &not) {
			return not
		}
		var inURL *url.Error // has the URL, which may hold a token
		if errors.As(err, &inURL) {
			err = inURL.Err
		}
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // for the next request on this connection
	switch code := answer.StatusCode; {
	case code < 300:
		return nil
	case code < 400:
		return &refused{fmt.Sprintf("answered %s; redirects are not followed", answer.Status)}
	case code < 500 && code != http.StatusRequestTimeout && code != http.StatusTooManyRequests:
		return &refused{"answered " + answer.Status}
	}
	return errors.New("answered " + answer.Status)
}

// mailer sends mail.
type mailer struct {
	*Mail
	networks []netip.Prefix
}

func (m *mailer) send(ctx context.Context, list []Message) error {
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := errors.Join(msg.From(m.From), msg.To(m.To...)); err != nil {
		return err
	}
	msg.SetMessageID()
	msg.SetDate()
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.Subject(m.subject(list))
	msg.SetBodyString(mail.TypeTextPlain, m.text(list))
	host, port, err := net.SplitHostPort(m.Server)
	if err != nil {
		return err
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		return err
	}
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	dial := dialer(m.networks)
	options := []mail.Option{
		mail.WithPort(number), mail.WithTimeout(sendLimit), mail.WithTLSConfig(config), mail.WithTLSPolicy(mail.NoTLS),
		mail.WithDialContextFunc(func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial.DialContext(ctx, network, address)
			if err != nil || m.TLS != implicitTLS {
				return conn, err
			}
			return tls.Client(conn, config), nil
		}),
	}
	if m.TLS == startTLS {
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if m.User != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(m.User), mail.WithPassword(m.password))
	}
	c, err := mail.NewClient(host, options...)
	if err != nil {
		return err
	}
	err = c.DialAndSendWithContext(ctx, msg)
	var not *refused
	if errors.As(err, &not) {
		return not
	}
	var failed *mail.SendError
	if errors.As(err, &failed) && !failed.IsTemp() && failed.ErrorCode() >= 500 {
		return &refused{err.Error()}
	}
	return err
}

// subject is one line that says what is most important.
func (m *mailer) subject(list []Message) string {
	weight := func(e fleet.Event) int {
		return slices.Index([]fleet.EventKind{fleet.EventCampaign, fleet.EventQuestion, fleet.EventThreshold}, e.Kind)
	}
	first := list[0].Event
	for _, one := range list {
		if weight(one.Event) > weight(first) {
			first = one.Event
		}
	}
	text := "[iadms] " + line(first)
	if more := len(list) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return text[:min(len(text), 200)]
}

// line describes an event.
func line(e fleet.Event) string {
	var b strings.Builder
	switch e.Kind {
	case fleet.EventCampaign, fleet.EventThreshold:
		fmt.Fprintf(&b, "campaign %s is %s", e.Campaign, e.State)
	case fleet.EventQuestion:
		fmt.Fprintf(&b, "campaign %s: device %s waits for an answer", e.Campaign, e.Device)
	default:
		fmt.Fprintf(&b, "%s %s", e.Kind, strings.Trim(e.Campaign+" "+e.Device+" "+e.State, " "))
	}
	if e.Text != "" {
		b.WriteString(": " + e.Text)
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, b.String())
}

// maxLines is the maximum number of events in one message.
const maxLines = 200

func (m *mailer) text(list []Message) string {
	var b strings.Builder
	for i, one := range list {
		if i == maxLines {
			fmt.Fprintf(&b, "and %d more events\n", len(list)-maxLines)
			break
		}
		fmt.Fprintf(&b, "%s  %s\n", one.Event.Time.UTC().Format("2006-01-02 15:04:05 UTC"), line(one.Event))
	}
	if m.URL != "" {
		fmt.Fprintf(&b, "\n%s\n", cmp.Or(strings.TrimRight(m.URL, "/"), m.URL))
	}
	return b.String()
}

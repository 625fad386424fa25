// Package client uses the API of the fleet service, package fleet/api, from elsewhere. It
// links nothing of the service itself.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

// Client makes requests with one token. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// retryTime is how long a request is repeated while the service is busy or restarts.
const retryTime = 30 * time.Second

// New returns a client of the service at a URL such as https://noc.example:8443. The token
// is empty for Login only. trust is nil for the certificates that the system trusts.
func New(address, token string, trust *tls.Config) (*Client, error) {
	base, err := url.Parse(address)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("%q is not the URL of a fleet service; use one such as https://noc.example:8443", address)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = trust.Clone() // the transport changes it
	return &Client{base: base.JoinPath("api", "v1"), token: token, http: &http.Client{Transport: transport}}, nil
}

// Error is a refusal of the service.
type Error struct {
	// Status is the HTTP status.
	Status int
	// Detail says what is wrong and what is right instead.
	Detail string
	// Fields are the fields that are wrong; none: the error is not about fields.
	Fields []fleet.FieldError
}

func (e *Error) Error() string {
	if len(e.Fields) == 0 {
		return e.Detail
	}
	texts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		texts[i] = f.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns what the status means: operations.ErrNotFound, ErrConflict or
// ErrForbidden; nil: something else.
func (e *Error) Unwrap() error {
	switch e.Status {
	case http.StatusNotFound:
		return operations.ErrNotFound
	case http.StatusConflict:
		return operations.ErrConflict
	case http.StatusForbidden:
		return operations.ErrForbidden
	}
	return nil
}

// request describes a request. A stream cannot be repeated.
type request struct {
	method string
	path   []string
	query  url.Values
	body   any // for JSON
	stream io.Reader
}

// do makes a request and decodes the answer into out, unless that is nil. A request that
// changes something carries a key, so that repeating it changes nothing more.
func (c *Client) do(ctx context.Context, r request, out any) error {
	response, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch out := out.(type) {
	case nil:
		_, err = io.Copy(io.Discard, response.Body)
	case *[]byte:
		*out, err = io.ReadAll(response.Body)
	default:
		err = json.NewDecoder(response.Body).Decode(out)
	}
	if err != nil {
		return fmt.Errorf("%s: the answer cannot be read: %w", response.Request.URL, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	address := c.base.JoinPath(r.escaped()...)
	address.RawQuery = r.query.Encode()
	var content []byte
	if r.body != nil {
		var err error
		if content, err = json.Marshal(r.body); err != nil {
			return nil, err
		}
	}
	key := rand.Text()
	once := func() (*http.Response, error) {
		body := r.stream
		if body == nil && content != nil {
			body = bytes.NewReader(content)
		}
		q, err := http.NewRequestWithContext(ctx, r.method, address.String(), body)
		if err != nil {
			return nil, backoff.Permanent(err)
		}
		if c.token != "" {
			q.Header.Set("Authorization", "Bearer "+c.token)
		}
		if r.method != http.MethodGet {
			q.Header.Set("Idempotency-Key", key)
		}
		switch {
		case r.stream != nil:
			q.Header.Set("Content-Type", "application/octet-stream")
		case content != nil:
			q.Header.Set("Content-Type", "application/json")
		}
		response, err := c.http.Do(q)
		if err != nil {
			if errors.As(err, new(*tls.CertificateVerificationError)) || r.stream != nil {
				err = backoff.Permanent(err)
			}
			return nil, err
		}
		if response.StatusCode < 300 {
			return response, nil
		}
		defer response.Body.Close()
		failure := errorOf(response)
		if r.stream != nil || response.StatusCode != http.StatusTooManyRequests && response.StatusCode != http.StatusServiceUnavailable && response.StatusCode != http.StatusBadGateway {
			return nil, backoff.Permanent(failure)
		}
		if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && time.Duration(seconds)*time.Second < retryTime {
			return nil, errors.Join(failure, backoff.RetryAfter(seconds))
		}
		return nil, failure
	}
	response, err := backoff.Retry(ctx, once, backoff.WithMaxElapsedTime(retryTime))
	if err != nil {
		var failure *Error
		var permanent *backoff.PermanentError
		switch {
		case errors.As(err, &failure):
			return nil, failure
		case errors.As(err, &permanent):
			err = permanent.Err
		}
		return nil, err
	}
	return response, nil
}

// escaped returns the path with what a name may contain, such as "..", escaped.
func (r request) escaped() []string {
	parts := make([]string, len(r.path))
	for i, p := range r.path {
		parts[i] = url.PathEscape(p)
		if p == "." || p == ".." {
			parts[i] = strings.ReplaceAll(p, ".", "%2E")
		}
	}
	return parts
}

// maxProblem is how much of an error is read, in bytes.
const maxProblem = 1 << 20

func errorOf(response *http.Response) *Error {
	e := &Error{Status: response.StatusCode, Detail: fmt.Sprintf("%s answers %s", response.Request.URL.Host, response.Status)}
	var problem struct {
		Detail string
		Errors []struct{ Message, Location string }
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxProblem))
	if err != nil || json.Unmarshal(text, &problem) != nil {
		return e
	}
	if problem.Detail != "" {
		e.Detail = problem.Detail
	}
	for _, f := range problem.Errors {
		e.Fields = append(e.Fields, fleet.FieldError{Field: f.Location, Problem: f.Message})
	}
	return e
}

// fetch makes a request whose answer is a T.
func fetch[T any](ctx context.Context, c *Client, r request) (T, error) {
	var out T
	err := c.do(ctx, r, &out)
	return out, err
}

func get(query url.Values, path ...string) request {
	return request{method: http.MethodGet, path: path, query: query}
}

func post(body any, path ...string) request {
	return request{method: http.MethodPost, path: path, body: body}
}

func put(body any, path ...string) request {
	return request{method: http.MethodPut, path: path, body: body}
}

func remove(path ...string) request { return request{method: http.MethodDelete, path: path} }

// Login makes a token with a password. It is valid for life; 0: 30 days.
func (c *Client) Login(ctx context.Context, user, password, name string, life time.Duration) (token string, err error) {
	body := map[string]any{"user": user, "password": password, "name": name}
	if life != 0 {
		body["life"] = life.String()
	}
	made, err := fetch[struct{ Text string }](ctx, c, post(body, "login"))
	return made.Text, err
}

// Me returns for whom the token acts.
func (c *Client) Me(ctx context.Context) (operations.Caller, error) {
	me, err := fetch[struct {
		Name, Token string
		Role        operations.Role
	}](ctx, c, get(nil, "me"))
	return operations.Caller{Name: me.Name, Token: me.Token, Role: me.Role}, err
}

// Overview returns the state of the fleet.
func (c *Client) Overview(ctx context.Context) (operations.Overview, error) {
	return fetch[operations.Overview](ctx, c, get(nil, "overview"))
}

// Devices returns a page of the inventory.
func (c *Client) Devices(ctx context.Context, q operations.DeviceQuery) (operations.DevicePage, error) {
	return fetch[operations.DevicePage](ctx, c, get(url.Values{
		"filter": {q.Filter}, "text": {q.Text}, "sort": {q.Sort}, "offset": {strconv.Itoa(q.Offset)}, "limit": {strconv.Itoa(q.Limit)},
	}, "devices"))
}

// Match says what a filter selects.
func (c *Client) Match(ctx context.Context, filter string) (operations.Match, error) {
	return fetch[operations.Match](ctx, c, get(url.Values{"filter": {filter}}, "match"))
}

// Device returns a device and its runs.
func (c *Client) Device(ctx context.Context, name string) (operations.DeviceDetail, error) {
	return fetch[operations.DeviceDetail](ctx, c, get(nil, "devices", name))
}

// PutDevice adds a device, or changes what operators set of one.
func (c *Client) PutDevice(ctx context.Context, d fleet.Device) (fleet.Device, error) {
	return fetch[fleet.Device](ctx, c, put(map[string]any{
		"address": d.Address, "root_oid": d.RootOID, "site": d.Site, "pool": d.Pool, "tags": d.Tags, "credentials": d.Credentials, "note": d.Note,
	}, "devices", d.Name))
}

// RemoveDevice removes a device.
func (c *Client) RemoveDevice(ctx context.Context, name string) error {
	return c.do(ctx, remove("devices", name), nil)
}

// Import adds and changes the devices of a file, all or none.
func (c *Client) Import(ctx context.Context, format operations.Format, data io.Reader, dryRun bool) (operations.ImportResult, error) {
	return fetch[operations.ImportResult](ctx, c, request{
		method: http.MethodPost, path: []string{"inventory"}, stream: data,
		query: url.Values{"format": {string(format)}, "dry_run": {strconv.FormatBool(dryRun)}},
	})
}

// Discover asks the addresses of a range for devices.
func (c *Client) Discover(ctx context.Context, d operations.Discovery) (operations.Discovered, error) {
	return fetch[operations.Discovered](ctx, c, post(d, "discover"))
}

// Export writes devices as a file.
func (c *Client) Export(ctx context.Context, format operations.Format, filter string, w io.Writer) error {
	response, err := c.send(ctx, get(url.Values{"format": {string(format)}, "filter": {filter}}, "inventory"))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(w, response.Body)
	return err
}

// RemoveSecret removes a secret that no device needs.
func (c *Client) RemoveSecret(ctx context.Context, name string) error {
	return c.do(ctx, remove("secrets", name), nil)
}

// PutSecret adds or replaces a secret.
func (c *Client) PutSecret(ctx context.Context, s fleet.Secret) error {
	body := map[string]any{"read_community": s.ReadCommunity, "write_community": s.WriteCommunity}
	if s.User != nil {
		body["user"] = s.User
	}
	return c.do(ctx, put(body, "secrets", s.Name), nil)
}

// Campaigns returns all campaigns, the newest first.
func (c *Client) Campaigns(ctx context.Context) ([]operations.CampaignRow, error) {
	return fetch[[]operations.CampaignRow](ctx, c, get(nil, "campaigns"))
}

// Campaign returns a campaign and how it goes.
func (c *Client) Campaign(ctx context.Context, id string) (operations.CampaignDetail, error) {
	return fetch[operations.CampaignDetail](ctx, c, get(nil, "campaigns", id))
}

// CreateCampaign makes a draft. An empty id: one is made from the title.
func (c *Client) CreateCampaign(ctx context.Context, id string, spec fleet.CampaignSpec) (fleet.Campaign, error) {
	body := map[string]any{"spec": spec}
	if id != "" {
		body["id"] = id
	}
	return fetch[fleet.Campaign](ctx, c, post(body, "campaigns"))
}

// EditCampaign changes the specification of a campaign that is not approved.
func (c *Client) EditCampaign(ctx context.Context, id string, spec fleet.CampaignSpec) (fleet.Campaign, error) {
	return fetch[fleet.Campaign](ctx, c, put(spec, "campaigns", id))
}

// ApproveCampaign approves the specification with this digest.
func (c *Client) ApproveCampaign(ctx context.Context, id, digest, comment string) (fleet.Campaign, error) {
	return fetch[fleet.Campaign](ctx, c, post(map[string]any{"digest": digest, "comment": comment}, "campaigns", id, "approve"))
}

// SubmitCampaign ends the draft.
func (c *Client) SubmitCampaign(ctx context.Context, id string) (fleet.Campaign, error) {
	return fetch[fleet.Campaign](ctx, c, post(nil, "campaigns", id, "submit"))
}

// PauseCampaign starts no further devices.
func (c *Client) PauseCampaign(ctx context.Context, id string) (fleet.Campaign, error) {
	return fetch[fleet.Campaign](ctx, c, post(nil, "campaigns", id, "pause"))
}

// ResumeCampaign continues a paused campaign.
func (c *Client) ResumeCampaign(ctx context.Context, id string) (fleet.Campaign, error) {
	return fetch[fleet.Campaign](ctx, c, post(nil, "campaigns", id, "resume"))
}

// StopCampaign ends a campaign.
func (c *Client) StopCampaign(ctx context.Context, id string) (fleet.Campaign, error) {
	return fetch[fleet.Campaign](ctx, c, post(nil, "campaigns", id, "stop"))
}

// Runs returns a page of the runs of a campaign.
func (c *Client) Runs(ctx context.Context, q operations.RunQuery) (operations.RunPage, error) {
	query := url.Values{"wave": {strconv.Itoa(q.Wave)}, "offset": {strconv.Itoa(q.Offset)}, "limit": {strconv.Itoa(q.Limit)}}
	if q.State != "" {
		query.Set("state", string(q.State))
	}
	return fetch[operations.RunPage](ctx, c, get(query, "campaigns", q.Campaign, "runs"))
}

// Questions returns the open questions in groups.
func (c *Client) Questions(ctx context.Context) ([]operations.QuestionGroup, error) {
	return fetch[[]operations.QuestionGroup](ctx, c, get(nil, "questions"))
}

// Answer answers the question of one device.
func (c *Client) Answer(ctx context.Context, campaign, device string, a fleet.Answer) error {
	return c.do(ctx, post(map[string]any{"question": a.Question, "choice": a.Choice, "image": a.Image, "backup": a.Backup}, "questions", campaign, device, "answer"), nil)
}

// AnswerGroup answers all questions of a group and returns how many.
func (c *Client) AnswerGroup(ctx context.Context, group string, a fleet.Answer) (int, error) {
	answered, err := fetch[struct{ Count int }](ctx, c, post(map[string]any{"choice": a.Choice, "image": a.Image}, "question-groups", group, "answer"))
	return answered.Count, err
}

// Backups returns the backups of a device.
func (c *Client) Backups(ctx context.Context, device string) ([]fleet.Backup, error) {
	return fetch[[]fleet.Backup](ctx, c, get(nil, "devices", device, "backups"))
}

// BackupFile returns a file of a backup.
func (c *Client) BackupFile(ctx context.Context, device, id, kind string) ([]byte, error) {
	return fetch[[]byte](ctx, c, get(nil, "devices", device, "backups", id, "files", kind))
}

// EditBackup makes an edited copy of a backup; files are by kind.
func (c *Client) EditBackup(ctx context.Context, device, id string, files map[string][]byte) (fleet.Backup, error) {
	return fetch[fleet.Backup](ctx, c, post(map[string]any{"files": files}, "devices", device, "backups", id, "edit"))
}

// Images returns the images.
func (c *Client) Images(ctx context.Context) ([]fleet.Image, error) {
	return fetch[[]fleet.Image](ctx, c, get(nil, "images"))
}

// AddImage stores a signed image.
func (c *Client) AddImage(ctx context.Context, name string, data io.Reader) (fleet.Image, error) {
	return fetch[fleet.Image](ctx, c, request{method: http.MethodPost, path: []string{"images"}, query: url.Values{"name": {name}}, stream: data})
}

// RemoveImage removes an image.
func (c *Client) RemoveImage(ctx context.Context, digest string) error {
	return c.do(ctx, remove("images", digest), nil)
}

// Workers returns the workers.
func (c *Client) Workers(ctx context.Context) ([]fleet.Worker, error) {
	return fetch[[]fleet.Worker](ctx, c, get(nil, "workers"))
}

// DrainWorker lets a worker take no further runs, or lets it take runs again.
func (c *Client) DrainWorker(ctx context.Context, id string, drain bool) error {
	return c.do(ctx, put(drain, "workers", id, "drain"), nil)
}

// Audit returns audit entries, the newest first.
func (c *Client) Audit(ctx context.Context, q operations.AuditQuery) ([]fleet.AuditEntry, error) {
	return fetch[[]fleet.AuditEntry](ctx, c, get(url.Values{
		"before": {strconv.FormatUint(q.Before, 10)}, "actor": {q.Actor}, "action": {q.Action}, "object": {q.Object}, "limit": {strconv.Itoa(q.Limit)},
	}, "audit"))
}

// Sites returns the sites.
func (c *Client) Sites(ctx context.Context) ([]fleet.Site, error) {
	return fetch[[]fleet.Site](ctx, c, get(nil, "sites"))
}

// PutSite adds or replaces a site.
func (c *Client) PutSite(ctx context.Context, s fleet.Site) error {
	return c.do(ctx, put(struct {
		Title    string `json:"title,omitempty"`
		TimeZone string `json:"time_zone,omitempty"`
		Parallel int    `json:"parallel,omitempty"`
	}{s.Title, s.TimeZone, s.Parallel}, "sites", s.Name), nil)
}

// RemoveSite removes a site without devices.
func (c *Client) RemoveSite(ctx context.Context, name string) error {
	return c.do(ctx, remove("sites", name), nil)
}

// Groups returns the groups.
func (c *Client) Groups(ctx context.Context) ([]fleet.Group, error) {
	return fetch[[]fleet.Group](ctx, c, get(nil, "groups"))
}

// PutGroup adds or replaces a group.
func (c *Client) PutGroup(ctx context.Context, g fleet.Group) error {
	return c.do(ctx, put(map[string]string{"filter": g.Filter}, "groups", g.Name), nil)
}

// RemoveGroup removes a group.
func (c *Client) RemoveGroup(ctx context.Context, name string) error {
	return c.do(ctx, remove("groups", name), nil)
}

// Schedules returns the schedules.
func (c *Client) Schedules(ctx context.Context) ([]fleet.Schedule, error) {
	return fetch[[]fleet.Schedule](ctx, c, get(nil, "schedules"))
}

// PutSchedule adds or replaces a schedule. The service sets who created it.
func (c *Client) PutSchedule(ctx context.Context, s fleet.Schedule) error {
	return c.do(ctx, put(struct {
		Spec     fleet.CampaignSpec `json:"spec"`
		Days     []string           `json:"days,omitempty"`
		At       string             `json:"at"`
		TimeZone string             `json:"time_zone,omitempty"`
		For      fleet.Duration     `json:"for,omitzero"`
		Disabled bool               `json:"disabled,omitempty"`
	}{s.Spec, s.Days, s.At, s.TimeZone, s.For, s.Disabled}, "schedules", s.Name), nil)
}

// RemoveSchedule removes a schedule. Campaigns that it created continue.
func (c *Client) RemoveSchedule(ctx context.Context, name string) error {
	return c.do(ctx, remove("schedules", name), nil)
}

// User is a user of the service.
type User struct {
	Name    string          `json:"name"`
	Role    operations.Role `json:"role"`
	Created time.Time       `json:"created"`
	By      string          `json:"by"` // who added the user
}

// Users returns the users.
func (c *Client) Users(ctx context.Context) ([]User, error) {
	return fetch[[]User](ctx, c, get(nil, "users"))
}

// PutUser adds or changes a user. An empty password: a present one is kept, and a new user
// cannot log in.
func (c *Client) PutUser(ctx context.Context, name string, role operations.Role, password string) error {
	return c.do(ctx, put(struct {
		Role     operations.Role `json:"role"`
		Password string          `json:"password,omitempty"`
	}{role, password}, "users", name), nil)
}

// RemoveUser removes a user, whose sessions and tokens end.
func (c *Client) RemoveUser(ctx context.Context, name string) error {
	return c.do(ctx, remove("users", name), nil)
}

// Nodes returns the processes that store.
func (c *Client) Nodes(ctx context.Context) ([]operations.Node, error) {
	return fetch[[]operations.Node](ctx, c, get(nil, "nodes"))
}

// RemoveNode removes a node for good that does not run.
func (c *Client) RemoveNode(ctx context.Context, name string) error {
	return c.do(ctx, remove("nodes", name), nil)
}

// Damage returns stored objects that cannot be decoded.
func (c *Client) Damage(ctx context.Context) ([]operations.Damage, error) {
	return fetch[[]operations.Damage](ctx, c, get(nil, "damage"))
}

// RemoveDamage removes a stored object that cannot be decoded, if it still has this revision.
func (c *Client) RemoveDamage(ctx context.Context, place, key string, revision uint64) error {
	r := remove("damage", place, key)
	r.query = url.Values{"revision": {strconv.FormatUint(revision, 10)}}
	return c.do(ctx, r, nil)
}

// maxEvent is the maximum length of a line of a stream of events, in bytes.
const maxEvent = 1 << 20

// Events calls handle with what happens from now on, until handle returns an error or the
// connection ends. connected is called once the service reports what happens; a campaign
// selects what concerns it.
func (c *Client) Events(ctx context.Context, campaign string, connected func(), handle func(fleet.Event) error) error {
	response, err := c.send(ctx, get(url.Values{"campaign": {campaign}}, "events"))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return readEvents(response.Body, connected, handle)
}

// readEvents calls handle with the events of a stream of server-sent events, and connected
// at the first one of any kind.
func readEvents(r io.Reader, connected func(), handle func(fleet.Event) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	var kind string
	var data []string
	for first := true; lines.Scan(); {
		line := lines.Text() // without the end of the line, CR LF included
		if name, value, _ := strings.Cut(line, ":"); name == "event" {
			kind = strings.TrimPrefix(value, " ")
		} else if name == "data" {
			data = append(data, strings.TrimPrefix(value, " "))
		}
		if line != "" || len(data) == 0 {
			continue
		}
		if first {
			first = false
			connected()
		}
		text := strings.Join(data, "\n")
		is := kind == "event"
		kind, data = "", nil
		if !is {
			continue
		}
		var e fleet.Event
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			return fmt.Errorf("an event cannot be read: %w", err)
		}
		if err := handle(e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return fmt.Errorf("the service ended the stream of events: %w", io.ErrUnexpectedEOF)
}

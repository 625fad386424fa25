// Package fleettest plays the fleet service in memory, for tests of what is in front of
// it: API, web pages, client. Campaigns advance when a test says so.
package fleettest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/campaign"
	"example.com/iad/fleet/operations"
	"example.com/iad/manager"
)

// Service is a played service. Tests may change the maps before they use it.
type Service struct {
	Clock func() time.Time
	// Watching gets a value whenever somebody begins to watch events.
	Watching chan struct{}

	mu        sync.Mutex
	devices   map[string]*fleet.Device
	sites     map[string]fleet.Site
	groups    map[string]fleet.Group
	secrets   map[string]fleet.Secret
	schedules map[string]fleet.Schedule
	campaigns map[string]*fleet.Campaign
	runs      map[string]map[string]*fleet.Run // by campaign and device
	backups   map[string][]*backup             // by device, the oldest first
	images    map[string]fleet.Image
	workers   map[string]*fleet.Worker
	damage    []operations.Damage
	nodes     []operations.Node
	audit     []fleet.AuditEntry
	watchers  map[int]chan fleet.Event
	watched   int
}

type backup struct {
	fleet.Backup
	files map[string][]byte
}

var _ operations.Service = (*Service)(nil)

// New returns a service with an empty fleet.
func New() *Service {
	return &Service{
		Clock: time.Now, devices: make(map[string]*fleet.Device), sites: make(map[string]fleet.Site), groups: make(map[string]fleet.Group),
		secrets: make(map[string]fleet.Secret), schedules: make(map[string]fleet.Schedule), campaigns: make(map[string]*fleet.Campaign),
		runs: make(map[string]map[string]*fleet.Run), backups: make(map[string][]*backup), images: make(map[string]fleet.Image),
		workers: make(map[string]*fleet.Worker), watchers: make(map[int]chan fleet.Event), Watching: make(chan struct{}, 100),
	}
}

// Add adds devices as they are, with facts.
func (s *Service) Add(devices ...fleet.Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range devices {
		s.devices[d.Name] = &d
	}
}

// AddBackup adds a backup and returns its ID.
func (s *Service) AddBackup(b fleet.Backup, files map[string][]byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addBackup(b, files).ID
}

func (s *Service) addBackup(b fleet.Backup, files map[string][]byte) *backup {
	b.ID = fmt.Sprintf("%s-%d", b.Time.UTC().Format("20060102T150405Z"), len(s.backups[b.Device])+1)
	for _, kind := range slices.Sorted(maps.Keys(files)) {
		sum := sha256.Sum256(files[kind])
		b.Files = append(b.Files, fleet.BackupFile{Kind: kind, Size: int64(len(files[kind])), Digest: hex.EncodeToString(sum[:])})
	}
	added := &backup{b, files}
	s.backups[b.Device] = append(s.backups[b.Device], added)
	return added
}

// AddWorker adds a worker.
func (s *Service) AddWorker(w fleet.Worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers[w.ID] = &w
}

// Entries returns the audit, the oldest entry first.
func (s *Service) Entries() []fleet.AuditEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.audit)
}

// Start lets a scheduled campaign run: all devices that its filter selects get a run that
// is pending.
func (s *Service) Start(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.campaigns[id]
	c.State, c.Started, c.Planned, c.Reason = fleet.CampaignRunning, s.Clock(), true, "started"
	s.runs[id] = make(map[string]*fleet.Run)
	selected, _ := s.match(c.Spec.Filter)
	for i, d := range selected {
		s.runs[id][d.Name] = &fleet.Run{
			Campaign: id, Device: d.Name, Site: d.Site, Pool: d.PoolName(), Wave: min(i, max(len(c.Spec.Waves)-1, 0)),
			State: fleet.RunPending, OldVersion: d.Facts.Version, Created: s.Clock(),
		}
	}
	s.tell(fleet.Event{Kind: fleet.EventCampaign, Campaign: id, State: string(c.State)})
}

// SetRun changes a run and tells those who watch.
func (s *Service) SetRun(id, device string, change func(*fleet.Run)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runs[id][device]
	change(r)
	kind := fleet.EventRun
	if r.State == fleet.RunWaiting {
		kind = fleet.EventQuestion
	}
	s.tell(fleet.Event{Kind: kind, Campaign: id, Device: device, State: string(r.State), Progress: r.Progress})
}

// SetCampaign changes a campaign and tells those who watch.
func (s *Service) SetCampaign(id string, change func(*fleet.Campaign)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.campaigns[id])
	s.tell(fleet.Event{Kind: fleet.EventCampaign, Campaign: id, State: string(s.campaigns[id].State)})
}

// Run returns a run.
func (s *Service) Run(id, device string) fleet.Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.runs[id][device]
}

func (s *Service) tell(e fleet.Event) {
	e.Time = s.Clock()
	for _, c := range s.watchers {
		c <- e
	}
}

// do carries out what an action permits, and records it if it changes something.
func (s *Service) do(by operations.Caller, action operations.Action, object string, f func() (before, after any, err error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entry := fleet.AuditEntry{Actor: by.Actor(), From: by.From, Action: string(action), Object: object, Request: by.Request, Content: by.Content}
	if err := by.Check(action); err != nil {
		entry.Denied = true
		s.append(entry)
		return err
	}
	before, after, err := f()
	if err != nil || action == operations.Read || action == operations.ReadAudit {
		return err
	}
	entry.Before, entry.After = text(before), text(after)
	s.append(entry)
	return nil
}

func text(v any) json.RawMessage {
	if v == nil {
		return nil
	}
	b, _ := json.Marshal(v)
	if string(b) == "null" {
		return nil
	}
	return b
}

func (s *Service) append(e fleet.AuditEntry) {
	e.Seq, e.Time = uint64(len(s.audit)+1), s.Clock()
	if len(s.audit) > 0 {
		e.Previous = s.audit[len(s.audit)-1].Digest
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%v", e))
	e.Digest = hex.EncodeToString(sum[:])
	s.audit = append(s.audit, e)
}

// read is do for an action that changes nothing.
func (s *Service) read(by operations.Caller, f func() error) error {
	return s.do(by, operations.Read, "", func() (any, any, error) { return nil, nil, f() })
}

func missing(kind, name string) error {
	return fmt.Errorf("%s %q: %w", kind, name, operations.ErrNotFound)
}

// Overview implements operations.Service, as do the following methods.
func (s *Service) Overview(_ context.Context, by operations.Caller) (o *operations.Overview, err error) {
	err = s.read(by, func() error {
		o = &operations.Overview{Devices: len(s.devices), Workers: len(s.workers), Damaged: len(s.damage), Time: s.Clock()}
		versions, models := make(map[string]int), make(map[string]int)
		for _, d := range s.devices {
			if d.Contact.Problem != "" {
				o.Unreachable++
			}
			if d.Facts != nil {
				versions[d.Facts.Version]++
				models[d.Facts.Model]++
			}
		}
		o.Versions, o.Models = counts(versions), counts(models)
		for _, c := range s.campaigns {
			if !c.State.Final() {
				o.Campaigns++
			}
		}
		for _, runs := range s.runs {
			for _, r := range runs {
				if r.State == fleet.RunWaiting {
					o.Questions++
				}
			}
		}
		return nil
	})
	return o, err
}

func counts(m map[string]int) []operations.Count {
	var list []operations.Count
	for _, v := range slices.Sorted(maps.Keys(m)) {
		list = append(list, operations.Count{Value: v, Count: m[v]})
	}
	slices.SortStableFunc(list, func(a, b operations.Count) int { return b.Count - a.Count })
	return list
}

// match knows two kinds of filters: true, and FIELD == "VALUE" for site, version and name.
func (s *Service) match(filter string) ([]*fleet.Device, error) {
	var list []*fleet.Device
	field, value, ok := strings.Cut(filter, " == ")
	value = strings.Trim(value, `"`)
	if filter != "true" && filter != "" && (!ok || !slices.Contains([]string{"site", "version", "name"}, field)) {
		return nil, &fleet.FieldError{Field: "filter", Problem: fmt.Sprintf("cannot be understood at %.20q; write an expression such as site == \"berlin\"", filter)}
	}
	for _, name := range slices.Sorted(maps.Keys(s.devices)) {
		d := s.devices[name]
		version := ""
		if d.Facts != nil {
			version = d.Facts.Version
		}
		if !ok || map[string]string{"site": d.Site, "version": version, "name": d.Name}[field] == value {
			list = append(list, d)
		}
	}
	return list, nil
}

func paged[T any](list []T, offset, limit int) []T {
	limit = cmp.Or(limit, 50)
	return list[min(offset, len(list)):min(offset+limit, len(list))]
}

func (s *Service) Devices(_ context.Context, by operations.Caller, q operations.DeviceQuery) (p *operations.DevicePage, err error) {
	err = s.read(by, func() error {
		found, err := s.match(q.Filter)
		if err != nil {
			return err
		}
		found = slices.DeleteFunc(found, func(d *fleet.Device) bool { return !strings.Contains(d.Name+" "+d.Address, q.Text) })
		p = &operations.DevicePage{Total: len(found), Offset: q.Offset}
		for _, d := range paged(found, q.Offset, q.Limit) {
			p.Devices = append(p.Devices, *d)
		}
		return nil
	})
	return p, err
}

func (s *Service) Match(_ context.Context, by operations.Caller, filter string) (m *operations.Match, err error) {
	err = s.read(by, func() error {
		if filter == "" {
			return &fleet.FieldError{Field: "filter", Problem: `must not be empty; "true" selects all devices`}
		}
		found, err := s.match(filter)
		if err != nil {
			return err
		}
		m = &operations.Match{Count: len(found)}
		versions, sites := make(map[string]int), make(map[string]int)
		for i, d := range found {
			if i < 5 {
				m.Sample = append(m.Sample, d.Name)
			}
			versions[d.Facts.Version]++
			sites[d.Site]++
		}
		m.Versions, m.Sites = counts(versions), counts(sites)
		return nil
	})
	return m, err
}

func (s *Service) Device(_ context.Context, by operations.Caller, name string) (d *operations.DeviceDetail, err error) {
	err = s.read(by, func() error {
		found := s.devices[name]
		if found == nil {
			return missing("device", name)
		}
		d = &operations.DeviceDetail{Device: *found}
		for _, runs := range s.runs {
			if r := runs[name]; r != nil {
				d.Runs = append(d.Runs, operations.RowOf(r))
			}
		}
		slices.SortFunc(d.Runs, func(a, b operations.RunRow) int { return b.Started.Compare(a.Started) })
		return nil
	})
	return d, err
}

func (s *Service) PutDevice(_ context.Context, by operations.Caller, d fleet.Device) (out *fleet.Device, err error) {
	err = s.do(by, operations.WriteDevice, "device/"+d.Name, func() (any, any, error) {
		d.Normalize()
		if err := d.Validate(); err != nil {
			return nil, nil, err
		}
		old := s.devices[d.Name]
		if old != nil {
			d.Identity, d.Facts, d.Contact, d.ActiveRun, d.Created = old.Identity, old.Facts, old.Contact, old.ActiveRun, old.Created
		} else {
			d.Created = s.Clock()
		}
		s.devices[d.Name], out = &d, &d
		return old, d, nil
	})
	return out, err
}

func (s *Service) RemoveDevice(_ context.Context, by operations.Caller, name string) error {
	return s.do(by, operations.RemoveDevice, "device/"+name, func() (any, any, error) {
		old := s.devices[name]
		if old == nil {
			return nil, nil, missing("device", name)
		}
		delete(s.devices, name)
		return old, nil, nil
	})
}

// ImportDevices knows CSV with the columns name and address.
func (s *Service) ImportDevices(_ context.Context, by operations.Caller, format operations.Format, data io.Reader, dryRun bool) (r *operations.ImportResult, err error) {
	err = s.do(by, operations.ImportDevices, "inventory", func() (any, any, error) {
		content, err := io.ReadAll(data)
		if err != nil {
			return nil, nil, err
		}
		r = new(operations.ImportResult)
		var added []*fleet.Device
		for i, line := range strings.Split(strings.TrimSpace(string(content)), "\n")[1:] {
			name, address, _ := strings.Cut(line, ",")
			d := &fleet.Device{Name: name, Address: address, Created: s.Clock()}
			if err := d.Validate(); err != nil {
				return nil, nil, &fleet.FieldError{Field: fmt.Sprintf("line %d", i+2), Problem: err.Error()}
			}
			if s.devices[name] == nil {
				r.Added++
				added = append(added, d)
			}
		}
		if !dryRun {
			for _, d := range added {
				s.devices[d.Name] = d
			}
		}
		return nil, r, nil
	})
	return r, err
}

// Discover finds a device at every address that is not a range.
func (s *Service) Discover(_ context.Context, by operations.Caller, d operations.Discovery) (r *operations.Discovered, err error) {
	err = s.do(by, operations.DiscoverDevices, "devices", func() (any, any, error) {
		if fleet.CheckAddress(d.Range) != nil {
			return nil, nil, &fleet.FieldError{Field: "range", Problem: "must be an address"}
		}
		found := fleet.Device{Name: fleet.NameFor(d.Range), Address: d.Range, Site: d.Site, Pool: d.Pool, Tags: d.Tags, Created: s.Clock()}
		r = &operations.Discovered{Asked: 1, Devices: []operations.DiscoveredDevice{{Device: found}}}
		if d.Add {
			s.devices[found.Name] = &found
			r.Added = 1
		}
		return nil, r, nil
	})
	return r, err
}

func (s *Service) ExportDevices(_ context.Context, by operations.Caller, _ operations.Format, filter string, w io.Writer) error {
	return s.read(by, func() error {
		found, err := s.match(filter)
		if err != nil {
			return err
		}
		fmt.Fprintln(w, "name,address")
		for _, d := range found {
			fmt.Fprintf(w, "%s,%s\n", d.Name, d.Address)
		}
		return nil
	})
}

// values returns the values of a map in the order of their keys.
func values[T any](m map[string]T) []T {
	var list []T
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, m[k])
	}
	return list
}

// put stores a value that is valid.
func put[T any](s *Service, by operations.Caller, action operations.Action, object string, m map[string]T, name string, v T, invalid error) error {
	return s.do(by, action, object+"/"+name, func() (any, any, error) {
		if invalid != nil {
			return nil, nil, invalid
		}
		m[name] = v
		return nil, nil, nil
	})
}

func remove[T any](s *Service, by operations.Caller, action operations.Action, object string, m map[string]T, name string) error {
	return s.do(by, action, object+"/"+name, func() (any, any, error) {
		if _, ok := m[name]; !ok {
			return nil, nil, missing(object, name)
		}
		delete(m, name)
		return nil, nil, nil
	})
}

func (s *Service) Sites(_ context.Context, by operations.Caller) (list []fleet.Site, err error) {
	err = s.read(by, func() error { list = values(s.sites); return nil })
	return list, err
}

func (s *Service) PutSite(_ context.Context, by operations.Caller, site fleet.Site) error {
	return put(s, by, operations.WriteSite, "site", s.sites, site.Name, site, site.Validate())
}

func (s *Service) RemoveSite(_ context.Context, by operations.Caller, name string) error {
	return remove(s, by, operations.WriteSite, "site", s.sites, name)
}

func (s *Service) Groups(_ context.Context, by operations.Caller) (list []fleet.Group, err error) {
	err = s.read(by, func() error { list = values(s.groups); return nil })
	return list, err
}

func (s *Service) PutGroup(_ context.Context, by operations.Caller, g fleet.Group) error {
	return put(s, by, operations.WriteGroup, "group", s.groups, g.Name, g, g.Validate())
}

func (s *Service) RemoveGroup(_ context.Context, by operations.Caller, name string) error {
	return remove(s, by, operations.WriteGroup, "group", s.groups, name)
}

func (s *Service) Secrets(_ context.Context, by operations.Caller) (names []string, err error) {
	err = s.read(by, func() error { names = slices.Sorted(maps.Keys(s.secrets)); return nil })
	return names, err
}

func (s *Service) PutSecret(_ context.Context, by operations.Caller, secret fleet.Secret) error {
	return put(s, by, operations.WriteSecret, "secret", s.secrets, secret.Name, secret, secret.Validate())
}

func (s *Service) RemoveSecret(_ context.Context, by operations.Caller, name string) error {
	return remove(s, by, operations.WriteSecret, "secret", s.secrets, name)
}

func (s *Service) Schedules(_ context.Context, by operations.Caller) (list []fleet.Schedule, err error) {
	err = s.read(by, func() error { list = values(s.schedules); return nil })
	return list, err
}

func (s *Service) PutSchedule(_ context.Context, by operations.Caller, schedule fleet.Schedule) error {
	schedule.CreatedBy = by.Name
	return put(s, by, operations.WriteSchedule, "schedule", s.schedules, schedule.Name, schedule, schedule.Validate())
}

func (s *Service) RemoveSchedule(_ context.Context, by operations.Caller, name string) error {
	return remove(s, by, operations.WriteSchedule, "schedule", s.schedules, name)
}

// count counts the runs of a campaign in a wave; -1: in all.
func (s *Service) count(id string, wave int) (c fleet.Counts) {
	for _, r := range s.runs[id] {
		if wave < 0 || r.Wave == wave {
			c.Add(r.State, 1)
		}
	}
	return c
}

func (s *Service) Campaigns(_ context.Context, by operations.Caller) (rows []operations.CampaignRow, err error) {
	err = s.read(by, func() error {
		for _, c := range values(s.campaigns) {
			rows = append(rows, operations.CampaignRow{Campaign: *c, Counts: s.count(c.ID, -1)})
		}
		slices.SortStableFunc(rows, func(a, b operations.CampaignRow) int { return b.Campaign.Created.Compare(a.Campaign.Created) })
		return nil
	})
	return rows, err
}

func (s *Service) Campaign(_ context.Context, by operations.Caller, id string) (d *operations.CampaignDetail, err error) {
	err = s.read(by, func() error {
		c := s.campaigns[id]
		if c == nil {
			return missing("campaign", id)
		}
		d = &operations.CampaignDetail{Campaign: *c, Digest: c.Spec.Digest(), Total: s.count(id, -1)}
		for i := range max(1, len(c.Spec.Waves)) {
			d.Waves = append(d.Waves, s.count(id, i))
		}
		failures := make(map[string]int)
		for _, r := range values(s.runs[id]) {
			if r.State == fleet.RunFailed {
				failures[r.Failure.Cause]++
			}
			if r.State == fleet.RunRunning {
				d.Slowest = append(d.Slowest, operations.RowOf(r))
			}
		}
		d.Failures = counts(failures)
		return nil
	})
	return d, err
}

func (s *Service) CreateCampaign(_ context.Context, by operations.Caller, id string, spec fleet.CampaignSpec) (out *fleet.Campaign, err error) {
	if id == "" {
		id = strings.ToLower(fleet.NameFor(spec.Title))
		id = strings.Trim(id[:min(len(id), 26)], "-")
	}
	action := operations.CreateCampaign
	if spec.Operation == fleet.OperationRotate {
		action = operations.RotateCredentials
	}
	err = s.do(by, action, "campaign/"+id, func() (any, any, error) {
		if old := s.campaigns[id]; old != nil {
			if by.Request != "" && by.Request == s.requestOf("campaign/"+id) {
				out = old
				return nil, nil, nil
			}
			return nil, nil, fmt.Errorf("campaign %q: %w: it exists already; choose another ID", id, operations.ErrConflict)
		}
		if err := spec.Validate(); err != nil {
			return nil, nil, err
		}
		if err := fleet.CheckID(id); err != nil {
			return nil, nil, &fleet.FieldError{Field: "id", Problem: err.Error()}
		}
		if _, err := s.match(spec.Filter); err != nil {
			return nil, nil, err
		}
		if _, ok := s.images[spec.Image]; !ok && spec.Image != "" {
			return nil, nil, &fleet.FieldError{Field: "image", Problem: "is not stored; add it on the page Images first"}
		}
		if spec.Renew != "" {
			spec.Credentials = id
		}
		c := &fleet.Campaign{ID: id, Spec: spec, State: fleet.CampaignDraft, Created: s.Clock(), CreatedBy: by.Name}
		s.campaigns[id], out = c, c
		return nil, c, nil
	})
	return copied(out), err
}

func (s *Service) requestOf(object string) string {
	for _, e := range s.audit {
		if e.Object == object {
			return e.Request
		}
	}
	return ""
}

func copied(c *fleet.Campaign) *fleet.Campaign {
	if c == nil {
		return nil
	}
	d := *c
	return &d
}

func (s *Service) command(by operations.Caller, action operations.Action, id string, f func(*fleet.Campaign) error) (out *fleet.Campaign, err error) {
	err = s.do(by, action, "campaign/"+id, func() (any, any, error) {
		c := s.campaigns[id]
		if c == nil {
			return nil, nil, missing("campaign", id)
		}
		before := *c
		if err := f(c); err != nil {
			var state *campaign.StateError
			var approval *campaign.ApprovalError
			if errors.As(err, &state) || errors.As(err, &approval) {
				return nil, nil, fmt.Errorf("%w: %w", operations.ErrConflict, err)
			}
			return nil, nil, err
		}
		out = copied(c)
		s.tell(fleet.Event{Kind: fleet.EventCampaign, Campaign: id, State: string(c.State)})
		return before, c, nil
	})
	return out, err
}

func (s *Service) EditCampaign(_ context.Context, by operations.Caller, id string, spec fleet.CampaignSpec) (*fleet.Campaign, error) {
	return s.command(by, operations.EditCampaign, id, func(c *fleet.Campaign) error {
		if err := spec.Validate(); err != nil {
			return err
		}
		if spec.Renew != "" {
			spec.Credentials = id
		}
		return campaign.Edit(c, spec, by.Name)
	})
}

func (s *Service) SubmitCampaign(_ context.Context, by operations.Caller, id string) (*fleet.Campaign, error) {
	return s.command(by, operations.SubmitCampaign, id, func(c *fleet.Campaign) error { return campaign.Submit(c, by.Name) })
}

func (s *Service) ApproveCampaign(_ context.Context, by operations.Caller, id, digest, comment string) (*fleet.Campaign, error) {
	return s.command(by, operations.ApproveCampaign, id, func(c *fleet.Campaign) error {
		return campaign.Approve(c, by.Name, comment, digest, s.Clock())
	})
}

func (s *Service) PauseCampaign(_ context.Context, by operations.Caller, id string) (*fleet.Campaign, error) {
	return s.command(by, operations.PauseCampaign, id, func(c *fleet.Campaign) error { return campaign.Pause(c, by.Name) })
}

func (s *Service) ResumeCampaign(_ context.Context, by operations.Caller, id string) (*fleet.Campaign, error) {
	return s.command(by, operations.ResumeCampaign, id, func(c *fleet.Campaign) error {
		return campaign.Resume(c, by.Name, s.count(id, -1), s.count(id, c.Wave))
	})
}

func (s *Service) StopCampaign(_ context.Context, by operations.Caller, id string) (*fleet.Campaign, error) {
	return s.command(by, operations.StopCampaign, id, func(c *fleet.Campaign) error { return campaign.Stop(c, by.Name, s.Clock()) })
}

func (s *Service) Runs(_ context.Context, by operations.Caller, q operations.RunQuery) (p *operations.RunPage, err error) {
	err = s.read(by, func() error {
		if s.campaigns[q.Campaign] == nil {
			return missing("campaign", q.Campaign)
		}
		var rows []operations.RunRow
		for _, r := range values(s.runs[q.Campaign]) {
			if (q.State == "" || r.State == q.State) && (q.Wave < 0 || r.Wave == q.Wave) {
				rows = append(rows, operations.RowOf(r))
			}
		}
		p = &operations.RunPage{Runs: paged(rows, q.Offset, q.Limit), Total: len(rows), Offset: q.Offset}
		return nil
	})
	return p, err
}

func (s *Service) groupsOfQuestions() []operations.QuestionGroup {
	byGroup := make(map[string]*operations.QuestionGroup)
	for _, id := range slices.Sorted(maps.Keys(s.runs)) {
		for _, r := range values(s.runs[id]) {
			if r.State != fleet.RunWaiting || r.Question == nil {
				continue
			}
			key := r.Question.Group()
			if byGroup[key] == nil {
				byGroup[key] = &operations.QuestionGroup{Group: key}
			}
			byGroup[key].Questions = append(byGroup[key].Questions, *r.Question)
			byGroup[key].Count++
		}
	}
	var list []operations.QuestionGroup
	for _, g := range values(byGroup) {
		list = append(list, *g)
	}
	slices.SortStableFunc(list, func(a, b operations.QuestionGroup) int { return b.Count - a.Count })
	return list
}

func (s *Service) Questions(_ context.Context, by operations.Caller) (list []operations.QuestionGroup, err error) {
	err = s.read(by, func() error { list = s.groupsOfQuestions(); return nil })
	return list, err
}

func (s *Service) answer(by operations.Caller, r *fleet.Run, a fleet.Answer) error {
	if r.State != fleet.RunWaiting || r.Question == nil {
		return fmt.Errorf("campaign %s, device %s: %w: no question is open", r.Campaign, r.Device, operations.ErrConflict)
	}
	if err := a.Check(r.Question); err != nil {
		return err
	}
	a.By, a.Time = by.Name, s.Clock()
	r.Answer, r.State = &a, fleet.RunQueued
	s.tell(fleet.Event{Kind: fleet.EventRun, Campaign: r.Campaign, Device: r.Device, State: string(r.State)})
	return nil
}

func (s *Service) Answer(_ context.Context, by operations.Caller, id, device string, a fleet.Answer) error {
	return s.do(by, operations.AnswerQuestion, "run/"+id+"/"+device, func() (any, any, error) {
		r := s.runs[id][device]
		if r == nil {
			return nil, nil, missing("run", id+"/"+device)
		}
		return nil, a, s.answer(by, r, a)
	})
}

func (s *Service) AnswerGroup(_ context.Context, by operations.Caller, group string, a fleet.Answer) (n int, err error) {
	err = s.do(by, operations.AnswerQuestion, "question-group/"+group, func() (any, any, error) {
		for _, g := range s.groupsOfQuestions() {
			if g.Group != group {
				continue
			}
			for _, q := range g.Questions {
				a.Question, a.Group = q.ID, true
				if err := s.answer(by, s.runs[q.Campaign][q.Device], a); err != nil {
					return nil, nil, err
				}
				n++
			}
		}
		if n == 0 {
			return nil, nil, missing("group of questions", group)
		}
		return nil, a, nil
	})
	return n, err
}

func (s *Service) Backups(_ context.Context, by operations.Caller, device string) (list []fleet.Backup, err error) {
	err = s.read(by, func() error {
		if s.devices[device] == nil {
			return missing("device", device)
		}
		for _, b := range slices.Backward(s.backups[device]) {
			list = append(list, b.Backup)
		}
		return nil
	})
	return list, err
}

func (s *Service) backup(device, id string) (*backup, error) {
	for _, b := range s.backups[device] {
		if b.ID == id {
			return b, nil
		}
	}
	return nil, missing("backup", device+"/"+id)
}

func (s *Service) BackupFile(_ context.Context, by operations.Caller, device, id, kind string) (data []byte, err error) {
	err = s.do(by, operations.ReadBackup, "backup/"+device+"/"+id+"/"+kind, func() (any, any, error) {
		b, err := s.backup(device, id)
		if err != nil {
			return nil, nil, err
		}
		content, ok := b.files[kind]
		if !ok {
			return nil, nil, missing("file", kind)
		}
		data = bytes.Clone(content)
		return nil, nil, nil
	})
	return data, err
}

func (s *Service) EditBackup(_ context.Context, by operations.Caller, device, id string, files map[string][]byte) (out *fleet.Backup, err error) {
	err = s.do(by, operations.EditBackup, "backup/"+device+"/"+id, func() (any, any, error) {
		b, err := s.backup(device, id)
		if err != nil {
			return nil, nil, err
		}
		changed := maps.Clone(b.files)
		for kind, content := range files {
			old, ok := changed[kind]
			if !ok {
				return nil, nil, &fleet.FieldError{Field: "files." + kind, Problem: "the backup has no such file"}
			}
			if err := fleet.CheckEdit(kind, old, content); err != nil {
				return nil, nil, err
			}
			changed[kind] = content
		}
		edited := s.addBackup(fleet.Backup{
			Device: device, DeviceID: b.DeviceID, Version: b.Version, Format: b.Format, EditOf: id, By: by.Name, Time: s.Clock(),
		}, changed)
		out = &edited.Backup
		return nil, edited.Backup, nil
	})
	return out, err
}

func (s *Service) PinBackup(_ context.Context, by operations.Caller, device, id string, pinned bool) (out *fleet.Backup, err error) {
	err = s.do(by, operations.PinBackup, "backup/"+device+"/"+id, func() (any, any, error) {
		b, err := s.backup(device, id)
		if err != nil {
			return nil, nil, err
		}
		b.Pinned = pinned
		out = &b.Backup
		return nil, b.Backup, nil
	})
	return out, err
}

func (s *Service) Images(_ context.Context, by operations.Caller) (list []fleet.Image, err error) {
	err = s.read(by, func() error { list = values(s.images); return nil })
	return list, err
}

// AddImage takes any file that begins with "image VERSION".
func (s *Service) AddImage(_ context.Context, by operations.Caller, name string, data io.Reader) (out *fleet.Image, err error) {
	err = s.do(by, operations.AddImage, "image", func() (any, any, error) {
		content, err := io.ReadAll(data)
		if err != nil {
			return nil, nil, err
		}
		version, ok := strings.CutPrefix(strings.TrimSpace(string(content)), "image ")
		if !ok {
			return nil, nil, &fleet.FieldError{Field: "file", Problem: "is not an image; build one with iadms image build"}
		}
		sum := sha256.Sum256(content)
		i := fleet.Image{
			Digest: hex.EncodeToString(sum[:]), Version: version, Hardware: []string{"IAD-4FXS"}, Size: int64(len(content)), Format: 2,
			File: name, Added: s.Clock(), AddedBy: by.Name,
		}
		s.images[i.Digest], out = i, &i
		return nil, i, nil
	})
	return out, err
}

func (s *Service) RemoveImage(_ context.Context, by operations.Caller, digest string) error {
	return remove(s, by, operations.RemoveImage, "image", s.images, digest)
}

func (s *Service) Workers(_ context.Context, by operations.Caller) (list []fleet.Worker, err error) {
	err = s.read(by, func() error {
		for _, w := range values(s.workers) {
			list = append(list, *w)
		}
		return nil
	})
	return list, err
}

func (s *Service) Nodes(_ context.Context, by operations.Caller) (list []operations.Node, err error) {
	err = s.read(by, func() error { list = slices.Clone(s.nodes); return nil })
	return list, err
}

func (s *Service) RemoveNode(_ context.Context, by operations.Caller, name string) error {
	return s.do(by, operations.RemoveNode, "node/"+name, func() (any, any, error) {
		i := slices.IndexFunc(s.nodes, func(n operations.Node) bool { return n.Name == name })
		switch {
		case i < 0:
			return nil, nil, missing("node", name)
		case !s.nodes[i].Offline:
			return nil, nil, fmt.Errorf("node %s runs: %w", name, operations.ErrConflict)
		}
		s.nodes = slices.Delete(s.nodes, i, i+1)
		return nil, nil, nil
	})
}

// AddNode adds a node.
func (s *Service) AddNode(n operations.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes = append(s.nodes, n)
}

func (s *Service) Damage(_ context.Context, by operations.Caller) (list []operations.Damage, err error) {
	err = s.read(by, func() error { list = slices.Clone(s.damage); return nil })
	return list, err
}

func (s *Service) RemoveDamage(_ context.Context, by operations.Caller, place, key string, revision uint64) error {
	return s.do(by, operations.RemoveDamage, place+"/"+key, func() (any, any, error) {
		i := slices.IndexFunc(s.damage, func(d operations.Damage) bool { return d.Place == place && d.Key == key && d.Revision == revision })
		if i < 0 {
			return nil, nil, missing("damaged object", key)
		}
		d := s.damage[i]
		s.damage = slices.Delete(s.damage, i, i+1)
		return d, nil, nil
	})
}

// AddDamage adds something damaged.
func (s *Service) AddDamage(d operations.Damage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damage = append(s.damage, d)
}

func (s *Service) DrainWorker(_ context.Context, by operations.Caller, id string, drain bool) error {
	return s.do(by, operations.DrainWorker, "worker/"+id, func() (any, any, error) {
		w := s.workers[id]
		if w == nil {
			return nil, nil, missing("worker", id)
		}
		w.Drain = drain
		return nil, nil, nil
	})
}

func (s *Service) Audit(_ context.Context, by operations.Caller, q operations.AuditQuery) (list []fleet.AuditEntry, err error) {
	err = s.do(by, operations.ReadAudit, "audit", func() (any, any, error) {
		for _, e := range slices.Backward(s.audit) {
			if (q.Before == 0 || e.Seq < q.Before) && strings.HasPrefix(e.Actor, q.Actor) && strings.HasPrefix(e.Action, q.Action) &&
				strings.HasPrefix(e.Object, q.Object) && len(list) < cmp.Or(q.Limit, 50) {
				list = append(list, e)
			}
		}
		return nil, nil, nil
	})
	return list, err
}

func (s *Service) Record(_ context.Context, e fleet.AuditEntry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.append(e)
	return nil
}

func (s *Service) Repeated(_ context.Context, by operations.Caller, object string, actions []string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.audit {
		if by.Request == "" || e.Request != by.Request || e.Denied || e.Actor != by.Actor() || !slices.Contains(actions, e.Action) {
			continue
		}
		if object != "" && e.Object != object || e.Content != by.Content {
			return true, &fleet.FieldError{Field: "request", Problem: "was used before"}
		}
		return true, nil
	}
	return false, nil
}

func (s *Service) Events(ctx context.Context, by operations.Caller, id string, handle func(fleet.Event) error) error {
	if err := by.Check(operations.Read); err != nil {
		return err
	}
	events := make(chan fleet.Event, 1000)
	s.mu.Lock()
	key := s.watched
	s.watched++
	s.watchers[key] = events
	s.mu.Unlock()
	s.Watching <- struct{}{}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, key)
	}()
	for {
		select {
		case e := <-events:
			if id == "" || e.Campaign == id {
				if err := handle(e); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Ask lets a run wait for the answer to a question.
func (s *Service) Ask(id, device, cause, text string, choices ...fleet.Choice) {
	s.SetRun(id, device, func(r *fleet.Run) {
		r.State = fleet.RunWaiting
		r.Question = &fleet.Question{
			ID: fmt.Sprintf("%s-%d", device, r.Attempt), Campaign: id, Device: device, Step: manager.Step(150), Cause: cause, Text: text, Advice: "retryLater",
			Attempt: 1, Choices: choices, Time: s.Clock(),
		}
		if backups := s.backups[device]; len(backups) > 0 {
			r.Question.Backup = backups[len(backups)-1].ID
		}
	})
}

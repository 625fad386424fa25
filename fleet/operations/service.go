package operations

import (
	"context"
	"errors"
	"io"
	"time"

	"example.com/iad/fleet"
)

// Errors that a Service's errors wrap. What else is wrong with the input is a
// *fleet.FieldError, or several that are joined.
var (
	// ErrNotFound: there is no object with this name.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the object is not in the state that the caller assumed.
	ErrConflict = errors.New("conflict")
	// ErrForbidden: the caller's role does not permit it.
	ErrForbidden = errors.New("not permitted")
)

// Service carries out the operations. Every method checks the caller's role, and every
// change is in the audit before the method returns.
type Service interface {
	Overview(ctx context.Context, by Caller) (*Overview, error)

	// Devices returns a page of the inventory.
	Devices(ctx context.Context, by Caller, q DeviceQuery) (*DevicePage, error)
	// Match says what a filter selects; a filter that does not compile is a FieldError.
	Match(ctx context.Context, by Caller, filter string) (*Match, error)
	// Device returns a device and its runs, the newest first.
	Device(ctx context.Context, by Caller, name string) (*DeviceDetail, error)
	// PutDevice adds a device, or changes what operators set of one.
	PutDevice(ctx context.Context, by Caller, d fleet.Device) (*fleet.Device, error)
	RemoveDevice(ctx context.Context, by Caller, name string) error
	// ImportDevices adds and changes the devices of a file. It changes all or nothing.
	ImportDevices(ctx context.Context, by Caller, format Format, data io.Reader, dryRun bool) (*ImportResult, error)
	// Discover asks all addresses of a range for devices, and adds those that are not in the
	// inventory if it is to.
	Discover(ctx context.Context, by Caller, d Discovery) (*Discovered, error)
	ExportDevices(ctx context.Context, by Caller, format Format, filter string, w io.Writer) error

	Sites(ctx context.Context, by Caller) ([]fleet.Site, error)
	PutSite(ctx context.Context, by Caller, s fleet.Site) error
	RemoveSite(ctx context.Context, by Caller, name string) error
	Groups(ctx context.Context, by Caller) ([]fleet.Group, error)
	PutGroup(ctx context.Context, by Caller, g fleet.Group) error
	RemoveGroup(ctx context.Context, by Caller, name string) error
	// Secrets returns the names only: nothing returns what is sealed.
	Secrets(ctx context.Context, by Caller) ([]string, error)
	PutSecret(ctx context.Context, by Caller, s fleet.Secret) error
	RemoveSecret(ctx context.Context, by Caller, name string) error
	Schedules(ctx context.Context, by Caller) ([]fleet.Schedule, error)
	PutSchedule(ctx context.Context, by Caller, s fleet.Schedule) error
	RemoveSchedule(ctx context.Context, by Caller, name string) error

	// Campaigns returns all campaigns, the newest first.
	Campaigns(ctx context.Context, by Caller) ([]CampaignRow, error)
	Campaign(ctx context.Context, by Caller, id string) (*CampaignDetail, error)
	// CreateCampaign makes a draft. An empty id: one is made from the title.
	CreateCampaign(ctx context.Context, by Caller, id string, spec fleet.CampaignSpec) (*fleet.Campaign, error)
	EditCampaign(ctx context.Context, by Caller, id string, spec fleet.CampaignSpec) (*fleet.Campaign, error)
	SubmitCampaign(ctx context.Context, by Caller, id string) (*fleet.Campaign, error)
	// ApproveCampaign approves the specification with this digest.
	ApproveCampaign(ctx context.Context, by Caller, id, digest, comment string) (*fleet.Campaign, error)
	PauseCampaign(ctx context.Context, by Caller, id string) (*fleet.Campaign, error)
	ResumeCampaign(ctx context.Context, by Caller, id string) (*fleet.Campaign, error)
	StopCampaign(ctx context.Context, by Caller, id string) (*fleet.Campaign, error)
	Runs(ctx context.Context, by Caller, q RunQuery) (*RunPage, error)

	// Questions returns the open questions in groups, the largest first.
	Questions(ctx context.Context, by Caller) ([]QuestionGroup, error)
	// Answer answers the question of one run.
	Answer(ctx context.Context, by Caller, campaign, device string, a fleet.Answer) error
	// AnswerGroup answers all questions of a group and returns how many.
	AnswerGroup(ctx context.Context, by Caller, group string, a fleet.Answer) (int, error)

	// Backups returns the backups of a device, the newest first.
	Backups(ctx context.Context, by Caller, device string) ([]fleet.Backup, error)
	// BackupFile returns the content of one file of a backup.
	BackupFile(ctx context.Context, by Caller, device, id, kind string) ([]byte, error)
	// EditBackup makes an edited copy of a backup. files are by kind; those that are missing
	// stay as they are.
	EditBackup(ctx context.Context, by Caller, device, id string, files map[string][]byte) (*fleet.Backup, error)
	PinBackup(ctx context.Context, by Caller, device, id string, pinned bool) (*fleet.Backup, error)

	Images(ctx context.Context, by Caller) ([]fleet.Image, error)
	// AddImage verifies and stores an image that was signed with a key that is trusted.
	AddImage(ctx context.Context, by Caller, name string, data io.Reader) (*fleet.Image, error)
	RemoveImage(ctx context.Context, by Caller, digest string) error

	Workers(ctx context.Context, by Caller) ([]fleet.Worker, error)
	// DrainWorker lets a worker take no further runs, or lets it take runs again.
	DrainWorker(ctx context.Context, by Caller, id string, drain bool) error

	// Nodes returns the processes that store, the leader first.
	Nodes(ctx context.Context, by Caller) ([]Node, error)
	// RemoveNode removes a node for good that does not run, so that one of another name can
	// take its place.
	RemoveNode(ctx context.Context, by Caller, name string) error

	// Damage returns what is stored, cannot be decoded and is skipped, as far as this node has
	// read it.
	Damage(ctx context.Context, by Caller) ([]Damage, error)
	// RemoveDamage removes what is damaged, if it still has this revision: the rest continues
	// as if it had never been there.
	RemoveDamage(ctx context.Context, by Caller, place, key string, revision uint64) error

	// Audit returns entries, the newest first.
	Audit(ctx context.Context, by Caller, q AuditQuery) ([]fleet.AuditEntry, error)
	// Record adds an entry about something that the service does not do itself: access, and
	// what was denied before it reached the service. Seq, Time and digests are set here, and
	// Content, which is Caller.Content, is replaced by its digest with the service's key.
	Record(ctx context.Context, e fleet.AuditEntry) error
	// Repeated reports whether the caller's request was carried out before as one of the
	// actions, for what the service does not do itself. The error is a FieldError if the ID of
	// the request was used for another object (empty: any is right) or other content.
	Repeated(ctx context.Context, by Caller, object string, actions []string) (bool, error)
	// Events calls handle with what happens from now on, until ctx ends or handle returns an
	// error. A campaign: only with what concerns it.
	Events(ctx context.Context, by Caller, campaign string, handle func(fleet.Event) error) error
}

// Format is a format of inventory files.
type Format string

// The formats.
const (
	CSV  Format = "csv"
	JSON Format = "json"
	TOML Format = "toml" // that of the configuration file of iadms; for import only
)

// MaxPage is the maximum number of rows on a page.
const MaxPage = 1000

// Overview is the state of the fleet.
type Overview struct {
	Devices     int       `json:"devices"`
	Unreachable int       `json:"unreachable"`
	Versions    []Count   `json:"versions"` // devices by version of their software
	Models      []Count   `json:"models"`
	Campaigns   int       `json:"campaigns"` // those that have not ended
	Questions   int       `json:"questions"`
	Workers     int       `json:"workers"`
	Damaged     int       `json:"damaged"` // see Service.Damage
	Time        time.Time `json:"time"`    // of what is shown
}

// Count is a number of objects with one value.
type Count struct {
	Value string `json:"value"`
	Count int    `json:"count"`
}

// DeviceQuery selects a page of devices.
type DeviceQuery struct {
	// Filter is in the language of package fleet/inventory; empty: all.
	Filter string
	// Text is a part of a name, an address or a device ID; empty: all.
	Text string
	// Sort is name, site, version or contact, with "-" before it for descending order;
	// empty: name.
	Sort string
	// Offset and Limit select the page; Limit 0: 50, at most MaxPage.
	Offset, Limit int
}

// DevicePage is a page of devices.
type DevicePage struct {
	Devices []fleet.Device `json:"devices"`
	Total   int            `json:"total"` // of all pages
	Offset  int            `json:"offset"`
}

// Match says what a filter selects.
type Match struct {
	Count int `json:"count"`
	// Sample are the names of some of the devices.
	Sample []string `json:"sample"`
	// Versions and Sites are the numbers of devices by version and site.
	Versions []Count `json:"versions"`
	Sites    []Count `json:"sites"`
}

// DeviceDetail is a device and what happened to it.
type DeviceDetail struct {
	Device fleet.Device `json:"device"`
	Runs   []RunRow     `json:"runs"`
}

// ImportResult says what an import did, or would do.
type ImportResult struct {
	Added     int `json:"added"`
	Changed   int `json:"changed"`
	Unchanged int `json:"unchanged"`
}

// MaxDiscovery is the maximum number of addresses that Discover asks.
const MaxDiscovery = 4096

// Discovery is a search for devices.
type Discovery struct {
	// Range is an address, FIRST-LAST or a network such as 192.0.2.0/24, inside the networks
	// that an admin of the machine allows.
	Range string `json:"range"`
	// Port of the SNMP agents; 0: 161.
	Port uint16 `json:"port,omitempty"`
	// Secrets are the names of credentials to try, one after the other; none: default.
	Secrets []string `json:"secrets,omitempty"`
	// Add: devices that are not in the inventory are added, with Site, Pool and Tags.
	Add  bool     `json:"add,omitempty"`
	Site string   `json:"site,omitempty"`
	Pool string   `json:"pool,omitempty"`
	Tags []string `json:"tags,omitempty"`
}

// Discovered is what was found.
type Discovered struct {
	Asked   int                `json:"asked"` // addresses
	Added   int                `json:"added"`
	Devices []DiscoveredDevice `json:"devices"` // by address
}

// DiscoveredDevice is a device that answered.
type DiscoveredDevice struct {
	Device fleet.Device `json:"device"`
	// Known is the name of the unit in the inventory; empty: it is not there.
	Known string `json:"known,omitempty"`
	// Problem says why it was not added; empty: it was, or was not to be.
	Problem string `json:"problem,omitempty"`
}

// CampaignRow is a campaign in a list.
type CampaignRow struct {
	Campaign fleet.Campaign `json:"campaign"`
	Counts   fleet.Counts   `json:"counts"`
}

// CampaignDetail is a campaign and how it goes.
type CampaignDetail struct {
	Campaign fleet.Campaign `json:"campaign"`
	// Digest is that of the specification, which ApproveCampaign requires.
	Digest string `json:"digest"`
	// Total are the counts of all runs, Waves those of each wave. Before the campaign is
	// planned they are 0.
	Total fleet.Counts   `json:"total"`
	Waves []fleet.Counts `json:"waves"`
	// Failures are the numbers of failed runs by cause, the most frequent one first.
	Failures []Count `json:"failures"`
	// Slowest are the runs in progress that began first, at most 10.
	Slowest []RunRow `json:"slowest"`
}

// RunQuery selects a page of the runs of a campaign.
type RunQuery struct {
	Campaign string
	State    fleet.RunState // empty: all
	Wave     int            // -1: all
	// Offset and Limit select the page; Limit 0: 50, at most MaxPage.
	Offset, Limit int
}

// RunPage is a page of runs.
type RunPage struct {
	Runs   []RunRow `json:"runs"`
	Total  int      `json:"total"` // of all pages
	Offset int      `json:"offset"`
}

// RunRow is a run without the manager's journal.
type RunRow struct {
	Campaign   string            `json:"campaign"`
	Device     string            `json:"device"`
	Site       string            `json:"site,omitempty"`
	Wave       int               `json:"wave"`
	State      fleet.RunState    `json:"state"`
	Attempt    int               `json:"attempt"`
	RetryAt    time.Time         `json:"retry_at,omitzero"`
	Worker     string            `json:"worker,omitempty"`
	Progress   fleet.Progress    `json:"progress,omitzero"`
	Failure    *fleet.RunFailure `json:"failure,omitempty"`
	OldVersion string            `json:"old_version,omitempty"`
	NewVersion string            `json:"new_version,omitempty"`
	Backup     string            `json:"backup,omitempty"`
	Change     *fleet.Change     `json:"change,omitempty"`
	Started    time.Time         `json:"started,omitzero"`
	Ended      time.Time         `json:"ended,omitzero"`
}

// RowOf returns the row of a run.
func RowOf(r *fleet.Run) RunRow {
	row := RunRow{
		Campaign: r.Campaign, Device: r.Device, Site: r.Site, Wave: r.Wave, State: r.State, Attempt: r.Attempt, RetryAt: r.RetryAt,
		Progress: r.Progress, Failure: r.Failure, OldVersion: r.OldVersion, NewVersion: r.NewVersion, Backup: r.Backup, Change: r.Change,
		Started: r.Started, Ended: r.Ended,
	}
	if r.Claim != nil {
		row.Worker = r.Claim.Worker
	}
	return row
}

// QuestionGroup are open questions with the same campaign, step, cause and choices.
type QuestionGroup struct {
	// Group is fleet.Question.Group.
	Group string `json:"group"`
	// Questions are the oldest ones, at most 100.
	Questions []fleet.Question `json:"questions"`
	Count     int              `json:"count"`
}

// Node is a process that stores.
type Node struct {
	Name string `json:"name"`
	// Leader: it is the first that is asked.
	Leader bool `json:"leader"`
	// Current: it has everything that is stored.
	Current bool `json:"current"`
	Offline bool `json:"offline"`
}

// Damage is something stored that cannot be decoded.
type Damage struct {
	// Place is the kind of object, such as run, or EVENT or AUDIT for the entry of a log with
	// the number Revision.
	Place string `json:"place"`
	// Key identifies the object in its place, and Parts are the names that it consists of.
	Key      string    `json:"key"`
	Parts    []string  `json:"parts"`
	Revision uint64    `json:"revision"`
	Problem  string    `json:"problem"`
	Noticed  time.Time `json:"noticed"`
	// Removable: RemoveDamage can remove it. Entries of logs stay, and credentials are
	// replaced or removed by their name.
	Removable bool `json:"removable"`
}

// AuditQuery selects audit entries.
type AuditQuery struct {
	// Before is the number of the entry before which the result begins; 0: with the newest.
	Before uint64
	// Actor, Action and Object are the beginnings of these fields; empty: all.
	Actor, Action, Object string
	// Limit is at most MaxPage; 0: 50.
	Limit int
}

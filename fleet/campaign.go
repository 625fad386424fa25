package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
)

// Campaign takes devices through a procedure.
type Campaign struct {
	// ID is its name in keys and addresses; see CheckID.
	ID   string       `json:"id"`
	Spec CampaignSpec `json:"spec"`

	State CampaignState `json:"state"`
	// Reason says why the campaign is in its state, for people.
	Reason string `json:"reason,omitempty"`
	// WaitingFor says what keeps a running campaign from starting devices, such as a window;
	// empty: nothing does, or all were started.
	WaitingFor string `json:"waiting_for,omitempty"`
	// Planned: the runs of all devices exist. The filter of the specification does not
	// matter any more.
	Planned bool `json:"planned,omitempty"`
	// Wave is the index of the current wave in Spec.Waves. It has ended if WaveEnded is set; the soak
	// time counts from then.
	Wave        int       `json:"wave"`
	WaveEnded   time.Time `json:"wave_ended,omitzero"`
	WaveStarted time.Time `json:"wave_started,omitzero"`
	// Released is the number of waves after which a person has let the campaign continue:
	// their Hold and MinSuccess have no effect any more.
	Released int `json:"released,omitempty"`
	// Forgiven are the counts at which a person has resumed the campaign: thresholds count
	// what happened since. Nil: nobody has.
	Forgiven *Forgiven `json:"forgiven,omitempty"`

	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
	// EditedBy changed the specification last; empty: nobody did.
	EditedBy string    `json:"edited_by,omitempty"`
	Approval *Approval `json:"approval,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
	// Schedule is the name of the schedule that made the campaign; empty: a person did.
	Schedule string `json:"schedule,omitempty"`
}

// Check returns an error for a campaign as the service never stores it.
func (c *Campaign) Check() error {
	switch {
	case !slices.Contains(CampaignStates(), c.State):
		return fmt.Errorf("unknown state %.40q", string(c.State))
	case c.Wave < 0 || c.Wave > len(c.Spec.Waves):
		return fmt.Errorf("wave %d of %d", c.Wave, len(c.Spec.Waves))
	}
	return nil
}

// CheckID reports why s cannot be the ID of a campaign: 1 to 26 of the characters a-z,
// 0-9 and '-', not beginning or ending with '-'. With "iadms:" it is the owner of
// operations in the devices' histories, which have room for 32 bytes.
func CheckID(s string) error {
	if s == "" || len(s) > 26 || s[0] == '-' || s[len(s)-1] == '-' || strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	}) {
		return fmt.Errorf("%.40q must have 1 to 26 characters a-z, 0-9 and '-', and neither begin nor end with '-'", s)
	}
	return nil
}

// Owner is the owner of the campaign's operations in the devices' histories.
func (c *Campaign) Owner() string { return "iadms:" + c.ID }

// CampaignState is the state of a campaign.
type CampaignState string

// States of campaigns. A campaign ends as done or stopped.
const (
	CampaignDraft     CampaignState = "draft"
	CampaignAwaiting  CampaignState = "awaiting-approval"
	CampaignScheduled CampaignState = "scheduled"
	CampaignRunning   CampaignState = "running"
	CampaignPaused    CampaignState = "paused"  // starts no device; those in progress are finished
	CampaignStopped   CampaignState = "stopped" // starts no device any more
	CampaignDone      CampaignState = "done"
)

// CampaignStates lists the states.
func CampaignStates() []CampaignState {
	return []CampaignState{CampaignDraft, CampaignAwaiting, CampaignScheduled, CampaignRunning, CampaignPaused, CampaignStopped, CampaignDone}
}

// Final reports whether a campaign in this state has ended.
func (s CampaignState) Final() bool { return s == CampaignStopped || s == CampaignDone }

// CampaignSpec says what a campaign is to do. It does not change once the campaign is
// approved.
type CampaignSpec struct {
	// Title is for people, 1 to 200 bytes.
	Title string `json:"title"`
	// Operation is what is done with each device.
	Operation OperationKind `json:"operation"`
	// Filter selects the devices, in the language of package fleet/inventory.
	Filter string `json:"filter"`
	// Image is the digest of an Image; for OperationUpgrade and OperationCheck.
	Image string `json:"image,omitempty"`
	// Credentials is the name of the secret that devices get, for OperationRotate. Its user is
	// that of the devices, with other passphrases.
	Credentials string `json:"credentials,omitempty"`
	// Renew is the name of a secret whose user gets random passphrases: the service makes the
	// secret Credentials, named after the campaign, when the campaign is created.
	Renew string `json:"renew,omitempty"`
	// Targets says which notification targets get which address, for OperationMove.
	Targets *TargetMove `json:"targets,omitempty"`
	// Back is the ID of a campaign of the same operation that is undone: of the devices that
	// the filter selects, those that it changed get back what they had.
	Back string `json:"back,omitempty"`
	// Options are those of the procedure.
	Options RunOptions `json:"options,omitzero"`
	// Waves are started one after the other; none: one wave with all devices.
	Waves []Wave `json:"waves,omitempty"`
	// Thresholds pause or stop the campaign.
	Thresholds []Threshold `json:"thresholds,omitempty"`
	// Windows are when devices may be started; none: always.
	Windows []Window `json:"windows,omitempty"`
	// Reserve is how much of a window must be left when a device is started.
	Reserve Duration `json:"reserve,omitzero"`
	// TimeZone is for devices whose site has none; empty: UTC.
	TimeZone string `json:"time_zone,omitempty"`
	// NotBefore is when the campaign begins; zero: once it is approved.
	NotBefore time.Time `json:"not_before,omitzero"`
	// Deadline is when no device is started or retried any more; zero: never.
	Deadline time.Time `json:"deadline,omitzero"`
	// Caps limit what happens at the same time.
	Caps Caps `json:"caps,omitzero"`
	// Retry says how failed devices are retried.
	Retry RetryRule `json:"retry,omitzero"`
	// ApprovalRequired: another person than the creator has to approve.
	ApprovalRequired bool `json:"approval_required,omitempty"`
	// Priority of the campaign's devices before those of others, 0 (default) to 9 (first).
	Priority int `json:"priority,omitempty"`
}

// OperationKind is what a campaign does with each device.
type OperationKind string

// Kinds of operations of campaigns.
const (
	OperationUpgrade OperationKind = "upgrade" // steps 100 to 190
	OperationCheck   OperationKind = "check"   // a rehearsal: the device checks the image; nothing changes
	OperationBackup  OperationKind = "backup"  // steps 100 to 120
	OperationRecover OperationKind = "recover" // steps 170 to 190, from the last good backup
)

// RunOptions are the options of the procedure, with the meaning of the flags of "iadms
// upgrade".
type RunOptions struct {
	// OnFailure are the policies, tried in order; none: advice, ask. See CheckPolicy.
	OnFailure []string `json:"on_failure,omitempty"`
	// Retries of a failed step before asking, 0 to 10.
	Retries int `json:"retries,omitempty"`
	// DeviceRetries are those that the device itself makes of a failed transfer, 0 to 10.
	DeviceRetries int `json:"device_retries,omitempty"`
	// Protocol of transfers: tftp (default), ftp or ftps.
	Protocol       string `json:"protocol,omitempty"`
	SkipBackup     bool   `json:"skip_backup,omitempty"`
	Force          bool   `json:"force,omitempty"`
	AllowDowngrade bool   `json:"allow_downgrade,omitempty"`
	OtherDevice    bool   `json:"other_device,omitempty"`
	// VerifyWith and ConvertWith are names of programs that an admin has registered on the
	// workers; empty: none.
	VerifyWith  string `json:"verify_with,omitempty"`
	ConvertWith string `json:"convert_with,omitempty"`
	// Limits of the steps, 10 s to 24 h; 0: the device's.
	BackupLimit  Duration `json:"backup_limit,omitzero"`
	UpdateLimit  Duration `json:"update_limit,omitzero"`
	RestoreLimit Duration `json:"restore_limit,omitzero"`
	RecoverLimit Duration `json:"recover_limit,omitzero"`
}

// Wave is a part of a campaign's devices. At most one of Count, Percent and Filter is
// set; with none, the wave has all devices that are left. The last wave always has all
// that are left.
type Wave struct {
	// Name is for people; empty: its number.
	Name string `json:"name,omitempty"`
	// Count is a number of devices.
	Count int `json:"count,omitempty"`
	// Percent is a part of all devices of the campaign, more than 0 and up to 100; the
	// number is rounded up.
	Percent float64 `json:"percent,omitempty"`
	// Filter selects devices.
	Filter string `json:"filter,omitempty"`
	// Soak is how long the campaign waits after the last device of the wave ended; failures
	// that are found by then count.
	Soak Duration `json:"soak,omitzero"`
	// Hold: after the wave a person has to resume the campaign.
	Hold bool `json:"hold,omitempty"`
	// MinSuccess is the percentage of the wave's devices that must succeed, 0 to 100. Once
	// they have, the wave does not wait for devices that are retried or wait for an answer;
	// they continue with the next waves. Once they cannot any more, the campaign is paused.
	// 0: the wave ends when all of its devices have ended, however they did.
	MinSuccess float64 `json:"min_success,omitempty"`
}

// Threshold pauses or stops a campaign.
type Threshold struct {
	// Failed is a number of failed devices; 0: not used.
	Failed int `json:"failed,omitempty"`
	// FailedPercent is a percentage of the devices that ended, above 0 and up to 100; 0:
	// not used. It counts once MinSample devices ended.
	FailedPercent float64 `json:"failed_percent,omitempty"`
	MinSample     int     `json:"min_sample,omitempty"`
	// Waiting is a number of devices that wait for an answer; 0: not used.
	Waiting int `json:"waiting,omitempty"`
	// Scope is what is counted: ScopeCampaign (default) or ScopeWave, the current wave.
	Scope Scope `json:"scope,omitempty"`
	// Action is what happens: ActionPause (default) or ActionStop.
	Action Action `json:"action,omitempty"`
}

// Scope is what a threshold counts.
type Scope string

// Scopes of thresholds.
const (
	ScopeCampaign Scope = "campaign"
	ScopeWave     Scope = "wave"
)

// Action is what happens at a threshold.
type Action string

// Actions at thresholds.
const (
	ActionPause Action = "pause"
	ActionStop  Action = "stop"
)

// Window is a time of the day in which devices may be started, in the time zone of each
// device's site. Times are those that a clock on the wall shows: in the night in which
// clocks are set back, a window that contains the repeated hour is an hour longer; where
// clocks are set forward, what lies in the missing hour is missing.
type Window struct {
	// Days are mon, tue, wed, thu, fri, sat, sun; none: every day. A window across midnight
	// belongs to the day on which it begins.
	Days []string `json:"days,omitempty"`
	// From and To are HH:MM. If To is not later than From, the window ends on the next day.
	From string `json:"from"`
	To   string `json:"to"`
}

// Caps limit what happens at the same time; 0: no limit.
type Caps struct {
	// Parallel is the number of devices in progress, of the campaign, of each site and of
	// each pool.
	Parallel        int `json:"parallel,omitempty"`
	ParallelPerSite int `json:"parallel_per_site,omitempty"`
	ParallelPerPool int `json:"parallel_per_pool,omitempty"`
	// BytesPerSecond limits the campaign's transfers on each worker.
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
}

// RetryRule says how devices are retried.
type RetryRule struct {
	// Attempts is how often a device is tried that fails for a reason that may pass, 1 to
	// 100; 0: once.
	Attempts int `json:"attempts,omitempty"`
	// Offline is how long a device that does not answer is retried, from its first attempt
	// on; 0: until the deadline of the campaign, or a day if it has none.
	Offline Duration `json:"offline,omitzero"`
	// Pause before the first retry, doubled for each further one up to MaxPause; 0: 1
	// minute and 1 hour.
	Pause    Duration `json:"pause,omitzero"`
	MaxPause Duration `json:"max_pause,omitzero"`
}

// Forgiven are counts that thresholds do not count again.
type Forgiven struct {
	Campaign Counts `json:"campaign"`
	// Wave is the wave that InWave counts.
	Wave   int    `json:"wave"`
	InWave Counts `json:"in_wave"`
}

// Approval is the consent of a person.
type Approval struct {
	By      string    `json:"by"`
	Time    time.Time `json:"time"`
	Comment string    `json:"comment,omitempty"`
	// Digest is that of the specification that was approved.
	Digest string `json:"digest"`
}

// Digest returns the SHA-256 of the specification in hexadecimal digits: an approval
// applies to what was approved.
func (s *CampaignSpec) Digest() string {
	text, err := json.Marshal(s)
	if err != nil { // floating-point numbers that are not numbers: Validate refuses them
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Counts are numbers of runs by state.
type Counts struct {
	Total     int `json:"total"`
	Pending   int `json:"pending"`
	Queued    int `json:"queued"`
	Running   int `json:"running"`
	Retrying  int `json:"retrying"`
	Waiting   int `json:"waiting"`
	Succeeded int `json:"succeeded"`
	Unchanged int `json:"unchanged"`
	Failed    int `json:"failed"`
	Canceled  int `json:"canceled"`
}

// Add adds n runs in a state.
func (c *Counts) Add(state RunState, n int) {
	c.Total += n
	switch state {
	case RunPending:
		c.Pending += n
	case RunQueued:
		c.Queued += n
	case RunRunning:
		c.Running += n
	case RunRetrying:
		c.Retrying += n
	case RunWaiting:
		c.Waiting += n
	case RunSucceeded:
		c.Succeeded += n
	case RunUnchanged:
		c.Unchanged += n
	case RunFailed:
		c.Failed += n
	case RunCanceled:
		c.Canceled += n
	}
}

// Plus returns the sums of c and d.
func (c Counts) Plus(d Counts) Counts {
	return Counts{
		Total: c.Total + d.Total, Pending: c.Pending + d.Pending, Queued: c.Queued + d.Queued, Running: c.Running + d.Running,
		Retrying: c.Retrying + d.Retrying, Waiting: c.Waiting + d.Waiting, Succeeded: c.Succeeded + d.Succeeded,
		Unchanged: c.Unchanged + d.Unchanged, Failed: c.Failed + d.Failed, Canceled: c.Canceled + d.Canceled,
	}
}

// Ended is the number of runs that have ended, those that were canceled included.
func (c Counts) Ended() int { return c.Succeeded + c.Unchanged + c.Failed + c.Canceled }

// InFlight is the number of runs that workers have or get.
func (c Counts) InFlight() int { return c.Queued + c.Running }

// CheckPolicy reports why s is not a policy for campaigns: advice, ask, other=DIGEST
// (of an Image), restore, service, keep or give-up.
func CheckPolicy(s string) error {
	name, digest, hasDigest := strings.Cut(s, "=")
	kind := manager.PolicyKind(name)
	if !slices.Contains(manager.PolicyKinds(), kind) || kind == manager.PolicyEdit || hasDigest != (kind == manager.PolicyOther) {
		return fmt.Errorf("unknown policy %.40q (want advice, ask, other=DIGEST, restore, service, keep or give-up)", s)
	}
	if hasDigest {
		return checkDigest(digest)
	}
	return nil
}

func checkDigest(s string) error {
	if sum, err := hex.DecodeString(s); err != nil || len(sum) != sha256.Size || s != strings.ToLower(s) {
		return fmt.Errorf("%.70q must be a SHA-256 in 64 hexadecimal digits, lower case", s)
	}
	return nil
}

// Validate returns the errors of all fields, each a *FieldError. It compiles no filters
// and does not know whether images and programs exist.
func (s *CampaignSpec) Validate() error {
	p := newProblems()
	p.unless(strings.TrimSpace(s.Title) != "", "title", "must not be empty")
	p.check("title", checkText(s.Title, 200))
	switch s.Operation {
	case OperationUpgrade, OperationCheck:
		if s.Image == "" {
			p.add("image", "must name an image: this operation installs or checks one")
		} else {
			p.check("image", checkDigest(s.Image))
		}
	case OperationBackup, OperationRecover, OperationRotate, OperationMove:
		p.unless(s.Image == "", "image", "must be empty: the operation %s uses no image", s.Operation)
	default:
		p.add("operation", "must be upgrade, check, backup, recover, rotate-credentials or move-targets, and is %.40q", s.Operation)
	}
	s.validateChange(p)
	p.unless(strings.TrimSpace(s.Filter) != "", "filter", `must not be empty; "true" selects all devices`)
	p.unless(len(s.Filter) <= maxFilter, "filter", "must have at most %d bytes", maxFilter)
	s.Options.validate(p.in("options"), s.Operation)
	p.unless(len(s.Waves) <= 100, "waves", "a campaign has at most 100 waves")
	for i, w := range s.Waves {
		w.validate(p.in("waves[%d]", i), i == len(s.Waves)-1)
	}
	for i, t := range s.Thresholds {
		t.validate(p.in("thresholds[%d]", i))
	}
	for i, w := range s.Windows {
		w.validate(p.in("windows[%d]", i))
	}
	p.unless(s.Reserve >= 0 && s.Reserve <= Duration(24*time.Hour), "reserve", "must be from 0 to 24h")
	p.unless(s.Reserve == 0 || len(s.Windows) > 0, "reserve", "must be 0 without windows")
	checkZone(p, "time_zone", s.TimeZone)
	p.unless(s.Deadline.IsZero() || s.Deadline.After(s.NotBefore), "deadline", "must be later than not_before")
	caps := p.in("caps")
	caps.unless(s.Caps.Parallel >= 0, "parallel", "must be 0 or more")
	caps.unless(s.Caps.ParallelPerSite >= 0, "parallel_per_site", "must be 0 or more")
	caps.unless(s.Caps.ParallelPerPool >= 0, "parallel_per_pool", "must be 0 or more")
	caps.unless(s.Caps.BytesPerSecond >= 0, "bytes_per_second", "must be 0 or more")
	retry := p.in("retry")
	retry.unless(0 <= s.Retry.Attempts && s.Retry.Attempts <= 100, "attempts", "must be from 0 to 100")
	retry.unless(s.Retry.Offline >= 0, "offline", "must be 0 or more")
	retry.unless(s.Retry.Pause == 0 || s.Retry.Pause >= Duration(time.Second), "pause", "must be 0 or at least 1s")
	retry.unless(s.Retry.MaxPause == 0 || s.Retry.MaxPause >= s.Retry.Pause, "max_pause", "must be 0 or at least the pause")
	p.unless(0 <= s.Priority && s.Priority <= 9, "priority", "must be from 0 to 9")
	return p.err()
}

func (o *RunOptions) validate(p problems, kind OperationKind) {
	for i, policy := range o.OnFailure {
		p.check(fmt.Sprintf("on_failure[%d]", i), CheckPolicy(policy))
	}
	p.unless(0 <= o.Retries && o.Retries <= 10, "retries", "must be from 0 to 10")
	p.unless(o.Retries == 0 || len(o.OnFailure) == 0 || slices.Contains(o.OnFailure, string(manager.PolicyAdvice)), "retries",
		"has no effect without the policy advice in on_failure, which retries where the device advises it")
	p.unless(0 <= o.DeviceRetries && o.DeviceRetries <= 10, "device_retries", "must be from 0 to 10")
	if o.Protocol != "" {
		_, err := device.ParseProtocol(o.Protocol)
		p.check("protocol", err)
	}
	if o.VerifyWith != "" {
		p.check("verify_with", CheckName(o.VerifyWith))
	}
	if o.ConvertWith != "" {
		p.check("convert_with", CheckName(o.ConvertWith))
	}
	p.unless(!o.SkipBackup || kind == OperationUpgrade, "skip_backup", "is for the operation upgrade only")
	for field, limit := range map[string]Duration{
		"backup_limit": o.BackupLimit, "update_limit": o.UpdateLimit, "restore_limit": o.RestoreLimit, "recover_limit": o.RecoverLimit,
	} {
		p.unless(limit == 0 || limit >= Duration(10*time.Second) && limit <= Duration(24*time.Hour), field, "must be 0 or from 10s to 24h")
	}
}

func (w *Wave) validate(p problems, last bool) {
	p.check("name", checkText(w.Name, 100))
	ways := 0
	for _, used := range []bool{w.Count != 0, w.Percent != 0, w.Filter != ""} {
		if used {
			ways++
		}
	}
	p.unless(ways <= 1, "count", "a wave is given by count, percent or filter, not by several of them")
	p.unless(last || ways > 0, "count", "every wave but the last needs a count, percent or filter")
	p.unless(w.Count >= 0, "count", "must be 1 or more")
	p.unless(w.Percent >= 0 && w.Percent <= 100, "percent", "must be more than 0 and at most 100")
	p.unless(len(w.Filter) <= maxFilter, "filter", "must have at most %d bytes", maxFilter)
	p.unless(w.Soak >= 0 && w.Soak <= Duration(90*24*time.Hour), "soak", "must be from 0 to 2160h")
	p.unless(w.MinSuccess >= 0 && w.MinSuccess <= 100, "min_success", "must be from 0 to 100")
}

func (t *Threshold) validate(p problems) {
	p.unless(t.Failed >= 0, "failed", "must be 0 or more")
	p.unless(t.FailedPercent >= 0 && t.FailedPercent <= 100, "failed_percent", "must be from 0 to 100")
	p.unless(t.MinSample >= 0, "min_sample", "must be 0 or more")
	p.unless(t.Waiting >= 0, "waiting", "must be 0 or more")
	p.unless(t.Failed != 0 || t.FailedPercent != 0 || t.Waiting != 0, "failed", "a threshold needs failed, failed_percent or waiting")
	p.unless(slices.Contains([]Scope{"", ScopeCampaign, ScopeWave}, t.Scope), "scope", "must be campaign or wave, and is %.40q", t.Scope)
	p.unless(slices.Contains([]Action{"", ActionPause, ActionStop}, t.Action), "action", "must be pause or stop, and is %.40q", t.Action)
}

// weekdays are the names of days in windows.
var weekdays = map[string]time.Weekday{
	"sun": time.Sunday, "mon": time.Monday, "tue": time.Tuesday, "wed": time.Wednesday, "thu": time.Thursday, "fri": time.Friday, "sat": time.Saturday,
}

// ParseWeekday parses the name of a day in a window.
func ParseWeekday(s string) (time.Weekday, error) {
	day, ok := weekdays[s]
	if !ok {
		return 0, fmt.Errorf("%.40q is not a day (want mon, tue, wed, thu, fri, sat or sun)", s)
	}
	return day, nil
}

// ParseClock parses HH:MM and returns the minutes since midnight, 0 to 1439.
func ParseClock(s string) (minutes int, err error) {
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, fmt.Errorf("%.40q must be a time HH:MM from 00:00 to 23:59", s)
	}
	return t.Hour()*60 + t.Minute(), nil
}

func (w *Window) validate(p problems) {
	for i, day := range w.Days {
		_, err := ParseWeekday(day)
		p.check(fmt.Sprintf("days[%d]", i), err)
	}
	_, err := ParseClock(w.From)
	p.check("from", err)
	_, err = ParseClock(w.To)
	p.check("to", err)
}

// Schedule creates campaigns again and again, such as a backup of all devices every
// night.
type Schedule struct {
	// Name is its name; see CheckID, but at most 12 characters: campaigns are named
	// NAME-YYYYMMDD-HHMM.
	Name string `json:"name"`
	// Spec is that of the campaigns. NotBefore and Deadline are not used.
	Spec CampaignSpec `json:"spec"`
	// Days are as in Window.
	Days []string `json:"days,omitempty"`
	// At is the time HH:MM of the start.
	At string `json:"at"`
	// TimeZone is that of At; empty: UTC.
	TimeZone string `json:"time_zone,omitempty"`
	// For is how long after its start a campaign starts devices; 0: until the next one.
	For Duration `json:"for,omitzero"`
	// Disabled: no campaigns are created.
	Disabled  bool   `json:"disabled,omitempty"`
	CreatedBy string `json:"created_by"`
}

// Validate returns the errors of all fields, each a *FieldError.
func (s *Schedule) Validate() error {
	p := newProblems()
	p.check("name", CheckID(s.Name))
	p.unless(len(s.Name) <= 12, "name", "must have at most 12 characters")
	for i, day := range s.Days {
		_, err := ParseWeekday(day)
		p.check(fmt.Sprintf("days[%d]", i), err)
	}
	_, err := ParseClock(s.At)
	p.check("at", err)
	checkZone(p, "time_zone", s.TimeZone)
	p.unless(s.For >= 0, "for", "must be 0 or more")
	p.unless(!s.Spec.ApprovalRequired, "spec.approval_required", "must be false: nobody approves a campaign that a schedule creates at night; the schedule itself is approved by being created")
	p.unless(!s.Spec.Operation.ChangesAccess(), "spec.operation", "must be upgrade, check, backup or recover: credentials and targets are changed once, by a campaign that a person creates")
	for _, e := range FieldErrors(s.Spec.Validate()) {
		p.add("spec."+e.Field, "%s", e.Problem)
	}
	return p.err()
}

package report

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"time"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// jsonLines prints one JSON object per line. Its fields are documented in docs/iadms.md;
// new ones may be added.
type jsonLines struct {
	out      *json.Encoder
	target   string // named in each line, unless empty
	finished bool

	unchanged bool // there was nothing to do
}

// PrintJSON prints one document.
func PrintJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Line is one line for programs.
type Line struct {
	Kind      string      `json:"kind"`
	Time      *time.Time  `json:"time,omitempty"`
	Device    string      `json:"device,omitempty"`
	Target    string      `json:"target,omitempty"`
	Step      int         `json:"step,omitempty"`
	Text      string      `json:"text,omitempty"`
	Operation *Operation  `json:"operation,omitempty"`
	Backup    []jsonFile  `json:"backup,omitempty"`
	Failure   *Failure    `json:"failure,omitempty"`
	Result    *jsonResult `json:"result,omitempty"`
}

// Operation is an operation of a device, for programs.
type Operation struct {
	ID         uint32  `json:"id"`
	Kind       string  `json:"kind"`
	State      string  `json:"state"`
	Phase      string  `json:"phase,omitempty"`
	Percent    *uint32 `json:"percent,omitempty"` // absent: unknown
	BytesDone  uint32  `json:"bytes_done"`
	BytesTotal uint32  `json:"bytes_total,omitempty"`
	Attempt    uint32  `json:"attempt"`
	TimeLeft   float64 `json:"time_left_s"`
	Owner      string  `json:"owner,omitempty"`
	Cause      string  `json:"cause,omitempty"` // why it failed
	Text       string  `json:"text,omitempty"`
}

type jsonFile struct {
	Kind         string `json:"kind"`
	Name         string `json:"name"`
	Size         int64  `json:"size"`
	Format       uint32 `json:"format"`
	DeviceSHA256 string `json:"device_sha256"`
	ServerSHA256 string `json:"server_sha256,omitempty"`
}

// Failure is why a step failed, for programs.
type Failure struct {
	Kind     string `json:"kind"` // of the operation
	Cause    string `json:"cause"`
	Text     string `json:"text,omitempty"`
	Advice   string `json:"advice"`
	Remedy   string `json:"remedy,omitempty"` // what the operator can do
	TimedOut bool   `json:"timed_out,omitempty"`
}

type jsonResult struct {
	OK         bool            `json:"ok"`
	OldVersion string          `json:"old_version"`
	NewVersion string          `json:"new_version"`
	Rescue     bool            `json:"rescue,omitempty"`
	Directory  string          `json:"backup_directory,omitempty"`
	Elapsed    float64         `json:"elapsed_s"`
	Operations []jsonOperation `json:"operations"`
	Error      string          `json:"error,omitempty"`

	OnDefaults   bool       `json:"on_defaults"`
	Unchanged    bool       `json:"unchanged"`
	Interrupted  bool       `json:"interrupted"`
	StillRunning *Operation `json:"still_running,omitempty"`
}

type jsonOperation struct {
	Step    int     `json:"step"`
	Kind    string  `json:"kind"`
	Elapsed float64 `json:"elapsed_s"`
	Bytes   uint32  `json:"bytes"`
}

func (j *jsonLines) print(l Line) {
	l.Target = cmp.Or(l.Target, j.target)
	_ = j.out.Encode(l) // see Lasting
}

func (j *jsonLines) Line(text string) { j.print(Line{Kind: "note", Text: text}) }

func (j *jsonLines) Start(target string, d *device.Device, img *files.Image) {
	j.print(Line{Kind: "start", Device: d.ID, Target: target, Text: startText(target, d, img)})
}

func (j *jsonLines) Update(u manager.Update) {
	l := Line{Kind: string(u.Kind), Time: &u.Time, Device: u.Device, Step: int(u.Step), Text: u.Text}
	if u.Operation != nil {
		l.Operation = NewOperation(u.Operation)
	}
	for _, f := range u.Backup {
		l.Backup = append(l.Backup, jsonFile{
			Kind: f.Kind.String(), Name: f.Name, Size: f.Size, Format: f.Format,
			DeviceSHA256: hex.EncodeToString(f.DeviceDigest), ServerSHA256: hex.EncodeToString(f.ServerDigest),
		})
	}
	l.Failure = NewFailure(u.Failure)
	j.print(l)
}

// NewOperation returns o for programs.
func NewOperation(o *device.Operation) *Operation {
	p := &Operation{
		ID: o.ID, Kind: o.Kind.String(), State: o.State.String(), Phase: o.Phase.String(),
		BytesDone: o.BytesDone, BytesTotal: o.BytesTotal, Attempt: o.Attempt, TimeLeft: o.TimeLeft.Seconds(),
		Owner: o.Owner, Cause: CauseName(o.Cause), Text: o.Text,
	}
	if o.Phase == 0 { // not every notification has it
		p.Phase = ""
	}
	if o.Percent <= 100 {
		p.Percent = &o.Percent
	}
	return p
}

// CauseName is the name of a cause, empty if nothing went wrong.
func CauseName(c mib.FailCause) string {
	if c == mib.FailCauseNone || c == 0 {
		return ""
	}
	return c.String()
}

// NewFailure returns the Failure that err wraps, for programs; nil: none.
func NewFailure(err error) *Failure {
	var f *manager.Failure
	if !errors.As(err, &f) {
		return nil
	}
	return &Failure{Kind: f.Kind.String(), Cause: f.Cause.String(), Text: f.Text, Advice: f.Advice.String(), Remedy: f.Cause.Explain().Remedy, TimedOut: f.TimedOut}
}

func (j *jsonLines) Finish(v Verdict) {
	j.finished, j.unchanged = true, v.Result.Unchanged
	r, done := v.Result, v.Done
	result := &jsonResult{
		OK: v.Err == nil, OldVersion: r.OldVersion, NewVersion: r.NewVersion, Rescue: r.Rescue, Directory: r.Directory,
		Elapsed: r.Elapsed.Seconds(), Operations: []jsonOperation{},
		OnDefaults: r.OnDefaults, Unchanged: r.Unchanged, Interrupted: v.interrupted(),
	}
	if r.StillRunning != nil {
		result.StillRunning = NewOperation(r.StillRunning)
	}
	for _, o := range r.Operations {
		result.Operations = append(result.Operations, jsonOperation{
			Step: int(o.Step), Kind: o.Kind.String(), Elapsed: o.Elapsed.Seconds(), Bytes: o.Bytes,
		})
	}
	if v.Err != nil {
		result.Error, done = v.Err.Error(), ""
	}
	if v.interrupted() {
		result.Error = "interrupted"
	}
	j.print(Line{Kind: "result", Device: r.Device, Text: done, Result: result, Failure: NewFailure(v.Err)})
}

package manager

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// Stage is the next part of a procedure.
type Stage string

// The stages, in their order.
const (
	StageBackup  Stage = "backup"
	StageUpdate  Stage = "update"
	StageRecover Stage = "recover"
	StageDone    Stage = "done"
)

// Record is what a journal keeps of one procedure.
type Record struct {
	Format      int       `json:"format"`
	Device      string    `json:"device"`
	EngineID    string    `json:"engine_id,omitempty"` // hexadecimal; empty: not known
	Address     string    `json:"address"`
	Image       string    `json:"image"`
	ImageDigest []byte    `json:"image_digest"`
	OldVersion  string    `json:"old_version"`
	OldDigest   []byte    `json:"old_digest,omitempty"` // of the old software's manifest
	Owner       string    `json:"owner"`
	Stage       Stage     `json:"stage"`
	Started     time.Time `json:"started"`
	// Ended: the last run finished or gave up, and was not interrupted.
	Ended bool `json:"ended,omitempty"`
	// Options are those of the plan, for resuming.
	Options map[string][]string `json:"options,omitempty"`
	// Directory and Backup say where the backup goes. Backup has digests once the backup is
	// good.
	Directory string             `json:"folder,omitempty"`
	Backup    []files.BackupFile `json:"backup,omitempty"`
	// OnDefaults: the device ran on the defaults of its software, so there is no backup.
	OnDefaults bool `json:"on_defaults,omitempty"`
	// Config is what was in force when the backup was made, or what the procedure itself
	// has put in force since.
	Config *ConfigState `json:"config,omitempty"`
	// BackupReqID is the number of the request that made the backup; 0: not known.
	BackupReqID uint32 `json:"backup_req_id,omitempty"`
	// Modified is the backup as modified for the new software.
	Modified *ModifiedBackup `json:"modified,omitempty"`
	// Encrypted is the copy that the device is given if it cannot read the other files.
	Encrypted *EncryptedBackup `json:"encrypted,omitempty"`
	// Tasks are the operations of the current attempt.
	Tasks []Task `json:"tasks,omitempty"`
	// Failed is the reason for step 160, until the operator has decided how to continue.
	Failed *Failure `json:"failed,omitempty"`
	// Parked is a step that failed, while the operator's decision is not known.
	Parked *Parked `json:"parked,omitempty"`
	// Operations are those that have ended, of all attempts.
	Operations []StepResult `json:"operations,omitempty"`
	// Roles are those of the banks before a rollback alone.
	Roles *BankRoles `json:"roles,omitempty"`
	// Pace is how the device reported progress before the upgrade.
	Pace *device.Pace `json:"pace,omitempty"`
}

// Parked is a step whose failure waits for a decision. It is not performed before that.
type Parked struct {
	Step    Step     `json:"step"` // which the procedure would perform again
	Failure *Failure `json:"failure"`
}

// Task is an operation that was, or is about to be, commanded.
type Task struct {
	Kind  mib.OperationKind `json:"kind"`
	ReqID uint32            `json:"req_id"`
	// Done: it succeeded.
	Done bool `json:"done,omitempty"`
	// Abandoned: it was aborted because its file server ended with an earlier run of the
	// manager; it is started again.
	Abandoned bool `json:"abandoned,omitempty"`

	earlier bool // commanded by an earlier run of the manager
}

// ModifiedBackup is a copy of a backup that was modified.
type ModifiedBackup struct {
	Directory string             `json:"folder"`
	Files     []files.BackupFile `json:"files"`
}

// BankRoles are the numbers of the bank whose software runs and of the one that is started
// next, 1 or 2; 0: none.
type BankRoles struct {
	Running int `json:"running"`
	Next    int `json:"next"`
}

func rolesOf(banks [2]device.Bank) (r BankRoles) {
	for i, b := range banks {
		if b.Running {
			r.Running = i + 1
		}
		if b.Next {
			r.Next = i + 1
		}
	}
	return r
}

// task returns the operation of a kind in the current attempt, nil if there is none.
func (r *Record) task(kind mib.OperationKind) *Task {
	for i := range r.Tasks {
		if r.Tasks[i].Kind == kind {
			return &r.Tasks[i]
		}
	}
	return nil
}

// forget drops the operation of a kind, so that it is started again.
func (r *Record) forget(kind mib.OperationKind) {
	r.Tasks = slices.DeleteFunc(r.Tasks, func(t Task) bool { return t.Kind == kind })
}

// recordFormat is the format of Record that this version writes.
const recordFormat = 2

// ErrNoRecord is returned by Load if no procedure was started.
var ErrNoRecord = errors.New("nothing to resume")

// Journal keeps the Record of one procedure. [FileJournal] keeps it in a file.
type Journal interface {
	// Load returns the record, or an error wrapping ErrNoRecord.
	Load() (*Record, error)
	// Save replaces the record durably. The error wraps ErrNotOwner if somebody else has
	// replaced it since this Journal loaded or saved it.
	Save(r *Record) error
	// Owned returns an error wrapping ErrNotOwner if somebody else has replaced the record
	// since this Journal loaded or saved it. The procedure calls it before it commands the
	// device.
	Owned() error
}

var _ Journal = (*FileJournal)(nil)

// FileJournal keeps one Record in a file that is replaced durably.
type FileJournal struct {
	files afero.Fs
	name  string
	last  []byte // as it was loaded or saved last, nil before
}

// NewJournal returns the journal of a device, in the root directory of disk.
func NewJournal(disk afero.Fs, deviceID string) *FileJournal {
	return &FileJournal{files: disk, name: device.DirectoryName(deviceID) + ".json"}
}

// Name is the name of the journal's file.
func (j *FileJournal) Name() string { return j.name }

// Load implements Journal.
func (j *FileJournal) Load() (*Record, error) {
	data, err := afero.ReadFile(j.files, j.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("journal %s: %w", j.name, ErrNoRecord)
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	// The format first: a newer record may hold fields that this type cannot.
	var head struct{ Format int }
	if err := json.Unmarshal(data, &head); err == nil && head.Format != recordFormat {
		return nil, fmt.Errorf("journal %s has format %d; this iadms reads format %d", j.name, head.Format, recordFormat)
	}
	r := new(Record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("journal %s is damaged; start without resuming: %w", j.name, err)
	}
	j.last = data
	return r, nil
}

// Save implements Journal.
func (j *FileJournal) Save(r *Record) error {
	if err := j.Owned(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if err := durable.ReplaceFile(j.files, j.name, data, 0o600); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.last = data
	return nil
}

// ErrNotOwner says that another iadms has continued the procedure.
var ErrNotOwner = errors.New("another iadms has continued this upgrade")

// Owned implements Journal.
func (j *FileJournal) Owned() error {
	if j.last == nil {
		return nil
	}
	data, err := afero.ReadFile(j.files, j.name)
	if err == nil && bytes.Equal(data, j.last) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("journal: %w", err)
	}
	return fmt.Errorf("journal %s: %w; nothing was commanded", j.name, ErrNotOwner)
}

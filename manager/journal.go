package manager

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// Stage is how far a procedure has got.
type Stage string

// Stages: what is to be done next.
const (
	StageBackup  Stage = "backup"
	StageUpdate  Stage = "update"
	StageRecover Stage = "recover"
	StageDone    Stage = "done"
)

// Record is what a journal keeps of one procedure.
type Record struct {
	Format      int    `json:"format"`
	Device      string `json:"device"`
	Address     string `json:"address"`
	Image       string `json:"image"`
	ImageDigest []byte `json:"image_digest"`
	OldVersion  string `json:"old_version"`
	Stage       Stage  `json:"stage"`
	Started     time.Time
	// Folder and Backup say where the backup goes; digests are in Backup once
	// it is good.
	Folder string       `json:"folder,omitempty"`
	Backup []BackupFile `json:"backup,omitempty"`
	// ReqID, Owner and Command are the operation under way; ReqID 0: none.
	ReqID   uint32            `json:"req_id,omitempty"`
	Owner   string            `json:"owner,omitempty"`
	Command mib.OperationKind `json:"command,omitempty"`
}

// recordFormat is the format of Record that this version writes.
const recordFormat = 1

// ErrNoRecord is returned by Load if nothing was begun.
var ErrNoRecord = errors.New("nothing to resume")

// Journal keeps one Record in a file that is replaced durably.
type Journal struct {
	files afero.Fs
	name  string
}

// NewJournal keeps the record of a device in the folder of files.
func NewJournal(files afero.Fs, device string) *Journal {
	return &Journal{files: files, name: folderName(device) + ".json"}
}

// Load returns the record, or an error wrapping ErrNoRecord.
func (j *Journal) Load() (*Record, error) {
	data, err := afero.ReadFile(j.files, j.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("journal %s: %w", j.name, ErrNoRecord)
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	r := new(Record)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("journal %s is damaged; start without resuming: %w", j.name, err)
	}
	if r.Format != recordFormat {
		return nil, fmt.Errorf("journal %s has format %d, known is %d", j.name, r.Format, recordFormat)
	}
	return r, nil
}

// Save replaces the record.
func (j *Journal) Save(r *Record) error {
	r.Format = recordFormat
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.ReplaceFile(j.files, j.name, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

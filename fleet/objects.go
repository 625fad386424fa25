package fleet

import (
	"bytes"
	"encoding/json"
	"time"
)

// Backup is a copy of a device's configuration data.
type Backup struct {
	// ID is its name among the backups of the device, such as 20260131T120000Z-1.
	ID       string `json:"id"`
	Device   string `json:"device"` // Device.Name
	DeviceID string `json:"device_id"`
	Campaign string `json:"campaign,omitempty"`
	// Version is the software that wrote the data.
	Version string       `json:"version,omitempty"`
	Format  uint32       `json:"format"`
	Files   []BackupFile `json:"files"`
	// Good: the digests of both sides agreed (step 120).
	Good bool `json:"good"`
	// EditOf is the ID of the backup that this is an edited copy of; empty: the device sent
	// it.
	EditOf string `json:"edit_of,omitempty"`
	// By is who edited it; empty: it is not edited.
	By   string    `json:"by,omitempty"`
	Time time.Time `json:"time"`
	// Pinned: retention does not remove it.
	Pinned bool `json:"pinned,omitempty"`
}

// BackupFile is one file of a backup.
type BackupFile struct {
	Kind   string `json:"kind"` // as in IAD-UPGRADE-MIB, such as userData
	Size   int64  `json:"size"`
	Digest string `json:"digest"` // SHA-256 in hexadecimal digits
}

// IsEncrypted reports whether a device has encrypted a configuration file: it is an age file
// (age-encryption.org/v1).
func IsEncrypted(content []byte) bool {
	return bytes.HasPrefix(content, []byte("age-encryption.org/v1\n"))
}

// CheckEdit returns an error, a *FieldError, if a file of a backup cannot take the place of another one.
func CheckEdit(kind string, old, edited []byte) error {
	if IsEncrypted(old) && !IsEncrypted(edited) {
		return &FieldError{Field: "files." + kind, Problem: "must be encrypted, because the device takes only encrypted files; encrypt it to the recipient that the page of the device and iadms status show"}
	}
	return nil
}

// Image is a software image that campaigns can install.
type Image struct {
	// Digest is the SHA-256 of the file in hexadecimal digits.
	Digest   string    `json:"digest"`
	Version  string    `json:"version"`
	Hardware []string  `json:"hardware"`
	Size     int64     `json:"size"`
	Format   uint32    `json:"config_format"`
	File     string    `json:"file"` // the name it was added by, for people
	Note     string    `json:"note,omitempty"`
	Added    time.Time `json:"added"`
	AddedBy  string    `json:"added_by"`
}

// Worker is a process that carries out runs.
type Worker struct {
	// ID is unique for each start of the process.
	ID string `json:"id"`
	// Lease tells the leases of one process apart: it may lose one and acquire another, and
	// has given up by then what it did under the first.
	Lease   string    `json:"lease,omitempty"`
	Host    string    `json:"host"`
	Pool    string    `json:"pool"`
	Version string    `json:"version"`
	Slots   int       `json:"slots"` // runs at the same time
	Running int       `json:"running"`
	Started time.Time `json:"started"`
	Seen    time.Time `json:"seen"`
	// Programs are the names that campaigns can use in VerifyWith and ConvertWith.
	Programs []string `json:"programs,omitempty"`
	// Drain: it takes no further runs.
	Drain bool `json:"drain,omitempty"`
}

// AuditEntry says who did what. Entries form a chain: each has the digest of the one
// before.
type AuditEntry struct {
	// Seq counts the entries from 1 on.
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	// Actor is the user, USER/TOKEN or the part of the service that acted.
	Actor string `json:"actor"`
	// From is the network address of the request; empty: the service itself acted.
	From string `json:"from,omitempty"`
	// Action is a verb and an object, such as "campaign.approve".
	Action string `json:"action"`
	// Object is what was acted on, such as "campaign/spring".
	Object string `json:"object"`
	// Denied: the actor was not permitted to.
	Denied bool `json:"denied,omitempty"`
	// Before and After are the object without secrets; empty: it did not exist.
	Before json.RawMessage `json:"before,omitempty"`
	After  json.RawMessage `json:"after,omitempty"`
	// Damaged is what is stored in place of the entry with this number, which cannot be
	// decoded or does not fit the chain; empty: the entry is sound.
	Damaged []byte `json:"damaged,omitempty"`
	// Request is the ID of the request, which repetitions share; empty: none.
	Request string `json:"request,omitempty"`
	// Content tells requests with the same ID apart: a digest of what was requested, made with
	// a key, so that nobody can guess what it was. Empty: not known.
	Content string `json:"content,omitempty"`
	// Previous and Digest are SHA-256 in hexadecimal digits; see package fleet/audit.
	Previous string `json:"previous"`
	Digest   string `json:"digest"`
}

// Event is something that happened, for people who watch and for webhooks.
type Event struct {
	Time     time.Time `json:"time"`
	Kind     EventKind `json:"kind"`
	Campaign string    `json:"campaign,omitempty"`
	Device   string    `json:"device,omitempty"`
	State    string    `json:"state,omitempty"` // the new state
	Text     string    `json:"text,omitempty"`
	Progress Progress  `json:"progress,omitzero"`
}

// EventKind is the kind of an event.
type EventKind string

// Kinds of events.
const (
	EventCampaign  EventKind = "campaign"  // the state of a campaign changed
	EventThreshold EventKind = "threshold" // a threshold was reached
	EventQuestion  EventKind = "question"  // a run waits for an answer
	EventRun       EventKind = "run"       // the state of a run changed
	EventStep      EventKind = "step"      // a step of a run began, progressed or ended
	EventWorker    EventKind = "worker"    // a worker came or went
)

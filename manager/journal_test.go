package manager_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/manager"
	"example.com/iad/mib"
)

// A journal as earlier releases wrote it: fields keep their names in it whatever they
// are called in Go.
func TestOldJournal(t *testing.T) {
	const text = `{"format":2,"device":"TEST-0001","address":"127.0.0.1:161","image":"/fw.iad","image_digest":"AAEC","old_version":"1.0.0",
		"owner":"tester","stage":"update","started":"2026-01-02T03:04:05Z","options":{"retries":["3"]},"folder":"backup/TEST-0001/20260102T030405Z-1",
		"backup":[{"Kind":2,"Name":"userData.cfg","Size":42,"Format":1,"DeviceDigest":"AQ==","ServerDigest":"AQ=="}],
		"tasks":[{"kind":2,"req_id":7}],
		"failed":{"Device":"TEST-0001","Step":150,"Kind":2,"State":6,"Phase":9,"Cause":40,"Text":"no dial tone","Advice":4,"Software":true},
		"operations":[{"Step":100,"Kind":1,"Elapsed":27000000,"Octets":214}],"pace":{"Step":10,"MinInterval":2000000000}}`
	disk := afero.NewMemMapFs()
	if err := afero.WriteFile(disk, "TEST-0001.json", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := manager.NewJournal(disk, "TEST-0001").Load()
	if err != nil {
		t.Fatal(err)
	}
	op := r.Operations[0]
	if op.Bytes != 214 || op.Step != 100 || op.Elapsed != 27*time.Millisecond || op.Kind != 1 {
		t.Errorf("operation %+v", op)
	}
	if f := r.Failed; f.Step != 150 || f.Cause != mib.FailCause(40) || f.Advice != 4 || !f.Software || f.Text != "no dial tone" {
		t.Errorf("failure %+v", r.Failed)
	}
	if b := r.Backup[0]; b.Kind != mib.FileTypeUserData || b.Size != 42 || r.Tasks[0].ReqID != 7 || r.Pace.Step != 10 || r.Options["retries"][0] != "3" {
		t.Errorf("%+v", r)
	}
}

// savingJournal notes which operations the record holds when it is saved.
type savingJournal struct {
	manager.Journal
	saves []string
}

func (j *savingJournal) Save(r *manager.Record) error {
	text := string(r.Stage)
	for _, task := range r.Tasks {
		text += fmt.Sprintf(" %v %v", task.Kind, task.Done)
	}
	if r.Ended {
		text += " ended"
	}
	j.saves = append(j.saves, text)
	return j.Journal.Save(r)
}

// An upgrade writes its journal at the start, before each command and at the end, and what
// was done before a command is written with its number.
func TestJournalIsWrittenOncePerCommand(t *testing.T) {
	l := newLab(t, labOptions{})
	plan := l.plan(l.image("2.0.0", 2))
	j := &savingJournal{Journal: manager.NewJournal(afero.NewMemMapFs(), "TEST-0001")}
	plan.Journal = j
	if _, err := manager.Upgrade(l.ctx, plan, manager.Automatic{}, l.observe); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"backup", "backup backupConfig false",
		"update downloadSoftware false",
		"recover recoverConfig false",
		"done ended",
	}
	if !slices.Equal(j.saves, want) {
		t.Errorf("saved %q, want %q", j.saves, want)
	}
}

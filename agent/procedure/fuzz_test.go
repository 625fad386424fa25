package procedure

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	"example.com/iad/mib"
)

// noFetcher, and what follows, answer as a device would that holds nothing.
type noFetcher struct{ Fetcher }

func (noFetcher) Open(context.Context, Server) (Files, error) {
	return nil, failure(mib.FailCauseServerUnreachable, "none")
}
func (noFetcher) Supports(mib.Protocol) bool    { return true }
func (noStore) HasOtherFormat() bool            { return false }
func (noDevice) Calls() int                     { return 0 }
func (noDevice) TakesOver() bool                { return false }
func (noDevice) SelfTest(context.Context) error { return nil }
func (noBanks) CheckFallback() (int, error)     { return 0, failure(mib.FailCauseNoFallback, "none") }
func (noBanks) Confirm() error                  { return nil }
func (noBanks) Tested() error                   { return nil }

// bootWith starts a device on what its records hold, and lets it run a moment.
func bootWith(t *testing.T, journal, settings []byte) {
	e, _ := Open(Config{
		Banks: noBanks{}, Store: noStore{}, Fetcher: noFetcher{}, Device: noDevice{},
		Journal: noRecord{}, Settings: noRecord{}, JournalData: journal, SettingsData: settings, Grace: time.Nanosecond,
	})
	s := e.Snapshot()
	if s.Seq == 0 || len(s.Events) == 0 || s.Events[len(s.Events)-1].Seq != s.Seq {
		t.Errorf("event %d of %d is missing", s.Seq, len(s.Events))
	}
	if !s.Op.State.Final() && (s.Op.State != mib.OperationStateRunning || s.Op.Phase != mib.OperationPhaseTrying) {
		t.Errorf("operation in state %s, phase %s after a start", s.Op.State, s.Op.Phase)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	if r, err := e.Test(Change{Command: mib.OperationKindBackupConfig}); err == nil {
		r.Done()
	}
	e.Sync()
	cancel()
	<-ended
}

// FuzzJournal starts a device on any journal: it never panics, is in a state
// that can be, and what it writes it reads again.
func FuzzJournal(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte(`{"op":{"id":7,"kind":2,"state":5,"phase":4,"attempt":1,"cause":1}}`))
	f.Add([]byte(`{"op":{"id":7,"kind":3,"state":4,"phase":12,"bank":2,"params":{"server":200}}}`))
	f.Add([]byte(`{"op":{"kind":1,"state":1,"phase":1},"seq":1,"events":[{"seq":1,"type":2,"op":{"kind":1,"state":1,"phase":1}}]}`))
	f.Add([]byte(`{"op":{"kind":1,"state":1,"phase":1},"trial":{"bank":2}}`))
	j := newJournal()
	j.Op = Operation{ID: 3, Kind: mib.OperationKindActivate, State: mib.OperationStateRunning, Phase: mib.OperationPhaseTrying, Bank: 2, Cause: mib.FailCauseNone}
	j.addHistory(Operation{ID: 2, Kind: mib.OperationKindReset, State: mib.OperationStateSucceeded, Phase: mib.OperationPhaseRestarting, Cause: mib.FailCauseNone})
	j.addEvent(Event{Type: mib.EventTypeStarted, Op: j.Op, Cause: mib.FailCauseNone})
	data, _ := json.Marshal(&j)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := decodeJournal(data)
		if err != nil {
			if j.Op.ID != 0 || j.Seq != 0 {
				t.Errorf("a part of a journal that was refused (%v) is used", err)
			}
		} else {
			first, _ := json.Marshal(&j)
			again, err := decodeJournal(first)
			second, _ := json.Marshal(&again)
			if err != nil || !bytes.Equal(first, second) {
				t.Errorf("read again: %v", err)
			}
		}
		bootWith(t, data, nil)
	})
}

// FuzzSettings starts a device on any settings.
func FuzzSettings(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte(`{"params":{"server":200,"files":255,"options":255}}`))
	f.Add([]byte(`{"notify":{"step":0}}`))
	f.Add([]byte(`{"servers":[{"protocol":9}]}`))
	s := DefaultSettings()
	s.Servers[0].Address, s.Servers[0].AddressType, s.Files[1].Name = []byte{127, 0, 0, 1}, 1, "x"
	data, _ := json.Marshal(&s)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeSettings(data)
		d := DefaultSettings()
		if err != nil && !s.equal(&d) {
			t.Errorf("a part of settings that were refused (%v) is used", err)
		}
		if err := s.validate(); err != nil {
			t.Error(err)
		}
		bootWith(t, nil, data)
	})
}

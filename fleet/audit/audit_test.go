package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/audit"
	"example.com/iad/fleet/engine"
)

func open(t *testing.T) *engine.Engine {
	t.Helper()
	e, err := engine.Start(t.Context(), engine.Config{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func entry(i int) fleet.AuditEntry {
	return fleet.AuditEntry{
		Actor: []string{"ann", "bob", "token:ci"}[i%3], From: "192.0.2.1", Action: []string{"campaign.create", "campaign.stop"}[i%2], Object: fmt.Sprintf("campaign/c%d", i),
		After: json.RawMessage(`{"title": "<b>&", "n": 1.0}`),
	}
}

// Several processes write one chain, and the files that two of them copy are equal.
func TestChain(t *testing.T) {
	e := open(t)
	const writers, each = 4, 10
	var group sync.WaitGroup
	for w := range writers {
		a := audit.New(e.Log(engine.Audit)) // as in another process
		group.Go(func() {
			for i := range each {
				got, err := a.Append(t.Context(), entry(w*each+i))
				if err != nil || got.Seq == 0 || got.Digest == "" || got.Time.IsZero() {
					t.Errorf("%+v: %v", got, err)
				}
			}
		})
	}
	group.Wait()
	a := audit.New(e.Log(engine.Audit))
	one, two := t.TempDir(), t.TempDir()
	copyAll(t, a, one, writers*each)
	if _, err := a.Append(t.Context(), entry(0)); err != nil {
		t.Fatal(err)
	}
	copyAll(t, a, one, writers*each+1) // continued
	copyAll(t, a, two, writers*each+1)
	if read(t, one) != read(t, two) {
		t.Error("two copies differ")
	}
	head, err := audit.VerifyDir(one)
	if err != nil || head.Seq != writers*each+1 {
		t.Error(head, err)
	}
}

// copyAll copies until the files have n entries.
func copyAll(t *testing.T, a *audit.Audit, dir string, n uint64) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Copy(ctx, dir) }()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		if head, err := audit.VerifyDir(dir); err == nil && head.Seq == n {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("copying ended: %v", err)
		case <-ticker.C:
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func read(t *testing.T, dir string) (text string) {
	t.Helper()
	for _, name := range files(t, dir) {
		part, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text += string(part)
	}
	return text
}

func TestQueries(t *testing.T) {
	a := audit.New(open(t).Log(engine.Audit))
	if none, err := a.Read(t.Context(), audit.Query{}); len(none) != 0 || err != nil {
		t.Error(none, err)
	}
	for i := range 12 {
		if _, err := a.Append(t.Context(), entry(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		q    audit.Query
		want []uint64
	}{
		{audit.Query{Limit: 3}, []uint64{12, 11, 10}},
		{audit.Query{Before: 10, Limit: 2}, []uint64{9, 8}},
		{audit.Query{Before: 3}, []uint64{2, 1}},
		{audit.Query{Before: 1}, nil},
		{audit.Query{Actor: "token:"}, []uint64{12, 9, 6, 3}},
		{audit.Query{Action: "campaign.st", Actor: "ann"}, []uint64{10, 4}},
		{audit.Query{Object: "campaign/c11"}, []uint64{12}},
	} {
		entries, err := a.Read(t.Context(), c.q)
		var got []uint64
		for _, e := range entries {
			got = append(got, e.Seq)
		}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%+v: %v, want %v (%v)", c.q, got, c.want, err)
		}
	}
}

// A request is found by its ID, for its actor and action alone, unless it was denied.
func TestRequests(t *testing.T) {
	a := audit.New(open(t).Log(engine.Audit))
	for _, e := range []fleet.AuditEntry{
		{Actor: "ann", Action: "campaign.stop", Request: "r.1 *"}, {Actor: "bob", Action: "campaign.stop", Request: "r2", Denied: true}, {Actor: "bob", Action: "campaign.stop"},
	} {
		if _, err := a.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		action, actor, request string
		want                   bool
	}{
		{"campaign.stop", "ann", "r.1 *", true}, {"campaign.stop", "bob", "r.1 *", false}, {"campaign.pause", "ann", "r.1 *", false}, {"campaign.stop", "ann", "r", false},
		{"campaign.stop", "bob", "r2", false}, {"campaign.stop", "ann", "*", false}, {"campaign.stop", "ann", ">", false},
	} {
		if _, got, err := a.Find(t.Context(), c.action, c.actor, c.request); got != c.want || err != nil {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
}

// Whatever is changed in the files is found, and named by the number of the entry.
func TestTampering(t *testing.T) {
	a := audit.New(open(t).Log(engine.Audit))
	for i := range 6 {
		if _, err := a.Append(t.Context(), entry(i)); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	copyAll(t, a, dir, 6)
	name := files(t, dir)[0]
	good := read(t, dir)
	lines := strings.SplitAfter(good, "\n")
	join := func(list ...string) string { return strings.Join(list, "") }
	for what, c := range map[string]struct {
		text string
		seq  uint64
	}{
		"an actor":                {strings.Replace(good, `"actor":"bob"`, `"actor":"eve"`, 1), 2},
		"a time":                  {strings.Replace(good, `"seq":3,"time":"2`, `"seq":3,"time":"1`, 1), 3},
		"a digest":                {strings.Replace(good, `"digest":"`, `"digest":"0`, 1), 1},
		"a field more":            {strings.Replace(good, `{"seq":4,`, `{"seq":4,"note":"x",`, 1), 4},
		"a field twice":           {strings.Replace(good, `{"seq":4,`, `{"seq":9,"seq":4,`, 1), 4},
		"white space":             {strings.Replace(good, `{"seq":4,`, `{"seq":4, `, 1), 4},
		"an entry less":           {join(append(lines[:2:2], lines[3:]...)...), 3},
		"the first less":          {join(lines[1:]...), 1},
		"an entry twice":          {join(append(lines[:3:3], lines[2:]...)...), 4},
		"two exchanged":           {join(lines[0], lines[2], lines[1], lines[3]), 2},
		"not an entry":            {join(lines[0], "x\n"), 2},
		"an actor and its digest": {join(lines[0], again(t, lines[1], "eve"), join(lines[2:]...)), 3},
		"an empty line":           {join(lines[0], "\n", lines[1]), 2},
		"a content after":         {strings.Replace(good, `campaign/c4`, `campaign/c5`, 1), 5},
	} {
		if c.text == good {
			t.Fatalf("%s: nothing was changed", what)
		}
		if err := os.WriteFile(name, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := audit.VerifyDir(dir)
		var broken *audit.ChainError
		if !errors.As(err, &broken) || broken.Seq != c.seq || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want entry %d", what, err, c.seq)
		}
		// The service keeps such files as they are.
		if err := a.Copy(t.Context(), dir); err == nil || read(t, dir) != c.text {
			t.Errorf("%s: copied over the evidence (%v)", what, err)
		}
	}
	// The end that is cut off is not found by the files alone, and is written again.
	if err := os.WriteFile(name, []byte(join(lines[:4]...)+lines[4][:20]), 0o600); err != nil {
		t.Fatal(err)
	}
	if head, err := audit.VerifyDir(dir); !errors.Is(err, audit.ErrIncomplete) || head.Seq != 4 {
		t.Errorf("an incomplete line: %+v, %v", head, err)
	}
	copyAll(t, a, dir, 6)
	if read(t, dir) != good {
		t.Error("the copy is not what it was")
	}
	// The files of another service are not continued.
	other := audit.New(open(t).Log(engine.Audit))
	for i := range 9 {
		if _, err := other.Append(t.Context(), entry(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := other.Copy(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "another audit") || read(t, dir) != good {
		t.Errorf("the files of another audit are continued: %v", err)
	}
}

// again returns the line of an entry with another actor and the digest that fits.
func again(t *testing.T, line, actor string) string {
	t.Helper()
	var e fleet.AuditEntry
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	e.Actor, e.Digest = actor, ""
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	e.Digest = fmt.Sprintf("%x", sha256.Sum256(text))
	if text, err = json.Marshal(e); err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n"
}

func FuzzVerify(f *testing.F) {
	f.Add("{\"seq\":1}\n")
	f.Add("{}")
	f.Fuzz(func(t *testing.T, text string) {
		if head, err := audit.Verify(strings.NewReader(text), audit.Head{}); err == nil && head.Seq > 0 && len(head.Digest) != 64 {
			t.Errorf("%+v", head)
		}
	})
}

// A damaged entry, the last one included, does not end the record: what follows is written,
// shown and copied, and the copy is continued later. Checking it names the entry.
func TestDamagedEntries(t *testing.T) {
	e, ctx := open(t), t.Context()
	log := e.Log(engine.Audit)
	for i := range 3 {
		if _, err := audit.New(log).Append(ctx, entry(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"{\n", "", `{"seq":6}`} {
		if _, err := log.Append(ctx, "campaign=2Estop", []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	a := audit.New(log)
	if got, err := a.Append(ctx, entry(7)); err != nil || got.Seq != 7 {
		t.Fatalf("%+v, %v", got, err)
	}
	list, err := a.Read(ctx, audit.Query{})
	if err != nil || len(list) != 7 || list[0].Seq != 7 || string(list[3].Damaged) != "{\n" || list[3].Action != "audit.damaged" {
		t.Fatalf("%+v, %v", list, err)
	}
	dir := t.TempDir()
	for n := 7; n < 9; n++ {
		copying, stop := context.WithCancel(ctx)
		ended := make(chan error)
		go func() { ended <- a.Copy(copying, dir) }()
		for {
			if head, _ := audit.VerifyDir(dir); head.Seq == uint64(n) {
				break
			}
			select {
			case err := <-ended:
				t.Fatalf("copying ended: %v", err)
			case <-time.After(5 * time.Millisecond): // files cannot be waited for portably
			}
		}
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if _, err := a.Append(ctx, entry(n)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = audit.VerifyDir(dir)
	for _, want := range []string{"entry 4:", "entry 5:", "entry 6:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not reported: %v", want, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "entry 7") {
		t.Error(err)
	}
	if found := e.Damage(); len(found) != 3 {
		t.Errorf("reported: %+v", found)
	}
}

// spoilOnDisk makes records of a stream unreadable, which are recognized by what they contain.
func spoilOnDisk(t *testing.T, data, stream string, contents ...string) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(data, "jetstream", "*", "streams", stream, "msgs", "*.blk"))
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	for _, name := range list {
		block, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range contents {
			block = bytes.ReplaceAll(block, []byte(text), []byte(strings.ToUpper(text)))
		}
		if err := os.WriteFile(name, block, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Entries that cannot be read from the disk any more, the last one included, do not end the
// record: they are marked, and what the files have of them stays.
func TestEntriesDamagedOnDisk(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	data, old, fresh := t.TempDir(), t.TempDir(), t.TempDir()
	e, err := engine.Start(ctx, engine.Config{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	a := audit.New(e.Log(engine.Audit))
	for i := range 6 {
		if _, err := a.Append(ctx, entry(i)); err != nil {
			t.Fatal(err)
		}
	}
	copyAll(t, a, old, 6)
	e.Close()
	spoilOnDisk(t, data, "AUDIT", "campaign/c2", "campaign/c5")
	if e, err = engine.Start(ctx, engine.Config{Data: data}); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	a = audit.New(e.Log(engine.Audit))
	list, err := a.Read(ctx, audit.Query{})
	if err != nil || len(list) != 6 || list[0].Action != "audit.missing" || list[0].Seq != 6 || list[3].Action != "audit.missing" || list[4].Object != "campaign/c1" {
		t.Errorf("%+v, %v", list, err)
	}
	if found := e.Damage(); len(found) != 2 || found[0].Key != "3" || found[1].Key != "6" {
		t.Errorf("reported: %+v", found)
	}
	if got, err := a.Append(ctx, entry(6)); err != nil || got.Seq != 7 {
		t.Fatalf("%+v, %v", got, err)
	}
	copies := func(dir string, n uint64) {
		t.Helper()
		copying, stop := context.WithCancel(ctx)
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- a.Copy(copying, dir) }()
		for {
			if head, _ := audit.VerifyDir(dir); head.Seq == n {
				break
			}
			select {
			case err := <-ended:
				t.Fatalf("copying ended: %v", err)
			case <-time.After(5 * time.Millisecond): // files cannot be waited for portably
			}
		}
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	copies(old, 7)
	copies(fresh, 7)
	if _, err := a.Append(ctx, entry(7)); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		old:   "NAME: audit entry 6: damaged where the service stores it; the file has it as it was",
		fresh: "NAME: audit entry 3: missing where the service stores it\nNAME: audit entry 6: missing where the service stores it",
	} {
		copies(dir, 8) // continued
		if _, err := audit.VerifyDir(dir); err == nil || err.Error() != strings.ReplaceAll(want, "NAME", files(t, dir)[0]) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

// The files of a service that was restored from an older copy are kept as they are.
func TestOlderStore(t *testing.T) {
	a, older := audit.New(open(t).Log(engine.Audit)), audit.New(open(t).Log(engine.Audit))
	for i := range 3 {
		if _, err := a.Append(t.Context(), entry(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := older.Append(t.Context(), entry(0)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	copyAll(t, a, dir, 3)
	before := read(t, dir)
	if err := older.Copy(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "older copy") || read(t, dir) != before {
		t.Error(err)
	}
}

// spoiled is a log in which the content of an entry is another one.
type spoiled struct {
	audit.Log
	seq uint64
}

func (s spoiled) Read(ctx context.Context, from uint64, pattern string, follow bool, handle func(engine.Message) error) error {
	return s.Log.Read(ctx, from, pattern, follow, func(m engine.Message) error {
		if m.Sequence == s.seq {
			m.Data = bytes.Replace(m.Data, []byte(`"digest":"`), []byte(`"digest":"0`), 1)
		}
		return handle(m)
	})
}

// The last entry of the files is damaged in the log: the copy continues after it.
func TestLastCopiedEntryDamaged(t *testing.T) {
	e := open(t)
	sound := e.Log(engine.Audit)
	a, dir := audit.New(sound), t.TempDir()
	for n := uint64(1); n < 4; n++ {
		if _, err := a.Append(t.Context(), entry(int(n))); err != nil {
			t.Fatal(err)
		}
		copyAll(t, a, dir, n)
		a = audit.New(spoiled{sound, n})
	}
	if found := e.Damage(); len(found) != 2 || found[1].Key != "2" {
		t.Errorf("reported: %+v", found)
	}
}

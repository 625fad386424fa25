package view

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"sync"
	"time"

	"modernc.org/sqlite" // the driver, too
	sqlite3 "modernc.org/sqlite/lib"

	"example.com/iad/fleet"
	"example.com/iad/fleet/inventory"
	"example.com/iad/fleet/store"
)

//go:embed schema.sql
var schema string

//go:embed indexes.sql
var indexes string

// View is the database. It is safe for concurrent use.
type View struct {
	read  *sql.DB
	write *sql.DB
	queue chan change
	ended chan struct{} // closed when the writer has ended
	close context.CancelFunc

	mu      sync.Mutex
	applied [tables]uint64
	synced  [tables]bool
	feeds   int64
	moved   chan struct{} // closed and replaced when one of these changes
	failed  error         // why the writer has ended
}

// Table is a table of the view.
type Table int

// The tables.
const (
	Devices Table = iota
	Runs
	tables
)

// Source reports the objects of one type and their changes; *store.Table is one.
type Source[T any] interface {
	Watch(ctx context.Context, handle func(store.Change[T]) error, parts ...string) error
}

// change is a change of a device or run; one without either is a deletion.
type change struct {
	table    Table
	feed     int64
	key      string
	revision uint64
	synced   bool
	device   *fleet.Device
	run      *fleet.Run
}

// ErrClosed is wrapped by errors after Close.
var ErrClosed = errors.New("the view is closed")

// Open creates an empty database in a file; one that exists is removed.
func Open(file string) (*View, error) {
	for _, name := range []string{file, file + "-wal", file + "-shm"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("the view: %w", err)
		}
	}
	// Nothing is lost with this file, so nothing waits for the disk.
	name := "file:" + (&url.URL{Path: file}).EscapedPath() + "?_pragma=journal_mode(wal)&_pragma=synchronous(off)&_pragma=busy_timeout(10000)&_pragma=temp_store(memory)"
	write, err := sql.Open("sqlite", name+"&_txlock=immediate&_pragma=cache_size(-65536)")
	if err != nil {
		return nil, err
	}
	write.SetMaxOpenConns(1)
	if _, err := write.Exec(schema); err != nil {
		return nil, errors.Join(fmt.Errorf("the view %s: %w", file, err), write.Close())
	}
	read, err := sql.Open("sqlite", name+"&_pragma=query_only(on)&_pragma=cache_size(-16384)")
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	read.SetMaxOpenConns(4)
	ctx, cancel := context.WithCancel(context.Background())
	v := &View{read: read, write: write, queue: make(chan change, 4096), ended: make(chan struct{}), close: cancel, moved: make(chan struct{})}
	go func() {
		defer close(v.ended)
		err := v.apply(ctx)
		v.mu.Lock()
		v.failed = err
		v.mu.Unlock()
		v.notify(func() {})
	}()
	return v, nil
}

// Close ends the view.
func (v *View) Close() error {
	v.close()
	<-v.ended
	return errors.Join(v.read.Close(), v.write.Close())
}

// FeedDevices applies what a source reports until its Watch returns. What is reported
// first replaces what the view has, so FeedDevices can be called again after an error.
func (v *View) FeedDevices(ctx context.Context, source Source[fleet.Device]) error {
	feed := v.newFeed()
	return source.Watch(ctx, func(c store.Change[fleet.Device]) error {
		return v.enqueue(ctx, change{table: Devices, feed: feed, key: c.Key, revision: c.Revision, synced: c.Synced, device: c.Value})
	})
}

// FeedRuns is like FeedDevices, for runs.
func (v *View) FeedRuns(ctx context.Context, source Source[fleet.Run]) error {
	feed := v.newFeed()
	return source.Watch(ctx, func(c store.Change[fleet.Run]) error {
		return v.enqueue(ctx, change{table: Runs, feed: feed, key: c.Key, revision: c.Revision, synced: c.Synced, run: c.Value})
	})
}

func (v *View) newFeed() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.feeds++
	return v.feeds
}

func (v *View) enqueue(ctx context.Context, c change) error {
	select {
	case v.queue <- c:
		return nil
	case <-v.ended:
		return v.err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *View) err() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failed != nil {
		return v.failed
	}
	return ErrClosed
}

// notify calls change with the lock held and wakes whoever waits.
func (v *View) notify(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
	close(v.moved)
	v.moved = make(chan struct{})
}

// Wait waits until a table contains what was written with a revision, and everything
// before.
func (v *View) Wait(ctx context.Context, table Table, revision uint64) error {
	return v.until(ctx, func() bool { return v.applied[table] >= revision })
}

// WaitSynced waits until the tables are complete for the first time.
func (v *View) WaitSynced(ctx context.Context) error {
	return v.until(ctx, func() bool { return v.synced == [tables]bool{true, true} })
}

// Synced reports whether the tables are complete.
func (v *View) Synced() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.synced == [tables]bool{true, true}
}

func (v *View) until(ctx context.Context, reached func() bool) error {
	for {
		v.mu.Lock()
		ok, failed, moved := reached(), v.failed, v.moved
		v.mu.Unlock()
		switch {
		case ok:
			return nil
		case failed != nil:
			return failed
		}
		select {
		case <-moved:
		case <-v.ended:
			return v.err()
		case <-ctx.Done():
			return fmt.Errorf("the view is behind: %w", ctx.Err())
		}
	}
}

// maxBatch is the maximum number of changes in one transaction.
const maxBatch = 5000

// fullPause is the pause before changes are applied again for which there was no room.
const fullPause = time.Second

// apply applies what is queued, as much in one transaction as there is. Without room on the
// disk it waits for some: what is there can be read.
func (v *View) apply(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ErrClosed
		case first := <-v.queue:
			list := v.next(first)
			err := v.batch(ctx, list)
			for isFull(err) && ctx.Err() == nil {
				select {
				case <-time.After(fullPause):
				case <-ctx.Done():
				}
				err = v.batch(ctx, list)
			}
			if ctx.Err() != nil {
				return ErrClosed
			}
			if err != nil {
				return fmt.Errorf("the view: %w", err)
			}
		}
	}
}

// isFull reports whether there was no room on the disk.
func isFull(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code() == sqlite3.SQLITE_FULL
}

// next returns a change and those that are queued after it.
func (v *View) next(first change) []change {
	list := []change{first}
	for len(list) < maxBatch {
		select {
		case c := <-v.queue:
			list = append(list, c)
		default:
			return list
		}
	}
	return list
}

func (v *View) batch(ctx context.Context, list []change) error {
	tx, err := v.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	w := &writer{ctx: ctx, tx: tx, statements: map[string]*sql.Stmt{}}
	applied, synced := [tables]uint64{}, [tables]bool{}
	for i := range list {
		c := &list[i]
		if c.synced {
			synced[c.table] = true
			if err := w.sweep(c); err != nil {
				return err
			}
		} else if err := w.put(c); err != nil {
			return err
		}
		applied[c.table] = max(applied[c.table], c.revision)
	}
	if synced[Devices] {
		if _, err := tx.ExecContext(ctx, indexes); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	v.notify(func() {
		for t := range tables {
			v.applied[t] = max(v.applied[t], applied[t])
			v.synced[t] = v.synced[t] || synced[t]
		}
	})
	return nil
}

// writer writes within one transaction.
type writer struct {
	ctx        context.Context
	tx         *sql.Tx
	statements map[string]*sql.Stmt
}

func (w *writer) prepare(query string) (*sql.Stmt, error) {
	s, ok := w.statements[query]
	if !ok {
		var err error
		if s, err = w.tx.PrepareContext(w.ctx, query); err != nil {
			return nil, err
		}
		w.statements[query] = s
	}
	return s, nil
}

func (w *writer) exec(query string, args ...any) error {
	s, err := w.prepare(query)
	if err == nil {
		_, err = s.ExecContext(w.ctx, args...)
	}
	return err
}

// row reads one row into to; it reports whether there is one.
func (w *writer) row(query string, args []any, to ...any) (bool, error) {
	s, err := w.prepare(query)
	if err != nil {
		return false, err
	}
	err = s.QueryRowContext(w.ctx, args...).Scan(to...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func (w *writer) put(c *change) error {
	if c.table == Devices {
		return w.device(c)
	}
	return w.run(c)
}

// sweep removes what the feed has not reported: it was deleted before the feed began.
func (w *writer) sweep(c *change) error {
	query := `SELECT key FROM device WHERE feed < ?`
	if c.table == Runs {
		query = `SELECT key FROM run WHERE feed < ?`
	}
	rows, err := w.tx.QueryContext(w.ctx, query, c.feed)
	if err != nil {
		return err
	}
	defer rows.Close()
	var gone []change
	for rows.Next() {
		one := change{table: c.table}
		if err := rows.Scan(&one.key); err != nil {
			return err
		}
		gone = append(gone, one)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for i := range gone {
		if err := w.put(&gone[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) device(c *change) error {
	var id int64
	if c.device == nil {
		found, err := w.row(`DELETE FROM device WHERE key = ? RETURNING id`, []any{c.key}, &id)
		if err != nil || !found {
			return err
		}
		if err := w.exec(`DELETE FROM device_json WHERE id = ?`, id); err != nil {
			return err
		}
		return w.exec(`DELETE FROM tag WHERE id = ?`, id)
	}
	d, facts, unit := c.device, fleet.Facts{}, ""
	if d.Facts != nil {
		facts = *d.Facts
	}
	if d.Identity != nil {
		unit = d.Identity.Device
	}
	if _, err := w.row(`INSERT INTO device (feed, key, name, address, site, pool, credentials, previous_credentials, rotating, note, device_id, model, hardware, version, version_key, format, generation,
			known, reachable, answered, busy, last_campaign, last_outcome)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (key) DO UPDATE SET feed = excluded.feed, name = excluded.name, address = excluded.address, site = excluded.site, pool = excluded.pool, credentials = excluded.credentials,
			previous_credentials = excluded.previous_credentials, rotating = excluded.rotating,
			note = excluded.note, device_id = excluded.device_id, model = excluded.model, hardware = excluded.hardware, version = excluded.version,
			version_key = excluded.version_key, format = excluded.format, generation = excluded.generation, known = excluded.known,
			reachable = excluded.reachable, answered = excluded.answered, busy = excluded.busy, last_campaign = excluded.last_campaign, last_outcome = excluded.last_outcome
		RETURNING id`,
		[]any{
			c.feed, c.key, d.Name, d.Address, d.Site, d.PoolName(), d.SecretName(), inventory.PreviousCredentials(d), d.Rotating, d.Note, unit, facts.Model, facts.Hardware, facts.Version, inventory.VersionKey(facts.Version),
			facts.ConfigFormat, facts.Generation, d.Facts != nil, inventory.Reachable(d), nanoseconds(inventory.LastAnswer(d)), d.ActiveRun != "", d.LastCampaign, d.LastOutcome,
		}, &id); err != nil {
		return err
	}
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if err := w.exec(`INSERT INTO device_json (id, json) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET json = excluded.json`, id, text); err != nil {
		return err
	}
	if err := w.exec(`DELETE FROM tag WHERE id = ?`, id); err != nil {
		return err
	}
	for _, t := range d.Tags {
		if err := w.exec(`INSERT INTO tag (tag, id) VALUES (?, ?)`, t, id); err != nil {
			return err
		}
	}
	return nil
}

// never stands for a time that is not set: before every other time.
const never = math.MinInt64 / 2

func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return t.UnixNano()
}

func (w *writer) run(c *change) error {
	var id, wave int64
	var campaign, state string
	found, err := w.row(`SELECT id, campaign, wave, state FROM run WHERE key = ?`, []any{c.key}, &id, &campaign, &wave, &state)
	if err != nil {
		return err
	}
	if found {
		if err := w.exec(`UPDATE tally SET n = n - 1 WHERE campaign = ? AND wave = ? AND state = ?`, campaign, wave, state); err != nil {
			return err
		}
	}
	if c.run == nil {
		return w.exec(`DELETE FROM run WHERE id = ?`, id)
	}
	r := c.run
	if err := w.exec(`INSERT INTO tally (campaign, wave, state, n) VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET n = n + 1`, r.Campaign, r.Wave, r.State); err != nil {
		return err
	}
	cause, question, asked := "", "", int64(never)
	if r.State == fleet.RunFailed && r.Failure != nil {
		cause = r.Failure.Cause
	}
	if r.State == fleet.RunWaiting && r.Question != nil {
		question, asked = r.Question.Group(), nanoseconds(r.Question.Time)
	}
	short := *r
	short.Record = nil
	text, err := json.Marshal(&short)
	if err != nil {
		return err
	}
	if found {
		return w.exec(`UPDATE run SET feed = ?, wave = ?, state = ?, started = ?, cause = ?, question = ?, asked = ?, json = ? WHERE id = ?`,
			c.feed, r.Wave, r.State, nanoseconds(r.Started), cause, question, asked, text, id)
	}
	return w.exec(`INSERT INTO run (feed, key, campaign, device, wave, state, started, created, cause, question, asked, json) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		c.feed, c.key, r.Campaign, r.Device, r.Wave, r.State, nanoseconds(r.Started), nanoseconds(r.Created), cause, question, asked, text)
}

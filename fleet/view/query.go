package view

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/inventory"
)

// ErrNotFound says that there is no such object in the view.
var ErrNotFound = errors.New("not found")

// DeviceQuery selects devices.
type DeviceQuery struct {
	Filter *inventory.Filter // nil: all
	// Text is a part of the name, the address or the device ID, in any case; empty: all.
	Text string
	// Sort is name, site, version or contact, with "-" before it for descending order;
	// empty: name.
	Sort string
	// Offset and Limit select the page; Limit 0: all.
	Offset, Limit int
	// Now is for filters that use the time.
	Now time.Time
}

func (q *DeviceQuery) where() *where {
	w := new(where)
	w.sql.WriteString(" WHERE 1")
	if q.Filter != nil {
		w.sql.WriteString(" AND ")
		w.filter(q.Filter.Root(), q.Now)
	}
	if q.Text != "" {
		w.add(" AND (instr(lower(name), lower(?)) OR instr(lower(address), lower(?)) OR instr(lower(device_id), lower(?)))", q.Text, q.Text, q.Text)
	}
	return w
}

var orders = map[string]string{"": "name", "name": "name", "site": "site, name", "version": "version_key, name", "contact": "answered, name"}

// order is the ORDER BY of the query.
func (q *DeviceQuery) order() (string, error) {
	name, descending := strings.CutPrefix(q.Sort, "-")
	columns, ok := orders[name]
	if !ok {
		return "", &fleet.FieldError{Field: "sort", Problem: fmt.Sprintf("%.40q must be name, site, version or contact", q.Sort)}
	}
	if descending {
		columns = strings.ReplaceAll(columns, ",", " DESC,") + " DESC"
	}
	return " ORDER BY " + columns, nil
}

// Count returns the number of devices that q selects, on all pages.
func (v *View) Count(ctx context.Context, q DeviceQuery) (n int, err error) {
	w := q.where()
	err = v.read.QueryRowContext(ctx, `SELECT count(*) FROM device`+w.sql.String(), w.args...).Scan(&n)
	return n, err
}

// Devices calls handle with the devices that q selects.
func (v *View) Devices(ctx context.Context, q DeviceQuery, handle func(*fleet.Device) error) error {
	order, err := q.order()
	if err != nil {
		return err
	}
	w := q.where()
	limit := q.Limit
	if limit == 0 {
		limit = -1
	}
	// The page is found among the narrow rows first.
	query := `SELECT json FROM (SELECT id, row_number() OVER () AS place FROM (SELECT id FROM device` + w.sql.String() + order + ` LIMIT ? OFFSET ?))
		JOIN device_json USING (id) ORDER BY place`
	return v.objects(ctx, query, append(w.args, limit, q.Offset), func(text []byte) error {
		var d fleet.Device
		if err := json.Unmarshal(text, &d); err != nil {
			return err
		}
		return handle(&d)
	})
}

// objects calls handle with the JSON in each row.
func (v *View) objects(ctx context.Context, query string, args []any, handle func(text []byte) error) error {
	rows, err := v.read.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var text sql.RawBytes
		if err := rows.Scan(&text); err != nil {
			return err
		}
		if err := handle(text); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Device returns a device; the error wraps ErrNotFound if there is none.
func (v *View) Device(ctx context.Context, name string) (*fleet.Device, error) {
	var d *fleet.Device
	err := v.objects(ctx, `SELECT json FROM device JOIN device_json USING (id) WHERE name = ?`, []any{name}, func(text []byte) error {
		return json.Unmarshal(text, &d)
	})
	if err == nil && d == nil {
		err = fmt.Errorf("device %.80q: %w", name, ErrNotFound)
	}
	return d, err
}

// Number is how many devices or runs have a value.
type Number struct {
	Value string
	Count int
}

// By returns the numbers of the devices that q selects by the value of a field, site,
// pool, model, hardware or version, the largest number first, at most limit of them.
func (v *View) By(ctx context.Context, field string, q DeviceQuery, limit int) ([]Number, error) {
	switch field {
	case "site", "pool", "model", "hardware", "version":
	default:
		return nil, &fleet.FieldError{Field: "by", Problem: fmt.Sprintf("%.40q must be site, pool, model, hardware or version", field)}
	}
	w := q.where()
	return v.numbers(ctx, `SELECT `+field+`, count(*) FROM device`+w.sql.String()+` GROUP BY `+field+` ORDER BY 2 DESC, 1 LIMIT ?`, append(w.args, limit)...)
}

func (v *View) numbers(ctx context.Context, query string, args ...any) ([]Number, error) {
	rows, err := v.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Number
	for rows.Next() {
		var n Number
		if err := rows.Scan(&n.Value, &n.Count); err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, rows.Err()
}

// RunQuery selects runs, in the order of their devices.
type RunQuery struct {
	Campaign string
	State    fleet.RunState // empty: all
	Wave     int            // -1: all
	// Offset and Limit select the page; Limit 0: all.
	Offset, Limit int
}

// Runs calls handle with the runs that q selects, without their records, and returns how
// many there are on all pages.
func (v *View) Runs(ctx context.Context, q RunQuery, handle func(*fleet.Run) error) (total int, err error) {
	w := new(where)
	w.add(" WHERE campaign = ?", q.Campaign)
	if q.State != "" {
		w.add(" AND state = ?", q.State)
	}
	if q.Wave >= 0 {
		w.add(" AND wave = ?", q.Wave)
	}
	if err := v.read.QueryRowContext(ctx, `SELECT coalesce(sum(n), 0) FROM tally`+w.sql.String(), w.args...).Scan(&total); err != nil {
		return 0, err
	}
	limit := q.Limit
	if limit == 0 {
		limit = -1
	}
	return total, v.runs(ctx, handle, w.sql.String()+` ORDER BY device LIMIT ? OFFSET ?`, append(w.args, limit, q.Offset)...)
}

// runs calls handle with the runs that the rest of a query selects.
func (v *View) runs(ctx context.Context, handle func(*fleet.Run) error, rest string, args ...any) error {
	return v.objects(ctx, `SELECT json FROM run`+rest, args, func(text []byte) error {
		var r fleet.Run
		if err := json.Unmarshal(text, &r); err != nil {
			return err
		}
		return handle(&r)
	})
}

// RunsOf calls handle with the runs of a device, the newest first.
func (v *View) RunsOf(ctx context.Context, device string, limit int, handle func(*fleet.Run) error) error {
	return v.runs(ctx, handle, ` WHERE device = ? ORDER BY created DESC LIMIT ?`, device, limit)
}

// Slowest calls handle with the runs of a campaign that are in progress and began first.
func (v *View) Slowest(ctx context.Context, campaign string, limit int, handle func(*fleet.Run) error) error {
	return v.runs(ctx, handle, ` WHERE campaign = ? AND state = ? ORDER BY started LIMIT ?`, campaign, fleet.RunRunning, limit)
}

// Failures returns the numbers of the failed runs of a campaign by cause, the largest
// number first.
func (v *View) Failures(ctx context.Context, campaign string) ([]Number, error) {
	return v.numbers(ctx, `SELECT cause, count(*) FROM run WHERE campaign = ? AND state = ? GROUP BY cause ORDER BY 2 DESC, 1`, campaign, fleet.RunFailed)
}

// QuestionGroup are open questions with the same cause.
type QuestionGroup struct {
	Group string
	Count int
}

// QuestionGroups returns the groups of open questions, the largest first.
func (v *View) QuestionGroups(ctx context.Context) ([]QuestionGroup, error) {
	numbers, err := v.numbers(ctx, `SELECT question, count(*) FROM run WHERE question <> '' GROUP BY question ORDER BY 2 DESC, min(asked)`)
	groups := make([]QuestionGroup, len(numbers))
	for i, n := range numbers {
		groups[i] = QuestionGroup{n.Value, n.Count}
	}
	return groups, err
}

// Questions calls handle with the runs that wait for an answer in a group, the oldest
// question first; limit 0: all.
func (v *View) Questions(ctx context.Context, group string, limit int, handle func(*fleet.Run) error) error {
	if limit == 0 {
		limit = -1
	}
	return v.runs(ctx, handle, ` WHERE question = ? AND question <> '' ORDER BY asked, device LIMIT ?`, group, limit)
}

// Counts returns the numbers of the runs of a campaign, of all and by wave. The list has
// an element for each wave up to the last one that has runs.
func (v *View) Counts(ctx context.Context, campaign string) (all fleet.Counts, waves []fleet.Counts, err error) {
	rows, err := v.read.QueryContext(ctx, `SELECT wave, state, sum(n) FROM tally WHERE campaign = ? GROUP BY wave, state`, campaign)
	if err != nil {
		return all, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var wave, n int
		var state fleet.RunState
		if err := rows.Scan(&wave, &state, &n); err != nil {
			return all, nil, err
		}
		for len(waves) <= wave {
			waves = append(waves, fleet.Counts{})
		}
		waves[wave].Add(state, n)
		all.Add(state, n)
	}
	return all, waves, rows.Err()
}

package service

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/inventory"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/store"
	"example.com/iad/fleet/view"
)

// Overview implements operations.Service.
func (s *Service) Overview(ctx context.Context, by operations.Caller) (*operations.Overview, error) {
	if err := s.permit(ctx, by, operations.Read, "fleet"); err != nil {
		return nil, err
	}
	o := &operations.Overview{Time: s.now()}
	var err error
	if o.Devices, err = s.view.Count(ctx, view.DeviceQuery{}); err != nil {
		return nil, err
	}
	unreachable, err := inventory.Compile("known and not reachable")
	if err != nil {
		return nil, err
	}
	if o.Unreachable, err = s.view.Count(ctx, view.DeviceQuery{Filter: unreachable}); err != nil {
		return nil, err
	}
	for name, to := range map[string]*[]operations.Count{"version": &o.Versions, "model": &o.Models} {
		numbers, err := s.view.By(ctx, name, view.DeviceQuery{}, 20)
		if err != nil {
			return nil, err
		}
		*to = counts(numbers)
	}
	campaigns, err := s.store.Campaigns.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range campaigns {
		if !c.State.Final() {
			o.Campaigns++
		}
	}
	groups, err := s.view.QuestionGroups(ctx)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		o.Questions += g.Count
	}
	workers, err := s.store.Workers(ctx)
	o.Workers, o.Damaged = len(workers), len(s.store.Engine.Damage())
	return o, err
}

// Devices implements operations.Service.
func (s *Service) Devices(ctx context.Context, by operations.Caller, q operations.DeviceQuery) (*operations.DevicePage, error) {
	if err := s.permit(ctx, by, operations.Read, "devices"); err != nil {
		return nil, err
	}
	limit, err := pageSize(q.Limit)
	if err = errors.Join(err, offset(q.Offset)); err != nil {
		return nil, err
	}
	query := view.DeviceQuery{Text: q.Text, Sort: q.Sort, Offset: q.Offset, Limit: limit, Now: s.now()}
	if query.Filter, err = filter("filter", q.Filter); err != nil {
		return nil, err
	}
	page := &operations.DevicePage{Devices: []fleet.Device{}, Offset: q.Offset}
	if page.Total, err = s.view.Count(ctx, query); err != nil {
		return nil, err
	}
	err = s.view.Devices(ctx, query, func(d *fleet.Device) error { page.Devices = append(page.Devices, *d); return nil })
	return page, err
}

// filter compiles a filter of a field; an empty one is nil.
func filter(name, text string) (*inventory.Filter, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	f, err := inventory.Compile(text)
	if err != nil {
		return nil, field(name, "%v", err)
	}
	return f, nil
}

// Match implements operations.Service.
func (s *Service) Match(ctx context.Context, by operations.Caller, text string) (*operations.Match, error) {
	if err := s.permit(ctx, by, operations.Read, "devices"); err != nil {
		return nil, err
	}
	f, err := inventory.Compile(text)
	if err != nil {
		return nil, field("filter", "%v", err)
	}
	q := view.DeviceQuery{Filter: f, Limit: 10, Now: s.now()}
	m := &operations.Match{Sample: []string{}}
	if m.Count, err = s.view.Count(ctx, q); err != nil {
		return nil, err
	}
	if err := s.view.Devices(ctx, q, func(d *fleet.Device) error { m.Sample = append(m.Sample, d.Name); return nil }); err != nil {
		return nil, err
	}
	for name, to := range map[string]*[]operations.Count{"version": &m.Versions, "site": &m.Sites} {
		numbers, err := s.view.By(ctx, name, q, 20)
		if err != nil {
			return nil, err
		}
		*to = counts(numbers)
	}
	return m, nil
}

// Device implements operations.Service.
func (s *Service) Device(ctx context.Context, by operations.Caller, name string) (*operations.DeviceDetail, error) {
	if err := s.permit(ctx, by, operations.Read, "device/"+name); err != nil {
		return nil, err
	}
	d, _, err := s.store.Devices.Get(ctx, name)
	if err != nil {
		return nil, failed(err, "device", name)
	}
	detail := &operations.DeviceDetail{Device: *d, Runs: []operations.RunRow{}}
	err = s.view.RunsOf(ctx, name, 100, func(r *fleet.Run) error { detail.Runs = append(detail.Runs, operations.RowOf(r)); return nil })
	return detail, err
}

// sites returns the names of the sites.
func (s *Service) sites(ctx context.Context) (map[string]bool, error) {
	list, err := s.store.Sites.List(ctx)
	known := map[string]bool{"": true}
	for _, site := range list {
		known[site.Name] = true
	}
	return known, err
}

func unknownSite(name string) error {
	return field("site", "there is no site %.80q; add it first, with its time zone", name)
}

// PutDevice implements operations.Service.
func (s *Service) PutDevice(ctx context.Context, by operations.Caller, d fleet.Device) (*fleet.Device, error) {
	var stored *fleet.Device
	d.Normalize()
	err := s.change(ctx, by, operations.WriteDevice, "device/"+d.Name, func() (effect, error) {
		if err := d.Validate(); err != nil {
			return effect{}, err
		}
		known, err := s.sites(ctx)
		if err != nil {
			return effect{}, err
		}
		if !known[d.Site] {
			return effect{}, unknownSite(d.Site)
		}
		before, after, revision, err := s.putDevice(ctx, &d, nil)
		if err != nil {
			return effect{}, err
		}
		stored = after
		e := effect{after: after}
		if before != nil {
			e.before = before
		}
		return e, s.view.Wait(ctx, view.Devices, revision)
	})
	if err == nil && stored == nil { // a repeated request
		stored, _, err = s.store.Devices.Get(ctx, d.Name)
		err = failed(err, "device", d.Name)
	}
	return stored, err
}

// putDevice adds a device or changes what operators set of it. before is nil if it was
// added; revision is 0 if nothing was changed. Only the given fields of a device that exists change; nil: all.
func (s *Service) putDevice(ctx context.Context, d *fleet.Device, given []string) (before, after *fleet.Device, revision uint64, err error) {
	for {
		old, oldRevision, err := s.store.Devices.Get(ctx, d.Name)
		switch {
		case errors.Is(err, engine.ErrNotFound):
			after = s.newDevice(d)
			revision, err = s.store.Devices.Create(ctx, after)
		case err != nil:
			return nil, nil, 0, err
		default:
			merged, changed := inventory.Merge(old, d, given)
			if !changed {
				return old, old, 0, nil
			}
			if merged.SecretName() != old.SecretName() {
				if old.Rotating != "" && old.ActiveRun == old.Rotating {
					return nil, nil, 0, conflict("the campaign %s is changing the credentials of device %s; wait until it has ended", old.Rotating, old.Name)
				}
				if err := s.dropWeaker(ctx, &merged); err != nil {
					return nil, nil, 0, err
				}
			}
			before, after = old, &merged
			revision, err = s.store.Devices.Update(ctx, after, oldRevision)
		}
		if !errors.Is(err, engine.ErrConflict) {
			return before, after, revision, err
		}
	}
}

// newDevice returns a device that is to be added, with what operators set of it.
func (s *Service) newDevice(d *fleet.Device) *fleet.Device {
	added := *d
	added.Identity, added.Facts, added.Contact, added.ActiveRun, added.LastCampaign, added.LastOutcome = nil, nil, fleet.Contact{}, "", "", ""
	added.PreviousCredentials, added.Rotating = nil, ""
	added.Created = s.now()
	return &added
}

// RemoveDevice implements operations.Service.
func (s *Service) RemoveDevice(ctx context.Context, by operations.Caller, name string) error {
	return s.change(ctx, by, operations.RemoveDevice, "device/"+name, func() (effect, error) {
		d, revision, err := s.store.Devices.Get(ctx, name)
		if err != nil {
			return effect{}, failed(err, "device", name)
		}
		if d.ActiveRun != "" {
			return effect{}, conflict("device %s is in progress in the campaign %s; wait, or stop the campaign", name, d.ActiveRun)
		}
		return effect{before: d}, failed(s.store.Devices.Delete(ctx, revision, name), "device", name)
	})
}

// importParallel is how many devices an import stores at the same time.
const importParallel = 64

// ImportDevices implements operations.Service. Nothing is changed if the file has a
// mistake. An import that is interrupted while it stores can be repeated.
func (s *Service) ImportDevices(ctx context.Context, by operations.Caller, format operations.Format, data io.Reader, dryRun bool) (*operations.ImportResult, error) {
	if err := s.permit(ctx, by, operations.ImportDevices, "devices"); err != nil {
		return nil, err
	}
	sum := sha256.New()
	file, err := read(format, io.TeeReader(data, sum))
	if err != nil {
		return nil, err
	}
	if len(file.Secrets) > 0 {
		if err := s.permit(ctx, by, operations.WriteSecret, "secrets"); err != nil {
			return nil, err
		}
	}
	if err := s.checkImport(ctx, file); err != nil {
		return nil, err
	}
	result := &operations.ImportResult{}
	if dryRun {
		return result, s.compareImport(ctx, file, result)
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	by.Content = string(format) + " " + digest
	err = s.change(ctx, by, operations.ImportDevices, "devices", func() (effect, error) {
		for i := range file.Secrets {
			if err := s.replaceable(ctx, &file.Secrets[i]); err != nil {
				return effect{}, err
			}
		}
		for i := range file.Secrets {
			if err := s.store.Secrets.Put(ctx, &file.Secrets[i]); err != nil {
				return effect{}, err
			}
		}
		if err := s.storeImport(ctx, file, result); err != nil {
			return effect{}, err
		}
		return effect{after: struct {
			File string `json:"file"` // its SHA-256
			*operations.ImportResult
		}{digest, result}}, nil
	})
	return result, err
}

func read(format operations.Format, data io.Reader) (*inventory.Imported, error) {
	switch format {
	case operations.CSV:
		return inventory.ReadCSV(data)
	case operations.JSON:
		return inventory.ReadJSON(data)
	case operations.TOML:
		return inventory.ReadTOML(data)
	}
	return nil, field("format", "must be csv, json or toml, and is %.40q", string(format))
}

// checkImport checks what the file refers to.
func (s *Service) checkImport(ctx context.Context, file *inventory.Imported) error {
	known, err := s.sites(ctx)
	if err != nil {
		return err
	}
	var unknown []error
	for i := range file.Devices {
		if site := file.Devices[i].Site; !known[site] {
			known[site] = true // once
			unknown = append(unknown, unknownSite(site))
		}
	}
	return errors.Join(unknown...)
}

// compareImport counts what an import would change.
func (s *Service) compareImport(ctx context.Context, file *inventory.Imported, result *operations.ImportResult) error {
	for i := range file.Devices {
		old, err := s.view.Device(ctx, file.Devices[i].Name)
		if errors.Is(err, view.ErrNotFound) {
			result.Added++
			continue
		}
		if err != nil {
			return err
		}
		if _, changed := inventory.Merge(old, &file.Devices[i], file.Given[file.Devices[i].Name]); changed {
			result.Changed++
		} else {
			result.Unchanged++
		}
	}
	return nil
}

// storeImport stores the devices of a file, and waits until the view has them.
func (s *Service) storeImport(ctx context.Context, file *inventory.Imported, result *operations.ImportResult) error {
	// Devices that the view does not know are probably new, and are stored many at a time.
	var added []*fleet.Device
	var unknown, known []int
	for i := range file.Devices {
		_, err := s.view.Device(ctx, file.Devices[i].Name)
		switch {
		case errors.Is(err, view.ErrNotFound):
			added, unknown = append(added, s.newDevice(&file.Devices[i])), append(unknown, i)
		case err != nil:
			return err
		default:
			known = append(known, i)
		}
	}
	revisions, err := s.store.Devices.CreateAll(ctx, added)
	if err != nil {
		return err
	}
	var last uint64
	for k, i := range unknown {
		if revisions[k] == 0 {
			known = append(known, i)
			continue
		}
		result.Added++
		last = max(last, revisions[k])
	}
	type done struct {
		before   bool
		revision uint64
	}
	all := make([]done, len(known))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(importParallel)
	for k, i := range known {
		group.Go(func() error {
			before, _, revision, err := s.putDevice(groupCtx, &file.Devices[i], file.Given[file.Devices[i].Name])
			all[k] = done{before != nil, revision}
			if err != nil {
				err = fmt.Errorf("device %s: %w", file.Devices[i].Name, err)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, d := range all {
		switch {
		case !d.before:
			result.Added++
		case d.revision != 0:
			result.Changed++
		default:
			result.Unchanged++
		}
		last = max(last, d.revision)
	}
	return s.view.Wait(ctx, view.Devices, last)
}

// ExportDevices implements operations.Service.
func (s *Service) ExportDevices(ctx context.Context, by operations.Caller, format operations.Format, text string, w io.Writer) error {
	if err := s.permit(ctx, by, operations.Read, "devices"); err != nil {
		return err
	}
	f, err := filter("filter", text)
	if err != nil {
		return err
	}
	var file inventory.Writer
	switch format {
	case operations.CSV:
		file = inventory.NewCSVWriter(w)
	case operations.JSON:
		file = inventory.NewJSONWriter(w)
	default:
		return field("format", "must be csv or json, and is %.40q", string(format))
	}
	if err := s.view.Devices(ctx, view.DeviceQuery{Filter: f, Now: s.now()}, file.Write); err != nil {
		return err
	}
	return file.Close()
}

// objects are the operations on sites, groups and schedules, which are alike.
type objects[T any] struct {
	what   string
	table  func(*store.Store) *store.Table[T]
	action operations.Action
	name   func(*T) string
	// check validates an object that is to be stored.
	check func(context.Context, *Service, *T) error
	// used returns an error if the object cannot be removed; nil: it always can.
	used func(context.Context, *Service, string) error
}

func (o *objects[T]) list(ctx context.Context, s *Service, by operations.Caller) ([]T, error) {
	if err := s.permit(ctx, by, operations.Read, o.what+"s"); err != nil {
		return nil, err
	}
	list, err := o.table(s.store).List(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b *T) int { return strings.Compare(o.name(a), o.name(b)) })
	all := make([]T, len(list))
	for i, v := range list {
		all[i] = *v
	}
	return all, nil
}

func (o *objects[T]) put(ctx context.Context, s *Service, by operations.Caller, v *T) error {
	name, table := o.name(v), o.table(s.store)
	return s.change(ctx, by, o.action, o.what+"/"+name, func() (effect, error) {
		if err := o.check(ctx, s, v); err != nil {
			return effect{}, err
		}
		for {
			old, revision, err := table.Get(ctx, name)
			e := effect{after: v}
			if errors.Is(err, engine.ErrNotFound) {
				_, err = table.Create(ctx, v)
			} else if err == nil {
				e.before = old
				_, err = table.Update(ctx, v, revision)
			}
			if !errors.Is(err, engine.ErrConflict) {
				return e, err
			}
		}
	})
}

func (o *objects[T]) remove(ctx context.Context, s *Service, by operations.Caller, name string) error {
	return s.change(ctx, by, o.action, o.what+"/"+name, func() (effect, error) {
		if o.used != nil {
			if err := o.used(ctx, s, name); err != nil {
				return effect{}, err
			}
		}
		old, revision, err := o.table(s.store).Get(ctx, name)
		if err != nil {
			return effect{}, failed(err, o.what, name)
		}
		return effect{before: old}, failed(o.table(s.store).Delete(ctx, revision, name), o.what, name)
	})
}

var sites = objects[fleet.Site]{
	what: "site", action: operations.WriteSite, table: func(s *store.Store) *store.Table[fleet.Site] { return s.Sites }, name: func(v *fleet.Site) string { return v.Name },
	check: func(_ context.Context, _ *Service, v *fleet.Site) error { return v.Validate() },
	used: func(ctx context.Context, s *Service, name string) error {
		f, err := inventory.Compile(fmt.Sprintf("site == %q", name))
		if err != nil {
			return notFound("site", name)
		}
		n, err := s.view.Count(ctx, view.DeviceQuery{Filter: f})
		if err == nil && n > 0 {
			err = conflict("site %s has %d devices; move them to another site first", name, n)
		}
		return err
	},
}

var groups = objects[fleet.Group]{
	what: "group", action: operations.WriteGroup, table: func(s *store.Store) *store.Table[fleet.Group] { return s.Groups }, name: func(v *fleet.Group) string { return v.Name },
	check: func(_ context.Context, _ *Service, v *fleet.Group) error {
		if err := v.Validate(); err != nil {
			return err
		}
		return inventory.Check("filter", v.Filter)
	},
}

var schedules = objects[fleet.Schedule]{
	what: "schedule", action: operations.WriteSchedule, table: func(s *store.Store) *store.Table[fleet.Schedule] { return s.Schedules }, name: func(v *fleet.Schedule) string { return v.Name },
	check: func(ctx context.Context, s *Service, v *fleet.Schedule) error {
		if err := v.Validate(); err != nil {
			return err
		}
		if s.cfg.RequireApproval && v.Spec.Operation != fleet.OperationBackup && v.Spec.Operation != fleet.OperationCheck {
			return field("spec.operation", "must be backup or check in a schedule, because every campaign that changes devices needs an approval here (--require-approval); create a campaign instead")
		}
		return s.checkSpec(ctx, &v.Spec, "spec.")
	},
}

// Sites implements operations.Service.
func (s *Service) Sites(ctx context.Context, by operations.Caller) ([]fleet.Site, error) {
	return sites.list(ctx, s, by)
}

// PutSite implements operations.Service.
func (s *Service) PutSite(ctx context.Context, by operations.Caller, v fleet.Site) error {
	return sites.put(ctx, s, by, &v)
}

// RemoveSite implements operations.Service.
func (s *Service) RemoveSite(ctx context.Context, by operations.Caller, name string) error {
	return sites.remove(ctx, s, by, name)
}

// Groups implements operations.Service.
func (s *Service) Groups(ctx context.Context, by operations.Caller) ([]fleet.Group, error) {
	return groups.list(ctx, s, by)
}

// PutGroup implements operations.Service.
func (s *Service) PutGroup(ctx context.Context, by operations.Caller, v fleet.Group) error {
	return groups.put(ctx, s, by, &v)
}

// RemoveGroup implements operations.Service.
func (s *Service) RemoveGroup(ctx context.Context, by operations.Caller, name string) error {
	return groups.remove(ctx, s, by, name)
}

// Schedules implements operations.Service.
func (s *Service) Schedules(ctx context.Context, by operations.Caller) ([]fleet.Schedule, error) {
	return schedules.list(ctx, s, by)
}

// PutSchedule implements operations.Service.
func (s *Service) PutSchedule(ctx context.Context, by operations.Caller, v fleet.Schedule) error {
	v.CreatedBy = by.Name
	return schedules.put(ctx, s, by, &v)
}

// RemoveSchedule implements operations.Service.
func (s *Service) RemoveSchedule(ctx context.Context, by operations.Caller, name string) error {
	return schedules.remove(ctx, s, by, name)
}

package ui

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

// pageSize is the number of rows on a page.
const pageSize = 50

// pager leads to the pages of a list.
type pager struct {
	From, To, Total int    // rows, from 1 on
	Earlier, Later  string // addresses; empty: there are none
}

func pagerOf(u *url.URL, offset, rows, total int) pager {
	g := pager{From: min(offset+1, total), To: offset + rows, Total: total}
	at := func(offset int) string {
		q := u.Query()
		q.Del("done")
		q.Set("offset", strconv.Itoa(offset))
		return u.Path + "?" + q.Encode()
	}
	if offset > 0 {
		g.Earlier = at(max(0, offset-pageSize))
	}
	if offset+rows < total {
		g.Later = at(offset + pageSize)
	}
	return g
}

type devicesData struct {
	Filter, Text, Sort string
	Page               *operations.DevicePage
	Pager              pager
	Problem            string
}

func (p *page) devices() error {
	q := p.r.URL.Query()
	data := devicesData{Filter: q.Get("filter"), Text: q.Get("text"), Sort: q.Get("sort"), Page: new(operations.DevicePage)}
	found, err := p.Service.Devices(p.r.Context(), p.by, operations.DeviceQuery{
		Filter: data.Filter, Text: data.Text, Sort: data.Sort, Offset: p.number("offset", 0), Limit: pageSize,
	})
	status := http.StatusOK
	if problems := fleet.FieldErrors(err); len(problems) > 0 {
		data.Problem, status = problems[0].Error(), http.StatusUnprocessableEntity
	} else if err != nil {
		return err
	} else {
		data.Page, data.Pager = found, pagerOf(p.r.URL, found.Offset, len(found.Devices), found.Total)
	}
	p.show(status, "devices", "Devices", data)
	return nil
}

// deviceOf reads what operators set of a device from a form.
func (p *page) deviceOf(name string) fleet.Device {
	return fleet.Device{
		Name: name, Address: p.value("address"), RootOID: p.value("root_oid"), Site: p.value("site"), Pool: p.value("pool"),
		Credentials: p.value("credentials"), Note: p.value("note"),
		Tags: strings.FieldsFunc(p.value("tags"), func(r rune) bool { return r == ',' || r == ' ' }),
	}
}

func (p *page) newDevice() error {
	p.show(http.StatusOK, "device_new", "Add a device", nil)
	return nil
}

func (p *page) addDevice() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	name := p.value("name")
	d := p.deviceOf(name)
	if err := d.Validate(); err != nil {
		return p.refuse(err, "device_new", "Add a device", nil)
	}
	_, err := p.Service.Device(p.r.Context(), p.by, name)
	switch {
	case err == nil:
		err = &fleet.FieldError{Field: "name", Problem: "there is a device with this name; choose another one, or change that device"}
	case errors.Is(err, operations.ErrNotFound):
		_, err = p.Service.PutDevice(p.r.Context(), p.by, d)
	}
	if err != nil {
		return p.refuse(err, "device_new", "Add a device", nil)
	}
	return p.done("/devices/"+url.PathEscape(name), "saved")
}

func (p *page) device() error { return p.showDevice(nil) }

// showDevice shows a device; refused is what was wrong with the form for it.
func (p *page) showDevice(refused error) error {
	d, err := p.Service.Device(p.r.Context(), p.by, p.r.PathValue("name"))
	if err != nil {
		return err
	}
	if refused != nil {
		return p.refuse(refused, "device", d.Device.Name, d)
	}
	v := url.Values{}
	for name, value := range map[string]string{
		"address": d.Device.Address, "root_oid": d.Device.RootOID, "site": d.Device.Site, "pool": d.Device.Pool, "credentials": d.Device.Credentials,
		"note": d.Device.Note, "tags": strings.Join(d.Device.Tags, ", "),
	} {
		v.Set(name, value)
	}
	p.write(http.StatusOK, "device", view{Title: d.Device.Name, Data: d, Values: v})
	return nil
}

func (p *page) changeDevice() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	name := p.r.PathValue("name")
	if _, err := p.Service.Device(p.r.Context(), p.by, name); err != nil {
		return err
	}
	if _, err := p.Service.PutDevice(p.r.Context(), p.by, p.deviceOf(name)); err != nil {
		return p.showDevice(err)
	}
	return p.done("/devices/"+url.PathEscape(name), "saved")
}

func (p *page) removeDevice() error {
	if err := p.Service.RemoveDevice(p.r.Context(), p.by, p.r.PathValue("name")); err != nil {
		return err
	}
	return p.done("/devices", "removed")
}

type inventoryData struct {
	Sites     []fleet.Site
	Groups    []fleet.Group
	Secrets   []string
	Schedules []fleet.Schedule
	Result    *operations.ImportResult // of a dry run
}

func (p *page) inventoryData() (d inventoryData, err error) {
	ctx := p.r.Context()
	if d.Sites, err = p.Service.Sites(ctx, p.by); err != nil {
		return d, err
	}
	if d.Groups, err = p.Service.Groups(ctx, p.by); err != nil {
		return d, err
	}
	if d.Secrets, err = p.Service.Secrets(ctx, p.by); err != nil {
		return d, err
	}
	d.Schedules, err = p.Service.Schedules(ctx, p.by)
	return d, err
}

func (p *page) inventory() error {
	d, err := p.inventoryData()
	if err != nil {
		return err
	}
	p.show(http.StatusOK, "inventory", "Inventory", d)
	return nil
}

// onInventory ends a request of a form on the page Inventory.
func (p *page) onInventory(err error, done string) error {
	if err == nil {
		return p.done("/inventory", done)
	}
	d, problem := p.inventoryData()
	if problem != nil {
		return problem
	}
	return p.refuse(err, "inventory", "Inventory", d)
}

// importDevices reads the fields of the form in their order: the file comes last.
func (p *page) importDevices() error {
	p.r.Body = http.MaxBytesReader(p.w, p.r.Body, maxInventory)
	parts, err := p.r.MultipartReader()
	if err != nil {
		return &fleet.FieldError{Field: "file", Problem: "is missing; choose a file"}
	}
	dryRun := false
	for {
		part, err := parts.NextPart()
		if err != nil {
			return p.onInventory(&fleet.FieldError{Field: "file", Problem: "is missing; choose a file"}, "")
		}
		switch part.FormName() {
		case "dry_run":
			dryRun = true
		case "file":
			format := operations.Format(strings.TrimPrefix(strings.ToLower(path.Ext(part.FileName())), "."))
			if format != operations.CSV && format != operations.JSON && format != operations.TOML {
				return p.onInventory(&fleet.FieldError{Field: "file", Problem: "must be a file whose name ends with .csv, .json or .toml"}, "")
			}
			result, err := p.Service.ImportDevices(p.r.Context(), p.by, format, part, dryRun)
			if err != nil || !dryRun {
				return p.onInventory(err, "imported")
			}
			d, err := p.inventoryData()
			if err != nil {
				return err
			}
			d.Result = result
			p.show(http.StatusOK, "inventory", "Inventory", d)
			return nil
		}
	}
}

func (p *page) exportDevices() error {
	format := operations.Format(p.r.URL.Query().Get("format"))
	if format != operations.JSON {
		format = operations.CSV
	}
	var b bytes.Buffer
	if err := p.Service.ExportDevices(p.r.Context(), p.by, format, p.r.URL.Query().Get("filter"), &b); err != nil {
		return err
	}
	p.attach("devices."+string(format), &b)
	return nil
}

// attach answers with a file to be stored, whatever it contains. name is safe in a header.
func (p *page) attach(name string, content io.Reader) {
	p.w.Header().Set("Content-Type", "application/octet-stream")
	p.w.Header().Set("Content-Disposition", `attachment; filename="`+fleet.NameFor(name)+`"`)
	_, _ = io.Copy(p.w, content) // the browser is gone
}

func (p *page) putSite() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	parallel, err := p.count("site", "parallel")
	if err == nil {
		err = p.Service.PutSite(p.r.Context(), p.by, fleet.Site{
			Name: p.value("site.name"), Title: p.value("site.title"), TimeZone: p.value("site.time_zone"), Parallel: parallel,
		})
	}
	return p.onInventory(in("site", err), "saved")
}

// in puts the fields of errors below a prefix: several forms are on one page.
func in(prefix string, err error) error {
	fields := fleet.FieldErrors(err)
	if len(fields) == 0 {
		return err
	}
	list := make([]error, len(fields))
	for i, f := range fields {
		list[i] = &fleet.FieldError{Field: prefix + "." + f.Field, Problem: f.Problem}
	}
	return errors.Join(list...)
}

// count is a number in a form whose fields have a prefix; an empty field is 0.
func (p *page) count(prefix, name string) (int, error) {
	text := p.value(prefix + "." + name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, &fleet.FieldError{Field: name, Problem: "must be a whole number"}
	}
	return n, nil
}

func (p *page) removeSite() error {
	return p.onInventory(p.Service.RemoveSite(p.r.Context(), p.by, p.r.PathValue("name")), "removed")
}

func (p *page) putGroup() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	err := p.Service.PutGroup(p.r.Context(), p.by, fleet.Group{Name: p.value("group.name"), Filter: p.value("group.filter")})
	return p.onInventory(in("group", err), "saved")
}

func (p *page) removeGroup() error {
	return p.onInventory(p.Service.RemoveGroup(p.r.Context(), p.by, p.r.PathValue("name")), "removed")
}

func (p *page) putSecret() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	s := fleet.Secret{Name: p.value("secret.name"), ReadCommunity: p.r.PostForm.Get("secret.read_community"), WriteCommunity: p.r.PostForm.Get("secret.write_community")}
	if user := p.value("secret.user"); user != "" {
		s.User = &fleet.SNMPUser{
			Name: user, Auth: p.value("secret.auth"), AuthPassphrase: p.r.PostForm.Get("secret.auth_passphrase"),
			Priv: p.value("secret.priv"), PrivPassphrase: p.r.PostForm.Get("secret.priv_passphrase"), Context: p.value("secret.context"),
		}
	}
	return p.onInventory(in("secret", p.Service.PutSecret(p.r.Context(), p.by, s)), "saved")
}

func (p *page) removeSecret() error {
	return p.onInventory(p.Service.RemoveSecret(p.r.Context(), p.by, p.r.PathValue("name")), "removed")
}

// putSchedule makes a schedule of backups. Others are made with the API.
func (p *page) putSchedule() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	err := p.Service.PutSchedule(p.r.Context(), p.by, fleet.Schedule{
		Name: p.value("schedule.name"), Days: p.r.PostForm["schedule.days"], At: p.value("schedule.at"), TimeZone: p.value("schedule.time_zone"),
		Spec: fleet.CampaignSpec{Title: "Backup " + p.value("schedule.name"), Operation: fleet.OperationBackup, Filter: p.value("schedule.filter")},
	})
	return p.onInventory(in("schedule", err), "saved")
}

func (p *page) removeSchedule() error {
	return p.onInventory(p.Service.RemoveSchedule(p.r.Context(), p.by, p.r.PathValue("name")), "removed")
}

package api

import (
	"bytes"
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

// DeviceInput is what operators set of a device.
type DeviceInput struct {
	Address     string   `json:"address" doc:"HOST or HOST:PORT of the SNMP agent" example:"192.0.2.10"`
	RootOID     string   `json:"root_oid,omitempty" doc:"Where IAD-UPGRADE-MIB is on the device; empty: the usual place"`
	Site        string   `json:"site,omitempty"`
	Pool        string   `json:"pool,omitempty" doc:"The workers that reach the device; empty: default"`
	Tags        []string `json:"tags,omitempty"`
	Credentials string   `json:"credentials,omitempty" doc:"The name of a secret; empty: default"`
	Note        string   `json:"note,omitempty"`
}

// SecretInput is what SNMP requires. It is stored sealed and never shown.
type SecretInput struct {
	ReadCommunity  string          `json:"read_community,omitempty" format:"password"`
	WriteCommunity string          `json:"write_community,omitempty" format:"password"`
	User           *fleet.SNMPUser `json:"user,omitempty"`
}

// maxInventory is the maximum size of an inventory file, in bytes.
const maxInventory = 512 << 20

func (s *server) registerInventory() {
	register(s, operation(operations.Read, http.MethodGet, "/devices", "list-devices", "List devices, in pages"),
		func(ctx context.Context, by operations.Caller, in *struct {
			Page
			Filter string `query:"filter" doc:"An expression; empty: all devices" example:"site == \"berlin\" and version < \"2.0.0\""`
			Text   string `query:"text" doc:"A part of a name, an address or a device ID"`
			Sort   string `query:"sort" doc:"name, site, version or contact, with - before it for descending order"`
		}) (operations.DevicePage, error) {
			p, err := s.Service.Devices(ctx, by, operations.DeviceQuery{Filter: in.Filter, Text: in.Text, Sort: in.Sort, Offset: in.Offset, Limit: in.Limit})
			if err != nil {
				return operations.DevicePage{}, err
			}
			p.Devices = list(p.Devices)
			return *p, nil
		})
	register(s, operation(operations.Read, http.MethodGet, "/match", "match-devices", "Count the devices that a filter selects", tag("devices")),
		func(ctx context.Context, by operations.Caller, in *struct {
			Filter string `query:"filter" required:"true"`
		}) (operations.Match, error) {
			m, err := s.Service.Match(ctx, by, in.Filter)
			if err != nil {
				return operations.Match{}, err
			}
			m.Sample, m.Versions, m.Sites = list(m.Sample), list(m.Versions), list(m.Sites)
			return *m, nil
		})
	register(s, operation(operations.Read, http.MethodGet, "/devices/{name}", "get-device", "Show a device and its runs"),
		func(ctx context.Context, by operations.Caller, in *Named) (operations.DeviceDetail, error) {
			d, err := s.Service.Device(ctx, by, in.Name)
			if err != nil {
				return operations.DeviceDetail{}, err
			}
			d.Runs = list(d.Runs)
			return *d, nil
		})
	register(s, operation(operations.WriteDevice, http.MethodPut, "/devices/{name}", "put-device", "Add or change a device"),
		func(ctx context.Context, by operations.Caller, in *struct {
			Named
			Body DeviceInput
		}) (*fleet.Device, error) {
			b := in.Body
			return s.Service.PutDevice(ctx, by, fleet.Device{
				Name: in.Name, Address: b.Address, RootOID: b.RootOID, Site: b.Site, Pool: b.Pool, Tags: b.Tags, Credentials: b.Credentials, Note: b.Note,
			})
		})
	registerEmpty(s, operation(operations.RemoveDevice, http.MethodDelete, "/devices/{name}", "remove-device", "Remove a device"),
		func(ctx context.Context, by operations.Caller, in *Named) error {
			return s.Service.RemoveDevice(ctx, by, in.Name)
		})
	register(s, operation(operations.ImportDevices, http.MethodPost, "/inventory", "import-devices", "Add and change the devices of a file, all or none", isFile),
		func(ctx context.Context, by operations.Caller, in *struct {
			Upload
			Format operations.Format `query:"format" required:"true" enum:"csv,json,toml"`
			DryRun bool              `query:"dry_run" doc:"Only say what would change"`
		}) (*operations.ImportResult, error) {
			return s.Service.ImportDevices(ctx, by, in.Format, http.MaxBytesReader(nil, in.reader, maxInventory), in.DryRun)
		})
	register(s, operation(operations.DiscoverDevices, http.MethodPost, "/discover", "discover-devices", "Ask the addresses of a range for devices", tag("devices")),
		func(ctx context.Context, by operations.Caller, in *struct{ Body operations.Discovery }) (*operations.Discovered, error) {
			return s.Service.Discover(ctx, by, in.Body)
		})
	export := operation(operations.Read, http.MethodGet, "/inventory", "export-devices", "Return devices as a file", download)
	huma.Register(s.api, export, func(ctx context.Context, in *struct {
		Format operations.Format `query:"format" required:"true" enum:"csv,json"`
		Filter string            `query:"filter"`
	}) (*file, error) {
		var b bytes.Buffer
		if err := s.Service.ExportDevices(ctx, caller(ctx), in.Format, in.Filter, &b); err != nil {
			return nil, s.problem(export.OperationID, err)
		}
		return &file{Type: "application/octet-stream", Body: b.Bytes()}, nil
	})

	register(s, operation(operations.Read, http.MethodGet, "/sites", "list-sites", "List the sites"),
		func(ctx context.Context, by operations.Caller, _ *struct{}) ([]fleet.Site, error) {
			sites, err := s.Service.Sites(ctx, by)
			return list(sites), err
		})
	registerEmpty(s, operation(operations.WriteSite, http.MethodPut, "/sites/{name}", "put-site", "Add or change a site"),
		func(ctx context.Context, by operations.Caller, in *struct {
			Named
			Body struct {
				Title    string `json:"title,omitempty"`
				TimeZone string `json:"time_zone,omitempty" example:"Europe/Berlin"`
				Parallel int    `json:"parallel,omitempty" doc:"How many devices are worked on at the same time; 0: as many as the campaigns allow"`
			}
		}) error {
			return s.Service.PutSite(ctx, by, fleet.Site{Name: in.Name, Title: in.Body.Title, TimeZone: in.Body.TimeZone, Parallel: in.Body.Parallel})
		})
	registerEmpty(s, operation(operations.WriteSite, http.MethodDelete, "/sites/{name}", "remove-site", "Remove a site"),
		func(ctx context.Context, by operations.Caller, in *Named) error {
			return s.Service.RemoveSite(ctx, by, in.Name)
		})
	register(s, operation(operations.Read, http.MethodGet, "/groups", "list-groups", "List the groups"),
		func(ctx context.Context, by operations.Caller, _ *struct{}) ([]fleet.Group, error) {
			groups, err := s.Service.Groups(ctx, by)
			return list(groups), err
		})
	registerEmpty(s, operation(operations.WriteGroup, http.MethodPut, "/groups/{name}", "put-group", "Add or change a group"),
		func(ctx context.Context, by operations.Caller, in *struct {
			Named
			Body struct {
				Filter string `json:"filter"`
			}
		}) error {
			return s.Service.PutGroup(ctx, by, fleet.Group{Name: in.Name, Filter: in.Body.Filter})
		})
	registerEmpty(s, operation(operations.WriteGroup, http.MethodDelete, "/groups/{name}", "remove-group", "Remove a group"),
		func(ctx context.Context, by operations.Caller, in *Named) error {
			return s.Service.RemoveGroup(ctx, by, in.Name)
		})
	register(s, operation(operations.Read, http.MethodGet, "/secrets", "list-secrets", "List the names of the secrets"),
		func(ctx context.Context, by operations.Caller, _ *struct{}) ([]string, error) {
			names, err := s.Service.Secrets(ctx, by)
			return list(names), err
		})
	registerEmpty(s, operation(operations.WriteSecret, http.MethodPut, "/secrets/{name}", "put-secret", "Add or replace a secret"),
		func(ctx context.Context, by operations.Caller, in *struct {
			Named
			Body SecretInput
		}) error {
			b := in.Body
			return s.Service.PutSecret(ctx, by, fleet.Secret{Name: in.Name, ReadCommunity: b.ReadCommunity, WriteCommunity: b.WriteCommunity, User: b.User})
		})
	registerEmpty(s, operation(operations.WriteSecret, http.MethodDelete, "/secrets/{name}", "remove-secret", "Remove a secret"),
		func(ctx context.Context, by operations.Caller, in *Named) error {
			return s.Service.RemoveSecret(ctx, by, in.Name)
		})
}

// Page selects a page of a list.
type Page struct {
	Offset int `query:"offset" minimum:"0"`
	Limit  int `query:"limit" minimum:"0" maximum:"1000" doc:"0: 50"`
}

func tag(name string) func(*huma.Operation) {
	return func(op *huma.Operation) { op.Tags = []string{name} }
}

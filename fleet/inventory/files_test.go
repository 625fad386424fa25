package inventory_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/iad/fleet"
	"example.com/iad/fleet/inventory"
	"example.com/iad/sim"
	simfleet "example.com/iad/sim/fleet"
)

const table = "\ufeffname,Address, tags,note,version\r\n" +
	"attic,192.0.2.10,voip pilot,\"2 doors, left\",1.0\r\n" +
	",[2001:db8::1]:1161,,,\r\n"

const objects = `[{"name": "attic", "address": "192.0.2.10", "tags": ["voip", "pilot"], "note": "2 doors, left", "facts": {"version": "1.0"}},
	{"address": "[2001:db8::1]:1161"}]`

func TestImport(t *testing.T) {
	want := []fleet.Device{
		{Name: "2001-db8--1--1161", Address: "[2001:db8::1]:1161"},
		{Name: "attic", Address: "192.0.2.10", Tags: []string{"pilot", "voip"}, Note: "2 doors, left"},
	}
	lines := strings.NewReplacer("[{", "{", "},\n", "}\n", "}]", "}").Replace(objects)
	for name, read := range map[string]func() (*inventory.Imported, error){
		"CSV":        func() (*inventory.Imported, error) { return inventory.ReadCSV(strings.NewReader(table)) },
		"JSON":       func() (*inventory.Imported, error) { return inventory.ReadJSON(strings.NewReader(objects)) },
		"JSON lines": func() (*inventory.Imported, error) { return inventory.ReadJSON(strings.NewReader(lines)) },
	} {
		got, err := read()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got.Devices); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

func TestImportOfConfiguration(t *testing.T) {
	got, err := inventory.ReadTOML(strings.NewReader(`
read_community = "public"
[devices.attic]
address = "192.0.2.10"
[devices.cellar]
address = "192.0.2.11"
root_oid = "1.3.6.1.4.1.99999.1"
[devices.cellar.user]
name = "operator"
auth = "sha256"
auth_passphrase = "authentic1"
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &inventory.Imported{
		Devices: []fleet.Device{
			{Name: "attic", Address: "192.0.2.10"},
			{Name: "cellar", Address: "192.0.2.11", RootOID: "1.3.6.1.4.1.99999.1", Credentials: "cellar"},
		},
		Given: map[string][]string{"attic": {"address"}, "cellar": {"address", "root_oid", "credentials"}},
		Secrets: []fleet.Secret{
			{Name: "default", ReadCommunity: "public"},
			{Name: "cellar", User: &fleet.SNMPUser{Name: "operator", Auth: "sha256", AuthPassphrase: "authentic1"}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Every mistake is reported with its line or place, all of them at once.
func TestImportMistakes(t *testing.T) {
	csv := func(s string) error { _, err := inventory.ReadCSV(strings.NewReader(s)); return err }
	json := func(s string) error { _, err := inventory.ReadJSON(strings.NewReader(s)); return err }
	toml := func(s string) error { _, err := inventory.ReadTOML(strings.NewReader(s)); return err }
	for _, c := range []struct {
		read func(string) error
		text string
		want []string
	}{
		{csv, "", []string{"line 1: the header is missing: name,address"}},
		{csv, "name\n", []string{"line 1: the column address is missing"}},
		{csv, "address,colour\n", []string{`line 1: unknown column "colour"`}},
		{csv, "address,Address\n", []string{"line 1: the column address occurs twice"}},
		{csv, "name,address\na,192.0.2.1,x\n", []string{"line 2: wrong number of fields"}},
		{csv, "name,address\na b,192.0.2.1\nc,\n", []string{"line 2: name: \"a b\"", "line 3: address: must be HOST"}},
		{csv, "name,address\na,192.0.2.1\n\na,192.0.2.2\nb,192.0.2.1\n", []string{"line 4: name: a is the name of another", "line 5: address: 192.0.2.1 is the address of another device of this file (a)"}},
		{csv, "name,address\n\"a", []string{"line 2"}},
		{json, "", []string{"file: empty"}},
		{json, `[{"address": "192.0.2.1"}`, []string{"file: truncated"}},
		{json, `[{"address": "192.0.2.1"}] x`, []string{"after the closing ]"}},
		{json, `{"address": "192.0.2.1"`, []string{"device 1: truncated"}},
		{json, `[{"address": 3}]`, []string{"device 1: address must not be a number"}},
		{json, `[{"addres": "a"}]`, []string{`device 1: unknown field "addres"`}},
		{json, `[{"name": "a", "address": "a b"}]`, []string{"[0].address:"}},
		{toml, "[devices.attic]\naddress = 3\n", []string{"file: line 2"}},
		{toml, "[devices.\"a b\"]\naddress = \"192.0.2.1\"\n", []string{"devices.a b.name:"}},
	} {
		err := c.read(c.text)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v; want %q", c.text, err, want)
			}
		}
		if len(fleet.FieldErrors(err)) == 0 {
			t.Errorf("%q: not a mistake in a field: %v", c.text, err)
		}
	}
	many := "address\n" + strings.Repeat("a b\n", 500)
	if err := csv(many); len(fleet.FieldErrors(err)) != 21 || !strings.Contains(err.Error(), "more mistakes") {
		t.Errorf("a long list of mistakes is not cut: %d", len(fleet.FieldErrors(err)))
	}
}

// What is exported is imported again, and what a device reports is not a formula.
func TestExport(t *testing.T) {
	d := attic()
	d.Facts.Model = "=HYPERLINK(1)"
	other := &fleet.Device{Name: "b", Address: "gw.example.net:1161", Site: "s", Pool: "p", Credentials: "c", RootOID: "1.3.6.1.4.1.99999.1"}
	for name, format := range map[string]struct {
		write func(io.Writer) inventory.Writer
		read  func(io.Reader) (*inventory.Imported, error)
	}{"CSV": {inventory.NewCSVWriter, inventory.ReadCSV}, "JSON": {inventory.NewJSONWriter, inventory.ReadJSON}} {
		for _, list := range [][]*fleet.Device{nil, {d, other}} {
			var file bytes.Buffer
			w := format.write(&file)
			for _, one := range list {
				if err := w.Write(one); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if name == "CSV" && len(list) > 0 && !strings.Contains(file.String(), ",'=HYPERLINK(1),") {
				t.Errorf("a formula: %s", file.String())
			}
			got, err := format.read(&file)
			if err != nil || len(got.Devices) != len(list) {
				t.Errorf("%s: %v", name, err)
				continue
			}
			for i, one := range list {
				if _, changed := inventory.Merge(one, &got.Devices[i], nil); changed {
					t.Errorf("%s: %+v came back as %+v", name, one, got.Devices[i])
				}
			}
		}
	}
}

func TestMerge(t *testing.T) {
	old := attic()
	merged, changed := inventory.Merge(old, &fleet.Device{Name: "attic", Address: "192.0.2.99"}, nil)
	if !changed || merged.Address != "192.0.2.99" || merged.Tags != nil || merged.Identity == nil || merged.Facts == nil || merged.LastCampaign != "spring" {
		t.Errorf("changed %v: %+v", changed, merged)
	}
}

// An import changes only what the file has.
func TestImportsKeepWhatTheyLack(t *testing.T) {
	csv := func(s string) (*inventory.Imported, error) { return inventory.ReadCSV(strings.NewReader(s)) }
	json := func(s string) (*inventory.Imported, error) { return inventory.ReadJSON(strings.NewReader(s)) }
	toml := func(s string) (*inventory.Imported, error) { return inventory.ReadTOML(strings.NewReader(s)) }
	old := &fleet.Device{
		Name: "a", Address: "192.0.2.1", RootOID: "1.3.6.1.4.1.99999.1", Site: "north", Pool: "p", Tags: []string{"x"}, Credentials: "c", Note: "n",
	}
	same := func(*fleet.Device) {}
	for _, c := range []struct {
		read func(string) (*inventory.Imported, error)
		text string
		want func(*fleet.Device)
	}{
		{csv, "name,address\na,192.0.2.1\n", same},
		{csv, "name,address,model\na,192.0.2.9,m\n", func(d *fleet.Device) { d.Address = "192.0.2.9" }},
		{csv, "name,address,site,tags\na,192.0.2.1,,\n", func(d *fleet.Device) { d.Site, d.Tags = "", nil }},
		{csv, "name,address,note,pool,credentials,root_oid\na,192.0.2.1,,,,\n", func(d *fleet.Device) {
			d.Note, d.Pool, d.Credentials, d.RootOID, d.PreviousCredentials = "", "", "", "", []string{"c"}
		}},
		{json, `{"name": "a", "address": "192.0.2.1"}`, same},
		{json, `[{"name": "a", "address": "192.0.2.1", "Site": "", "tags": null}]`, func(d *fleet.Device) { d.Site, d.Tags = "", nil }},
		{json, `[{"name": "b", "address": "192.0.2.2", "note": ""}, {"name": "a", "address": "192.0.2.1", "pool": "q"}]`, func(d *fleet.Device) { d.Pool = "q" }},
		{toml, "[devices.a]\naddress = \"192.0.2.1\"\n", same},
		{toml, "[devices.a]\naddress = \"192.0.2.1\"\nread_community = \"public\"\n", func(d *fleet.Device) { d.Credentials, d.PreviousCredentials = "a", []string{"c"} }},
	} {
		file, err := c.read(c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		want := *old
		c.want(&want)
		got, changed := inventory.Merge(old, &file.Devices[0], file.Given["a"])
		if diff := cmp.Diff(want, got); diff != "" || changed != !cmp.Equal(*old, want) {
			t.Errorf("%q: changed %v\n%s", c.text, changed, diff)
		}
	}
}

func FuzzImport(f *testing.F) {
	f.Add([]byte(table))
	f.Add([]byte(objects))
	f.Add([]byte("[devices.a]\naddress = \"192.0.2.1\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, read := range []func(io.Reader) (*inventory.Imported, error){inventory.ReadCSV, inventory.ReadJSON, inventory.ReadTOML} {
			file, err := read(bytes.NewReader(text))
			if err != nil {
				continue
			}
			for _, d := range file.Devices {
				if d.Validate() != nil {
					t.Errorf("%q is imported: %v", d.Name, d.Validate())
				}
			}
		}
	})
}

func TestRanges(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7 192.0.2.7 1", "192.0.2.0/24": "192.0.2.1 192.0.2.254 254", "192.0.2.9/30": "192.0.2.9 192.0.2.10 2", "192.0.2.8/31": "192.0.2.8 192.0.2.9 2",
		"192.0.2.9-192.0.2.12": "192.0.2.9 192.0.2.12 4", "2001:db8::/126": "2001:db8:: 2001:db8::3 4", "10.0.0.0/16": "10.0.0.1 10.0.255.254 65534",
		"10.0.0.0/15": "", "10.0.0.0-10.1.0.0": "", "192.0.2.9-192.0.2.1": "", "192.0.2.1-2001:db8::1": "", "x": "", "": "", "::/0": "",
	} {
		r, err := inventory.ParseRange(text)
		got := ""
		if err == nil {
			got = fmt.Sprint(r.First, " ", r.Last, " ", r.Size())
		}
		if got != want {
			t.Errorf("%q: %q, want %q (%v)", text, got, want, err)
		}
	}
}

func TestSweep(t *testing.T) {
	c := simfleet.Default()
	c.SNMP, c.Maker, c.Devices, c.Addresses, c.WriteCommunity, c.ReadCommunity = "127.0.0.1:0", filepath.Join(t.TempDir(), "maker"), 3, "127.66.21.0/28", "w", "r"
	f, err := simfleet.New(c, simfleet.Options{Log: slog.New(slog.DiscardHandler), Notes: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var port uint16
	err = f.Run(ctx, simfleet.Observer{
		Running: func(_ int, _ *sim.Device, addr netip.AddrPort) error { port = addr.Port(); return nil },
		Ready: func() {
			defer stop()
			sweep(t, port)
		},
	})
	if err != nil {
		t.Error(err)
	}
}

func sweep(t *testing.T, port uint16) {
	r, err := inventory.ParseRange("127.66.21.1-127.66.21.8")
	if err != nil {
		t.Error(err)
		return
	}
	s := inventory.Sweep{
		Range: r, Port: port, Allowed: []netip.Prefix{netip.MustParsePrefix("127.66.21.0/29")}, Parallel: 4, Timeout: 300 * time.Millisecond,
		Secrets: []fleet.Secret{{Name: "old", ReadCommunity: "wrong"}, {Name: "new", ReadCommunity: "r", WriteCommunity: "w"}},
	}
	var names []string
	asked := 0
	found := func(d *fleet.Device) {
		names = append(names, d.Name)
		if d.Credentials != "new" || d.Facts.Version == "" || d.Identity.Device != d.Name || !inventory.Reachable(d) || d.Validate() != nil {
			t.Errorf("found %+v (%v)", d, d.Validate())
		}
	}
	if err := s.Run(t.Context(), found, nil); err == nil || len(names) > 0 {
		t.Errorf("addresses outside the allowed networks were asked: %v, %v", names, err)
	}
	s.Allowed = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.66.0.0/16")}
	if err := s.Run(t.Context(), found, func(n int) { asked = n }); err != nil {
		t.Error(err)
	}
	if slices.Sort(names); len(names) != 3 || asked != 8 {
		t.Errorf("%d addresses asked, found %q", asked, names)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := s.Run(ended, found, nil); err == nil {
		t.Error("a sweep goes on after its end")
	}
}

package inventory

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	"example.com/iad/fleet"
	"example.com/iad/internal/credentials"
)

// Imported is what a file contains.
type Imported struct {
	Devices []fleet.Device // sorted by name
	// Given are the fields of each device that the file has, by the device's name: columns
	// of CSV, keys of JSON and TOML.
	Given map[string][]string
	// Secrets are those of a configuration file of iadms; other files have none.
	Secrets []fleet.Secret
}

// maxProblems is the maximum number of mistakes that an error lists.
const maxProblems = 20

// finish normalizes and checks all devices. given returns which fields the file has of a
// device, and where says where it is in the file.
func (f *Imported) finish(given func(i int) []string, where func(i int) string) error {
	f.Given = make(map[string][]string, len(f.Devices))
	var found []error
	add := func(i int, field, problem string) {
		found = append(found, &fleet.FieldError{Field: where(i) + field, Problem: problem})
	}
	names, addresses := map[string]int{}, map[string]int{}
	for i := range f.Devices {
		d := &f.Devices[i]
		d.Normalize()
		if d.Name == "" {
			d.Name = fleet.NameFor(d.Address)
		}
		for _, e := range fleet.FieldErrors(d.Validate()) {
			add(i, e.Field, e.Problem)
		}
		if first, twice := names[d.Name]; twice {
			add(i, "name", fmt.Sprintf("%s is the name of another device of this file (%s)", d.Name, strings.TrimRight(where(first), ".: ")))
		}
		names[d.Name] = i
		f.Given[d.Name] = given(i)
		if first, twice := addresses[d.Address]; twice && d.Address != "" {
			add(i, "address", fmt.Sprintf("%s is the address of another device of this file (%s)", d.Address, f.Devices[first].Name))
		}
		addresses[d.Address] = i
	}
	if more := len(found) - maxProblems; more > 0 {
		found = append(found[:maxProblems], &fleet.FieldError{Field: "file", Problem: fmt.Sprintf("%d more mistakes", more)})
	}
	slices.SortFunc(f.Devices, func(a, b fleet.Device) int { return strings.Compare(a.Name, b.Name) })
	return errors.Join(found...)
}

// columns are those of CSV files, in their order.
var columns = []string{"name", "address", "site", "pool", "tags", "credentials", "root_oid", "note"}

// reported are further columns of exported files, which imports ignore.
var reported = []string{"device_id", "model", "hardware", "version", "last_contact", "problem"}

// ReadCSV reads devices from a table with a header. The columns are name, address, site,
// pool, tags (separated by spaces), credentials, root_oid and note, in any order; only
// address is required. Without a name, a device is named after its address. The error
// consists of *fleet.FieldErrors.
func ReadCSV(r io.Reader) (*Imported, error) {
	reader := csv.NewReader(r)
	reader.ReuseRecord = true
	header, err := reader.Read()
	if errors.Is(err, io.EOF) {
		return nil, &fleet.FieldError{Field: "line 1", Problem: "the header is missing: " + strings.Join(columns, ",")}
	}
	if err != nil {
		return nil, csvError(err)
	}
	header = slices.Clone(header)
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	for i, name := range header {
		header[i] = strings.ToLower(strings.TrimSpace(name))
		if !slices.Contains(columns, header[i]) && !slices.Contains(reported, header[i]) {
			return nil, &fleet.FieldError{Field: "line 1", Problem: fmt.Sprintf("unknown column %.40q (want %s)", name, strings.Join(columns, ", "))}
		}
		if slices.Index(header, header[i]) != i {
			return nil, &fleet.FieldError{Field: "line 1", Problem: fmt.Sprintf("the column %s occurs twice", header[i])}
		}
	}
	if !slices.Contains(header, "address") {
		return nil, &fleet.FieldError{Field: "line 1", Problem: "the column address is missing"}
	}
	var file Imported
	var lines []int
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, csvError(err)
		}
		var d fleet.Device
		for i, value := range row {
			switch header[i] {
			case "name":
				d.Name = value
			case "address":
				d.Address = value
			case "site":
				d.Site = value
			case "pool":
				d.Pool = value
			case "tags":
				d.Tags = strings.Fields(value)
			case "credentials":
				d.Credentials = value
			case "root_oid":
				d.RootOID = value
			case "note":
				d.Note = value
			}
		}
		line, _ := reader.FieldPos(0)
		lines = append(lines, line)
		file.Devices = append(file.Devices, d)
	}
	return &file, file.finish(func(int) []string { return header }, func(i int) string { return fmt.Sprintf("line %d: ", lines[i]) })
}

func csvError(err error) error {
	var where *csv.ParseError
	if errors.As(err, &where) {
		return &fleet.FieldError{Field: fmt.Sprintf("line %d", where.Line), Problem: where.Err.Error()}
	}
	return err
}

// ReadJSON reads devices from an array of objects, or from objects one after the other.
// Their fields are those of fleet.Device that operators set; what devices report is
// ignored, and other fields are mistakes.
func ReadJSON(r io.Reader) (*Imported, error) {
	buffered, first, err := firstByte(r)
	if err != nil {
		return nil, &fleet.FieldError{Field: "file", Problem: "empty"}
	}
	decoder := json.NewDecoder(buffered)
	var file Imported
	var given [][]string
	add := func() error {
		var object json.RawMessage
		var d fleet.Device
		var fields map[string]json.RawMessage
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return err
		}
		if err == nil {
			strict := json.NewDecoder(bytes.NewReader(object))
			strict.DisallowUnknownFields()
			err = strict.Decode(&d)
		}
		if err == nil {
			err = json.Unmarshal(object, &fields)
		}
		if err != nil {
			return &fleet.FieldError{Field: fmt.Sprintf("device %d", len(file.Devices)+1), Problem: jsonProblem(err)}
		}
		names := []string{}
		for name := range fields {
			names = append(names, strings.ToLower(name)) // as package json reads them
		}
		given = append(given, names)
		file.Devices = append(file.Devices, set(&d))
		return nil
	}
	if first == '[' {
		if _, err := decoder.Token(); err != nil {
			return nil, &fleet.FieldError{Field: "file", Problem: jsonProblem(err)}
		}
		for decoder.More() {
			if err := add(); err != nil {
				return nil, notTruncated(err)
			}
		}
		if _, err := decoder.Token(); err != nil {
			return nil, &fleet.FieldError{Field: "file", Problem: "truncated: the closing ] is missing"}
		}
		if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
			return nil, &fleet.FieldError{Field: "file", Problem: "there is something after the closing ]"}
		}
	} else {
		for {
			err := add()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return &file, file.finish(func(i int) []string { return given[i] }, func(i int) string { return fmt.Sprintf("[%d].", i) })
}

func notTruncated(err error) error {
	if errors.Is(err, io.EOF) {
		return &fleet.FieldError{Field: "file", Problem: "truncated: the closing ] is missing"}
	}
	return err
}

// firstByte returns the first byte that is not white space, and a reader from there on.
func firstByte(r io.Reader) (io.Reader, byte, error) {
	var one [1]byte
	for {
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return nil, 0, err
		}
		if !bytes.ContainsAny(one[:], " \t\r\n") {
			return io.MultiReader(bytes.NewReader(one[:]), r), one[0], nil
		}
	}
}

// jsonProblem is the text of an error of package json without the names of Go types.
func jsonProblem(err error) string {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return fmt.Sprintf("%s must not be a %s", kind.Field, kind.Value)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "truncated"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// ReadTOML reads the configuration file of iadms: its devices, with their credentials as
// secrets named after them, and its credentials for all devices as the secret "default".
func ReadTOML(r io.Reader) (*Imported, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	config, err := credentials.Parse(text)
	if err != nil {
		return nil, &fleet.FieldError{Field: "file", Problem: err.Error()}
	}
	var file Imported
	secret := func(name string, a credentials.Access) error {
		s := fleet.Secret{Name: name, ReadCommunity: a.ReadCommunity, WriteCommunity: a.WriteCommunity}
		if u := a.User; u != nil {
			s.User = &fleet.SNMPUser{
				Name: u.Name, Auth: u.Auth, AuthPassphrase: u.AuthPassphrase, Priv: u.Priv, PrivPassphrase: u.PrivPassphrase, Context: u.Context,
			}
		}
		file.Secrets = append(file.Secrets, s)
		return s.Validate()
	}
	if !config.Empty() {
		if err := secret(fleet.DefaultSecret, config.Access); err != nil {
			return nil, err
		}
	}
	names := slices.Sorted(maps.Keys(config.Devices))
	var given [][]string
	for _, name := range names {
		entry := config.Devices[name]
		d := fleet.Device{Name: name, Address: entry.Address, RootOID: entry.RootOID}
		if !entry.Empty() {
			if fleet.CheckName(name) == nil { // or else finish reports it
				d.Credentials = name
				if err := secret(name, entry.Access); err != nil {
					return nil, err
				}
			}
		}
		fields := []string{"address"}
		if d.RootOID != "" {
			fields = append(fields, "root_oid")
		}
		if d.Credentials != "" {
			fields = append(fields, "credentials")
		}
		given = append(given, fields)
		file.Devices = append(file.Devices, d)
	}
	return &file, file.finish(func(i int) []string { return given[i] }, func(i int) string { return "devices." + names[i] + "." })
}

// set returns a device with only what operators set.
func set(d *fleet.Device) fleet.Device {
	return fleet.Device{
		Name: d.Name, Address: d.Address, RootOID: d.RootOID, Site: d.Site, Pool: d.Pool, Tags: d.Tags, Credentials: d.Credentials, Note: d.Note,
	}
}

// Merge returns old with those of the given fields taken from d that operators set, and
// whether that changes anything; nil: all fields. An empty field of d clears that of old. What
// is known from another unit is kept: the identity protects it.
func Merge(old, d *fleet.Device, given []string) (merged fleet.Device, changed bool) {
	merged = *old
	for name, take := range map[string]func(){
		"address":     func() { merged.Address = d.Address },
		"root_oid":    func() { merged.RootOID = d.RootOID },
		"site":        func() { merged.Site = d.Site },
		"pool":        func() { merged.Pool = d.Pool },
		"tags":        func() { merged.Tags = d.Tags },
		"credentials": func() { merged.ReplaceCredentials(d.Credentials) },
		"note":        func() { merged.Note = d.Note },
	} {
		if given == nil || slices.Contains(given, name) {
			take()
		}
	}
	before, after := set(old), set(&merged)
	return merged, !reflect.DeepEqual(before, after)
}

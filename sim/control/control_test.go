package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"

	"example.com/iad/bank/image"
	"example.com/iad/sim"
)

// document is what the tests need of an OpenAPI document.
type document struct {
	Paths      map[string]map[string]json.RawMessage
	Components struct {
		Schemas map[string]struct {
			Properties map[string]struct{ Enum []string }
		}
	}
}

func description(t *testing.T) (d document) {
	t.Helper()
	if err := json.Unmarshal(Description, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// The document has every request that the server answers, and no other.
func TestDescriptionHasTheRoutes(t *testing.T) {
	var want, got []string
	for _, r := range routes {
		want = append(want, r.pattern)
	}
	for path, requests := range description(t).Paths {
		for method := range requests {
			if method != "parameters" {
				got = append(got, strings.ToUpper(method)+" "+path)
			}
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the document has\n%q\nthe server\n%q", got, want)
	}
}

// The document has every field that answers have, and no other.
func TestDescriptionHasTheFields(t *testing.T) {
	d := description(t)
	for _, v := range []any{Device{}, Fault{}, Event{}, Power{}, Settings{}, Cleared{}, Problem{}} {
		var want, got []string
		for _, f := range reflect.VisibleFields(reflect.TypeOf(v)) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			want = append(want, name)
		}
		name := reflect.TypeOf(v).Name()
		for property := range d.Components.Schemas[name].Properties {
			got = append(got, property)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the document has %q, the answers %q", name, got, want)
		}
	}
	events := d.Components.Schemas["Event"].Properties["event"].Enum
	if want := []string{string(sim.FaultEvent), string(sim.PowerEvent), string(sim.StartEvent)}; !slices.Equal(events, want) {
		t.Errorf("events: the document has %q, want %q", events, want)
	}
}

// newServer serves one device that does not run, over TCP with a token or a socket.
func newServer(t *testing.T, network, address, token string) (*Server, net.Listener) {
	t.Helper()
	s := &Server{Log: &Log{}, Token: token}
	d := sim.New(sim.Config{ID: "SIM-00001", Disk: sim.Memory(), Trust: image.TrustKeys(minisign.PublicKey{}), OnEvent: func(e sim.Event) { s.Log.Add(e) }})
	s.Devices = func() []*sim.Device { return []*sim.Device{d} }
	s.Device = func(id string) *sim.Device {
		if id == d.ID() {
			return d
		}
		return nil
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, l
}

func TestRequests(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	newServer(t, "unix", path, "")
	c, ctx := NewClient(path, ""), t.Context()
	list, err := c.Devices(ctx)
	if err != nil || len(list) != 1 || list[0].Device != "SIM-00001" || list[0].State != "starting" || len(list[0].Faults) != 0 {
		t.Fatalf("%+v, %v", list, err)
	}
	d, err := c.Inject(ctx, "SIM-00001", "stall,nth=2")
	if err != nil || len(d.Faults) != 1 || d.Faults[0].Fault != "stall,nth=2" {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := c.Inject(ctx, "SIM-00001", "losttraps"); err != nil {
		t.Error(err)
	}
	for want, clear := range map[string]func() (int, error){
		`unknown kind of fault "x"`: func() (int, error) { return c.Clear(ctx, "SIM-00001", "x") },
		`no device "other"`:         func() (int, error) { return c.Clear(ctx, "other", "") },
		`unknown kind "fire" (want`: func() (int, error) { _, err := c.Inject(ctx, "SIM-00001", "fire"); return 0, err },
		`unknown power "dim" (want`: func() (int, error) { _, err := c.Power(ctx, "SIM-00001", "dim"); return 0, err },
		`calls=-1 is negative`: func() (int, error) {
			n := -1
			_, err := c.Set(ctx, "SIM-00001", Settings{Calls: &n})
			return 0, err
		},
	} {
		if n, err := clear(); n != 0 || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d, %v; want %s", n, err, want)
		}
	}
	if n, err := c.Clear(ctx, "SIM-00001", "stall"); n != 1 || err != nil {
		t.Errorf("%d faults removed, %v", n, err)
	}
	if n, err := c.Clear(ctx, "SIM-00001", ""); n != 1 || err != nil {
		t.Errorf("%d faults removed, %v", n, err)
	}
	calls := 3
	if d, err := c.Set(ctx, "SIM-00001", Settings{Calls: &calls}); err != nil || d.Calls != 3 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := c.Power(ctx, "SIM-00001", "off"); err != nil || d.State != "off" {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := c.Restart(ctx, "SIM-00001"); err != nil || d.State != "starting" {
		t.Errorf("%+v, %v", d, err)
	}
}

// Subscribers receive events at once, and the log returns them later.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	newServer(t, "unix", path, "")
	c := NewClient(path, "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.Power(ctx, "SIM-00001", "off"); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := c.Events(ctx, 0, true, func(e Event) error {
		got = append(got, fmt.Sprint(e.Number, e.Event, e.Power))
		if e.Power == "on" {
			cancel()
			return nil
		}
		_, err := c.Power(ctx, "SIM-00001", "on")
		return err
	})
	if want := []string{"1poweroff", "2poweron"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	got = nil
	err = c.Events(t.Context(), 1, false, func(e Event) error { got = append(got, e.Power); return nil })
	if err != nil || !slices.Equal(got, []string{"on"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// Over TCP nothing is answered without the token.
func TestToken(t *testing.T) {
	_, l := newServer(t, "tcp", "127.0.0.1:0", "secret")
	for token, want := range map[string]int{"": 401, "Secret": 401, "secret": 200} {
		for _, route := range routes {
			method, path, _ := strings.Cut(route.pattern, " ")
			if token == "secret" && path != "/v1/devices" {
				continue
			}
			r, err := http.NewRequestWithContext(t.Context(), method, "http://"+l.Addr().String()+strings.Replace(path, "{id}", "SIM-00001", 1), nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if answer.StatusCode != want {
				t.Errorf("%s with the token %q: status %d, want %d", route.pattern, token, answer.StatusCode, want)
			}
		}
	}
	if _, err := NewClient(l.Addr().String(), "secret").Devices(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := NewClient(l.Addr().String(), "").Devices(t.Context()); err == nil || !strings.Contains(err.Error(), "token") {
		t.Error(err)
	}
}

// A log keeps the last events only.
func TestLogIsBounded(t *testing.T) {
	var l Log
	for range maxEvents + 5 {
		l.Add(sim.Event{})
	}
	events := l.After(0)
	if n := len(events); n > maxEvents || n < maxEvents/2 || events[n-1].Number != maxEvents+5 {
		t.Errorf("%d events, the last has number %d", n, events[n-1].Number)
	}
	for i, e := range events[1:] {
		if e.Number != events[i].Number+1 {
			t.Fatalf("event %d follows %d", e.Number, events[i].Number)
		}
	}
}

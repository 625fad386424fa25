package client

import (
	"errors"
	"io"
	"strings"
	"testing"

	"example.com/iad/fleet"
)

// FuzzEvents: whatever a service sends as events ends with an error and without a panic, and
// line ends and spaces do not matter. Only from inside can the stream be anything.
func FuzzEvents(f *testing.F) {
	f.Add("event: ping\ndata: {\"time\":\"2026-01-31T22:00:00Z\"}\n\nevent: event\ndata: {\"kind\":\"run\",\"device\":\"gw1\"}\n\n")
	f.Add("data:{\"kind\":\"run\",\ndata:\"device\":\"gw1\"}\nevent:event\n\n: comment\n\ndata\nevent\n\n")
	f.Add("event: event\ndata: {\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsRune(text, '\r') {
			return
		}
		read := func(text string) (events []fleet.Event, connected int, err error) {
			err = readEvents(strings.NewReader(text), func() { connected++ }, func(e fleet.Event) error { events = append(events, e); return nil })
			return events, connected, err
		}
		events, connected, err := read(text)
		if err == nil || connected > 1 || connected == 0 && len(events) > 0 {
			t.Fatalf("%d events, connected %d times: %v", len(events), connected, err)
		}
		other, again, otherErr := read(strings.ReplaceAll(text, "\n", "\r\n"))
		if len(other) != len(events) || again != connected || errors.Is(otherErr, io.ErrUnexpectedEOF) != errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("with CR LF %d events instead of %d, %v", len(other), len(events), otherErr)
		}
	})
}

// TestEventForms: an event may have several lines of data, in any order, with or without
// spaces.
func TestEventForms(t *testing.T) {
	var got []string
	err := readEvents(strings.NewReader("data:{\"kind\":\"run\",\r\ndata: \"device\":\"gw1\"}\r\nevent:event\r\n\r\nevent: event\ndata: {\"device\":\"gw2\"}\n\ndata: {}\n\n"),
		func() {}, func(e fleet.Event) error { got = append(got, e.Device); return nil })
	if !errors.Is(err, io.ErrUnexpectedEOF) || strings.Join(got, " ") != "gw1 gw2" {
		t.Errorf("%q, %v", got, err)
	}
}

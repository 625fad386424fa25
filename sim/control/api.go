package control

import (
	_ "embed" // the description
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/sim"
)

// Description is the interface as an OpenAPI document.
//
//go:embed openapi.json
var Description []byte

// Device is a virtual device.
type Device struct {
	Device  string `json:"device"`
	Address string `json:"address"`
	// State is off, starting or running.
	State    string `json:"state"`
	Software string `json:"software,omitempty"`
	Bank     int    `json:"bank,omitempty"`
	// Operation and Phase are names of the MIB module, empty while there is no operation.
	Operation string  `json:"operation,omitempty"`
	Phase     string  `json:"phase,omitempty"`
	Percent   *int    `json:"percent,omitempty"` // of the operation, missing if it is not known
	Starts    int     `json:"starts"`
	Calls     int     `json:"calls"`
	Faults    []Fault `json:"faults"`
}

// Fault is a fault of a device.
type Fault struct {
	// Fault is as sim.ParseFault reads it.
	Fault string `json:"fault"`
	Fired int    `json:"fired"`
}

// Event is something that happened to a device.
type Event struct {
	Number    uint64    `json:"number"` // counted from 1
	Time      time.Time `json:"time"`
	Device    string    `json:"device"`
	Event     string    `json:"event"` // fault, power or start
	Fault     string    `json:"fault,omitempty"`
	Power     string    `json:"power,omitempty"` // on or off
	Operation string    `json:"operation,omitempty"`
	Phase     string    `json:"phase,omitempty"`
}

// String describes the event in a line, without number and time.
func (e Event) String() string {
	text := e.Device + "  " + e.Event
	switch sim.EventKind(e.Event) {
	case sim.FaultEvent:
		text += " " + e.Fault
	case sim.PowerEvent:
		text += " " + e.Power
	case sim.StartEvent:
		text = e.Device + "  started"
	}
	if e.Operation != "" {
		text += "  (" + e.Operation + ", " + e.Phase + ")"
	}
	return text
}

// Power is what to do with the power of a device.
type Power struct {
	// Power is off, on or cut: off for a second.
	Power string `json:"power"`
}

// Settings of a device; those that are missing stay.
type Settings struct {
	Calls *int `json:"calls,omitempty"`
}

// Cleared is how many faults were removed.
type Cleared struct {
	Cleared int `json:"cleared"`
}

// Problem is the answer to a request that failed (RFC 9457).
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
}

// describe returns the present state of a device.
func describe(d *sim.Device) Device {
	s := d.State()
	out := Device{
		Device: d.ID(), Address: d.Place().String(), State: "off", Software: s.Software, Bank: s.Bank,
		Starts: d.Starts(), Calls: d.Calls(), Faults: []Fault{},
	}
	switch {
	case s.Running:
		out.State = "running"
	case s.Powered:
		out.State = "starting"
	}
	if s.Operation != 0 {
		out.Operation, out.Phase = s.Operation.String(), s.Phase.String()
		if s.Percent != procedure.PercentUnknown {
			percent := int(s.Percent)
			out.Percent = &percent
		}
	}
	for _, f := range d.Faults() {
		out.Faults = append(out.Faults, Fault{f.Fault.String(), f.Fired})
	}
	return out
}

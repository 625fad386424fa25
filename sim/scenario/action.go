package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"example.com/iad/sim"
	"example.com/iad/sim/fleet"
)

// selection are devices that an expectation is about.
type selection struct {
	devices []int // counted from 0; nil for those of among
	among   string
}

// Devices by what happened to them.
const (
	faulty  = "faulty"
	healthy = "healthy"
)

func parseSelection(text string, c *fleet.Config) (selection, error) {
	if text == faulty || text == healthy {
		return selection{among: text}, nil
	}
	devices, err := selectDevices(text, c)
	return selection{devices: devices}, err
}

// selectDevices reads a list, separated by commas, of numbers from 1, ranges such as 3-7,
// and IDs; "all" or nothing is every device.
func selectDevices(text string, c *fleet.Config) (list []int, err error) {
	if text == "" || text == "all" {
		for i := range c.Devices {
			list = append(list, i)
		}
		return list, nil
	}
	for _, item := range strings.Split(text, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(item), "-")
		first, err := strconv.Atoi(from)
		last := first
		if isRange && err == nil {
			last, err = strconv.Atoi(to)
		}
		if err != nil {
			i := -1
			for n := range c.Devices {
				if c.ID(n) == strings.TrimSpace(item) {
					i = n
				}
			}
			first, last = i+1, i+1
		}
		if first < 1 || last > c.Devices || first > last {
			return nil, fmt.Errorf("device %q: want numbers from 1 to %d, such as 7 or 1-5, IDs such as %s, or all", item, c.Devices, c.ID(0))
		}
		for n := first; n <= last; n++ {
			list = append(list, n-1)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// action is something done to devices.
type action struct {
	devices []int
	do      func(*sim.Device)
}

// parseAction reads an action; it has the form of the command of iadsim.
func parseAction(text string, c *fleet.Config) (a action, err error) {
	words := strings.Fields(text)
	if len(words) < 2 {
		return a, fmt.Errorf("want fault, clear, power, restart or set, and devices")
	}
	if a.devices, err = selectDevices(words[1], c); err != nil {
		return a, err
	}
	rest := words[2:]
	argument := func(what string) (string, error) {
		if len(rest) != 1 {
			return "", fmt.Errorf("want %s", what)
		}
		return rest[0], nil
	}
	switch words[0] {
	case "fault":
		text, err := argument("fault DEVICES FAULT")
		if err != nil {
			return a, err
		}
		f, err := sim.ParseFault(text)
		a.do = func(d *sim.Device) { d.Inject(f) }
		return a, err
	case "clear":
		var kind sim.FaultKind
		if len(rest) > 0 {
			text, err := argument("clear DEVICES [KIND]")
			if err != nil {
				return a, err
			}
			kind = sim.FaultKind(text)
			if _, known := kind.Info(); !known {
				return a, fmt.Errorf("unknown kind of fault %q", kind)
			}
		}
		a.do = func(d *sim.Device) { d.ClearFaults(kind) }
		return a, nil
	case "power":
		what, err := argument("power DEVICES off|on|cut")
		if err != nil {
			return a, err
		}
		switch what {
		case "off":
			a.do = (*sim.Device).CutPower
		case "on":
			a.do = (*sim.Device).PowerOn
		case "cut":
			a.do = func(d *sim.Device) { d.Blink(0) }
		default:
			return a, fmt.Errorf("unknown power %q (want off, on or cut)", what)
		}
		return a, nil
	case "restart":
		a.do = (*sim.Device).Restart
		if len(rest) > 0 {
			return a, fmt.Errorf("want restart DEVICES")
		}
		return a, nil
	case "set":
		text, err := argument("set DEVICES calls=N")
		if err != nil {
			return a, err
		}
		number, ok := strings.CutPrefix(text, "calls=")
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n < 0 {
			return a, fmt.Errorf("%q is not a setting (want calls=N)", text)
		}
		a.do = func(d *sim.Device) { d.SetCalls(n) }
		return a, nil
	}
	return a, fmt.Errorf("unknown action %q (want fault, clear, power, restart or set)", words[0])
}

package sim

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"example.com/iad/agent/config"
	"example.com/iad/internal/crashfs"
)

// Whatever instant the making of a device is interrupted at, doing it again makes the
// device, until it has started.
func TestCrashProvision(t *testing.T) {
	sweep := crashfs.Sweep[bool]{
		Start: crashfs.NewDisk(crashParts...), Depth: 2, Limit: 20, Seed: 1,
		Life: func(m *crashfs.Machine, made *bool) error {
			if !*made {
				if err := provision(m, "1.0.0", crashSet(1, "old")); err != nil {
					return err
				}
				*made = !m.Down()
			}
			d, err := powerOn(m, nil)
			if err != nil {
				return err
			}
			defer d.powerOff()
			if who, err := d.owner(); err != nil || who != "old" || d.version() != "1.0.0" {
				return fmt.Errorf("version %s with data of %q: %w", d.version(), who, err)
			}
			if err := provision(m, "2.0.0", nil); err == nil {
				return errors.New("a device that has started was made anew")
			}
			return checkDevice(d.Agent, m)
		},
	}
	if !fullCrash() {
		sweep.Sample, sweep.Depth = sampleCuts(), 1
	}
	result, err := sweep.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(result)
	for _, f := range result.Faults {
		t.Error(f)
	}
}

// A device that could not be made because of what was given is made of the right
// things in the same place.
func TestProvisionAgain(t *testing.T) {
	m := crashfs.NewDisk(crashParts...).Start()
	if err := provision(m, "1.0.0", crashSet(2, "old")); err == nil {
		t.Error("configuration data of another format were accepted")
	}
	if _, err := m.Fs("bank1").Stat("app"); err == nil {
		t.Error("software was written for configuration data that do not fit")
	}
	for _, version := range []string{"2.0.0", "1.0.0"} {
		if err := provision(m, version, crashSet(crashFormats[version], "new")); err != nil {
			t.Fatal(err)
		}
	}
	d := on(t, m)
	if who, err := d.owner(); err != nil || who != "new" || d.version() != "1.0.0" {
		t.Errorf("version %s with data of %q: %v", d.version(), who, err)
	}
}

func provision(m *crashfs.Machine, version string, set config.Set) error {
	return crashDevice(m, nil).Provision(bytes.NewReader(crashImages[version][softwareName]), set)
}

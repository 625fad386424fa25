package bank

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"example.com/iad/bank/image"
	"example.com/iad/internal/crashfs"
	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

const changedPlaces = "they have changed places"

func cross(opt Options) Options {
	opt.Partitions[0], opt.Partitions[1] = opt.Partitions[1], opt.Partitions[0]
	return opt
}

func says(findings []string, what string) bool {
	return slices.ContainsFunc(findings, func(f string) bool { return strings.Contains(f, what) })
}

// TestPartitionsChangedPlaces: after the disks were numbered in another order, software starts, and the bank that is
// written is never the one that runs.
func TestPartitionsChangedPlaces(t *testing.T) {
	fresh := func(loader bool) *crashfs.Disk {
		d := blank()
		if loader {
			d = withLoader()
		}
		return provisionedOn(t, withPartitions(d, ""))
	}
	for name, test := range map[string]struct {
		disk    *crashfs.Disk
		running int
		next    string // the version to install
	}{
		"one bank":            {fresh(false), 1, "2.0.0"},
		"both banks":          {upgradedOn(t, fresh(false), "1.5.0"), 2, "2.0.0"},
		"loader, one bank":    {fresh(true), 1, "2.0.0"},
		"loader, both banks":  {upgradedOn(t, fresh(true), "1.5.0"), 2, "2.0.0"},
		"half written":        {halfWritten(t, upgradedOn(t, fresh(false), "2.0.0")), 2, "1.5.0"},
		"both records lost":   {lostRecord(upgradedOn(t, fresh(false), "1.5.0")), 2, "2.0.0"},
		"loader, record lost": {lostRecord(upgradedOn(t, fresh(true), "1.5.0")), 2, "2.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			opt := mount(test.disk.Start(), nil)
			opt.Loader = startedBy(opt.Loader, test.running)
			b, report := Boot(cross(opt))
			if report.Bank != test.running || !says(report.Findings, changedPlaces) {
				t.Fatalf("%+v", report)
			}
			if found := b.CheckUnread(t.Context()); len(found) != 0 {
				t.Errorf("%q", found)
			}
			if report.Trial {
				if err := b.Confirm(); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := b.Install(t.Context(), serve("fw.iad", rawImages[test.next]), "fw.iad", InstallOptions{AllowDowngrade: true}); err != nil {
				t.Fatal(err)
			}
			s := b.Status()
			for n := 1; n <= 2; n++ {
				got, err := readPayload(opt, n, "app")
				if err != nil || !bytes.Equal(got, crashPayloads(s.Bank(n).Version)["app"]) {
					t.Errorf("the partition of bank %d does not hold %s: %v", n, s.Bank(n).Version, err)
				}
			}
			if err := b.Activate(other(test.running)); err != nil {
				t.Error(err)
			}
			// The same with the disks in their old order.
			opt.Loader = startedBy(opt.Loader, other(test.running))
			if _, report := Boot(opt); report.Bank != other(test.running) || len(report.Findings) != 0 {
				t.Errorf("%+v", report)
			}
		})
	}
}

func lostRecord(d *crashfs.Disk) *crashfs.Disk {
	return d.Remove("state", recordBase+".a").Remove("state", recordBase+".b")
}

// startedBy makes a loader, if there is one, have started a bank.
func startedBy(l Loader, n int) Loader {
	if s, ok := l.(*scriptedLoader); ok {
		s.started, s.why = n, "next"
	}
	return l
}

// TestVerifyChangedPlaces: software is verified where it is, and is not provisioned over.
func TestVerifyChangedPlaces(t *testing.T) {
	opt, _ := rawDevice(t)
	b, _ := boot(t, opt)
	if err := fetchInto(b, "2.0.0", false); err != nil {
		t.Fatal(err)
	}
	for n, want := range []string{"1.0.0", "2.0.0"} {
		if m, err := Verify(cross(opt), n+1); err != nil || m.Version != want {
			t.Errorf("bank %d: %v", n+1, err)
		}
	}
	if err := Provision(cross(opt), bytes.NewReader(rawImages["1.5.0"]), nil); causeOf(err) != mib.FailCauseBankUnavailable {
		t.Error(err)
	}
}

// TestDamageIsNotDisorder: a bank whose partition is damaged is corrupt, whatever is on the other one.
func TestDamageIsNotDisorder(t *testing.T) {
	for name, change := range map[string]func(m *image.Manifest){
		"the same kernel": func(m *image.Manifest) { m.Version = "1.0.1" },
		"another kernel":  nil,
	} {
		opt, m := rawDevice(t)
		b, _ := boot(t, opt)
		if change == nil {
			if err := fetchInto(b, "1.5.0", false); err != nil {
				t.Fatal(err)
			}
		} else {
			parts := &imagetest.Parts{Head: imagetest.ReadHead(t, rawImages["1.0.0"]), Files: crashPayloads("1.0.0")}
			if _, err := b.Install(t.Context(), split(parts.Resign(t, change, imagetest.Key)), "dir/manifest.json", InstallOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Activate(2); err != nil {
			t.Fatal(err)
		}
		b, _ = boot(t, opt)
		if err := b.Confirm(); err != nil {
			t.Fatal(err)
		}
		spoilAt(t, m.Fs("raw2"), rawName, 30_000)
		b, report := boot(t, opt)
		if s := b.Status(); report.Bank != 1 || s.Banks[1].State != mib.BankStateCorrupt || says(report.Findings, changedPlaces) {
			t.Errorf("%s: %+v, %+v", name, report, s)
		}
	}
}

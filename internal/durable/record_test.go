package durable

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/crashfs"
)

// TestCrashRecord writes the numbers 1 to 6 into a record: whatever is found is the
// last one reported or the next.
func TestCrashRecord(t *testing.T) {
	sweep(t, crashfs.NewDisk("p"), func(fs afero.Fs, reported *byte) error {
		r, payload, _, err := OpenRecord(fs, "r", magic, 1, nil)
		if err != nil {
			return err
		}
		have := byte(0)
		if payload != nil {
			have = payload[0]
		}
		if have != *reported && have != *reported+1 {
			return fmt.Errorf("found %d, %d was reported", have, *reported)
		}
		*reported = have
		for n := have + 1; n <= 6; n++ {
			// Of changing length, so that a shorter one follows a longer one.
			if err := r.Write(bytes.Repeat([]byte{n}, 1+int(n%3)*10)); err != nil {
				return err
			}
			*reported = n
		}
		return nil
	})
}

// written is a disk on which a record was written with the contents given.
func written(t *testing.T, payloads ...string) *crashfs.Disk {
	t.Helper()
	m := machine()
	r, _, _, err := OpenRecord(m.Fs("p"), "r", magic, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range payloads {
		if err := r.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	return m.Settled()
}

func understand(payload []byte) error {
	if string(payload) == "nonsense" {
		return errors.New("makes no sense")
	}
	return nil
}

func TestRecordDamage(t *testing.T) {
	disk := written(t, "1", "2", "3") // 3 is in r.a, 2 in r.b
	newer := EncodeFrame(magic, 9, 4, []byte("from the future"))
	for _, test := range []struct {
		name  string
		disk  *crashfs.Disk
		want  string // content found
		aside string // file that holds the damaged copy; or what is said if there is none
	}{
		{"whole", disk, "3", ""},
		{"newest copy damaged", disk.Flip("p", "r.a", 100), "2", "r.a.corrupt-1"},
		{"older copy damaged", disk.Flip("p", "r.b", 100), "3", "r.b.corrupt-1"},
		{"newest copy missing", disk.Remove("p", "r.a"), "2", "r.a is missing"},
		{"older copy missing", disk.Remove("p", "r.b"), "3", "r.b is missing"},
		{"never written twice", written(t, "1"), "1", ""},
		{"both damaged", disk.Flip("p", "r.a", 0).Flip("p", "r.b", 0), "", "r.b.corrupt-1"},
		{"newer version", disk.Write("p", "r.b", newer), "3", "r.b.newer-1"},
		{"content not understood", disk.Write("p", "r.b", EncodeFrame(magic, 1, 9, []byte("nonsense"))), "3", "r.b.corrupt-1"},
		{"directory in its place", disk.Remove("p", "r.a").Mkdir("p", "r.a"), "2", "r.a.corrupt-1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := test.disk.Start()
			peeked, _ := ReadRecord(m.Fs("p"), "r", magic, 1, understand)
			if len(m.Ops()) != 0 {
				t.Errorf("reading changed something: %v", m.Ops())
			}
			r, payload, findings, err := OpenRecord(m.Fs("p"), "r", magic, 1, understand)
			if err != nil {
				t.Fatal(err)
			}
			if string(payload) != test.want || string(peeked) != test.want || (payload == nil) != (test.want == "") {
				t.Errorf("found %q and %q, want %q", payload, peeked, test.want)
			}
			if got := strings.Join(findings, "\n"); (test.aside == "") != (got == "") || !strings.Contains(got, test.aside) {
				t.Errorf("findings: %s", got)
			}
			if test.aside != "" && !strings.HasSuffix(test.aside, "missing") {
				kept, _ := m.Settled().Read("p", test.aside)
				was, _ := test.disk.Read("p", strings.TrimSuffix(test.aside, filepath.Ext(test.aside)))
				if !bytes.Equal(kept, was) || kept == nil && !strings.HasPrefix(test.name, "directory") {
					t.Errorf("%s holds %q, not the damaged copy", test.aside, kept)
				}
			}
			if err := r.Write([]byte("next")); err != nil {
				t.Fatal(err)
			}
			if got, _ := ReadRecord(m.Fs("p"), "r", magic, 1, nil); string(got) != "next" {
				t.Errorf("written next, read %q", got)
			}
		})
	}
}

func TestRecordWithoutADirectory(t *testing.T) {
	if _, _, _, err := OpenRecord(machine().Fs("p"), "no/r", magic, 1, nil); err == nil {
		t.Error("a record in a missing directory was opened")
	}
}

// TestRecordOnAFullPartition: a switch of banks must not need space.
func TestRecordOnAFullPartition(t *testing.T) {
	m := written(t, "1", "2").Start()
	fs := m.Fs("p")
	r, _, _, err := OpenRecord(fs, "r", magic, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Limit("p", m.Used("p"))
	for _, p := range []string{"3", "4", "5"} {
		if err := r.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
		if got, _ := ReadRecord(fs, "r", magic, 1, nil); string(got) != p {
			t.Errorf("written %s, read %q", p, got)
		}
	}
	if err := r.Write([]byte("longer")); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if got, _ := ReadRecord(fs, "r", magic, 1, nil); string(got) != "5" {
		t.Errorf("after a failed write: %q", got)
	}
	if err := r.Write(make([]byte, MaxPayload+1)); err == nil {
		t.Error("too large a payload was written")
	}
}

// TestTornOnAFullPartition: nor must it after a cut that tore a copy: what was set aside
// of that makes room.
func TestTornOnAFullPartition(t *testing.T) {
	m := written(t, "1", "2", "3").Flip("p", "r.b", 100).Start()
	fs := m.Fs("p")
	r, _, _, err := OpenRecord(fs, "r", magic, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Limit("p", m.Used("p"))
	for _, p := range []string{"4", "5", "6"} {
		if err := r.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
		if got, _ := ReadRecord(fs, "r", magic, 1, nil); string(got) != p {
			t.Errorf("written %s, read %q", p, got)
		}
	}
}

// FuzzRecord reads records of which both copies hold anything.
func FuzzRecord(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add(EncodeFrame(magic, 1, 1, []byte("a")), EncodeFrame(magic, 1, 2, []byte("b")))
	f.Add(EncodeFrame(magic, 1, 3, []byte("a")), EncodeFrame(magic, 9, 4, []byte("b")))
	f.Add(EncodeFrame(magic, 1, 1<<64-1, []byte("a")), []byte("junk"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		fs := crashfs.NewDisk("p").Write("p", "r.a", a).Write("p", "r.b", b).Start().Fs("p")
		r, payload, findings, err := OpenRecord(fs, "r", magic, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if payload == nil && len(findings) != 2 {
			t.Errorf("no content and findings %q", findings)
		}
		if err := r.Write([]byte("next")); err != nil {
			t.Fatal(err)
		}
		if r.seq == 1 && payload != nil {
			return // the number wrapped, which takes longer than the device lasts
		}
		if got, _ := ReadRecord(fs, "r", magic, 1, nil); string(got) != "next" {
			t.Errorf("written next, read %q", got)
		}
	})
}

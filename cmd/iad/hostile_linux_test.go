package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/afero"
	"golang.org/x/sys/unix"

	"example.com/iad/agent/config"
	"example.com/iad/bank/image"
	"example.com/iad/internal/peers"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// hostile is a program that does what it must not: it looks for secrets of who
// started it, leaves children that ignore signals, floods its output and never
// ends. $1 is a fifo that every process of it keeps open, $2 a file for what it
// has found.
const hostile = `#!/bin/sh
exec 2>/dev/null 7>@FIFO@
{
	env
	echo "descriptors:" $(ls /proc/self/fd)
	cat /proc/$PPID/environ && echo "read the environment of its parent"
	ls /proc/$PPID/fd && echo "saw the descriptors of its parent"
	cat @ROOT@/iad.toml && echo "read the settings"
	cat @ROOT@/iad.toml.good && echo "read the copy of the settings"
	touch @ROOT@/applied/x && echo "wrote among the configuration data"
	cat @ROOT@/state/* && echo "read the state"
	echo x > @ROOT@/bank1/firmware && echo "wrote into bank 1"
	echo x > @ROOT@/bank2/firmware && echo "wrote into bank 2"
	echo done
} > @FOUND@
trap '' TERM INT HUP
for i in 1 2 3; do
	(trap '' TERM INT HUP; while :; do sleep 1000; done) &
done
head -c 1073741824 /dev/zero
echo
echo "still here"
while :; do sleep 1000; done
`

// trap is a hostile program in a place where it can leave traces.
type trap struct {
	program string
	found   string
	dead    <-chan struct{} // when none of its processes is alive
}

func newTrap(t *testing.T, root string) *trap {
	t.Helper()
	dir, err := os.MkdirTemp("", "iadtrap") // the program runs as somebody else
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	fifo, found := filepath.Join(dir, "alive"), filepath.Join(dir, "found")
	if err := errors.Join(unix.Mkfifo(fifo, 0o666), os.WriteFile(found, nil, 0o666), os.Chmod(dir, 0o755),
		os.Chmod(fifo, 0o666), os.Chmod(found, 0o666)); err != nil {
		t.Fatal(err)
	}
	dead := make(chan struct{})
	go func() {
		defer close(dead)
		// Opens when the program does, ends when the last of it is dead.
		if f, err := os.Open(fifo); err == nil {
			defer f.Close()
			_, _ = f.Read(make([]byte, 1))
		}
	}()
	t.Cleanup(func() { // in case nobody came
		if f, err := os.OpenFile(fifo, os.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
			f.Close()
		}
	})
	return &trap{
		program: strings.NewReplacer("@FIFO@", fifo, "@FOUND@", found, "@ROOT@", root).Replace(hostile),
		found:   found, dead: dead,
	}
}

// check reports what the program reached.
func (tr *trap) check(t *testing.T) {
	t.Helper()
	select {
	case <-tr.dead:
	case <-time.After(30 * time.Second):
		t.Error("a process of the program is still alive")
	}
	data, err := os.ReadFile(tr.found)
	if err != nil {
		t.Fatal(err)
	}
	said := string(data)
	if !strings.HasSuffix(said, "done\n") {
		t.Errorf("the program did not come far: %q", said)
	}
	for _, line := range strings.Split(strings.TrimSpace(said), "\n") {
		name, _, _ := strings.Cut(line, "=")
		switch name {
		case "PATH", "LC_ALL", "HOME", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_", "IAD_BANK", "IAD_VERSION", "IAD_CONFIG", "done":
		case "descriptors: 0 1 2 3 7": // 1 is the file, 3 the directory that ls lists, 7 its own fifo
		default:
			t.Errorf("the program has got: %s", line)
		}
	}
}

// hostileImage is software with the program as self-test or as converter.
func (d *unit) hostileImage(m image.Manifest, name, program string) []byte {
	d.t.Helper()
	m.Hardware = []string{"IAD-4FXS"}
	var b bytes.Buffer
	if err := image.Build(&b, m, []image.PayloadFile{
		payload("firmware", m.Version, 0o644), payload(name, program, 0o755),
	}, d.key); err != nil {
		d.t.Fatal(err)
	}
	return b.Bytes()
}

// asNobody makes programs of the software run as another user, with a time limit.
func asNobody(s string) string {
	return strings.Replace(s, "[programs]", "[programs]\nlimit = '3s'\nuid = 65534\ngid = 65534\n", 1)
}

// openTo lets other users find their way to the device's root, as they can on
// a board; they get no further by it.
func openTo(t *testing.T, root string) {
	t.Helper()
	for dir := filepath.Dir(root); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// Software whose self-test is hostile is given up; nothing of it is left, it
// has seen nothing, and it cost the agent no memory.
func TestHostileSelfTest(t *testing.T) {
	peers.NeedRoot(t)
	d := newDevice(t)
	openTo(t, d.root)
	d.edit(asNobody)
	t.Setenv("PLANTED_SECRET", "secret-of-the-agent")
	d.keepPort()
	d.start()
	tr := newTrap(t, d.root)
	op := d.download(t, d.hostileImage(image.Manifest{Version: "2.0.0", ConfigFormat: 1, SelfTest: "selftest"}, "selftest", tr.program),
		device.ThenActivate, device.ThenReset)
	if op.State != mib.OperationStateFailed || op.Cause != mib.FailCauseSelfTestFailed {
		t.Errorf("%v: %v, %s", op.State, op.Cause, op.Text)
	}
	tr.check(t)
	dev, err := d.client().Device(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if dev.Version != "1.0.0" {
		t.Errorf("runs %s", dev.Version)
	}
	t.Logf("%v: %s; peak memory %d KiB", op.Cause, op.Text, highWater(t, d.cmd.Process.Pid)>>10)
}

// A hostile conversion program leaves the configuration data as they are.
func TestHostileConverter(t *testing.T) {
	peers.NeedRoot(t)
	for name, c := range map[string]struct {
		program string // "" for the one that does everything
		cause   mib.FailCause
	}{
		"everything":        {"", mib.FailCauseConvertTimeout},
		"failure":           {"#!/bin/sh\nexit 3\n", mib.FailCauseConvertFailed},
		"nothing":           {"#!/bin/sh\nexit 0\n", mib.FailCauseConvertFailed},
		"a link":            {"#!/bin/sh\nfor f in $3/*; do ln -s @ROOT@/iad.toml $4/${f##*/}; done\n", mib.FailCauseConvertFailed},
		"a fifo":            {"#!/bin/sh\nfor f in $3/*; do mkfifo $4/${f##*/}; done\n", mib.FailCauseConvertFailed},
		"no end":            {"#!/bin/sh\nfor f in $3/*; do cat $f; head -c 1100000 /dev/zero; done > $4/userData\ncp $3/* $4\nhead -c 2000000 /dev/zero >> $4/userData\n", mib.FailCauseConvertFailed},
		"a moved directory": {"#!/bin/sh\nmv $4 $4-2; ln -s @ROOT@/config $4\n", mib.FailCauseConvertFailed},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			openTo(t, d.root)
			d.edit(asNobody)
			d.keepPort()
			d.start()
			var tr *trap
			program := strings.ReplaceAll(c.program, "@ROOT@", d.root)
			if program == "" {
				tr = newTrap(t, d.root)
				program = tr.program
			}
			op := d.download(t, d.hostileImage(image.Manifest{
				Version: "2.0.0", ConfigFormat: 2, Converters: []image.Converter{{From: 1, To: 2, Payload: "convert"}},
			}, "convert", program), device.ThenActivate, device.ThenReset)
			if op.State != mib.OperationStateSucceeded {
				t.Fatalf("%v: %v, %s", op.State, op.Cause, op.Text)
			}
			op = d.recover(t, 1)
			if op.State != mib.OperationStateFailed || op.Cause != c.cause {
				t.Errorf("%v: %v, %s; want %v", op.State, op.Cause, op.Text, c.cause)
			}
			if tr != nil {
				tr.check(t)
			}
			dev, err := d.client().Device(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if dev.Version != "2.0.0" || dev.Generation != 0 {
				t.Errorf("runs %s with configuration data %d", dev.Version, dev.Generation)
			}
			if left, err := os.ReadDir(filepath.Join(d.root, "work")); err != nil || len(left) != 0 {
				t.Errorf("left over: %v, %v", left, err)
			}
		})
	}
}

// recover has the device fetch configuration data of a format by TFTP and
// convert them.
func (d *unit) recover(t *testing.T, format uint32) *device.Operation {
	t.Helper()
	const directory = "backup/IAD-0001/test"
	disk := afero.NewMemMapFs()
	var rows []device.FileRow
	for _, k := range files.ConfigKinds {
		data := config.WithHeader(k, format, []byte("name = x\n"))
		if err := afero.WriteFile(disk, directory+"/"+k.String(), data, 0o644); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, device.FileRow{Kind: k, Name: k.String()})
	}
	srv, err := files.StartServers(files.ServersConfig{Files: disk, TFTP: "127.0.0.1:0", Advertise: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	c := d.client()
	session, err := srv.Open(device.TFTP, "IAD-0001", c.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	session.Offer(directory)
	return d.carryOut(t, c, device.Request{
		Kind: mib.OperationKindRecoverConfig, Options: []device.Option{device.ConvertFirst},
		Server: &device.ServerRow{Index: 1, FileServerAddress: session.Address(), Path: directory},
		Files:  rows,
	})
}

func payload(name, content string, mode image.Mode) image.PayloadFile {
	return image.PayloadFile{Name: name, Mode: mode, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content)), nil
	}}
}

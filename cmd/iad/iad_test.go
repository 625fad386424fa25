package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// asCommand makes the test's own binary the iad command.
const asCommand = "IAD_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// unit is an iad process on a root of its own.
type unit struct {
	t    *testing.T
	root string
	key  minisign.PrivateKey
	addr string    // of the SNMP engine, kept over restarts
	log  io.Writer // gets what the process says; nil for nobody
	cmd  *exec.Cmd
	done chan error
	// wrap, if not nil, changes the command that start runs.
	wrap func(*exec.Cmd)

	trust, software string // files for iad init
}

// program is what the tests run: IAD_BINARY, or else this binary.
var program = func() string {
	if p := os.Getenv("IAD_BINARY"); p != "" {
		return p
	}
	return os.Args[0]
}()

func command(args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}

// newDevice makes a device with software 1.0.0.
func newDevice(t *testing.T, initArgs ...string) *unit {
	t.Helper()
	pub, key, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &unit{t: t, key: key}
	text, err := pub.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	d.trust, d.software = filepath.Join(dir, "maker.pub"), filepath.Join(dir, "fw.iad")
	for file, data := range map[string][]byte{d.trust: text, d.software: d.image("1.0.0", 100_000)} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.init(filepath.Join(t.TempDir(), "root"), initArgs...)
	return d
}

// init makes a device in the directory root.
func (d *unit) init(root string, initArgs ...string) {
	d.t.Helper()
	d.root = root
	args := append([]string{"init", "--root", d.root, "--image", d.software, "--trust", d.trust, "--hardware", "IAD-4FXS",
		"--device-id", "IAD-0001", "--snmp", fmt.Sprintf("%s:%d", ownAddress(), 10000+rand.IntN(20000)), // not one that the system hands out
		"--plain-passwords", "--read-community", "public", "--write-community", "private"}, initArgs...)
	if out, err := command(args...).CombinedOutput(); err != nil {
		d.t.Fatalf("iad init: %v\n%s", err, out)
	}
}

// ownAddress is an address of loopback that no other test uses, so that nobody
// takes the device's port while it is down.
func ownAddress() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

// image builds software of a size with a self-test that passes.
func (d *unit) image(version string, size int) []byte {
	d.t.Helper()
	part := func(name, content string, mode image.Mode) image.PayloadFile {
		return image.PayloadFile{Name: name, Mode: mode, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(content)), nil
		}}
	}
	var b bytes.Buffer
	err := image.Build(&b, image.Manifest{Version: version, Hardware: []string{"IAD-4FXS"}, ConfigFormat: 1, SelfTest: "selftest"},
		[]image.PayloadFile{
			part("firmware", strings.Repeat(version+"\n", size/(len(version)+1)), 0o644),
			part("selftest", "#!/bin/sh\nexit 0\n", 0o755),
		}, d.key)
	if err != nil {
		d.t.Fatal(err)
	}
	return b.Bytes()
}

var ready = regexp.MustCompile(`msg=ready.* snmp=(\S+)`)

// start runs the device until the test ends or stop is called.
func (d *unit) start(args ...string) {
	d.t.Helper()
	run := []string{"run", "--root", d.root}
	if d.addr != "" {
		run = append(run, "--snmp", d.addr)
	}
	d.cmd = command(append(run, args...)...)
	if d.wrap != nil {
		d.wrap(d.cmd)
	}
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	lines := make(chan string, 10000)
	d.done = make(chan error, 1)
	cmd, done := d.cmd, d.done
	go func() {
		defer close(lines)
		var rest []byte
		buf := make([]byte, 4096)
		for {
			n, err := stderr.Read(buf)
			rest = append(rest, buf[:n]...)
			for {
				line, after, ok := bytes.Cut(rest, []byte("\n"))
				if !ok {
					break
				}
				if d.log != nil {
					fmt.Fprintf(d.log, "%s\n", line)
				}
				lines <- string(line)
				rest = after
			}
			if err != nil {
				done <- cmd.Wait()
				return
			}
		}
	}()
	d.t.Cleanup(func() { d.stop() })
	var said []string
	for line := range lines {
		said = append(said, line)
		if m := ready.FindStringSubmatch(line); m != nil {
			d.addr = m[1]
			go func() {
				for range lines {
				}
			}()
			return
		}
	}
	d.cmd = nil
	d.t.Fatalf("iad run ended: %v\n%s", <-d.done, strings.Join(said, "\n"))
}

// stop ends the process, at once.
func (d *unit) stop() {
	if d.cmd != nil {
		_ = d.cmd.Process.Kill()
		<-d.done
		d.cmd = nil
	}
}

func (d *unit) client() *device.Client {
	d.t.Helper()
	c, err := device.Dial(device.Target{Address: d.addr, Credentials: device.Credentials{Read: "public", Write: "private"}})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

// servers are the embedded ones, slow if bandwidth is not 0.
func servers(t *testing.T, bandwidth int) *files.Servers {
	t.Helper()
	s, err := files.StartServers(files.ServersConfig{
		Files: afero.NewMemMapFs(), TFTP: "127.0.0.1:0", FTP: "127.0.0.1:0", Advertise: "127.0.0.1", Bandwidth: bandwidth,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (d *unit) plan(version string, size, bandwidth int) manager.Plan {
	d.t.Helper()
	disk := afero.NewMemMapFs()
	if err := afero.WriteFile(disk, "fw.iad", d.image(version, size), 0o644); err != nil {
		d.t.Fatal(err)
	}
	img, err := files.OpenImage(disk, "fw.iad")
	if err != nil {
		d.t.Fatal(err)
	}
	return manager.Plan{Client: d.client(), Files: servers(d.t, bandwidth), Image: img, Poll: 100 * time.Millisecond}
}

// A device that is killed in the middle of a download comes back with the old
// software, reports what was interrupted, and the same upgrade then completes.
func TestKilledWhileDownloading(t *testing.T) {
	d := newDevice(t)
	d.start()
	const size = 2_000_000
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	killed := false
	_, err := manager.Upgrade(ctx, d.plan("2.0.0", size, 1_000_000), manager.Automatic{}, func(u manager.Update) {
		if op := u.Operation; op != nil && op.Phase == mib.OperationPhaseTransferring && op.BytesDone > size/4 && !killed &&
			op.Kind == mib.OperationKindDownloadSoftware {
			killed = true
			d.stop()
			cancel()
		}
	})
	if !killed || err == nil {
		t.Fatalf("the device was not killed in the middle of the download: %v", err)
	}

	d.start()
	c := d.client()
	dev, err := c.Device(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	op, err := c.Operation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if dev.Version != "1.0.0" || op.State != mib.OperationStateFailed || op.Cause != mib.FailCauseInterrupted {
		t.Errorf("runs %s, the download %v, cause %v", dev.Version, op.State, op.Cause)
	}
	result, err := manager.Upgrade(t.Context(), d.plan("2.0.0", size, 0), manager.Automatic{}, func(manager.Update) {})
	if err != nil {
		t.Fatal(err)
	}
	if result.OldVersion != "1.0.0" || result.NewVersion != "2.0.0" {
		t.Errorf("upgraded %s to %s", result.OldVersion, result.NewVersion)
	}
}

// keepPort chooses the device's port, so that it is the same after a restart.
func (d *unit) keepPort() {
	d.t.Helper()
	c, err := net.ListenPacket("udp", ownAddress()+":0")
	if err != nil {
		d.t.Fatal(err)
	}
	d.addr = c.LocalAddr().String()
	c.Close()
}

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/peers"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

const hardware = "BENCH"

// unit is iad on a root of its own.
type unit struct {
	lab                   *lab
	program, root, listen string
	key                   minisign.PrivateKey
	credentials           string // file for iadms
}

// newUnit makes a device with small software in bank 1.
func (l *lab) newUnit() (*unit, error) {
	program, err := l.ours("iad")
	if err != nil {
		return nil, err
	}
	dir, err := l.directory()
	if err != nil {
		return nil, err
	}
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	port, err := peers.FreePort("udp")
	if err != nil {
		return nil, err
	}
	u := &unit{lab: l, program: program, root: filepath.Join(dir, "root"), listen: fmt.Sprintf("127.0.0.1:%d", port), key: private, credentials: filepath.Join(dir, "credentials.toml")}
	trust, first := filepath.Join(dir, "maker.pub"), filepath.Join(dir, "first.iad")
	text, err := public.MarshalText()
	if err != nil {
		return nil, err
	}
	if err := content(filepath.Join(dir, "app"), 1000); err != nil {
		return nil, err
	}
	if err := errors.Join(os.WriteFile(trust, text, 0o600), u.build(first, "1.0.0", filepath.Join(dir, "app"))); err != nil {
		return nil, err
	}
	_, err = l.run(exec.CommandContext(l.ctx, program, "init", "--root", u.root, "--image", first, "--trust", trust, "--hardware", hardware,
		"--device-id", "BENCH-1", "--snmp", u.listen, "--manager", u.credentials, "--plain-passwords", "--read-community", "public", "--write-community", "private"))
	return u, err
}

// build makes an image with one payload.
func (u *unit) build(to, version, payload string) error {
	file, err := image.FileFrom(afero.NewOsFs(), payload)
	if err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	if err := image.Build(f, image.Manifest{Version: version, Hardware: []string{hardware}, ConfigFormat: 1}, []image.PayloadFile{file}, u.key); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// run starts the device and waits until it answers.
func (u *unit) run(args ...string) (*server, error) {
	s, err := u.lab.serve(exec.Command(u.program, append([]string{"run", "--root", u.root}, args...)...))
	if err != nil {
		return nil, err
	}
	return s, u.lab.await(s, func() bool { return strings.Contains(s.output.String(), "msg=ready") })
}

func (u *unit) client() (*device.Client, error) {
	c, err := device.Dial(device.Target{Address: u.listen, Credentials: device.Credentials{Read: "public", Write: "private"}})
	if err == nil {
		u.lab.cleanups = append(u.lab.cleanups, func() { _ = c.Close() })
	}
	return c, err
}

// download has the device fetch software, even if it has it, and returns when it is ready.
func (u *unit) download(c *device.Client, protocol device.Protocol, port int, path, name string) error {
	op, err := c.Start(u.lab.ctx, device.Request{
		Kind: mib.OperationKindDownloadSoftware, ID: device.NewReqID(), Owner: "bench", Options: []device.Option{device.Force},
		Server: &device.ServerRow{Index: 1, FileServerAddress: device.FileServerAddress{Protocol: protocol, Host: "127.0.0.1", Port: uint16(port), Timeout: 10 * time.Second}, Path: path},
		Files:  []device.FileRow{{Kind: mib.FileTypeSoftware, Name: name}},
	})
	for err == nil && !op.Final() {
		select {
		case <-time.After(2 * time.Millisecond):
			op, err = c.Operation(u.lab.ctx)
		case <-u.lab.ctx.Done():
			err = u.lab.ctx.Err()
		}
	}
	if err == nil && op.State != mib.OperationStateSucceeded {
		err = fmt.Errorf("downloadSoftware: %v, %v: %s", op.State, op.Cause, op.Text)
	}
	return err
}

// measured runs f and returns how long it took, and the process's processor time and peak of resident memory meanwhile.
func measured(pid int, f func() error) (s sample, err error) {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o200); err != nil { // resets the peak, see proc(5)
		return s, err
	}
	used, err := processorTime(pid)
	if err != nil {
		return s, err
	}
	begun := time.Now()
	if err := f(); err != nil {
		return s, err
	}
	s = sample{took: time.Since(begun), memory: highWater(pid)}
	later, err := processorTime(pid)
	s.processor = later - used
	return s, err
}

// software serves an image fw.iad, whose payload is a file of this size, by FTP, and makes a device for it.
func (l *lab) software(peer string, size int64) (x exchange, u *unit, err error) {
	if x, err = l.exchange(peer, size); err == nil {
		err = x.serve(l.vsftpd, x.from)
	}
	if err == nil {
		u, err = l.newUnit()
	}
	if err == nil {
		err = u.build(filepath.Join(x.from, "fw.iad"), "2.0.0", filepath.Join(x.from, "file"))
	}
	return x, u, err
}

// install downloads software into the second bank: iad from the request to the state ready, SWUpdate with the same payload as a
// raw image in a signed archive that it writes while it receives it.
func install(size int64) func(l *lab) (sides, error) {
	return func(l *lab) (sides, error) {
		x, u, err := l.software("swupdate", size)
		if err != nil {
			return sides{}, err
		}
		s, err := u.run()
		if err != nil {
			return sides{}, err
		}
		c, err := u.client()
		if err != nil {
			return sides{}, err
		}
		target, temp := filepath.Join(x.to, "target"), filepath.Join(x.to, "temp")
		certificate, err := l.archive(filepath.Join(x.from, "fw.swu"), filepath.Join(x.from, "file"), target)
		if err != nil {
			return sides{}, err
		}
		if err := errors.Join(os.WriteFile(target, nil, 0o600), os.Truncate(target, size), os.Mkdir(temp, 0o700)); err != nil {
			return sides{}, err
		}
		return sides{
			ours: func() (sample, error) {
				return measured(s.cmd.Process.Pid, func() error { return u.download(c, device.FTP, x.port, "files", "fw.iad") })
			},
			peer: func() (sample, error) {
				update := exec.CommandContext(l.ctx, x.peer, "-k", certificate, "-H", "bench:1.0", "-d", fmt.Sprintf("-u ftp://127.0.0.1:%d/files/fw.swu", x.port))
				update.Env = append(os.Environ(), "TMPDIR="+temp)
				return l.update(update, exec.CommandContext(l.ctx, "sync", target))
			},
		}, nil
	}
}

// update runs SWUpdate until it reports success, then another program. SWUpdate itself ends up to a second later, because it
// looks once a second whether it is done; that second is not counted.
func (l *lab) update(swupdate, then *exec.Cmd) (s sample, err error) {
	out := &notifier{text: "SWUPDATE successful", seen: make(chan struct{})}
	swupdate.Stdout, swupdate.Stderr = out, out
	begun := time.Now()
	if err := swupdate.Start(); err != nil {
		return s, err
	}
	ended := make(chan error, 1)
	go func() { ended <- swupdate.Wait() }()
	select {
	case <-out.seen:
	case err := <-ended:
		return s, fmt.Errorf("%s: %w\n%s", swupdate, err, tail(out.String()))
	}
	s.memory = highWater(swupdate.Process.Pid)
	_, err = l.run(then)
	s.took = time.Since(begun)
	err = errors.Join(err, <-ended)
	if p := swupdate.ProcessState; p != nil {
		s.processor = p.UserTime() + p.SystemTime()
	}
	return s, err
}

// notifier is an output that closes seen when a text has been printed.
type notifier struct {
	output
	text string
	seen chan struct{}
	once sync.Once
}

func (n *notifier) Write(p []byte) (int, error) {
	k, err := n.output.Write(p)
	if strings.Contains(n.String(), n.text) {
		n.once.Do(func() { close(n.seen) })
	}
	return k, err
}

// archive makes an update for SWUpdate: a payload that is written to target, with a description signed by a new key. It
// returns the certificate to check that with.
func (l *lab) archive(to, payload, target string) (certificate string, err error) {
	dir, err := l.directory()
	if err != nil {
		return "", err
	}
	in, err := os.Open(payload)
	if err != nil {
		return "", err
	}
	defer in.Close()
	h := sha256.New()
	var sum additive
	size, err := io.Copy(io.MultiWriter(h, &sum), in)
	if err != nil {
		return "", err
	}
	description := fmt.Sprintf("software = {\n version = \"2.0.0\";\n hardware-compatibility: [ \"1.0\" ];\n images: ({\n  filename = \"payload\";\n"+
		"  device = %q;\n  installed-directly = true;\n  sha256 = %q;\n });\n}\n", target, hex.EncodeToString(h.Sum(nil)))
	file := func(name string) string { return filepath.Join(dir, name) }
	certificate = file("certificate.pem")
	if err := os.WriteFile(file("sw-description"), []byte(description), 0o600); err != nil {
		return "", err
	}
	if _, err := l.run(
		exec.CommandContext(l.ctx, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", file("key.pem"), "-out", certificate,
			"-days", "2", "-subj", "/CN=bench", "-addext", "extendedKeyUsage=emailProtection"),
		exec.CommandContext(l.ctx, "openssl", "cms", "-sign", "-in", file("sw-description"), "-out", file("sw-description.sig"), "-signer", certificate,
			"-inkey", file("key.pem"), "-outform", "DER", "-nosmimecap", "-binary"),
	); err != nil {
		return "", err
	}
	out, err := os.Create(to)
	if err != nil {
		return "", err
	}
	defer out.Close()
	for _, name := range []string{"sw-description", "sw-description.sig"} {
		data, err := os.ReadFile(file(name))
		if err != nil {
			return "", err
		}
		var sum additive
		_, _ = sum.Write(data)
		if err := member(out, name, int64(len(data)), sum, bytes.NewReader(data)); err != nil {
			return "", err
		}
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	if err := errors.Join(member(out, "payload", size, sum, in), member(out, "TRAILER!!!", 0, 0, bytes.NewReader(nil))); err != nil {
		return "", err
	}
	return certificate, out.Close()
}

// additive is the checksum of cpio's format "crc": the sum of all bytes.
type additive uint32

func (a *additive) Write(p []byte) (int, error) {
	for _, b := range p {
		*a += additive(b)
	}
	return len(p), nil
}

// member appends a file to an archive in cpio's format "crc", see cpio(5).
func member(w io.Writer, name string, size int64, sum additive, data io.Reader) error {
	padding := func(n int64) []byte { return make([]byte, (4-n%4)%4) }
	head := fmt.Sprintf("070702%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", 1, 0o100644, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, sum, name)
	if _, err := io.WriteString(w, head+string(padding(int64(len(head))))); err != nil {
		return err
	}
	if _, err := io.Copy(w, data); err != nil {
		return err
	}
	_, err := w.Write(padding(size))
	return err
}

// starting starts iad with two banks of this size. The peer reads one of them.
func starting(size int64) func(l *lab) (sides, error) {
	return func(l *lab) (sides, error) {
		x, u, err := l.software("openssl", size)
		if err != nil {
			return sides{}, err
		}
		if err := u.fillBoth(x.port); err != nil {
			return sides{}, err
		}
		return sides{
			ours: func() (s sample, err error) {
				begun := time.Now()
				running, err := u.run()
				if err != nil {
					return s, err
				}
				s.took = time.Since(begun)
				running.stop()
				return s, nil
			},
			peer: func() (sample, error) {
				return l.run(exec.CommandContext(l.ctx, x.peer, "dgst", "-sha256", filepath.Join(x.from, "file")))
			},
		}, nil
	}
}

// fillBoth installs the software at "files/fw.iad" of an FTP server in one bank, starts it, and installs it in the other one.
func (u *unit) fillBoth(port int) error {
	s, err := u.run()
	if err != nil {
		return err
	}
	defer s.stop()
	c, err := u.client()
	if err != nil {
		return err
	}
	if err := u.download(c, device.FTP, port, "files", "fw.iad"); err != nil {
		return err
	}
	if _, err := c.Start(u.lab.ctx, device.Request{Kind: mib.OperationKindActivate, ID: device.NewReqID(), Owner: "bench", Options: []device.Option{device.ThenReset}}); err != nil {
		return err
	}
	if err := u.lab.await(s, func() bool {
		banks, err := c.Banks(u.lab.ctx)
		if err != nil {
			return false
		}
		op, err := c.Operation(u.lab.ctx)
		return err == nil && op.Final() && slices.ContainsFunc(banks[:], func(b device.Bank) bool {
			return b.Running && b.Version == "2.0.0" && b.State == mib.BankStateGood
		})
	}); err != nil {
		return err
	}
	return u.download(c, device.FTP, port, "files", "fw.iad")
}

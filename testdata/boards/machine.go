package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A machine is a board that runs.
type machine struct {
	cmd     *exec.Cmd
	console *console  // what the board has printed; nil if that went to the terminal
	in      io.Writer // types at its console
	ended   chan struct{}
	err     error
}

// options say how a board is run.
type options struct {
	terminal bool     // its console is the terminal; else what it prints is kept
	writes   string   // file in which every write and flush of the disk is logged, "" for none
	qemu     []string // more arguments for QEMU
	kernel   string   // more arguments for a kernel that QEMU starts
}

// onConsole are arguments of QEMU for a board that has its console on standard input and output, and nothing else.
var onConsole = []string{"-display", "none", "-chardev", "stdio,id=console,signal=on", "-serial", "chardev:console", "-monitor", "none"}

// start starts the board of a build, whose port for SNMP is a port of the host's loopback interface.
func start(ctx context.Context, b *build, port int, o options) (*machine, error) {
	args := append(slices.Clone(onConsole), o.qemu...)
	network := fmt.Sprintf("user,id=net,hostfwd=udp:127.0.0.1:%d-:1161", port)
	disk := "file"
	if !b.kind.card {
		args = append(args, "-m", "64", "-netdev", network, "-blockdev", "driver=file,node-name=file,filename="+b.disk())
	}
	if o.writes != "" {
		if err := os.WriteFile(o.writes, nil, 0o644); err != nil {
			return nil, err
		}
		// U-Boot does not flush: for it QEMU does, after each write. The node "disk" is there for this: blklogwrites by itself
		// takes the first of these flushes for one with nothing to do, and does not log it.
		args = append(args, "-blockdev", "driver=file,node-name=log,filename="+o.writes,
			"-blockdev", fmt.Sprintf("driver=blklogwrites,node-name=logged,file=file,log=log,log-sector-size=%d", sectorSize),
			"-blockdev", "driver=raw,node-name=disk,file=logged")
		disk = "disk"
	}
	switch {
	case b.kind.card:
		args = append(args, "-M", "orangepi-pc", "-m", "1G", "-nic", network, "-drive", "if=sd,format=raw,file="+b.disk())
	case b.kind.loader:
		args = append(args, "-M", "virt", "-bios", filepath.Join(b.peers, "u-boot.bin"),
			"-device", "virtio-net-device,netdev=net", "-device", "virtio-blk-device,drive="+disk)
	default:
		args = append(args, "-M", "malta", "-vga", "none", "-kernel", b.system("kernel"), "-initrd", b.path("software", first, "initrd"),
			"-append", "console=ttyS0 quiet panic=1 "+o.kernel, "-device", "pcnet,romfile=,netdev=net", "-device", "ide-hd,drive="+disk)
	}
	return launch(ctx, filepath.Join(b.top, ".peers", b.kind.peers, "bin", b.kind.qemu), args, o.terminal)
}

// launch starts QEMU.
func launch(ctx context.Context, program string, args []string, terminal bool) (*machine, error) {
	m := &machine{cmd: exec.CommandContext(ctx, program, args...), ended: make(chan struct{})}
	// QEMU writes its log to the end when it is asked to end.
	m.cmd.Cancel = func() error { return m.cmd.Process.Signal(syscall.SIGTERM) }
	m.cmd.WaitDelay = 10 * time.Second
	m.cmd.Stdin, m.cmd.Stdout, m.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if !terminal {
		m.console = &console{begun: time.Now(), changed: make(chan struct{})}
		m.cmd.Stdin, m.cmd.Stdout, m.cmd.Stderr = nil, m.console, m.console
		in, err := m.cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		m.in = in
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		if m.err = m.cmd.Wait(); ctx.Err() != nil {
			m.err = nil
		}
		close(m.ended)
	}()
	return m, nil
}

// wait waits for the end of QEMU.
func (m *machine) wait() error {
	<-m.ended
	return m.err
}

// off ends QEMU, as if the power failed.
func (m *machine) off() error {
	if err := m.cmd.Cancel(); err != nil {
		return err
	}
	return m.wait()
}

// kill ends QEMU in the middle of whatever it does.
func (m *machine) kill() error {
	if err := m.cmd.Process.Kill(); err != nil {
		return err
	}
	<-m.ended
	return nil
}

// expect waits until the board has printed something that was not waited for before, and returns it with its
// submatches.
func (m *machine) expect(ctx context.Context, pattern string) ([]string, error) {
	re := regexp.MustCompile(pattern)
	for {
		found, changed := m.console.find(re)
		if found != nil {
			return found, nil
		}
		select {
		case <-changed:
		case <-m.ended:
			return nil, fmt.Errorf("%q was not printed, and QEMU has ended: %v", pattern, m.err)
		case <-ctx.Done():
			return nil, fmt.Errorf("%q was not printed: %w", pattern, ctx.Err())
		}
	}
}

// A console keeps what a board prints, with the seconds since the start before each line.
type console struct {
	begun   time.Time
	mu      sync.Mutex
	text    []byte
	seen    int // of text, by find
	changed chan struct{}
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamp := fmt.Appendf(nil, "\n%6.1f  ", time.Since(c.begun).Seconds())
	c.text = append(c.text, bytes.ReplaceAll(bytes.ReplaceAll(p, []byte("\r"), nil), []byte("\n"), stamp)...)
	close(c.changed)
	c.changed = make(chan struct{})
	return len(p), nil
}

func (c *console) find(re *regexp.Regexp) ([]string, chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := re.FindSubmatchIndex(c.text[c.seen:])
	if at == nil {
		return nil, c.changed
	}
	var found []string
	for i := 0; i < len(at); i += 2 {
		found = append(found, string(c.text[c.seen+at[i]:c.seen+at[i+1]]))
	}
	c.seen += at[1]
	return found, nil
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

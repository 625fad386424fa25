package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"example.com/iad/internal/peers"
)

// lab has the temporary directory and what runs for the present row.
type lab struct {
	ctx      context.Context
	top      string // of the source tree
	dir      string
	self     string // this program
	built    map[string]string
	cleanups []func()
}

func newLab(ctx context.Context) (*lab, error) {
	if os.Getuid() != 0 {
		return nil, errors.New("the servers need root: run this as root, for instance in a container")
	}
	top, err := os.Getwd()
	for ; err == nil; top = filepath.Dir(top) {
		if _, err := os.Stat(filepath.Join(top, "go.mod")); err == nil {
			break
		}
		if top == filepath.Dir(top) {
			return nil, errors.New("run this within the source tree")
		}
	}
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // the servers run as other users
		return nil, err
	}
	return &lab{ctx: ctx, top: top, dir: dir, self: self, built: map[string]string{}}, nil
}

// cleanUp ends what the row started, the last first.
func (l *lab) cleanUp() {
	for _, f := range slices.Backward(l.cleanups) {
		f()
	}
	l.cleanups = nil
}

// program finds a peer: the one that "make peers" unpacked, else an installed one.
func (l *lab) program(name string) (string, error) {
	unpacked := filepath.Join(l.top, ".peers", "bin", name)
	if _, err := os.Stat(unpacked); err == nil {
		return unpacked, nil
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("%s not found: run make peers, or install it", name)
}

// ours builds one of this project's programs, as for release, once.
func (l *lab) ours(name string) (string, error) {
	if p := l.built[name]; p != "" {
		return p, nil
	}
	p := filepath.Join(l.dir, name)
	cmd := exec.CommandContext(l.ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", p, "./cmd/"+name)
	cmd.Dir, cmd.Env = l.top, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	l.built[name] = p
	return p, nil
}

var versionPattern = regexp.MustCompile(`[0-9]+\.[0-9]+[-+.0-9A-Za-z]*`)

// version returns the name of a program with its version, as it prints it itself.
func (l *lab) version(program ...string) (string, error) {
	path, err := l.program(program[0])
	if err != nil {
		return "", err
	}
	out, _ := exec.CommandContext(l.ctx, path, program[1:]...).CombinedOutput() // some exit with 1
	v := versionPattern.Find(out)
	if v == nil { // Debian's swupdate prints "SWUpdate v"
		v = versionPattern.Find(l.changelog(program[0]))
	}
	if v == nil {
		return "", fmt.Errorf("%s does not print its version: %s", program[0], out)
	}
	return program[0] + " " + string(v), nil
}

// changelog returns the first lines of the change log of the package of a program that "make peers" unpacked, or else of an
// installed one; nil without one.
func (l *lab) changelog(name string) []byte {
	doc := filepath.Join("usr", "share", "doc", name, "changelog.Debian.gz")
	f, err := os.Open(filepath.Join(l.top, ".peers", "root", doc))
	if err != nil {
		f, err = os.Open(filepath.Join("/", doc))
	}
	if err != nil {
		return nil
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		return nil
	}
	head := make([]byte, 200)
	n, _ := io.ReadFull(r, head)
	return head[:n]
}

// directory makes a directory for the row that every server may write.
func (l *lab) directory() (string, error) {
	dir, err := os.MkdirTemp(l.dir, "row")
	if err != nil {
		return "", err
	}
	l.cleanups = append(l.cleanups, func() { _ = os.RemoveAll(dir) })
	inner := filepath.Join(dir, "files")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(inner, 0o755), os.Chmod(inner, 0o777)); err != nil {
		return "", err
	}
	return inner, nil
}

// output is what a program prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// server is a program that runs until the row ends.
type server struct {
	cmd    *exec.Cmd
	output *output
	done   chan struct{} // closed when it has ended
	stop   func()
}

// serve starts a server, with the processes that it starts in a group of its own.
func (l *lab) serve(cmd *exec.Cmd) (*server, error) {
	s := &server{cmd: cmd, output: new(output), done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = s.output, s.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait()
		close(s.done)
	}()
	s.stop = sync.OnceFunc(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-s.done
	})
	l.cleanups = append(l.cleanups, s.stop)
	return s, nil
}

// await waits until the server is up.
func (l *lab) await(s *server, up func() bool) error {
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !up() {
		select {
		case <-tick.C:
		case <-s.done:
			return fmt.Errorf("%s ended:\n%s", filepath.Base(s.cmd.Path), s.output)
		case <-limit.C:
			return fmt.Errorf("%s does not answer:\n%s", filepath.Base(s.cmd.Path), s.output)
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
	return nil
}

// run runs programs one after the other, and measures them together.
func (l *lab) run(list ...*exec.Cmd) (s sample, err error) {
	begun := time.Now()
	for _, cmd := range list {
		out := new(output)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			return s, err
		}
		ended, peak := make(chan struct{}), make(chan int64)
		go func() { peak <- watchMemory(cmd.Process.Pid, ended) }()
		err := cmd.Wait()
		close(ended)
		s.memory = max(s.memory, <-peak)
		if err != nil {
			return s, fmt.Errorf("%s: %w\n%s", cmd, err, tail(out.String()))
		}
	}
	s.took = time.Since(begun)
	return s, nil
}

// watchMemory returns the peak of a process's resident memory in bytes, as it was shortly before its end. The kernel's figure
// for a process that has ended is of no use: it contains what the parent had when it started the process.
func watchMemory(pid int, ended <-chan struct{}) (peak int64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if now := highWater(pid); now > 0 {
				peak = now
			}
		case <-ended:
			return peak
		}
	}
}

// highWater is VmHWM of a process in bytes, see proc(5); 0 if it has ended.
func highWater(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(data, []byte("VmHWM:"))
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

// processorTime is what the threads of a process have used so far. clock_gettime(2) has it in nanoseconds, /proc in
// hundredths of a second.
func processorTime(pid int) (time.Duration, error) {
	const schedulerTime = 2 // CPUCLOCK_SCHED of the kernel
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedulerTime), &t); err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// tail is the end of what a program printed.
func tail(s string) string {
	s = strings.TrimSpace(s)
	return s[max(0, len(s)-2000):]
}

// vsftpd serves the directory's parent for anonymous reading and writing; files are at /files/NAME.
func (l *lab) vsftpd(files string) (port int, err error) {
	path, err := l.program("vsftpd")
	if err != nil {
		return 0, err
	}
	if port, err = peers.FreePort("tcp"); err != nil {
		return 0, err
	}
	dir, err := l.directory()
	if err != nil {
		return 0, err
	}
	empty, conf := filepath.Join(filepath.Dir(dir), "empty"), filepath.Join(filepath.Dir(dir), "vsftpd.conf")
	if err := errors.Join(os.Mkdir(empty, 0o755), os.WriteFile(conf, []byte(strings.Join([]string{
		"listen=YES", "listen_address=127.0.0.1", fmt.Sprintf("listen_port=%d", port), "background=NO", "seccomp_sandbox=NO", "isolate_network=NO",
		"anonymous_enable=YES", "local_enable=NO", "ftp_username=daemon", "anon_root=" + filepath.Dir(files), "anon_umask=022",
		"write_enable=YES", "anon_upload_enable=YES", "anon_mkdir_write_enable=YES", "anon_other_write_enable=YES", "anon_world_readable_only=NO",
		"allow_writeable_chroot=YES", "secure_chroot_dir=" + empty, "xferlog_enable=NO", "pam_service_name=other",
	}, "\n")+"\n"), 0o600)); err != nil {
		return 0, err
	}
	s, err := l.serve(exec.Command(path, conf))
	if err != nil {
		return 0, err
	}
	return port, l.await(s, func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// atftpd serves a directory.
func (l *lab) atftpd(files string) (port int, err error) {
	path, err := l.program("atftpd")
	if err != nil {
		return 0, err
	}
	if port, err = peers.FreePort("udp"); err != nil {
		return 0, err
	}
	s, err := l.serve(exec.Command(path, "--daemon", "--no-fork", "--bind-address", "127.0.0.1", "--port", fmt.Sprint(port),
		"--user", "nobody.nogroup", "--logfile", "-", files))
	if err != nil {
		return 0, err
	}
	return port, l.await(s, func() bool {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.WriteTo([]byte("\x00\x01is-it-up\x00octet\x00"), &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}); err != nil {
			return false
		}
		_, _, err = c.ReadFrom(make([]byte, 600))
		return err == nil
	})
}

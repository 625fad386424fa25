package command

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a pseudo terminal.
func openTerminal(t *testing.T, rows, columns uint16) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	err = errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0),
		unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}))
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

var cursorUp = regexp.MustCompile(`\x1b\[([0-9]+)A`)

// TestFleetFitsTerminal: more devices than the terminal has lines leave no frame behind
// that could not be drawn over, and ^C leaves only the summary.
func TestFleetFitsTerminal(t *testing.T) {
	const rows = 24
	l := newLab(t, nil)
	targets := make([]string, 40)
	for i := range targets {
		targets[i] = fmt.Sprintf("127.3.3.%d:9", i+1) // nobody answers there
	}
	master, slave := openTerminal(t, rows, 80)
	const script = `trap : INT; "$0" "$@"; status=$?; stty -a | grep -o -e '-*echoctl'; exit $status`
	cmd := l.command(append([]string{"-c", script, os.Args[0], "upgrade", "--image", l.image("2.0.0", 2), "--parallel", "40", "--notifications", "none"}, targets...)...)
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell:", err)
	}
	cmd.Path = shell
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var screen bytes.Buffer
	interrupted := false
	for buf := make([]byte, 4096); ; {
		n, err := master.Read(buf)
		screen.Write(buf[:n])
		if !interrupted && bytes.Contains(screen.Bytes(), []byte("more in progress")) {
			interrupted = true
			if _, err := master.Write([]byte{3}); err != nil { // ^C, which the terminal makes a signal of
				t.Error(err)
			}
		}
		if errors.Is(err, syscall.EIO) || errors.Is(err, io.EOF) { // the program closed its end
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); !interrupted || status != exitInterrupted {
		t.Errorf("interrupted %v, exit status %d", interrupted, status)
	}
	text := screen.String()
	for _, m := range cursorUp.FindAllStringSubmatch(text, -1) {
		if n, _ := strconv.Atoi(m[1]); n >= rows {
			t.Errorf("a frame of %d lines on a terminal of %d", n, rows)
		}
	}
	if strings.Contains(text, "^C") || !strings.HasSuffix(text, "\nechoctl\r\n") {
		t.Errorf("^C was shown, or the terminal is not as it was: %q", text[max(0, len(text)-100):])
	}
	_, summary, found := strings.Cut(text, "0 of 40 upgraded")
	if !found || strings.Contains(summary, "\x1b[") || !strings.Contains(summary, "40 interrupted: 127.3.3.1:9, ") || !strings.Contains(summary, "and 30 more") {
		t.Errorf("the end of the output is %q", text[max(0, len(text)-600):])
	}
}

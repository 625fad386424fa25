package command

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// board is the real program of a device, with a check of configuration data that a
// board's maker wrote, or with none.
type board struct {
	*lab
	root, image, address string
}

// newMaker builds the device's program, and software in two versions.
func newMaker(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir()}
	err := errors.Join(
		os.WriteFile(filepath.Join(l.dir, "app"), []byte("software\n"), 0o600),
		os.Mkdir(filepath.Join(l.dir, "data"), 0o700),
		os.WriteFile(filepath.Join(l.dir, "data", "userData"), []byte("iad-config userData 1\nline.1 = +4930123\n"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(l.dir, "iad"), "../../iad").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	converter := l.script("convert", `for f in "$3"/*; do sed "1s/ $1\$/ $2/; s/^line/port/" "$f" >"$4/${f##*/}"; done`)
	good := l.script("selftest", "exit 0\n")
	for _, args := range [][]string{
		{"keygen", "--no-password", "-o", "maker"},
		{"build", "--version", "1.0.0", "--config-format", "1", "--hardware", "H", "--selftest", good, "--key", "maker.key", "-o", "1.iad", "app"},
		{"build", "--version", "2.0.0", "--config-format", "2", "--hardware", "H", "--selftest", good, "--key", "maker.key", "-o", "2.iad", "--converter", "1:2:" + converter, "app"},
	} {
		cmd := l.command(append([]string{"image"}, args...)...)
		cmd.Dir = l.dir
		if out, status := l.run(cmd); status != exitOK {
			t.Fatalf("%v: exit status %d\n%s", args, status, out)
		}
	}
	return l
}

// newBoard starts a device with software 1.0.0 and configuration data in format 1.
func newBoard(t *testing.T, maker *lab, check string) *board {
	t.Helper()
	return newBoardOf(t, maker, check, "1.iad")
}

// newBoardOf starts a device with the software of an image; iad init gets more arguments.
func newBoardOf(t *testing.T, maker *lab, check, image string, more ...string) *board {
	t.Helper()
	b := &board{&lab{t: t, dir: t.TempDir()}, "", maker.dir + "/2.iad", loopback()}
	b.root = filepath.Join(b.dir, "root")
	program := filepath.Join(maker.dir, "iad")
	if out, err := exec.Command(program, append([]string{"init", "--root", b.root, "--image", maker.dir + "/" + image, "--trust", maker.dir + "/maker.pub", "--hardware", "H", "--device-id", "D1",
		"--config-dir", maker.dir + "/data", "--read-community", "public", "--write-community", "private", "--snmp", b.address}, more...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if check != "" {
		name := filepath.Join(b.root, "iad.toml")
		settings, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		head := "[programs]\n"
		text := strings.Replace(string(settings), head, head+"check_config = '"+b.script("check", check)+"'\n", 1)
		if text == string(settings) {
			t.Fatalf("no %q in %s", head, settings)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "run", "--root", b.root)
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	log := bufio.NewScanner(stderr)
	for log.Scan() {
		if strings.Contains(log.Text(), "msg=ready") {
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return b
		}
	}
	t.Fatal("the device does not start")
	return nil
}

// editor is what has iadms use a script as the editor.
func (b *board) editor(text string) string { return "EDITOR=" + b.script("editor", text) }

func (b *board) applied() string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.root, "applied", "userData"))
	if err != nil {
		b.t.Error(err)
	}
	return string(data)
}

// TestBoard goes from step 190 back to 170 with the programs of a real board.
func TestBoard(t *testing.T) {
	maker := newMaker(t)
	t.Run("data refused", func(t *testing.T) { boardRefusesData(t, maker) })
	t.Run("no check", func(t *testing.T) { boardWithoutCheck(t, maker) })
}

// Configuration data that a board's program refuses lead back to the edit, whoever made
// them wrong: the conversion on the device, or the operator, who then chooses r.
func boardRefusesData(t *testing.T, maker *lab) {
	b := newBoard(t, maker, `grep -q '^port.1 = 00' "$1/userData" && exit 0; grep -q ' 1$' "$1/userData" && exit 0; echo "port.1 needs 00"; exit 1`)
	master, slave := openTerminal(t, 40, 160)
	cmd := b.command("upgrade", b.address, "--image", b.image, "--listen", "127.0.0.1", "--notifications", "none", "--poll", "100ms", "--on-fail", "ask")
	cmd.Env = append(cmd.Env, "VISUAL=", b.editor(`
if [ -e "`+b.dir+`/once" ]; then number=004930123; else touch "`+b.dir+`/once"; number=4930123; fi
for f; do sed -i "s/^[a-z]*\\.1.*/port.1 = $number/" "$f"; done`))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hung := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer hung.Stop()
	slave.Close()
	answers := []string{"e\n", "r\n", "q\n"}
	var text strings.Builder
	for buf := make([]byte, 4096); ; {
		n, err := master.Read(buf)
		text.Write(buf[:n])
		if asked := strings.Count(text.String(), "what now?"); asked > 3-len(answers) && len(answers) > 0 {
			if _, err := master.WriteString(answers[0]); err != nil {
				t.Error(err)
			}
			answers = answers[1:]
		}
		if errors.Is(err, syscall.EIO) || errors.Is(err, io.EOF) { // the program closed its end
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	err := cmd.Wait()
	said := text.String()
	if err != nil || len(answers) != 1 || strings.Count(said, "port.1 needs 00") < 2 || strings.Count(said, "what now? the device's advice: fixFirst") != 2 {
		t.Errorf("%v, %d answers left\n%s", err, len(answers), said)
	}
	if got, want := b.applied(), "iad-config userData 2\nport.1 = 004930123\n"; got != want {
		t.Errorf("in force: %q, want %q", got, want)
	}
	out, _ := b.plainly("history", b.address, "--json")
	if n := strings.Count(out, "configParseError"); n != 2 {
		t.Errorf("%d operations ended with configParseError, want 2\n%s", n, out)
	}
}

// Without such a program only first lines, format and size are checked, as documented.
func boardWithoutCheck(t *testing.T, maker *lab) {
	b := newBoard(t, maker, "")
	cmd := b.command("upgrade", b.address, "--image", b.image, "--listen", "127.0.0.1", "--notifications", "none", "--poll", "100ms", "--yes", "--edit")
	cmd.Env = append(cmd.Env, "VISUAL=", b.editor(`for f; do echo "this is no setting" >>"$f"; done`))
	if out, status := b.run(cmd); status != exitOK || !strings.Contains(b.applied(), "\nthis is no setting\n") {
		t.Errorf("exit status %d, in force: %q\n%s", status, b.applied(), out)
	}
}

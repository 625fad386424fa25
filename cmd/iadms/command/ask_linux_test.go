package command

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAskNothingEdited: at a terminal a person is asked about an edit that changed nothing,
// and can have the data used as they are.
func TestAskNothingEdited(t *testing.T) {
	l := newLab(t, noConversion)
	master, slave := openTerminal(t, 40, 200)
	cmd := l.command("upgrade", l.address, "--image", l.image("2.0.0", 2), "--edit", "--listen", "127.0.0.1", "--notifications", l.traps)
	cmd.Env = append(cmd.Env, "VISUAL=", "EDITOR=true")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	hung := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer hung.Stop()
	var screen bytes.Buffer
	asked := 0
	for buf := make([]byte, 4096); ; {
		n, err := master.Read(buf)
		screen.Write(buf[:n])
		// Twice: to edit once more changes nothing either.
		if asked < 2 && bytes.Count(screen.Bytes(), []byte("give up")) > asked {
			if _, err := master.WriteString([]string{"e\n", "u\n"}[asked]); err != nil {
				t.Error(err)
			}
			asked++
		}
		if err != nil { // the program closed its end
			break
		}
	}
	err := cmd.Wait()
	text := screen.String()
	for _, want := range []string{"nothing was changed", "e  edit the configuration data", "u  use the configuration data as they are", "o  roll back to the old software"} {
		if strings.Count(text, want) < 2 {
			t.Errorf("%q was not shown twice", want)
		}
	}
	if o := l.outcome(); err != nil || o.Version != "2.0.0" || o.Digest == "" || t.Failed() {
		t.Errorf("%v, %+v\n%s", err, o, text)
	}
}

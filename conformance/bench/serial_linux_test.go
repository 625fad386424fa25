package bench_test

import (
	"bufio"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"example.com/iad/conformance/bench"
)

// TestSerial reads from a pseudo terminal, which has the settings of a serial device.
func TestSerial(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("/dev/pts/%d", number)
	c, err := bench.OpenConsole(t.Context(), name+"@9600")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(master, "U-Boot\n")
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "U-Boot\n" {
		t.Errorf("%q, %v", line, err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		ended <- err
	}()
	c.Close()
	if err := <-ended; err == nil {
		t.Error("reading does not end when the console is closed")
	}
	for _, bad := range []string{name + "@1234", "/dev/null"} {
		if _, err := bench.OpenConsole(t.Context(), bad); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

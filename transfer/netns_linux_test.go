package transfer_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// inNamespace marks a child of this test binary that runs in a network
// namespace of its own, whose loopback device it has to set up.
const inNamespace = "TRANSFER_TEST_MTU"

func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) != "" {
		if err := loopbackUp(1280); err != nil {
			fmt.Fprintln(os.Stderr, "loopback device:", err)
			os.Exit(1)
		}
	}
	// The tests wait for networks more than they compute.
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// TestMTU1280 runs the matrix over a line whose datagrams hold 1280 bytes.
func TestMTU1280(t *testing.T) {
	t.Parallel()
	needRoot(t)
	if os.Getenv(inNamespace) != "" {
		t.Skip("inside already")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^(TestMatrixTransfer|TestTFTPRollover|TestTFTPIPv6)$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1280")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

// loopbackUp gives lo an MTU and sets it up. lo gets a second address, for no
// traffic: without any but 127.0.0.1 tftpd-hpa finds no address family in use.
func loopbackUp(mtu uint32) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint32(mtu)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFMTU, request); err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOOPBACK)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request); err != nil {
		return err
	}
	second, err := unix.NewIfreq("lo:1")
	if err != nil {
		return err
	}
	if err := second.SetInet4Addr([]byte{192, 0, 2, 1}); err != nil {
		return err
	}
	return unix.IoctlIfreq(s, unix.SIOCSIFADDR, second)
}

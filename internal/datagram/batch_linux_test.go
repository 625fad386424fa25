package datagram_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"example.com/iad/internal/datagram"
)

// refusing names the error with which the system refuses calls for several datagrams, as a number.
const refusing = "TEST_DATAGRAM_REFUSE"

func TestMain(m *testing.M) {
	if n, err := strconv.ParseUint(os.Getenv(refusing), 10, 12); err == nil {
		if err := refuse(uint32(n), unix.SYS_RECVMMSG, unix.SYS_SENDMMSG); err != nil {
			fmt.Fprintln(os.Stderr, "no filter for system calls:", err)
			os.Exit(noFilter)
		}
	}
	os.Exit(m.Run())
}

const noFilter = 77 // exit status

// refuse has two system calls fail from here on, in all threads.
func refuse(errno, first, second uint32) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: first},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: second},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if err != 0 {
		return err
	}
	return nil
}

// All of it works, one by one, where the system has no calls for several datagrams or forbids them.
func TestRefused(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.ENOSYS, unix.EPERM, unix.EACCES} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			if os.Getenv(refusing) != "" {
				t.Skip("this is the test program that TestRefused runs")
			}
			program, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), program, "-test.v")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", refusing, errno))
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == noFilter {
				t.Skipf("%s", out)
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func listen(t *testing.T, network, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UDPConn)
}

// Datagrams that wait together come in their order, with their senders, and so do the
// answers. One that cannot be sent is lost alone.
func TestBatch(t *testing.T) {
	for name, c := range map[string]struct{ network, address string }{
		"IPv4": {"udp4", "127.0.0.1:0"}, "IPv6": {"udp6", "[::1]:0"}, "both": {"udp", "127.0.0.1:0"},
	} {
		t.Run(name, func(t *testing.T) {
			server := listen(t, c.network, c.address)
			const most, size, rounds = 4, 100, 3
			b := datagram.New(server, most, size, 0)
			to := server.LocalAddr().(*net.UDPAddr).AddrPort()
			clients := []*net.UDPConn{listen(t, c.network, c.address), listen(t, c.network, c.address)}
			var addresses []netip.AddrPort
			for _, client := range clients {
				addresses = append(addresses, client.LocalAddr().(*net.UDPAddr).AddrPort())
			}
			lost := false
			atOnce := 0 // how many came together at most
			for round := range rounds {
				const count = 9
				for i := range count {
					if _, err := clients[i%2].WriteToUDPAddrPort(fmt.Appendf(nil, "request %d/%d", round, i), to); err != nil {
						t.Fatal(err)
					}
				}
				together := 0
				for i := range count {
					if err := b.Next(); err != nil {
						t.Fatal(err)
					}
					together++
					if want := fmt.Sprintf("request %d/%d", round, i); string(b.Data()) != want || b.From() != addresses[i%2] {
						t.Fatalf("got %q from %v, want %q from %v", b.Data(), b.From(), want, addresses[i%2])
					}
					answer := fmt.Appendf(nil, "answer %d/%d", round, i)
					if i == 3 {
						answer = make([]byte, 1<<17) // too long for UDP
					}
					b.Answer(answer, nil)
					if !b.Waiting() {
						atOnce, together = max(atOnce, together), 0
						err := b.Flush()
						if tooLong := addresses[1].String(); err != nil && (i < 3 || !strings.Contains(err.Error(), tooLong)) {
							t.Fatalf("%v, want %s", err, tooLong)
						}
						lost = lost || err != nil
					}
				}
				buf := make([]byte, 200)
				for i := range count {
					if i == 3 {
						continue
					}
					n, _, err := clients[i%2].ReadFromUDPAddrPort(buf)
					if want := fmt.Sprintf("answer %d/%d", round, i); err != nil || string(buf[:n]) != want {
						t.Fatalf("got %q, %v, want %q", buf[:n], err, want)
					}
				}
			}
			if !lost {
				t.Error("an answer that is too long was sent without an error")
			}
			want := most
			if os.Getenv(refusing) != "" {
				want = 1
			}
			if atOnce != want {
				t.Errorf("%d datagrams came together at most, want %d", atOnce, want)
			}
		})
	}
}

// A datagram longer than there is room for is cut off, and does not run into the next.
func TestCutOff(t *testing.T) {
	server, client := listen(t, "udp4", "127.0.0.1:0"), listen(t, "udp4", "127.0.0.1:0")
	b := datagram.New(server, 4, 10, 64)
	for _, text := range []string{"0123456789abcdef", "next"} {
		if _, err := client.WriteTo([]byte(text), server.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"0123456789", "next"} {
		if err := b.Next(); err != nil || string(b.Data()) != want {
			t.Errorf("got %q, %v, want %q", b.Data(), err, want)
		}
	}
}

// Ancillary data are those of each datagram.
func TestControl(t *testing.T) {
	server, client := listen(t, "udp4", "127.0.0.1:0"), listen(t, "udp4", "127.0.0.1:0")
	raw, err := server.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) }); err != nil {
		t.Fatal(err)
	}
	b := datagram.New(server, 4, 10, 64)
	for range 2 {
		if _, err := client.WriteTo([]byte("x"), server.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := b.Next(); err != nil {
			t.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(b.Control())
		if err != nil || len(messages) != 1 || !bytes.Contains(messages[0].Data, []byte{127, 0, 0, 1}) {
			t.Errorf("ancillary data %v, %v", messages, err)
		}
	}
}

// Closing the connection, or its deadline, ends the wait.
func TestEnd(t *testing.T) {
	server := listen(t, "udp4", "127.0.0.1:0")
	b := datagram.New(server, 4, 10, 0)
	if err := server.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := b.Next(); err == nil {
		t.Error("the deadline has passed, and there was no error")
	}
	server.Close()
	if err := b.Next(); err == nil {
		t.Error("the connection is closed, and there was no error")
	}
}

package board

import (
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketVariable hands a socket over to the program that takes this one's place:
// its descriptor, a space, and the address that it was opened for.
const socketVariable = "IAD_SOCKET_DESCRIPTOR"

// InheritedSocket returns the UDP socket that Restart kept open for address, nil
// if there is none. A socket for another address is closed.
func InheritedSocket(address string) net.PacketConn {
	text, ok := os.LookupEnv(socketVariable)
	if !ok {
		return nil
	}
	if err := os.Unsetenv(socketVariable); err != nil {
		return nil
	}
	number, of, _ := strings.Cut(text, " ")
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 3 {
		return nil
	}
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_DGRAM {
		return nil
	}
	file := os.NewFile(uintptr(fd), of)
	defer file.Close()
	if of != address {
		return nil
	}
	conn, err := net.FilePacketConn(file) // has a descriptor of its own
	if err != nil {
		return nil
	}
	return conn
}

// inherit says whether a program that takes this one's place gets the descriptor of
// c, which it returns.
func inherit(c syscall.Conn, yes bool) (fd uintptr, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	flag := unix.FD_CLOEXEC
	if yes {
		flag = 0
	}
	cerr := raw.Control(func(n uintptr) {
		fd = n
		_, err = unix.FcntlInt(n, unix.F_SETFD, flag)
	})
	if cerr != nil {
		return 0, cerr
	}
	return fd, err
}

package datagram

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Batch has datagrams that were received together, and answers that are sent together. It
// is for one goroutine.
type Batch struct {
	raw           syscall.RawConn
	size, control int
	most          int

	in      []message
	from    []unix.RawSockaddrInet6 // also holds an IPv4 address
	parts   []unix.Iovec
	at, got int
	err     error

	out      []message
	outParts []unix.Iovec
	sent     int

	receive, send func(fd uintptr) (done bool)

	// Some systems refuse the calls for several datagrams: then each has a call of its own.
	receiveOne, sendOne bool

	zoneID uint32 // of the interface that zone is the name of
	zone   string
}

// message is struct mmsghdr.
type message struct {
	header unix.Msghdr
	length uint32
}

// New makes room for most datagrams of size bytes at a time, with control bytes of
// ancillary data each. It begins with room for two and takes more memory once these come together. It
// returns nil if the connection is closed: reading it reports that.
func New(conn *net.UDPConn, most, size, control int) *Batch {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	b := &Batch{raw: raw, size: size, control: control, most: most}
	b.makeRoom(min(2, most))
	b.receive, b.send = b.tryReceive, b.trySend
	return b
}

func (b *Batch) makeRoom(n int) {
	b.in, b.from, b.parts = make([]message, n), make([]unix.RawSockaddrInet6, n), make([]unix.Iovec, n)
	each := (b.control + b.size + 7) &^ 7 // ancillary data have to be aligned
	store := make([]byte, n*each)
	for i := range n {
		place := store[i*each:]
		b.parts[i].Base = &place[b.control]
		b.parts[i].SetLen(b.size)
		h := &b.in[i].header
		h.Name, h.Iov = (*byte)(unsafe.Pointer(&b.from[i])), &b.parts[i]
		h.SetIovlen(1)
		if b.control > 0 {
			h.Control = &place[0]
		}
	}
	b.out, b.outParts = make([]message, 0, n), make([]unix.Iovec, n)
}

// Waiting reports whether Next returns without asking the system.
func (b *Batch) Waiting() bool { return b.at < b.got }

// Next waits for a datagram and takes it. What the other methods return of it is good
// until Next has to ask the system, before which Flush must have sent all answers.
func (b *Batch) Next() error {
	if !b.Waiting() {
		if b.got == len(b.in) && b.got < b.most && b.got > 1 {
			b.makeRoom(b.most) // they come faster than one by one
		}
		b.at, b.got = 0, 0
		if err := b.raw.Read(b.receive); err != nil {
			return err
		}
		if b.err != nil {
			return b.err
		}
	}
	b.at++
	return nil
}

// Data is the datagram that Next took, cut off at the size that there is room for.
func (b *Batch) Data() []byte {
	m := &b.in[b.at-1]
	return unsafe.Slice(m.header.Iov.Base, int(m.length))
}

// Control is its ancillary data.
func (b *Batch) Control() []byte {
	h := &b.in[b.at-1].header
	if h.Control == nil {
		return nil
	}
	return unsafe.Slice(h.Control, int(h.Controllen))
}

// From is its sender. The zone of a link-local address is the name of the interface.
func (b *Batch) From() netip.AddrPort { return b.address(&b.from[b.at-1]) }

func (b *Batch) address(a *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&a.Port))[:])
	if a.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(a)).Addr), port)
	}
	ip := netip.AddrFrom16(a.Addr)
	return netip.AddrPortFrom(ip.WithZone(b.zoneOf(a.Scope_id)), port)
}

// zoneOf is the name of an interface, "" for 0 and for one that is gone.
func (b *Batch) zoneOf(id uint32) string {
	if id != b.zoneID {
		b.zoneID, b.zone = id, ""
		if i, err := net.InterfaceByIndex(int(id)); err == nil {
			b.zone = i.Name
		}
	}
	return b.zone
}

// Answer has Flush send a datagram to the sender of the one that Next took, with ancillary
// data if there are any. Both must stay as they are until then.
func (b *Batch) Answer(data, control []byte) {
	to := &b.in[b.at-1].header
	part := &b.outParts[len(b.out)]
	*part = unix.Iovec{}
	if len(data) > 0 {
		part.Base = &data[0]
		part.SetLen(len(data))
	}
	m := message{header: unix.Msghdr{Name: to.Name, Namelen: to.Namelen, Iov: part}}
	m.header.SetIovlen(1)
	if len(control) > 0 {
		m.header.Control = &control[0]
		m.header.SetControllen(len(control))
	}
	b.out = append(b.out, m)
}

// Flush sends the answers in their order. An answer that cannot be sent is lost, with
// an error; the others are sent nevertheless. The error is that of the first, with its receiver.
func (b *Batch) Flush() (err error) {
	for b.sent = 0; b.sent < len(b.out); {
		b.err = nil
		failed := b.raw.Write(b.send)
		if failed == nil {
			if b.err == nil {
				continue
			}
			to := (*unix.RawSockaddrInet6)(unsafe.Pointer(b.out[b.sent].header.Name))
			failed = fmt.Errorf("to %v: %w", b.address(to), b.err)
			b.sent++ // the one that cannot be sent
		} else {
			b.sent = len(b.out) // the connection is closed
		}
		if err == nil {
			err = failed
		}
	}
	clear(b.out) // what was sent is free from here on
	b.out = b.out[:0]
	clear(b.outParts)
	return err
}

// tryReceive reads what there is; done is false if that is nothing.
func (b *Batch) tryReceive(fd uintptr) (done bool) {
	for i := range b.in {
		h := &b.in[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		if b.control > 0 {
			h.SetControllen(b.control)
		}
	}
	n, errno := call(unix.SYS_RECVMMSG, unix.SYS_RECVMSG, &b.receiveOne, fd, b.in)
	if errno == unix.EAGAIN {
		return false
	}
	b.got, b.err = n, nil
	if errno != 0 {
		b.got, b.err = 0, os.NewSyscallError("recvmsg", errno)
	}
	return true
}

// trySend sends answers as far as there is room for them; done is false if there is none.
func (b *Batch) trySend(fd uintptr) (done bool) {
	n, errno := call(unix.SYS_SENDMMSG, unix.SYS_SENDMSG, &b.sendOne, fd, b.out[b.sent:])
	if errno == unix.EAGAIN {
		return false
	}
	b.sent += n
	if errno != 0 {
		b.err = os.NewSyscallError("sendmsg", errno)
	}
	return true
}

// call is the system call several for a list of messages, recvmmsg(2) or sendmmsg(2). Where the
// system has no such call (a 32-bit kernel without that for 32-bit times) or forbids it (a
// sandbox that knows only the older ones), it is the system call single for the first message, from then on.
// The connection does not block.
func call(several, single uintptr, one *bool, fd uintptr, list []message) (n int, errno syscall.Errno) {
	if !*one {
		n, errno := untilDone(several, fd, unsafe.Pointer(&list[0]), uintptr(len(list)), unix.MSG_DONTWAIT)
		// A packet filter forbids a datagram in the same way: then single is refused too.
		if errno != unix.ENOSYS && errno != unix.EPERM && errno != unix.EACCES {
			return n, errno
		}
	}
	n, errno = untilDone(single, fd, unsafe.Pointer(&list[0].header), unix.MSG_DONTWAIT, 0)
	if errno != 0 {
		return 0, errno
	}
	*one = true
	list[0].length = uint32(n)
	return 1, 0
}

func untilDone(trap, fd uintptr, p unsafe.Pointer, a, b uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := unix.Syscall6(trap, fd, uintptr(p), a, b, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

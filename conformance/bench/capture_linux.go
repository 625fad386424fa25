package bench

import (
	"errors"

	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func openPackets(name string, filter []bpf.RawInstruction) (packetSource, error) {
	h, err := pcapgo.NewEthernetHandle(name)
	if err != nil {
		// The library does not wrap the reason.
		if fd, reason := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); reason == nil {
			unix.Close(fd)
		} else if errors.Is(reason, unix.EPERM) {
			return nil, errors.New("no permission; run iadlab as root, or allow it: setcap cap_net_raw+ep iadlab")
		}
		return nil, err
	}
	if err := h.SetBPF(filter); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	// The socket has received everything since it was opened: what had no filter to pass is thrown away.
	received, err := h.Stats()
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	for range received.Packets - received.Drops {
		if _, _, err := h.ZeroCopyReadPacketData(); err != nil {
			return nil, errors.Join(err, h.Close())
		}
	}
	return h, nil
}

package bench

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/net/bpf"
)

// Capture records the packets from and to a device, as they pass this machine's interface, in the format pcapng, which
// Wireshark and tcpdump read. Its methods may be called by several goroutines.
type Capture struct {
	source packetSource
	ended  chan struct{}

	mu      sync.Mutex
	w       *pcapgo.NgWriter
	packets int
	mark    string
	closed  bool
	err     error
}

// packetSource is an interface from which packets are read.
type packetSource interface {
	gopacket.PacketDataSource
	Close() error
}

// OpenCapture starts to record into w the packets from and to the device on the interface that has the address own. It works on
// Linux, on Ethernet and on loopback, and needs the capability CAP_NET_RAW.
func OpenCapture(w io.Writer, own, device netip.Addr) (*Capture, error) {
	own, device = own.Unmap().WithZone(""), device.Unmap().WithZone("")
	in, err := interfaceOf(own)
	if err != nil {
		return nil, err
	}
	filter, err := bpf.Assemble(packetsOf(device, in.Flags&net.FlagLoopback != 0))
	if err != nil {
		return nil, err
	}
	source, err := openPackets(in.Name, filter)
	if err != nil {
		return nil, fmt.Errorf("packets of %s cannot be recorded: %w", in.Name, err)
	}
	c := &Capture{source: source, ended: make(chan struct{})}
	c.w, err = pcapgo.NewNgWriterInterface(w, pcapgo.NgInterface{
		Name: in.Name, Filter: "host " + device.String(), OS: runtime.GOOS, LinkType: layers.LinkTypeEthernet, TimestampResolution: 9,
	}, pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{OS: runtime.GOOS, Application: "iadlab"}})
	if err == nil {
		err = c.w.Flush()
	}
	if err != nil {
		return nil, errors.Join(err, source.Close())
	}
	go c.run()
	return c, nil
}

// interfaceOf returns the interface that has an address.
func interfaceOf(own netip.Addr) (*net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for i := range all {
		if own.IsLoopback() && all[i].Flags&net.FlagLoopback != 0 {
			return &all[i], nil
		}
		addresses, err := all[i].Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().WithZone("") == own {
				return &all[i], nil
			}
		}
	}
	return nil, fmt.Errorf("no interface of this machine has the address %s", own)
}

// packetsOf returns a filter for the packets from and to a device, in Ethernet frames. What loopback sends, it also receives: one
// of them is enough.
func packetsOf(device netip.Addr, loopback bool) []bpf.Instruction {
	const outgoing = 4 // PACKET_OUTGOING
	var filter []bpf.Instruction
	if loopback {
		filter = append(filter, bpf.LoadExtension{Num: bpf.ExtType}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: outgoing, SkipTrue: 1}, bpf.RetConstant{})
	}
	address := device.AsSlice()
	protocol, places := uint32(0x0800), []uint32{26, 30} // IPv4: source and destination
	if device.Is6() {
		protocol, places = 0x86dd, []uint32{22, 38}
	}
	filter = append(filter, bpf.LoadAbsolute{Off: 12, Size: 2}, bpf.JumpIf{Cond: bpf.JumpEqual, Val: protocol, SkipTrue: 1}, bpf.RetConstant{})
	for _, place := range places {
		// Each word that differs jumps over the rest of this address.
		for i := 0; i < len(address); i += 4 {
			word := uint32(address[i])<<24 | uint32(address[i+1])<<16 | uint32(address[i+2])<<8 | uint32(address[i+3])
			rest := uint8((len(address)-i-4)/4*2 + 1)
			filter = append(filter, bpf.LoadAbsolute{Off: place + uint32(i), Size: 4}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: word, SkipTrue: rest})
		}
		filter = append(filter, bpf.RetConstant{Val: 1 << 18}) // the whole packet
	}
	return append(filter, bpf.RetConstant{})
}

// run records until the source is closed or a packet cannot be written.
func (c *Capture) run() {
	defer close(c.ended)
	for {
		data, info, err := c.source.ReadPacketData()
		c.mu.Lock()
		if err == nil {
			info.InterfaceIndex = 0 // in the file
			var options pcapgo.NgPacketOptions
			if c.mark != "" {
				options.Comments, c.mark = []string{c.mark}, ""
			}
			if err = c.w.WritePacketWithOptions(info, data, options); err == nil {
				c.packets++
			}
		}
		if err != nil && !c.closed {
			c.err = err
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Mark adds a comment to the next packet, such as the name of a test that begins, and returns how many packets have been recorded.
func (c *Capture) Mark(comment string) (packets int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mark = comment
	return c.packets
}

// Packets returns how many packets have been recorded.
func (c *Capture) Packets() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.packets
}

// Close ends the recording. It returns the error that ended it before, if one did.
func (c *Capture) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	err := c.source.Close()
	<-c.ended
	return errors.Join(c.err, err, c.w.Flush())
}

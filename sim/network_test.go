package sim_test

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"aead.dev/minisign"

	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

// Devices on one socket have an address each, which everything that they send leaves from.
func TestAddresses(t *testing.T) {
	testAddresses(t, netip.MustParsePrefix(ownAddress()+"/24"), netip.MustParseAddr("127.0.0.1"))
}

func testAddresses(t *testing.T, prefix netip.Prefix, own netip.Addr) {
	network, err := sim.OpenNetwork(prefix, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	traps, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(own, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer traps.Close()
	ftp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(own, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer ftp.Close()
	tftp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(own, 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer tftp.Close()

	l := &lab{t: t, key: newKey(t)}
	made := sim.Config{Hardware: hardware, Trust: image.TrustKeys(l.key.Public().(minisign.PublicKey)), Disk: sim.Memory(), PlainPasswords: true}
	if err := sim.New(made).Provision(bytes.NewReader(l.build(image.Manifest{Version: "1.0.0", ConfigFormat: 1})), settings(1)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	var devices []*sim.Device
	for i := range 2 {
		cfg := made
		cfg.ID, cfg.Disk = "IAD-"+string(rune('A'+i)), made.Disk.Clone()
		cfg.Network, cfg.Address = network, network.Address(i)
		cfg.SNMP = &snmp.Config{
			Communities: []snmp.Community{{Name: "public"}, {Name: "private", Write: true}},
			Sinks:       []snmp.Sink{{Address: traps.LocalAddr().String(), Community: "public"}},
		}
		d := sim.New(cfg)
		devices = append(devices, d)
		go func() { ended <- d.Run(ctx) }()
	}
	defer func() {
		cancel()
		for range devices {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}()
	buf := make([]byte, 4096)
	for i, d := range devices {
		addr := d.Addr(t.Context())
		if addr != netip.AddrPortFrom(network.Address(i), network.Port()) || !prefix.Contains(addr.Addr()) {
			t.Fatalf("device %d has the address %s", i, addr)
		}
		// The client's socket is connected: it takes answers from this address only.
		client, err := device.Dial(device.Target{Address: addr.String(), Credentials: device.Credentials{Read: "public", Write: "private"}})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		id, err := client.Device(t.Context())
		if err != nil || id.ID != d.ID() {
			t.Fatalf("%s answers as %+v, %v", addr, id, err)
		}
		ask := func(protocol device.Protocol, port int) {
			t.Helper()
			_, err := client.Start(t.Context(), device.Request{
				Kind: mib.OperationKindDownloadSoftware, ID: device.NewReqID(), Owner: "lab",
				Server: &device.ServerRow{Index: 1, FileServerAddress: device.FileServerAddress{Protocol: protocol, Host: own.String(), Port: uint16(port), User: "u", Password: "p", Timeout: 2 * time.Second}},
				Files:  []device.FileRow{{Kind: mib.FileTypeSoftware, Name: "fw.iad"}},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		from := func(what string, a net.Addr) {
			t.Helper()
			if got, err := netip.ParseAddrPort(a.String()); err != nil || got.Addr().Unmap() != addr.Addr() {
				t.Errorf("%s of the device %s came from %s", what, addr, a)
			}
		}
		ask(mib.ProtocolTftp, tftp.LocalAddr().(*net.UDPAddr).Port)
		tftp.SetDeadline(time.Now().Add(30 * time.Second))
		_, asker, err := tftp.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		from("the TFTP request", asker)
		op, err := client.Operation(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tftp.WriteTo([]byte("\x00\x05\x00\x01gone\x00"), asker); err != nil {
			t.Fatal(err)
		}
		l.device = d
		l.await(client, op.ID)
		ask(mib.ProtocolFtp, ftp.Addr().(*net.TCPAddr).Port)
		ftp.SetDeadline(time.Now().Add(30 * time.Second))
		conn, err := ftp.Accept()
		if err != nil {
			t.Fatal(err)
		}
		from("the FTP connection", conn.RemoteAddr())
		conn.Close()
	}
	// Every device has sent that it started at least.
	seen := map[string]bool{}
	for len(seen) < len(devices) {
		traps.SetDeadline(time.Now().Add(30 * time.Second))
		_, from, err := traps.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		seen[from.String()] = true
	}
	for _, d := range devices {
		if a := d.Addr(t.Context()).String(); !seen[a] {
			t.Errorf("notifications came from %v, none from %s", seen, a)
		}
	}
}

func TestNetworkSize(t *testing.T) {
	for _, c := range []struct {
		prefix      string
		size        int
		first, last string
	}{
		{"127.3.0.0/16", 65534, "127.3.0.1", "127.3.255.254"},
		{"127.3.0.9/30", 2, "127.3.0.9", "127.3.0.10"},
		{"127.3.0.8/31", 2, "127.3.0.8", "127.3.0.9"},
		{"127.3.0.8/32", 1, "127.3.0.8", "127.3.0.8"},
		{"::1/128", 1, "::1", "::1"},
		{"2001:db8:1::/120", 255, "2001:db8:1::1", "2001:db8:1::ff"},
	} {
		n, err := sim.OpenNetwork(netip.MustParsePrefix(c.prefix), 0)
		if err != nil {
			t.Fatal(err)
		}
		if n.Size() != c.size || n.Address(0).String() != c.first || n.Address(c.size-1).String() != c.last {
			t.Errorf("%s: %d devices from %s to %s", c.prefix, n.Size(), n.Address(0), n.Address(c.size-1))
		}
		n.Close()
	}
}

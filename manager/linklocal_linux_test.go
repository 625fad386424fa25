package manager_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/procedure"
	"example.com/iad/internal/iadtest"
	"example.com/iad/internal/peers"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
	"example.com/iad/sim"
	"example.com/iad/transfer"
)

// inLinkLocal marks a child of this test binary that runs in a network namespace of
// its own, where it sets up its interfaces.
const inLinkLocal = "MANAGER_TEST_LINK_LOCAL"

// The two ends of the line: the manager's and the device's. Both are in one namespace;
// a packet still takes the line, because the zone names the interface that it leaves by.
const (
	managerEnd, deviceEnd = "veth-m", "veth-d"
	managerHost           = "fe80::1"
	deviceHost            = "fe80::2%" + managerEnd // as the manager knows it
)

// TestLinkLocal: a device and a manager that have nothing but link-local addresses.
func TestLinkLocal(t *testing.T) {
	if os.Getenv(inLinkLocal) == "" {
		t.Parallel()
		peers.NeedRoot(t)
		peers.Find(t, "ip")
		cmd := exec.Command(os.Args[0], "-test.run=^TestLinkLocal$", "-test.v")
		cmd.Env = append(os.Environ(), inLinkLocal+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v:\n%s", err, out)
		}
		return
	}
	ip(t, "link set lo up")
	ip(t, "link add "+managerEnd+" type veth peer name "+deviceEnd)
	for end, host := range map[string]string{managerEnd: "fe80::1", deviceEnd: "fe80::2"} {
		ip(t, "link set "+end+" addrgenmode none")
		ip(t, "link set "+end+" up")
		ip(t, "address add "+host+"/64 dev "+end+" nodad")
	}
	t.Run("leaves by the zone", leavesByZone)
	t.Run("transfer", linkLocalTransfer)
	t.Run("backup", linkLocalBackup)
	t.Run("no zone", linkLocalNoZone)
	t.Run("routes", routesRefuse)
}

// TestZoneOfExternalServer: the zone by which this machine reaches a server is not the device's.
func TestZoneOfExternalServer(t *testing.T) {
	external := &files.ExternalServer{Server: device.FileServerAddress{Protocol: device.TFTP, Host: "fe80::5%eth0"}}
	session, err := external.Open(device.TFTP, "A", "[fe80::2%eth0]:161")
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if host := session.Address().Host; host != "fe80::5" {
		t.Errorf("the device is given %s", host)
	}
	if external.Server.Host != "fe80::5%eth0" {
		t.Errorf("the manager uses %s", external.Server.Host)
	}
}

func ip(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command(peers.Find(t, "ip"), strings.Fields(command)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", command, err, out)
	}
}

// anyAddress has servers listen on all addresses and advertise the one that leads to the device.
func anyAddress(c *files.ServersConfig) { c.TFTP, c.FTP, c.Advertise = "[::]:0", "[::]:0", "" }

// leavesByZone: the kernel would deliver without a zone, too, as both ends are here, but
// not over the line.
func leavesByZone(t *testing.T) {
	conn, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("["+managerHost+"%"+managerEnd+"]:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, err := transfer.New(transfer.Server{Protocol: mib.ProtocolTftp, Host: managerHost + "%" + deviceEnd, Port: conn.LocalAddr().(*net.UDPAddr).Port}, transfer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, _, err := c.Get(ctx, "x", 0)
		done <- err
	}()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	_, from, err := conn.ReadFromUDPAddrPort(make([]byte, 1000))
	cancel()
	if err := <-done; err == nil {
		t.Error("a file from nobody")
	}
	if err != nil || from.Addr() != netip.MustParseAddr(deviceHost) {
		t.Errorf("the request came from %v, %v, want %s", from, err, deviceHost)
	}
}

func linkLocalTransfer(t *testing.T) {
	s, disk := iadtest.StartServersBeside(t, func(c *files.ServersConfig) { anyAddress(c); c.MaxUpload = 1 << 20 })
	data := make([]byte, 300_000)
	rand.New(rand.NewSource(1)).Read(data)
	dev, err := net.InterfaceByName(deviceEnd)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []device.Protocol{device.TFTP, device.FTP, device.FTPS} {
		for how, zone := range map[string]string{"name": deviceEnd, "index": fmt.Sprint(dev.Index)} {
			t.Run(p.String()+" zone by "+how, func(t *testing.T) {
				session, err := s.Open(p, "A", "["+deviceHost+"]:161")
				if err != nil {
					t.Fatal(err)
				}
				defer session.Close()
				a := session.Address()
				if a.Host != managerHost {
					t.Errorf("the device is given %s, want %s without a zone", a.Host, managerHost)
				}
				a.Host += "%" + zone
				dir, _, err := session.NewBackup(iadtest.OneKind)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				c, name := iadtest.DeviceClient(t, s, a, int(a.Port), transfer.Options{}), dir+"/userData.cfg"
				if _, err := c.Put(ctx, name, bytes.NewReader(data), int64(len(data))); err != nil {
					t.Fatal(err)
				}
				if got, err := afero.ReadFile(disk, name); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes of %d arrived, %v", len(got), len(data), err)
				}
				r, _, err := c.Get(ctx, name, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes of %d came back, %v", len(got), len(data), err)
				}
			})
		}
	}
}

// linkLocalLab starts a device on all addresses that the manager knows at one of them.
func linkLocalLab(t *testing.T, host, advertise string) *lab {
	const port = "16161"
	return newLab(t, labOptions{
		noNotifications: true,
		files: func(c *files.ServersConfig) {
			anyAddress(c)
			c.Advertise = advertise
		},
		configure: func(_ *lab, c *sim.Config) { c.Listen = "[::]:" + port },
		target: func() device.Target {
			return device.Target{Address: net.JoinHostPort(host, port), Credentials: device.Credentials{Read: "public", Write: "private"}}
		},
	})
}

// linkLocalBackup: the device completes the address of the file server.
func linkLocalBackup(t *testing.T) {
	for _, p := range []device.Protocol{device.TFTP, device.FTP} {
		t.Run(p.String(), func(t *testing.T) {
			l := linkLocalLab(t, deviceHost, "")
			plan := l.plan(nil)
			plan.Protocol = p
			result, err := manager.Backup(l.ctx, plan, &scripted{t: t}, l.observe)
			if err != nil {
				t.Fatal(err)
			}
			l.checkBackup(result)
		})
	}
}

// linkLocalNoZone: a manager elsewhere names a link-local server. The device takes no
// guess at the interface, unless there is one only.
func linkLocalNoZone(t *testing.T) {
	l := linkLocalLab(t, "::1", managerHost)
	plan := l.plan(nil)
	plan.Protocol = device.TFTP
	_, err := manager.Backup(l.ctx, plan, &scripted{t: t, answers: []manager.Answer{{Choice: manager.GiveUp}}}, l.observe)
	var failed *manager.Failure
	if !errors.As(err, &failed) || failed.Cause != mib.FailCauseBadRequest || !strings.Contains(err.Error(), "ipv6z") {
		t.Errorf("%v, want badRequest and what to write instead", err)
	}
	fetcher := agent.NewFetcher([]mib.Protocol{mib.ProtocolTftp}, transfer.Options{})
	server := procedure.Server{AddressType: uint8(mib.InetAddressTypeIpv6), Address: netip.MustParseAddr(managerHost).AsSlice(), Protocol: mib.ProtocolTftp, Timeout: 1}
	open := func() error {
		list, err := fetcher.Open(t.Context(), server)
		if err == nil {
			err = list.Close()
		}
		return err
	}
	if err := open(); err == nil {
		t.Error("one of two interfaces was taken")
	}
	server.AddressType, server.Address = uint8(mib.InetAddressTypeIpv6z), append(server.Address, 0, 0, 0, 0)
	if err := open(); err == nil {
		t.Error("zone 0 was taken for an interface")
	}
	ip(t, "link set "+managerEnd+" down")
	defer ip(t, "link set "+managerEnd+" up")
	if err := open(); err != nil {
		t.Errorf("with one interface: %v", err)
	}
}

// routesRefuse: what this machine does not send is distinguished from what the server does not answer.
func routesRefuse(t *testing.T) {
	for kind, want := range map[string]string{"prohibit": "refuses", "blackhole": "no route to this address", "unreachable": "no route"} {
		ip(t, "route add "+kind+" 2001:db8::1")
		for _, p := range []mib.Protocol{mib.ProtocolTftp, mib.ProtocolFtp} {
			c, err := transfer.New(transfer.Server{Protocol: p, Host: "2001:db8::1", Timeout: 5 * time.Second}, transfer.Options{})
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = c.Get(t.Context(), "x", 0)
			var failed *transfer.Error
			if !errors.As(err, &failed) || failed.Code != mib.FailCauseServerUnreachable || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, route %s: %v", p, kind, err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		ip(t, "route del "+kind+" 2001:db8::1")
	}
}

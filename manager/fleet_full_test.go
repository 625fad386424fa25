package manager_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"aead.dev/minisign"

	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/internal/iadtest"
	"example.com/iad/manager"
	"example.com/iad/manager/batch"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
	"example.com/iad/sim"
	"example.com/iad/transfer/tftp"
)

// hold begins so many TFTP downloads from the devices' address and lets none of them
// come to its end.
func hold(t *testing.T, s *files.Servers, img *files.Image, transfers int) {
	t.Helper()
	name := s.Publish(img) + "/" + img.FileName()
	request := tftp.AppendRequest(nil, tftp.OpReadRequest, name, tftp.Options{})
	for range transfers {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		buf := make([]byte, 1024)
		err = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if err == nil {
			_, err = conn.WriteTo(request, s.Addr(device.TFTP))
		}
		if err != nil {
			t.Fatal(err)
		}
		_, from, err := conn.ReadFrom(buf)
		if err == nil {
			_, err = conn.WriteTo(tftp.AppendAck(nil, 1), from)
		}
		if err == nil {
			_, _, err = conn.ReadFrom(buf) // block 2: the transfer runs
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestFleetAtFullServer backs up 200 devices at the same time, while all but a few of the
// places that their address has at the TFTP server are taken: none fails.
func TestFleetAtFullServer(t *testing.T) {
	devices, held := 200, 80
	if iadtest.RaceDetector { // devices that get no processor time for seconds are another case
		devices, held = 40, 120
	}
	log := new(iadtest.LockedBuffer)
	s, disk := iadtest.StartServersBeside(t, func(c *files.ServersConfig) {
		c.Log, c.Bandwidth = slog.New(slog.NewTextHandler(log, nil)), 2_000_000
	})
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, key: private, images: disk}
	software := l.build("1.0.0", 1, false)
	set := configuration(1)
	set[mib.FileTypeUserData] = append(set[mib.FileTypeUserData], strings.Repeat("line = 1\n", 1500)...)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var targets []string
	for i := range devices {
		d := sim.New(sim.Config{
			ID: fmt.Sprintf("TEST-%04d", i), Model: hardware, Hardware: hardware, Trust: image.TrustKeys(public), Disk: sim.Memory(),
			Listen: "127.0.0.1:0", SNMP: &snmp.Config{Communities: []snmp.Community{{Name: "private", Write: true}}},
		})
		if err := d.Provision(bytes.NewReader(software), set); err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := d.Run(ctx); err != nil {
				t.Errorf("device: %v", err)
			}
		})
		targets = append(targets, d.Addr(ctx).String())
	}
	hold(t, s, l.open("fw.iad", software), held)
	began := time.Now()
	outcomes := batch.Runner{Parallel: devices}.Run(ctx, targets, func(ctx context.Context, target string) error {
		c, err := device.Dial(device.Target{Address: target, Credentials: device.Credentials{Write: "private"}})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = manager.Backup(ctx, manager.Plan{Client: c, Files: s, Kinds: iadtest.OneKind, Owner: "test"}, manager.Automatic{}, nil)
		return err
	})
	for i, err := range outcomes {
		if err != nil {
			t.Errorf("%s: %v", targets[i], err)
		}
	}
	t.Logf("%d devices in %s", devices, time.Since(began))
	if !strings.Contains(log.String(), "too many transfers with this host") {
		t.Error("the server was never full")
	}
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// reset restarts the device, as a program that takes the place of the one before.
func (d *unit) reset() {
	d.t.Helper()
	op := d.carryOut(d.t, d.client(), device.Request{Kind: mib.OperationKindReset, Owner: "test"})
	if op.State != mib.OperationStateSucceeded {
		d.t.Fatalf("reset: %+v", op)
	}
}

// The socket stays open over a restart, so that even a port that the system chose is
// the device's own; other settings open another socket and close this one.
func TestRestartKeepsSocket(t *testing.T) {
	d := newDevice(t)
	d.addr = ownAddress() + ":0"
	d.start()
	for range 3 {
		d.reset()
	}
	d.stop()

	d.addr = ""
	d.start()
	before := d.addr
	d.addr = fmt.Sprintf("%s:%d", ownAddress(), 10000+rand.IntN(20000))
	d.edit(func(text string) string { return strings.ReplaceAll(text, before, d.addr) })
	now := d.addr
	d.addr = before
	c := d.client()
	if _, err := c.Start(t.Context(), device.Request{Kind: mib.OperationKindReset, Owner: "test", ID: device.NewReqID()}); err != nil {
		t.Fatal(err)
	}
	d.addr = now
	d.reset()
	conn, err := net.ListenPacket("udp", before)
	if err != nil {
		t.Fatalf("the device keeps the address that it had: %v", err)
	}
	conn.Close()
}

// A device whose address somebody else has says so, and the failed start costs the
// software no try.
func TestBusyAddress(t *testing.T) {
	d := newDevice(t)
	d.start()
	d.stop()
	conn, err := net.ListenPacket("udp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	state := func() (all []byte) {
		for _, name := range []string{"boot.a", "boot.b", "journal.a", "journal.b"} {
			data, err := os.ReadFile(filepath.Join(d.root, "state", name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			all = append(all, data...)
		}
		return all
	}
	before := state()
	out, err := command("run", "--root", d.root).CombinedOutput()
	if want := fmt.Sprintf("cannot listen on UDP address %q: address already in use; stop the program", d.addr); err == nil || !strings.Contains(string(out), want) {
		t.Errorf("%v: %s", err, out)
	}
	if !bytes.Equal(state(), before) {
		t.Error("the state of the device has changed")
	}
	conn.Close()
	d.start()
}

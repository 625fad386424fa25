package sim_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/agent/config"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
	"example.com/iad/sim"
)

const hardware = "IAD-4FXS"

// lab is a device, a management system, and a maker who signs software.
type lab struct {
	t        *testing.T
	key      minisign.PrivateKey
	trust    *image.Trust
	device   *sim.Device
	listener *trap.Listener
	servers  *files.Servers
	files    afero.Fs
}

// logger writes to the test's log if VERBOSE_LOG is set.
func logger() *slog.Logger {
	if os.Getenv("VERBOSE_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// newLab starts a device with software 1.0.0 and configuration data of format
// 1; change may alter the device before it is made.
func newLab(t *testing.T, change func(*sim.Config)) *lab {
	t.Helper()
	l := &lab{t: t, files: afero.NewMemMapFs()}
	var err error
	l.key = newKey(t)
	l.trust = image.TrustKeys(l.key.Public().(minisign.PublicKey))
	if l.listener, err = trap.Listen(trap.ListenerConfig{Listen: "127.0.0.1:0", Communities: []string{"public"}, Log: logger()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.listener.Close() })
	if l.servers, err = files.StartServers(files.ServersConfig{
		Files: l.files, TFTP: "127.0.0.1:0", FTP: "127.0.0.1:0", Advertise: "127.0.0.1", Log: logger(),
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.servers.Close() })
	cfg := sim.Config{
		ID: "IAD-0001", Model: hardware, Hardware: hardware, Trust: l.trust, Disk: sim.Memory(), Log: logger(),
		PlainPasswords: true,
		Listen:         ownAddress() + ":0",
		SNMP: &snmp.Config{
			Communities: []snmp.Community{{Name: "public"}, {Name: "private", Write: true}},
			Sinks:       []snmp.Sink{{Address: l.listener.Addr().String(), Community: "public"}},
		},
	}
	if change != nil {
		change(&cfg)
	}
	l.device = sim.New(cfg)
	if err := l.device.Provision(bytes.NewReader(l.build(image.Manifest{Version: "1.0.0", ConfigFormat: 1})), settings(1)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.device.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("device: %v", err)
		}
	})
	return l
}

// ownAddress is an address of loopback that no other test uses, so that nobody
// takes the device's port while it restarts.
func ownAddress() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

func newKey(t *testing.T) minisign.PrivateKey {
	t.Helper()
	_, key, err := minisign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// build makes an image; the manifest's Hardware is the lab's unless given. A
// payload "selftest" and "convert" are in it if the manifest names them.
func (l *lab) build(m image.Manifest, payloads ...image.PayloadFile) []byte {
	l.t.Helper()
	if m.Hardware == nil {
		m.Hardware = []string{hardware}
	}
	payloads = append(payloads, firmware(m.Version))
	var b bytes.Buffer
	if err := image.Build(&b, m, payloads, l.key); err != nil {
		l.t.Fatal(err)
	}
	return b.Bytes()
}

// firmware is a payload of some 300,000 bytes.
func firmware(version string) image.PayloadFile {
	return payload("firmware", strings.Repeat("software "+version+"\n", 20000), 0o644)
}

func payload(name, content string, mode image.Mode) image.PayloadFile {
	return image.PayloadFile{Name: name, Mode: mode, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content)), nil
	}}
}

// settings is a complete set of configuration data.
func settings(format uint32) config.Set {
	set := config.Set{}
	for _, k := range config.Kinds() {
		set[k] = config.WithHeader(k, format, []byte("name = "+k.String()+"\n"))
	}
	return set
}

// converter turns format 1 into format 2.
const converter = `#!/bin/sh
for f in "$3"/*; do
	sed -e "1s/ $1\$/ $2/" -e '2s/name/title/' "$f" > "$4/${f##*/}" || exit 1
done
`

// plan is an upgrade of the device to an image.
func (l *lab) plan(data []byte, name string) manager.Plan {
	l.t.Helper()
	disk := afero.NewMemMapFs()
	if err := afero.WriteFile(disk, name, data, 0o644); err != nil {
		l.t.Fatal(err)
	}
	img, err := files.OpenImage(disk, name)
	if err != nil {
		l.t.Fatal(err)
	}
	client := l.client()
	return manager.Plan{
		Client: client, Listener: l.listener, Files: l.servers, Image: img, Log: logger(),
		Poll: 500 * time.Millisecond,
	}
}

// client is an operator's access to the device.
func (l *lab) client() *device.Client {
	l.t.Helper()
	client, err := device.Dial(device.Target{
		Address:     l.device.Addr(l.t.Context()).String(),
		Credentials: device.Credentials{Read: "public", Write: "private"},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { client.Close() })
	return client
}

// download puts files on the server, commands an operation for the software
// file of that name, and waits for its end.
func (l *lab) download(protocol device.Protocol, list map[string][]byte, name string, kind mib.OperationKind, options ...device.Option) *device.Operation {
	l.t.Helper()
	const directory = "backup/IAD-0001/lab"
	for n, data := range list {
		if err := afero.WriteFile(l.files, directory+"/"+n, data, 0o644); err != nil {
			l.t.Fatal(err)
		}
	}
	c := l.client()
	session, err := l.servers.Open(protocol, "IAD-0001", c.Address())
	if err != nil {
		l.t.Fatal(err)
	}
	defer session.Close()
	session.Offer(directory)
	op, err := c.Start(l.t.Context(), device.Request{
		Kind: kind, ID: device.NewReqID(), Owner: "lab", Options: options,
		Server: &device.ServerRow{Index: 1, FileServerAddress: session.Address(), Path: directory},
		Files:  []device.FileRow{{Kind: mib.FileTypeSoftware, Name: name}},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return l.await(c, op.ID)
}

// await waits until an operation has ended. A device that restarts does not
// answer meanwhile.
func (l *lab) await(c *device.Client, id uint32) *device.Operation {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	for {
		op, err := c.Operation(ctx)
		switch {
		case ctx.Err() != nil:
			l.t.Fatalf("operation %d does not end: %v", id, err)
		case err == nil && op.ID == id && op.Final():
			return op
		case err != nil:
			l.device.Agent(ctx, 1) // until it is back
		}
	}
}

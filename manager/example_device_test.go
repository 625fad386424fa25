package manager_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"os"
	"path/filepath"

	"aead.dev/minisign"

	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
	"example.com/iad/sim"
)

// startExampleDevice starts a virtual device with software 1.0.0, and writes an image
// with software 2.0.0 for it.
func startExampleDevice() (address, img string, stop func()) {
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		log.Fatal(err)
	}
	build := func(version string, format uint32) []byte {
		var out bytes.Buffer
		err := image.Build(&out, image.Manifest{Version: version, Hardware: []string{hardware}, ConfigFormat: format},
			[]image.PayloadFile{{Name: "app", Mode: 0o755, Open: func() (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader([]byte("software " + version))), nil
			}}}, private)
		if err != nil {
			log.Fatal(err)
		}
		return out.Bytes()
	}
	d := sim.New(sim.Config{
		ID: "TEST-0001", Model: hardware, Hardware: hardware, Trust: image.TrustKeys(public), Disk: sim.Memory(),
		Listen: deviceAddress(),
		SNMP:   &snmp.Config{Communities: []snmp.Community{{Name: "public"}, {Name: "private", Write: true}}},
		Hooks:  sim.Hooks{Convert: convert},
	})
	if err := d.Provision(bytes.NewReader(build("1.0.0", 1)), configuration(1)); err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	img = filepath.Join(dir, "fw-2.0.0.iad")
	if err := os.WriteFile(img, build("2.0.0", 2), 0o600); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	return d.Addr(ctx).String(), img, func() {
		cancel()
		if err := <-done; err != nil {
			log.Print(err)
		}
		_ = os.RemoveAll(dir)
	}
}

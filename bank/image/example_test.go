package image_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"

	"github.com/spf13/afero"

	"example.com/iad/bank"
	"example.com/iad/bank/image"
)

// A fileServer has one file. Real ones are read through package transfer.
type fileServer []byte

func (s fileServer) Open(_ context.Context, _ string, offset int64) (io.ReadCloser, int64, error) {
	return io.NopCloser(bytes.NewReader(s[offset:])), int64(len(s)), nil
}

// Build and install an image.
func Example() {
	// The maker of the software: a key, and an image of each version.
	public, private, err := image.GenerateKey("")
	if err != nil {
		log.Fatal(err)
	}
	key, err := image.ReadPrivateKey(private, "")
	if err != nil {
		log.Fatal(err)
	}
	files := afero.NewMemMapFs()
	if err := afero.WriteFile(files, "app", []byte("#!/bin/sh\nexec gateway\n"), 0o755); err != nil {
		log.Fatal(err)
	}
	app, err := image.FileFrom(files, "app")
	if err != nil {
		log.Fatal(err)
	}
	images := make(map[string][]byte)
	for _, version := range []string{"1.0.0", "2.0.0"} {
		var b bytes.Buffer
		m := image.Manifest{Version: version, Hardware: []string{"IAD-4FXS"}, ConfigFormat: 1}
		if err := image.Build(&b, m, []image.PayloadFile{app}, key); err != nil {
			log.Fatal(err)
		}
		images[version] = b.Bytes()
	}
	info, err := image.Inspect(bytes.NewReader(images["2.0.0"]))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("built", info.Manifest.Version, "with", info.Manifest.Payloads[0].Name)

	// The device: version 1.0.0 from the factory, then an upgrade.
	trusted, err := image.ReadPublicKey(public)
	if err != nil {
		log.Fatal(err)
	}
	opt := bank.Options{
		Banks:    [2]afero.Fs{afero.NewMemMapFs(), afero.NewMemMapFs()},
		State:    afero.NewMemMapFs(),
		Trust:    image.TrustKeys(trusted),
		Hardware: "IAD-4FXS",
	}
	if err := bank.Provision(opt, bytes.NewReader(images["1.0.0"]), nil); err != nil {
		log.Fatal(err)
	}
	banks, _ := bank.Boot(opt)
	res, err := banks.Install(context.Background(), fileServer(images["2.0.0"]), "fw.iad", bank.InstallOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("installed", res.Version, "in bank", res.Bank)
	// Output:
	// built 2.0.0 with app
	// installed 2.0.0 in bank 2
}
